"""Unpacking CVPPP's h5 files: once, completely or not at all, and nothing of another layout."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from rec_attend_d2.data.datasets import cvppp_h5, file_trees
from rec_attend_d2.data.datasets.cvppp_h5 import extract_h5

RGB = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
LABEL = np.arange(35, dtype=np.uint8).reshape(5, 7)


def write(path: Path, content: dict[str, object]) -> Path:
    with h5py.File(path, "w") as file:
        for key, value in content.items():
            file[key] = value
    return path


@pytest.fixture
def images(tmp_path) -> Path:
    return write(tmp_path / "images.h5", {"A1/plant001/rgb": RGB, "A1/plant001/rgb_filename": "plant001_rgb.png"})


@pytest.fixture
def truth(tmp_path) -> Path:
    return write(tmp_path / "truth.h5", {"A1/plant001/label": LABEL, "A1/plant001/count": 34})


def test_files(images, truth, tmp_path):
    folder = extract_h5(images, truth)
    assert folder == tmp_path / "images_png"
    assert {path.name for path in (folder / "A1").iterdir()} == {"plant001_rgb.png", "plant001_label.png"}
    np.testing.assert_array_equal(np.asarray(Image.open(folder / "A1" / "plant001_rgb.png")), RGB)
    np.testing.assert_array_equal(np.asarray(Image.open(folder / "A1" / "plant001_label.png")), LABEL)


def test_without_truth(images):
    assert [path.name for path in (extract_h5(images, None) / "A1").iterdir()] == ["plant001_rgb.png"]


def test_labels_in_the_file_of_the_images(tmp_path):
    images = write(tmp_path / "all.h5", {"A1/plant001/rgb": RGB, "A1/plant001/label": LABEL.astype(np.int64) * 300})
    labels = np.asarray(Image.open(extract_h5(images, None) / "A1" / "plant001_label.png"))
    np.testing.assert_array_equal(labels, LABEL.astype(np.uint16) * 300)


def test_unpacked_once_even_when_asked_in_parallel(images, truth, tmp_path, monkeypatch, caplog):
    calls = []
    original = cvppp_h5._write_plants

    def slow(*arguments):
        calls.append(arguments)
        time.sleep(0.05)
        return original(*arguments)

    monkeypatch.setattr(cvppp_h5, "_write_plants", slow)
    caplog.set_level("INFO")
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: extract_h5(images, truth), range(3)))
    assert len(calls) == 1
    assert [record.getMessage() for record in caplog.records] == [
        f"Unpacking {images} to {tmp_path / 'images_png'}, once.",
        f"Unpacked 1 images to {tmp_path / 'images_png'}.",
    ]


def test_changed_file_is_unpacked_again(images, truth):
    folder = extract_h5(images, None)
    extract_h5(images, truth)
    assert (folder / "A1" / "plant001_label.png").is_file()
    write(images, {"A2/plant009/rgb": RGB[:4]})
    extract_h5(images, truth)
    assert [path.name for path in folder.glob("A*/*")] == ["plant009_rgb.png"]


def test_failure_leaves_nothing(images, tmp_path):
    with h5py.File(images, "a") as file:
        file["A1/plant002/fg"] = LABEL
    with pytest.raises(ValueError, match=r"images\.h5: 'A1/plant002/rgb' cannot be read .*doesn't exist"):
        extract_h5(images, None)
    assert {path.name for path in tmp_path.iterdir()} == {"images.h5", "images_png.lock"}


def test_someone_elses_folder_is_left_alone(images, tmp_path):
    (tmp_path / "images_png").mkdir()
    (tmp_path / "images_png" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match=r"images_png exists, but holds something else"):
        extract_h5(images, None)
    assert (tmp_path / "images_png" / "notes.txt").read_text() == "mine"


def test_unwritable_folder(images, monkeypatch):
    def refuse(**_):
        raise PermissionError("no")

    monkeypatch.setattr(file_trees.tempfile, "mkdtemp", refuse)
    with pytest.raises(OSError, match=r"images_png cannot be written: no\..* you can write to"):
        extract_h5(images, None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"A1/plant001/rgb": RGB[..., 0]}, r"'A1/plant001/rgb' is uint8 of shape \(5, 7\)"),
        ({"A1/plant001/rgb": RGB / 255}, r"'A1/plant001/rgb' is float64 of shape \(5, 7, 3\)"),
        ({"A1/plant001": RGB}, "'A1/plant001/rgb' cannot be read"),
        ({"A1": RGB}, "'A1' is no group of plants"),
        ({"A1/plant001/rgb": RGB, "A1/plant001/label": LABEL / 2}, "'A1/plant001/label' is float64"),
        ({"A1/plant001/rgb": RGB, "A1/plant001/label": -LABEL.astype(int)}, "'A1/plant001/label' is int64"),
        ({"A1/plant001/rgb": RGB, "A1/plant001/label": RGB}, r"'A1/plant001/label' is uint8 of shape \(5, 7, 3\)"),
    ],
)
def test_other_layouts(tmp_path, content, message):
    with pytest.raises(ValueError, match=rf"images\.h5: {message}"):
        extract_h5(write(tmp_path / "images.h5", content), None)


def test_damaged_file(images):
    images.write_bytes(images.read_bytes()[:300])
    with pytest.raises(ValueError, match=r"images\.h5 cannot be read as HDF5 .* download it again"):
        extract_h5(images, None)
