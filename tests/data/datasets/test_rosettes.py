"""The drawn plants: the same every time, with masks that belong to the picture, written once."""

import json
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pycocotools.mask as mask_util
import pytest

from rec_attend_d2.data.datasets import rosettes
from rec_attend_d2.data.datasets.coco_files import load_coco
from rec_attend_d2.data.datasets.rosettes import ensure_rosettes, render_plant


@pytest.fixture
def few_images(monkeypatch) -> None:
    monkeypatch.setattr(rosettes, "IMAGES_PER_SPLIT", {"train": 4, "val": 2})


@pytest.fixture(scope="module")
def plants() -> list[tuple[np.ndarray, np.ndarray]]:
    return [render_plant(0, index) for index in range(60)]


def test_same_arguments_same_plant(plants):
    np.random.seed(99)
    for index in (0, 17):
        image, masks = render_plant(0, index)
        np.testing.assert_array_equal(image, plants[index][0])
        np.testing.assert_array_equal(masks, plants[index][1])


def test_plants_differ(plants):
    assert len({image.tobytes() for image, _ in plants}) == len(plants)
    assert not np.array_equal(render_plant(1, 0)[0], plants[0][0])


def test_shapes_and_counts(plants):
    for image, masks in plants:
        assert image.shape == (128, 128, 3) and image.dtype == np.uint8
        assert masks.shape[1:] == (128, 128) and masks.dtype == bool
        assert masks.sum(axis=0).max(initial=0) <= 1
        assert all(mask.sum() >= 16 for mask in masks)
    counts = [len(masks) for _, masks in plants]
    assert min(counts) == 0 and max(counts) >= 10 and len(set(counts)) >= 8


def test_leaves_are_greener_than_soil(plants):
    for image, masks in plants:
        green = 2.0 * image[..., 1] - image[..., 0] - image[..., 2]
        if len(masks):
            assert green[masks.any(axis=0)].mean() > green[~masks.any(axis=0)].mean() + 20


def test_other_sizes():
    image, masks = render_plant(0, 3, size=49)
    assert image.shape == (49, 49, 3) and masks.shape[1:] == (49, 49) and len(masks) > 0


def test_files(tmp_path, few_images):
    folder = ensure_rosettes(tmp_path)
    assert folder == tmp_path / "rosettes"
    train, val = (load_coco(str(folder / f"{split}.json"), str(folder / split)) for split in ("train", "val"))
    assert (len(train), len(val)) == (4, 2)
    assert len({record["image_id"] for record in train + val}) == 6
    for index, record in enumerate(train + val):
        image, masks = render_plant(rosettes.SEED, index)
        np.testing.assert_array_equal(cv2.imread(record["file_name"]), image)
        decoded = [mask_util.decode(a["segmentation"]).astype(bool) for a in record["annotations"]]
        np.testing.assert_array_equal(np.array(decoded).reshape(-1, 128, 128), masks)
    annotation = json.loads((folder / "train.json").read_text())["annotations"][0]
    mask = render_plant(rosettes.SEED, annotation["image_id"] - 1)[1][0]
    ys, xs = np.nonzero(mask)
    assert annotation["area"] == mask.sum()
    assert annotation["bbox"] == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]


def test_written_once_even_when_asked_in_parallel(tmp_path, few_images, monkeypatch):
    drawn = []

    def counting(seed: int, index: int):
        drawn.append(index)
        return render_plant(seed, index)

    monkeypatch.setattr(rosettes, "render_plant", counting)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ensure_rosettes, [tmp_path] * 4))
    ensure_rosettes(tmp_path)
    assert sorted(drawn) == list(range(6))
    assert {path.name for path in tmp_path.iterdir()} == {"rosettes", "rosettes.lock"}


def test_other_version_is_drawn_again(tmp_path, few_images, monkeypatch):
    folder = ensure_rosettes(tmp_path)
    (folder / "train.json").write_text("old")
    (folder / "stale.png").write_text("old")
    ensure_rosettes(tmp_path)
    assert (folder / "train.json").read_text() == "old"
    monkeypatch.setattr(rosettes, "VERSION", rosettes.VERSION + 1)
    ensure_rosettes(tmp_path)
    assert len(json.loads((folder / "train.json").read_text())["images"]) == 4
    assert not (folder / "stale.png").exists()


def test_someone_elses_folder_is_left_alone(tmp_path, few_images):
    (tmp_path / "rosettes").mkdir()
    (tmp_path / "rosettes" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"rosettes exists, but holds something else .*Move it away"):
        ensure_rosettes(tmp_path)
    assert (tmp_path / "rosettes" / "notes.txt").read_text() == "mine"


def test_unwritable_root_is_named(tmp_path, few_images):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"rosettes cannot be written: .*DETECTRON2_DATASETS"):
        ensure_rosettes(tmp_path / "file")


def test_interrupted_drawing_leaves_nothing(tmp_path, few_images, monkeypatch):
    def failing(seed: int, index: int):
        raise KeyboardInterrupt

    monkeypatch.setattr(rosettes, "render_plant", failing)
    with pytest.raises(KeyboardInterrupt):
        ensure_rosettes(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} <= {"rosettes.lock"}
