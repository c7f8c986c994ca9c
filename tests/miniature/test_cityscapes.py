"""The miniature Cityscapes is what cityscapesscripts takes for Cityscapes."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from cityscapesscripts.evaluation.instances2dict import instances2dict
from cityscapesscripts.helpers.annotation import Annotation
from cityscapesscripts.helpers.csHelpers import getCsFileInfo
from cityscapesscripts.helpers.labels import id2label
from cityscapesscripts.preparation.json2instanceImg import createInstanceImage
from cityscapesscripts.preparation.json2labelImg import createLabelImage

from miniature.cityscapes import write_cityscapes
from miniature.scenes import FARTHEST, NEAREST
from rec_attend_d2.evaluation.cityscapes_scoring import measure_distances

SIZE = (128, 256)
COUNTS = {"train": 3, "val": 8, "test": 2, "train_extra": 2}
TRUTH_ENDINGS = ("polygons.json", "instanceIds.png", "labelIds.png", "color.png")


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("miniature")
    write_cityscapes(root, COUNTS, SIZE)
    return root / "cityscapes"


def read(path: Path) -> np.ndarray:
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_file_names(base):
    stems = [f"{city}_{sequence:06d}_000019" for city in ("frankfurt", "munster") for sequence in range(4)]
    images = [f"{stem.split('_')[0]}/{stem}" for stem in stems]
    assert files(base / "leftImg8bit" / "val") == [f"{image}_leftImg8bit.png" for image in images]
    assert files(base / "disparity" / "val") == [f"{image}_disparity.png" for image in images]
    assert files(base / "camera" / "val") == [f"{image}_camera.json" for image in images]
    expected = [f"{image}_gtFine_{ending}" for image in images for ending in TRUTH_ENDINGS]
    assert files(base / "gtFine" / "val") == sorted(expected)
    for split, count in COUNTS.items():
        assert len(files(base / "leftImg8bit" / split)) == count
        assert len(list((base / "leftImg8bit" / split).iterdir())) == 2
    assert len(files(base / "gtCoarse" / "train_extra")) == 8 and len(files(base / "gtFine" / "train")) == 12
    assert sorted(path.name for path in base.iterdir()) == ["camera", "disparity", "gtCoarse", "gtFine", "leftImg8bit"]
    assert {path.name for path in (base / "gtFine").iterdir()} == {"train", "val"}
    for path in base.rglob("*_*.*"):
        info = getCsFileInfo(str(path))
        assert info.city == path.parent.name and info.frameNb == "000019"


def test_images_are_drawn_from_the_polygons_by_cityscapesscripts(base):
    polygon_files = list(base.glob("gt*/*/*/*_polygons.json"))
    assert len(polygon_files) == 13
    for path in polygon_files:
        content = json.loads(path.read_text())
        assert (content["imgHeight"], content["imgWidth"]) == SIZE
        assert all(set(item) == {"label", "polygon"} for item in content["objects"])
        annotation = Annotation()
        annotation.fromJsonFile(str(path))
        ids = read(Path(str(path).replace("polygons.json", "instanceIds.png")))
        labels = read(Path(str(path).replace("polygons.json", "labelIds.png")))
        assert ids.dtype == np.uint16 and labels.dtype == np.uint8
        assert np.array_equal(ids, np.array(createInstanceImage(annotation, "ids")))
        assert np.array_equal(labels, np.array(createLabelImage(annotation, "ids")))
        assert np.array_equal(np.where(ids >= 1000, ids // 1000, ids), labels)
        color = cv2.cvtColor(read(Path(str(path).replace("polygons.json", "color.png"))), cv2.COLOR_BGRA2RGB)
        assert all((color[labels == label] == id2label[label].color).all() for label in np.unique(labels))


def test_instances_groups_and_void(base):
    paths = [str(path) for path in base.glob("gtFine/*/*/*_instanceIds.png")]
    found: dict[str, list[int]] = {}
    for instances in instances2dict(paths).values():
        for label, entries in instances.items():
            found.setdefault(label, []).extend(entry["instID"] for entry in entries)
    for label in ("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"):
        assert sum(value >= 1000 for value in found[label]) >= 4
    groups = [value for values in found.values() for value in values if 24 <= value <= 33]
    assert len(groups) >= 3
    assert all(len(found[label]) == 11 for label in ("ego vehicle", "rectification border", "out of roi", "road"))
    assert found["caravan"] or found["trailer"]


def test_objects_are_at_the_distance_the_disparity_says(base):
    """Every instance's pixels are at one distance, so masks, disparity and camera fit each other."""
    enough = []
    for path in sorted(base.glob("gtFine/val/*/*_instanceIds.png")):
        ids = read(path)
        stem = path.name.removesuffix("_gtFine_instanceIds.png")
        disparity = read(base / "disparity" / "val" / path.parent.name / f"{stem}_disparity.png")
        camera = json.loads((base / "camera" / "val" / path.parent.name / f"{stem}_camera.json").read_text())
        assert disparity.dtype == np.uint16 and disparity.shape == SIZE
        distances = measure_distances(disparity, camera)
        assert 0.4 < np.isnan(distances).mean() < 0.5  # the sky, and a little of the rest
        for value in np.unique(ids[ids >= 24000]):
            inside = distances[ids == value]
            median = np.nanmedian(inside)
            assert NEAREST * 0.98 <= median <= FARTHEST * 1.02
            assert np.nanmean(np.abs(inside / median - 1) < 0.01) > 0.8
            enough.append(inside.size >= 1000 and median < 50)
    # cityscapesscripts' averages over distances take no smaller ones.
    assert sum(enough) >= 8


def test_void_is_dark_in_the_picture(base):
    for path in base.glob("gtFine/train/*/*_labelIds.png"):
        image = read(Path(str(path).replace("gtFine", "leftImg8bit").replace("_labelIds", "")))
        assert image.shape == (*SIZE, 3) and image.dtype == np.uint8
        hood = read(path) == 1
        assert hood.sum() > 300 and np.median(image[hood]) == 30 and np.median(image[~hood]) > 50


def test_coarse_outlines_leave_pixels_out_and_have_fewer_corners(base):
    def corners(kind: str) -> float:
        contents = [json.loads(path.read_text()) for path in base.glob(f"{kind}/*/*/*_polygons.json")]
        return np.mean([len(item["polygon"]) for content in contents for item in content["objects"]])

    assert corners("gtCoarse") < 0.6 * corners("gtFine")
    for path in base.glob("gt*/*/*/*_labelIds.png"):
        unlabelled = np.mean(read(path) == 0)
        assert unlabelled > 0.3 if "gtCoarse" in str(path) else unlabelled < 0.01


def test_the_same_seed_gives_the_same_files(base, tmp_path):
    write_cityscapes(tmp_path / "same", COUNTS, SIZE)
    assert files(tmp_path / "same" / "cityscapes") == files(base)
    for name in files(base):
        assert (tmp_path / "same" / "cityscapes" / name).read_bytes() == (base / name).read_bytes()
    write_cityscapes(tmp_path / "other", {"train": 1}, SIZE, seed=1)
    name = "leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png"
    assert (tmp_path / "other" / "cityscapes" / name).read_bytes() != (base / name).read_bytes()
    assert files(tmp_path / "other" / "cityscapes" / "leftImg8bit") == [name.removeprefix("leftImg8bit/")]


@pytest.mark.parametrize("size", [(37, 61), (24, 400), (90, 40)])
def test_any_size(tmp_path, size):
    write_cityscapes(tmp_path, {"val": 2, "train_extra": 1}, size)
    labels = [read(path) for path in tmp_path.rglob("*_labelIds.png")]
    assert len(labels) == 3 and all(image.shape == size for image in labels)
    assert all(image.max() >= 24 for image in labels)


def test_real_data_is_not_replaced(tmp_path):
    (tmp_path / "cityscapes").mkdir()
    with pytest.raises(FileExistsError, match=r"cityscapes exists.*another root"):
        write_cityscapes(tmp_path)
    assert list((tmp_path / "cityscapes").iterdir()) == []


def test_unknown_split(tmp_path):
    with pytest.raises(ValueError, match=r"no split 'valid'.*train, val, test, train_extra"):
        write_cityscapes(tmp_path, {"valid": 1})
    assert list(tmp_path.iterdir()) == []
