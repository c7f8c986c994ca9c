"""Images find their label files in both layouts; what does not belong together is reported."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rec_attend_d2.data.datasets.label_sources import (
    LabelImage,
    MaskFiles,
    Selection,
    find_mask_folders,
    pair_files,
    unused_entries,
)


def save(path: Path, pixels: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ones((4, 6), np.uint8) if pixels is None else pixels).save(path)
    return path


def selections(root: Path, image_suffix: str = "", label_suffix: str = "") -> tuple[Selection, Selection]:
    return Selection(root / "images", image_suffix), Selection(root / "labels", label_suffix)


def test_names_pair_whatever_their_endings(tmp_path):
    for name in ("b.tif", "a.png"):
        save(tmp_path / "images" / name)
    for name in ("a.TIFF", "b.bmp"):
        save(tmp_path / "labels" / name)
    (tmp_path / "images" / ".hidden.png").write_text("")
    (tmp_path / "images" / "notes.txt").write_text("")
    pairs = pair_files(*selections(tmp_path), "refuse", 7)
    assert pairs == [
        LabelImage(tmp_path / "images" / "a.png", tmp_path / "labels" / "a.TIFF", 7),
        LabelImage(tmp_path / "images" / "b.tif", tmp_path / "labels" / "b.bmp", 7),
    ]
    assert unused_entries(pairs, [tmp_path / "images", tmp_path / "labels"]) == [tmp_path / "images" / "notes.txt"]


def test_suffixes_choose_the_files_of_one_folder(tmp_path):
    for name in ("p1_rgb.png", "p1_label.png", "p1_centers.png", "p2_rgb.png", "p2_label.png"):
        save(tmp_path / name)
    pairs = pair_files(Selection(tmp_path, "_rgb"), Selection(tmp_path, "_label"), "refuse")
    assert [(pair.image.name, pair.labels.name) for pair in pairs] == [
        ("p1_rgb.png", "p1_label.png"),
        ("p2_rgb.png", "p2_label.png"),
    ]
    assert unused_entries(pairs, [tmp_path, tmp_path]) == [tmp_path / "p1_centers.png"]


def test_label_images_beside_images_are_no_images(tmp_path):
    for name in ("a.png", "a_mask.png"):
        save(tmp_path / name)
    pairs = pair_files(Selection(tmp_path / ".." / tmp_path.name), Selection(tmp_path, "_mask"), "refuse")
    assert [pair.image.name for pair in pairs] == ["a.png"]


def test_images_without_label_image(tmp_path):
    for name in ("a", "b", "c"):
        save(tmp_path / "images" / f"{name}.png")
    save(tmp_path / "labels" / "b.png")
    with pytest.raises(ValueError, match=r"a\.png, \S+c\.png \(2\) of 3 images: no label .*--unlabeled"):
        pair_files(*selections(tmp_path), "refuse")
    labels = tmp_path / "labels" / "b.png"
    assert [pair.labels for pair in pair_files(*selections(tmp_path), "empty")] == [None, labels, None]
    assert [pair.labels for pair in pair_files(*selections(tmp_path), "skip")] == [labels]


@pytest.mark.parametrize("unlabeled", ["refuse", "empty", "skip"])
def test_label_images_without_image_are_an_error(tmp_path, unlabeled):
    save(tmp_path / "images" / "a.png")
    for name in ("a_label", "b_label"):
        save(tmp_path / "labels" / f"{name}.png")
    with pytest.raises(ValueError, match=r"b_label\.png \(1\) of 2 label images: no image .*'_label'.*suffixes"):
        pair_files(*selections(tmp_path, label_suffix="_label"), unlabeled)


def test_two_files_of_one_name(tmp_path):
    for name in ("a.png", "a.tif"):
        save(tmp_path / "images" / name)
    with pytest.raises(ValueError, match=r"a\.png and \S+a\.tif have the same name"):
        Selection(tmp_path / "images").find()


def test_missing_and_empty_folders(tmp_path):
    with pytest.raises(FileNotFoundError, match="images does not exist"):
        Selection(tmp_path / "images").find()
    save(tmp_path / "labels" / "a.png")
    with pytest.raises(ValueError, match=r"no \*_mask\{\.png,.*labels holds a\.png"):
        Selection(tmp_path / "labels", "_mask").find()


def test_jpeg_labels_are_refused(tmp_path):
    save(tmp_path / "images" / "a.jpg")
    save(tmp_path / "labels" / "a.jpg")
    with pytest.raises(ValueError, match=r"a\.jpg \(1\) of 1 label images: JPEG changes values"):
        pair_files(*selections(tmp_path), "refuse")


def test_every_value_is_a_mask(tmp_path):
    labels = np.zeros((4, 6), np.uint16)
    labels[0, 0] = labels[3, 5] = 300
    labels[1:3, 1:3] = 7
    source = LabelImage(tmp_path / "a.png", save(tmp_path / "labels.png", labels))
    masks = list(source.masks((4, 6)))
    np.testing.assert_array_equal(masks, [labels == 7, labels == 300])
    assert list(LabelImage(tmp_path / "a.png", None).masks((4, 6))) == []
    with pytest.raises(ValueError, match=r"labels\.png is 4 high and 6 wide, but its image \S+a\.png is 6 high"):
        list(source.masks((6, 4)))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "RGB", "RGBA"])
def test_a_mask_file_is_where_it_is_not_black(tmp_path, mode):
    mask = np.zeros((4, 6), bool)
    mask[1, 2:4] = True
    Image.fromarray(mask).convert(mode).save(tmp_path / "mask.png")
    source = MaskFiles(tmp_path / "a.png", (tmp_path / "mask.png",))
    np.testing.assert_array_equal(list(source.masks((4, 6))), [mask])
    with pytest.raises(ValueError, match=r"mask\.png is 4 high"):
        list(source.masks((4, 7)))


def test_black_masks_are_an_error(tmp_path):
    path = save(tmp_path / "mask.png", np.zeros((4, 6), np.uint8))
    with pytest.raises(ValueError, match=r"mask\.png is black"):
        list(MaskFiles(tmp_path / "a.png", (path,)).masks((4, 6)))


def test_a_folder_per_image(tmp_path):
    files = [save(tmp_path / "x" / "masks" / f"{name}.png") for name in "ab"]
    image = save(tmp_path / "x" / "images" / "x.png")
    empty = save(tmp_path / "w" / "images" / "w.png")
    (tmp_path / "w" / "masks").mkdir()
    assert find_mask_folders(tmp_path) == [MaskFiles(empty, ()), MaskFiles(image, tuple(files))]
    save(tmp_path / "x" / "images" / "y.png")
    with pytest.raises(ValueError, match="images holds 2 images, but one is needed"):
        find_mask_folders(tmp_path)


def test_other_layouts_are_described(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        find_mask_folders(tmp_path / "nowhere")
    save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"no folder for each image.*holds a\.png"):
        find_mask_folders(tmp_path)
    save(tmp_path / "x" / "images" / "x.png")
    with pytest.raises(ValueError, match="x has no folder 'masks'.*--labels"):
        find_mask_folders(tmp_path)
