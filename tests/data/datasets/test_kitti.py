"""KITTI's cars in the authors' tree, and what is said about wrong trees."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from miniature.kitti import IMAGES_PER_SPLIT, write_kitti
from rec_attend_d2.data.datasets.builtin import register_builtin_datasets
from rec_attend_d2.data.datasets.kitti import register_kitti
from rec_attend_d2.data.segmentation import annotation_mask

NAMES = {"kitti_cars_train": "train", "kitti_cars_val": "valid_man", "kitti_cars_test": "test_man"}


@pytest.fixture(autouse=True)
def _registered_as_before():
    yield
    register_builtin_datasets()


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("kitti")
    write_kitti(root)
    return root


@pytest.fixture
def root(written: Path, tmp_path: Path) -> Path:
    """A copy that a test may damage."""
    shutil.copytree(written / "kitti", tmp_path / "kitti")
    return tmp_path


def load(root: Path, name: str) -> list[dict]:
    register_kitti(root)
    return DatasetCatalog.get(name)


def test_registering_reads_nothing(tmp_path):
    register_kitti(tmp_path)
    register_kitti(tmp_path)
    for name in NAMES:
        metadata = MetadataCatalog.get(name)
        assert (metadata.thing_classes, metadata.evaluator_type) == (["car"], "kitti")
        assert metadata.image_root == str(tmp_path / "kitti" / "images")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "split"), NAMES.items())
def test_dicts(written, name, split):
    records = load(written, name)
    folder = written / "kitti"
    numbers = [int(line) for line in (folder / f"{split}.txt").read_text().splitlines()]
    assert [record["image_id"] for record in records] == [f"{number:06d}" for number in numbers]
    assert len(records) == IMAGES_PER_SPLIT[split]
    for record in records:
        file = f"{record['image_id']}.png"
        assert record["file_name"] == str(folder / "images" / file)
        labels = np.asarray(Image.open(folder / ("gt" if split == "train" else "gt_man") / file))
        assert (record["height"], record["width"]) == labels.shape
        assert len(record["annotations"]) == labels.max()
        for value, annotation in enumerate(record["annotations"], start=1):
            np.testing.assert_array_equal(annotation_mask(annotation, labels.shape, file), labels == value)
            assert annotation["category_id"] == 0


def test_coloured_label_images_give_the_same_instances(root):
    expected = load(root, "kitti_cars_val")
    colours = np.array([[0, 0, 0], *[[1, value, 9] for value in range(255)]], dtype=np.uint8)
    for path in (root / "kitti" / "gt_man").iterdir():
        Image.fromarray(colours[np.asarray(Image.open(path))]).save(path)
    assert load(root, "kitti_cars_val") == expected


class TestBadInput:
    @pytest.mark.parametrize(
        ("missing", "expected"),
        [
            ("valid_man.txt", "expects the file .*valid_man.txt"),
            ("images", "expects the folder .*images"),
            ("gt_man", "expects the folder .*gt_man"),
        ],
    )
    def test_a_part_is_missing(self, root, missing, expected):
        path = root / "kitti" / missing
        path.rename(root / "elsewhere")
        message = rf"'kitti_cars_val' {expected}, which does not exist. .*kitti holds .*DETECTRON2_DATASETS to the"
        with pytest.raises(FileNotFoundError, match=message):
            load(root, "kitti_cars_val")

    @pytest.mark.parametrize("name", ["kitti.zip", "kitti.tar.gz"])
    def test_archive_instead_of_its_folder(self, tmp_path, name):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(FileNotFoundError, match=rf"kitti does not exist\. .*{name} is an archive: unpack it there"):
            load(tmp_path, "kitti_cars_train")

    @pytest.mark.parametrize(("folder", "kind"), [("images", "image"), ("gt_man", "label image")])
    def test_a_file_is_missing(self, root, folder, kind):
        number = (root / "kitti" / "test_man.txt").read_text().splitlines()[1]
        (root / "kitti" / folder / f"{int(number):06d}.png").unlink()
        with pytest.raises(
            FileNotFoundError,
            match=rf"The {kind} .*{int(number):06d}\.png does not exist, .*test_man\.txt lists it; 1 of 3 .*Restore",
        ):
            load(root, "kitti_cars_test")

    @pytest.mark.parametrize("line", ["000123.png", "-4", "1.5"])
    def test_a_line_that_is_no_number(self, root, line):
        (root / "kitti" / "train.txt").write_text(f"7\n\n{line}\n")
        with pytest.raises(
            ValueError, match=rf"train\.txt, line 3: '{line}' is not the number.*Give one number per line"
        ):
            load(root, "kitti_cars_train")

    def test_an_image_listed_twice(self, root):
        (root / "kitti" / "train.txt").write_text("7\n8\n000007\n")
        with pytest.raises(ValueError, match=r"train\.txt, line 3: '000007' .* was there before"):
            load(root, "kitti_cars_train")

    def test_an_empty_list(self, root):
        (root / "kitti" / "train.txt").write_text("\n")
        with pytest.raises(ValueError, match=r"train\.txt lists no image"):
            load(root, "kitti_cars_train")

    @pytest.mark.parametrize(("folder", "kept_bytes"), [("gt", 60), ("gt", -80), ("images", 20)])
    def test_a_corrupt_png(self, root, folder, kept_bytes):
        number = int((root / "kitti" / "train.txt").read_text().splitlines()[0])
        path = root / "kitti" / folder / f"{number:06d}.png"
        path.write_bytes(path.read_bytes()[:kept_bytes])
        with pytest.raises(ValueError, match=rf"kitti/{folder}/{path.name} cannot be decoded .*restore it"):
            load(root, "kitti_cars_train")

    def test_gaps_in_the_numbering_are_a_warning(self, root, caplog):
        path = sorted((root / "kitti" / "gt").iterdir())[0]
        labels = np.asarray(Image.open(path))
        Image.fromarray(np.where(labels == labels.max(), 27, labels).astype(labels.dtype)).save(path)
        records = load(root, "kitti_cars_train")
        (record,) = (record for record in records if record["image_id"] == path.stem)
        assert len(record["annotations"]) == labels.max()
        assert f"{path} (without {labels.max()})" in caplog.text

    def test_a_photograph_instead_of_labels(self, root):
        path = sorted((root / "kitti" / "gt").iterdir())[0]
        height, width = np.asarray(Image.open(path)).shape
        Image.fromarray(np.arange(height * width, dtype=np.uint16).reshape(height, width)).save(path)
        with pytest.raises(ValueError, match=rf"kitti/gt/{path.name} has {height * width - 1} values .*check the file"):
            load(root, "kitti_cars_train")

    def test_a_label_image_of_another_size(self, root):
        path = sorted((root / "kitti" / "gt").iterdir())[0]
        Image.fromarray(np.asarray(Image.open(path))[:-1]).save(path)
        with pytest.raises(ValueError, match=rf"kitti/gt/{path.name} is .*kitti/images/{path.name} is .*Replace one"):
            load(root, "kitti_cars_train")
