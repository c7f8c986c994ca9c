"""The Cityscapes loader on small hand-made trees and on a miniature."""

import shutil
import sys
from pathlib import Path

import cv2
import numpy as np
import pycocotools.mask as mask_util
import pytest
from cityscapesscripts.helpers.labels import labels, name2label
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.transforms import NoOpTransform
from detectron2.structures import BoxMode

from miniature.cityscapes import write_cityscapes
from rec_attend_d2.data.datasets.cityscapes import LABEL_IDS, VOID_LABEL_IDS, load_cityscapes, register_cityscapes
from rec_attend_d2.data.instances import build_targets
from rec_attend_d2.data.map_targets import MapTargetGenerator

SIZE = (12, 16)
STEM = "aachen_000000_000019"
TREE = "cityscapes"


def street() -> np.ndarray:
    """Instance ids [12, 16]: road with two cars, a bicycle in two parts, a group of persons and void areas."""
    ids = np.full(SIZE, 7, dtype=np.uint16)
    ids[2:6, 1:5] = 26000
    ids[3:8, 5:9] = 26001
    ids[0, 12:15] = 33002
    ids[4, 13] = 33002
    ids[8:10, 0:6] = 24
    ids[9:11, 3:5] = 24000
    ids[11] = 1
    ids[:, 15] = 3
    ids[6:8, 11:14] = 29001
    ids[9, 10:12] = 30
    ids[5, 0] = 0
    # Known to be no object of the classes.
    ids[10, 8:10] = 5
    ids[10, 12] = 4
    return ids


def write_image(root: Path, ids: np.ndarray, split: str = "train", truth_type: str = "gtFine") -> Path:
    """Write a black image and its instance ids; returns the path of the latter."""
    for folder in ("leftImg8bit", truth_type):
        (root / TREE / folder / split / "aachen").mkdir(parents=True, exist_ok=True)
    image_file = root / TREE / "leftImg8bit" / split / "aachen" / f"{STEM}_leftImg8bit.png"
    cv2.imwrite(str(image_file), np.zeros((*ids.shape, 3), dtype=np.uint8))
    ids_file = root / TREE / truth_type / split / "aachen" / f"{STEM}_{truth_type}_instanceIds.png"
    cv2.imwrite(str(ids_file), ids)
    return ids_file


def load(root: Path, split: str = "train", truth_type: str = "gtFine") -> list[dict]:
    return load_cityscapes(root / TREE / "leftImg8bit" / split, root / TREE / truth_type / split, truth_type)


def mask_of(rle: dict) -> np.ndarray:
    return mask_util.decode(rle).astype(bool)


@pytest.fixture(scope="module")
def miniature(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("miniature")
    write_cityscapes(root, {"train": 2, "val": 2, "test": 1, "train_extra": 2}, size=(96, 192))
    return root


class TestRecords:
    def test_annotations(self, tmp_path):
        ids = street()
        write_image(tmp_path, ids)
        (record,) = load(tmp_path)
        assert record["image_id"] == STEM and (record["height"], record["width"]) == SIZE
        assert record["file_name"] == str(tmp_path / TREE / f"leftImg8bit/train/aachen/{STEM}_leftImg8bit.png")
        found = {(a["category_id"], a["iscrowd"], tuple(a["bbox"])) for a in record["annotations"]}
        # XYXY, the ends excluded. A person stands in front of the group.
        assert found == {
            (0, 1, (0, 8, 6, 10)),
            (0, 0, (3, 9, 5, 11)),
            (2, 0, (1, 2, 5, 6)),
            (2, 0, (5, 3, 9, 8)),
            (7, 0, (12, 0, 15, 5)),
        }
        assert len(record["annotations"]) == 5
        masks = [mask_of(a["segmentation"]) for a in record["annotations"]]
        for mask, value in zip(masks, [24, 24000, 26000, 26001, 33002], strict=True):
            assert np.array_equal(mask, ids == value)
        assert all(isinstance(a["segmentation"]["counts"], str) for a in record["annotations"])
        assert {a["bbox_mode"] for a in record["annotations"]} == {BoxMode.XYXY_ABS}
        assert "coarse" not in record

    def test_void(self, tmp_path):
        ids = street()
        write_image(tmp_path, ids)
        assert np.array_equal(mask_of(load(tmp_path)[0]["void"]), np.isin(ids, [0, 1, 3, 29001, 30]))

    def test_unscored(self, tmp_path):
        ids = street()
        ids[0, :2] = 9  # parking: neither void nor scored
        write_image(tmp_path, ids)
        expected = np.isin(ids, [0, 1, 3, 4, 5, 9, 29001, 30])
        assert np.array_equal(mask_of(load(tmp_path)[0]["unscored"]), expected)

    def test_without_objects_and_void(self, tmp_path):
        write_image(tmp_path, np.full(SIZE, 7, dtype=np.uint16))
        (record,) = load(tmp_path)
        assert record["annotations"] == [] and not {"void", "unscored"} & set(record)

    @pytest.mark.parametrize("seed", range(3))
    def test_masks_and_boxes_are_those_of_pycocotools(self, tmp_path, seed):
        ids = np.random.default_rng(seed).choice([0, 7, 26000, 26001, 33, 29], (9, 7)).astype(np.uint16)
        write_image(tmp_path, ids)
        (record,) = load(tmp_path)
        values = [value for value in np.unique(ids) if value in (26000, 26001, 33)]
        assert len(record["annotations"]) == len(values)
        expected = [mask_util.encode(np.asfortranarray(ids == value, dtype=np.uint8)) for value in sorted(values)]
        for annotation, rle in zip(record["annotations"], expected, strict=True):
            assert annotation["segmentation"]["counts"] == rle["counts"].decode()
            x, y, width, height = mask_util.toBbox(rle)
            assert annotation["bbox"] == [x, y, x + width, y + height]
        void = mask_util.encode(np.asfortranarray(np.isin(ids, [0, 29]), dtype=np.uint8))
        assert record["void"]["counts"] == void["counts"].decode()

    def test_polygons_give_the_same_as_the_png(self, miniature, tmp_path):
        shutil.copytree(miniature / TREE, tmp_path / TREE)
        for path in (tmp_path / TREE).glob("gt*/*/*/*.png"):
            path.unlink()
        for split, truth_type in (("train", "gtFine"), ("train_extra", "gtCoarse")):
            records = load(tmp_path, split, truth_type)
            for record in records:
                record["file_name"] = record["file_name"].replace(str(tmp_path), str(miniature))
            assert records == load(miniature, split, truth_type)
            assert len(records) == 2 and all(record["annotations"] for record in records)

    def test_coarse_images_have_less_weight_and_no_angles(self, miniature):
        for record in load(miniature, "train_extra", "gtCoarse"):
            assert record["coarse"] is True
            size = (record["height"], record["width"])
            targets = build_targets(record["annotations"], size, NoOpTransform(), size, record["file_name"])
            maps = MapTargetGenerator(len(LABEL_IDS) + 1, 8)(record, targets, size, NoOpTransform())
            void = mask_of(record["void"])
            assert np.array_equal(maps["foreground_weight"].numpy(), np.where(void, 0, np.float32(0.1)))
            assert 0.1 < void.mean() < 0.9 and maps["angle_map"].sum() == 0
            assert maps["foreground"].sum(0).eq(1).all() and len(targets.masks) > 3

    def test_the_test_split_has_no_annotations_even_where_there_are_files(self, miniature, tmp_path):
        shutil.copytree(miniature / TREE, tmp_path / TREE)
        write_image(tmp_path, street(), "test")
        register_cityscapes(tmp_path)
        records = DatasetCatalog.get("rec_attend_cityscapes_test")
        assert [record["image_id"] for record in records] == [STEM, "berlin_000000_000019"]
        assert all(set(record) == {"file_name", "image_id", "height", "width"} for record in records)


class TestConstants:
    def test_classes_are_the_evaluated_ones_of_cityscapesscripts(self):
        expected = {label.name: label.id for label in labels if label.hasInstances and not label.ignoreInEval}
        assert list(LABEL_IDS.items()) == list(expected.items())

    def test_void_labels(self):
        assert {name: name2label[name].id for name in VOID_LABEL_IDS} == VOID_LABEL_IDS
        assert all(name2label[name].ignoreInEval for name in VOID_LABEL_IDS)


class TestRegistration:
    @pytest.fixture(autouse=True)
    def _catalog_as_before(self):
        names = [f"rec_attend_cityscapes_{split}" for split in ("train", "val", "test", "train_extra")]
        before = {
            name: (DatasetCatalog.pop(name), MetadataCatalog.pop(name)) for name in names if name in DatasetCatalog
        }
        yield
        for name in names:
            DatasetCatalog.pop(name, None)
            MetadataCatalog.pop(name, None)
        for name, (load_records, metadata) in before.items():
            DatasetCatalog[name], MetadataCatalog[name] = load_records, metadata

    def test_reads_nothing_and_moves(self, tmp_path, miniature):
        register_cityscapes(tmp_path / "nowhere")
        register_cityscapes(str(miniature))
        assert len(DatasetCatalog.get("rec_attend_cityscapes_train")) == 2
        assert [r["image_id"] for r in DatasetCatalog.get("rec_attend_cityscapes_val")] == [
            "frankfurt_000000_000019",
            "munster_000000_000019",
        ]
        assert all(record["coarse"] for record in DatasetCatalog.get("rec_attend_cityscapes_train_extra"))
        assert list(tmp_path.iterdir()) == []

    def test_metadata(self, tmp_path):
        register_cityscapes(tmp_path)
        metadata = MetadataCatalog.get("rec_attend_cityscapes_val")
        assert metadata.evaluator_type == "cityscapes_instance"
        assert metadata.gt_dir == str(tmp_path / "cityscapes" / "gtFine" / "val")
        assert metadata.thing_classes == list(LABEL_IDS)
        assert metadata.thing_dataset_id_to_contiguous_id == {24: 0, 25: 1, 26: 2, 27: 3, 28: 4, 31: 5, 32: 6, 33: 7}
        assert MetadataCatalog.get("rec_attend_cityscapes_test").gt_dir is None
        assert MetadataCatalog.get("rec_attend_cityscapes_train_extra").truth_type == "gtCoarse"


class TestWrongTrees:
    def test_missing_root_says_what_is_there(self, tmp_path):
        (tmp_path / "kitti").mkdir()
        with pytest.raises(FileNotFoundError, match=r"leftImg8bit.train\..*holds kitti/\..*DETECTRON2_DATASETS"):
            load(tmp_path)

    @pytest.mark.parametrize(
        ("folder", "archive"),
        [("leftImg8bit", "leftImg8bit_trainvaltest.zip"), ("gtFine", "gtFine_trainvaltest.zip")],
    )
    @pytest.mark.parametrize("keep_folder", [True, False])
    def test_archive_beside_the_missing_folder(self, tmp_path, folder, archive, keep_folder):
        write_image(tmp_path, street())
        shutil.rmtree(tmp_path / TREE / folder)
        if keep_folder:  # as after another archive has been unpacked
            (tmp_path / TREE / folder / "train_extra").mkdir(parents=True)
        (tmp_path / TREE / archive).touch()
        with pytest.raises(FileNotFoundError, match=rf"folder {tmp_path}.*{folder}/train\..*{archive}.*npack"):
            load(tmp_path)

    def test_archive_instead_of_the_folder(self, tmp_path):
        archive = tmp_path / "leftImg8bit_trainvaltest.zip"
        archive.touch()
        with pytest.raises(FileNotFoundError, match=r"trainvaltest\.zip is a file.*unpack it"):
            load_cityscapes(archive, tmp_path)

    def test_folder_without_cities(self, tmp_path):
        write_image(tmp_path, street())
        images = tmp_path / TREE / "leftImg8bit/train"
        (images / "aachen" / f"{STEM}_leftImg8bit.png").rename(images / f"{STEM}_leftImg8bit.png")
        with pytest.raises(FileNotFoundError, match=rf"train has no images CITY/.*holds aachen/, {STEM}"):
            load(tmp_path)

    @pytest.mark.parametrize(
        "name", ["photo.png", "bochum_000000_000019_leftImg8bit.png", "aachen_0_19_leftImg8bit.png"]
    )
    def test_image_of_another_name(self, tmp_path, name):
        write_image(tmp_path, street())
        (tmp_path / TREE / "leftImg8bit/train/aachen" / name).touch()
        with pytest.raises(ValueError, match=rf"{name} is not named as"):
            load(tmp_path)

    def test_image_without_labels(self, tmp_path):
        write_image(tmp_path, street()).unlink()
        expected = rf"1 of 1 images.*aachen/{STEM}_gtFine_instanceIds\.png or {STEM}_gtFine_polygons\.json.*Unpack"
        with pytest.raises(FileNotFoundError, match=expected):
            load(tmp_path)

    def test_labels_without_image(self, tmp_path):
        ids_file = write_image(tmp_path, street())
        shutil.copy(ids_file, ids_file.with_name("aachen_000001_000019_gtFine_instanceIds.png"))
        with pytest.raises(FileNotFoundError, match=r"1 images.*labels.*missing.*aachen_000001_000019"):
            load(tmp_path)

    def test_cityscapesscripts_is_missing(self, tmp_path, monkeypatch):
        write_image(tmp_path, street())
        monkeypatch.setitem(sys.modules, "cityscapesscripts.helpers.labels", None)
        with pytest.raises(ImportError, match=r"pip install rec_attend_d2\[cityscapes\]"):
            load(tmp_path)


class TestWrongFiles:
    @pytest.mark.parametrize("kept_bytes", [0, 20, -40])
    def test_damaged_labels(self, tmp_path, kept_bytes):
        ids_file = write_image(tmp_path, street())
        ids_file.write_bytes(ids_file.read_bytes()[:kept_bytes])
        with pytest.raises(ValueError, match=rf"{ids_file.name} cannot be decoded.*restore"):
            load(tmp_path)

    def test_damaged_image(self, tmp_path):
        write_image(tmp_path, street())
        (tmp_path / TREE / f"leftImg8bit/train/aachen/{STEM}_leftImg8bit.png").write_bytes(b"\x89PNG")
        with pytest.raises(ValueError, match=rf"{STEM}_leftImg8bit\.png cannot be decoded .*restore it"):
            load(tmp_path)

    def test_colours_instead_of_ids(self, tmp_path):
        ids_file = write_image(tmp_path, street())
        cv2.imwrite(str(ids_file), np.zeros((*SIZE, 3), dtype=np.uint8))
        with pytest.raises(ValueError, match=rf"{ids_file.name} has pixels of mode RGB"):
            load(tmp_path)

    @pytest.mark.parametrize(("value", "label"), [(34, 34), (255, 255), (999, 999), (34000, 34), (65535, 65)])
    def test_label_beyond_the_class_list(self, tmp_path, value, label):
        ids = street()
        ids[0, 0] = value
        ids_file = write_image(tmp_path, ids)
        message = rf"{ids_file.name} has the value {value}, whose label id {label} is not.*restore the file"
        with pytest.raises(ValueError, match=message):
            load(tmp_path)

    def test_labels_of_another_size(self, tmp_path):
        ids_file = write_image(tmp_path, street())
        cv2.imwrite(str(ids_file), street()[:-1])
        with pytest.raises(ValueError, match=rf"{STEM}_gtFine.* is 11 high and 16 wide.*12 high and 16 wide"):
            load(tmp_path)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("no json", "is no valid annotation file.*JSONDecodeError"),
            ('{"imgHeight": 12, "objects": []}', "is no valid annotation file.*'imgWidth'"),
            ('{"imgHeight": 12, "imgWidth": 16, "objects": [{"label": "car"}]}', "is no valid .*'polygon'"),
            (
                '{"imgHeight": 9, "imgWidth": 9, "objects": [{"label": "kite", "polygon": [[0, 0], [1, 1], [0, 1]]}]}',
                "label 'kite'.*class list",
            ),
            (
                '{"imgHeight": 12, "imgWidth": 16, "objects": [{"label": "car", "polygon": [[0, 0]]}]}',
                "polygon that cannot be drawn",
            ),
        ],
    )
    def test_wrong_polygons(self, tmp_path, content, message):
        ids_file = write_image(tmp_path, street())
        ids_file.unlink()
        ids_file.with_name(f"{STEM}_gtFine_polygons.json").write_text(content)
        with pytest.raises(ValueError, match=f"polygons.json .*{message}"):
            load(tmp_path)
