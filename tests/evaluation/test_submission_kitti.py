"""Zips of label images for KITTI's cars: what is written, checked and scored."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.structures import Instances
from PIL import Image

from miniature.kitti import write_kitti
from rec_attend_d2.data.datasets.builtin import register_builtin_datasets
from rec_attend_d2.data.datasets.kitti import register_kitti
from rec_attend_d2.evaluation.coverage_evaluator import CoverageEvaluator
from rec_attend_d2.evaluation.submission_kitti import check, pack, score

NAME = "kitti_cars_test"
SIZE = (40, 120)


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("kitti")
    write_kitti(root, {"train": 0, "valid_man": 1, "test_man": 3}, size=SIZE)
    return root


@pytest.fixture
def records(root):
    register_kitti(root)
    yield DatasetCatalog.get(NAME)
    register_builtin_datasets()


def predict(record: dict) -> Instances:
    """Stripes that do not overlap; none in the first image."""
    count = sorted(r["image_id"] for r in DatasetCatalog.get(NAME)).index(record["image_id"]) * 2
    masks = torch.zeros((count, *SIZE), dtype=torch.bool)
    for index in range(count):
        masks[index, 10:30, index * 30 : index * 30 + 25] = True
    return Instances(SIZE, pred_masks=masks, scores=torch.linspace(0.9, 0.5, count))


@pytest.fixture
def packed(records, tmp_path) -> Path:
    pack(tmp_path / "kitti.zip", NAME, ((record["image_id"], predict(record)) for record in records))
    return tmp_path / "kitti.zip"


def png(labels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(labels).save(buffer, "png")
    return buffer.getvalue()


def replace(path: Path, name: str, content: bytes | None) -> None:
    """Replace a member of a zip; None removes it."""
    with zipfile.ZipFile(path) as zip_:
        members = {member: zip_.read(member) for member in zip_.namelist()}
    members[name] = content
    with zipfile.ZipFile(path, "w") as zip_:
        for member, data in members.items():
            if data is not None:
                zip_.writestr(member, data)


def test_files(records, packed):
    with zipfile.ZipFile(packed) as zip_:
        assert zip_.namelist() == [f"{record['image_id']}.png" for record in records]
        for record in records:
            image = Image.open(io.BytesIO(zip_.read(f"{record['image_id']}.png")))
            assert image.mode == "I;16"
            expected = np.zeros(SIZE, dtype=np.uint16)
            for number, mask in enumerate(predict(record).pred_masks.numpy(), start=1):
                expected[mask] = number
            np.testing.assert_array_equal(np.asarray(image), expected)
    assert [len(predict(record)) for record in records] == [0, 2, 4]
    assert list(packed.parent.iterdir()) == [packed]


def test_missing_predictions(records, tmp_path):
    with pytest.raises(ValueError, match="3 of 3 images have no prediction"):
        pack(tmp_path / "kitti.zip", NAME, [])
    assert list(tmp_path.iterdir()) == []


class TestCheck:
    def test_valid(self, records, packed):
        assert check(packed, NAME) == []

    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            (png(np.ones(SIZE, dtype=np.uint8)), "NAME is uint8, but the format asks for uint16."),
            (
                png(np.full(SIZE, 2, dtype=np.uint16)),
                "NAME does not number its instances 1 to n: 1 is missing.",
            ),
            (
                png(np.ones((40, 119), dtype=np.uint16)),
                "NAME has the shape (40, 119), but the image is (40, 120) (height, width).",
            ),
            (
                png(np.ones((40, 120, 3), dtype=np.uint8)),
                "NAME has the shape (40, 120, 3), but the image is (40, 120) (height, width).",
            ),
            (None, "kitti.zip lacks NAME; an image without objects needs an empty one."),
        ],
    )
    def test_one_fault(self, records, packed, content, problem):
        name = f"{records[1]['image_id']}.png"
        replace(packed, name, content)
        assert check(packed, NAME) == [problem.replace("NAME", name)]

    @pytest.mark.parametrize("content", [b"", b"text", png(np.eye(120, dtype=np.uint16)[:40])[:-30]])
    def test_damaged_images(self, records, packed, content):
        name = f"{records[1]['image_id']}.png"
        replace(packed, name, content)
        (problem,) = check(packed, NAME)
        assert problem.startswith(f"{name} is damaged or no image (")

    def test_surplus_file(self, records, packed):
        replace(packed, "readme.txt", b"")
        assert check(packed, NAME) == ["kitti.zip has readme.txt, which is not in the data set."]

    def test_no_zip(self, records, packed):
        packed.write_bytes(b"no zip")
        assert check(packed, NAME) == [f"{packed} is no zip file. Pack the label images into one."]
        packed.unlink()
        assert check(packed, NAME) == [f"{packed} does not exist."]


class TestScore:
    def test_is_the_evaluators(self, records, packed):
        evaluator = CoverageEvaluator(NAME)
        evaluator.reset()
        for record in records:
            evaluator.process([record], [{"instances": predict(record)}])
        results = score(packed, NAME)
        assert results == evaluator.evaluate()["coverage"]
        assert 0 < results["MWCov"] < 1

    def test_invalid(self, records, packed):
        with pytest.raises(ValueError, match=r"kitti\.zip is no valid submission; 4 problem\(s\):\n  kitti\.zip lacks"):
            score(packed, "kitti_cars_val")
