"""Label images of all kinds become annotations; damaged and odd ones are reported."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from detectron2.structures import BoxMode
from PIL import Image

from rec_attend_d2.data.datasets.label_images import (
    add_annotations,
    image_record,
    instance_values,
    mask_annotation,
    read_label_image,
)
from rec_attend_d2.data.segmentation import annotation_mask

LABELS = np.zeros((5, 7), dtype=np.uint8)
LABELS[0:2, 1:4] = 2
LABELS[3:5, 5:7] = 1
LABELS[4, 0] = 3


def as_palette(labels: np.ndarray) -> Image.Image:
    image = Image.fromarray(labels)
    image.putpalette(bytes(range(255, -1, -1)) * 3)
    return image


def as_colours(labels: np.ndarray) -> Image.Image:
    return Image.fromarray(np.array([(0, 0, 0), (255, 0, 0), (0, 0, 255), (0, 0, 9)], dtype=np.uint8)[labels])


@pytest.mark.parametrize(
    "convert",
    [
        Image.fromarray,
        as_palette,
        lambda labels: Image.fromarray(labels.astype(np.uint16)),
    ],
    ids=["8 bit", "palette", "16 bit"],
)
def test_numbers_are_kept(tmp_path, convert):
    convert(LABELS).save(tmp_path / "label.png")
    labels = read_label_image(tmp_path / "label.png")
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, LABELS)


def test_16_bit_numbers_beyond_a_byte(tmp_path):
    Image.fromarray(LABELS.astype(np.uint16) * 1000).save(tmp_path / "label.png")
    np.testing.assert_array_equal(read_label_image(tmp_path / "label.png"), LABELS.astype(np.int32) * 1000)


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_every_colour_but_black_is_an_instance(tmp_path, mode):
    as_colours(LABELS).convert(mode).save(tmp_path / "label.png")
    labels = read_label_image(tmp_path / "label.png")
    # In the order of their colours: 3 is nearly black, 2 blue, 1 red.
    np.testing.assert_array_equal(labels, np.array([0, 3, 2, 1])[LABELS])


def test_colours_without_background_are_numbered_from_1(tmp_path):
    as_colours(np.full((3, 3), 2, dtype=np.uint8)).save(tmp_path / "label.png")
    assert (read_label_image(tmp_path / "label.png") == 1).all()


def test_unknown_kind_is_refused(tmp_path):
    Image.fromarray(np.dstack([LABELS] * 4), mode="CMYK").save(tmp_path / "label.jpg")
    with pytest.raises(ValueError, match=r"label\.jpg has pixels of Pillow's mode CMYK\. Save it with a palette"):
        read_label_image(tmp_path / "label.jpg")


@pytest.mark.parametrize("kind", ["<i8", ">u8", ">i4", "<f4", ">f8", "i1", ">u2"])
@pytest.mark.parametrize("photometric", ["minisblack", "miniswhite"])
def test_whole_numbers_of_any_type(tmp_path, kind, photometric):
    tifffile.imwrite(tmp_path / "label.tif", LABELS.astype(kind), photometric=photometric)
    np.testing.assert_array_equal(read_label_image(tmp_path / "label.tif"), LABELS)


def test_numbers_beyond_32_bits_stay_apart(tmp_path):
    tifffile.imwrite(tmp_path / "label.tif", LABELS.astype(np.uint64) * (2**63 - 5))
    labels = read_label_image(tmp_path / "label.tif")
    assert len(np.unique(labels)) == 4
    np.testing.assert_array_equal(labels == 0, LABELS == 0)


@pytest.mark.parametrize("value", [0.5, np.nan])
def test_what_is_no_whole_number_is_refused(tmp_path, value):
    tifffile.imwrite(tmp_path / "label.tif", np.where(LABELS == 3, value, LABELS).astype(np.float32))
    with pytest.raises(ValueError, match=r"label\.tif has 1 pixels that are no whole numbers, such as (0\.5|nan)\."):
        read_label_image(tmp_path / "label.tif")


def test_what_is_transparent_is_background_unless_all_is(tmp_path):
    colours = np.asarray(as_colours(LABELS)) + np.uint8(9)
    for opacity in (np.where(LABELS > 0, 255, 0), LABELS * 0 + 255):
        Image.fromarray(np.dstack([colours, opacity]).astype(np.uint8)).save(tmp_path / "label.png")
        labels = read_label_image(tmp_path / "label.png", 0 if opacity.min() == 0 else 9)
        np.testing.assert_array_equal(labels == 0, LABELS == 0)
    Image.fromarray(np.dstack([as_colours(LABELS), LABELS * 0])).save(tmp_path / "label.png")
    assert (read_label_image(tmp_path / "label.png") > 0).sum() == np.count_nonzero(LABELS)


def test_colours_of_16_bits_are_not_rounded(tmp_path):
    pixels = np.zeros((*LABELS.shape, 3), np.uint16)
    pixels[..., 1] = LABELS + np.uint16(1000) * (LABELS > 0)
    cv2.imwrite(str(tmp_path / "label.png"), pixels)
    np.testing.assert_array_equal(read_label_image(tmp_path / "label.png"), LABELS)


def test_several_pages_are_refused(tmp_path):
    page = Image.fromarray(LABELS)
    page.save(tmp_path / "label.tif", save_all=True, append_images=[page])
    with pytest.raises(ValueError, match=r"label\.tif has 2 pages"):
        read_label_image(tmp_path / "label.tif")


def test_one_bit_and_16_bit_tiff_of_either_byte_order(tmp_path):
    Image.fromarray(LABELS > 0).save(tmp_path / "mask.png")
    np.testing.assert_array_equal(read_label_image(tmp_path / "mask.png"), LABELS > 0)
    large = LABELS.astype(np.uint16) * 300
    for order in "<>":
        image = Image.frombytes("I;16B" if order == ">" else "I;16", (7, 5), large.astype(f"{order}u2").tobytes())
        image.save(tmp_path / "label.tif")
        np.testing.assert_array_equal(read_label_image(tmp_path / "label.tif"), large)


def test_another_background(tmp_path):
    Image.fromarray(LABELS).save(tmp_path / "label.png")
    # 0, 1 and 3 are numbered anew.
    np.testing.assert_array_equal(read_label_image(tmp_path / "label.png", 2), np.array([1, 2, 0, 3])[LABELS])
    as_colours(LABELS).save(tmp_path / "colours.png")
    labels = read_label_image(tmp_path / "colours.png", (255, 0, 0))
    np.testing.assert_array_equal(labels, np.array([1, 0, 3, 2])[LABELS])
    with pytest.raises(ValueError, match="has values instead of colours, but the background is the colour"):
        read_label_image(tmp_path / "label.png", (255, 0, 0))


@pytest.mark.parametrize("content", [b"", b"no image", None], ids=["empty", "text", "cut"])
def test_damaged_files_are_named(tmp_path, content):
    path = tmp_path / "label.png"
    noise = np.random.default_rng(0).integers(0, 9, (64, 64), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:-600] if content is None else content)
    with pytest.raises(ValueError, match=r"label\.png cannot be decoded .* restore it"):
        read_label_image(path)


@pytest.mark.parametrize(("value", "box"), [(1, [5, 3, 2, 2]), (2, [1, 0, 3, 2]), (3, [0, 4, 1, 1])])
def test_annotation(value, box):
    annotation = mask_annotation(LABELS == value)
    assert isinstance(annotation["segmentation"]["counts"], str)
    np.testing.assert_array_equal(annotation_mask(annotation, (5, 7), "label.png"), LABELS == value)
    assert (annotation["bbox"], annotation["bbox_mode"]) == (box, BoxMode.XYWH_ABS)
    assert (annotation["category_id"], annotation["iscrowd"]) == (0, 0)


def test_instance_values():
    assert instance_values(LABELS.astype(np.int32), Path("label.png")).tolist() == [1, 2, 3]
    assert instance_values(np.zeros((4, 4), dtype=np.int32), Path("label.png")).tolist() == []


@pytest.mark.parametrize(
    ("labels", "message"),
    [(np.arange(1200), "1199 values from 1 to 1199"), (np.array([-2, 0, 1]), "2 values from -2 to 1")],
)
def test_other_images_are_no_label_images(labels, message):
    with pytest.raises(
        ValueError,
        match=rf"photo\.png has {message}\. (It is no image of instance numbers|Negative ones are no objects)",
    ):
        instance_values(labels.reshape(-1, 3).astype(np.int32), Path("photo.png"))


class TestAddAnnotations:
    def save(self, folder: Path, labels: np.ndarray, name: str = "label.png") -> tuple[dict, Path]:
        Image.fromarray(np.zeros((5, 7, 3), dtype=np.uint8)).save(folder / "image.png")
        Image.fromarray(labels).save(folder / name)
        return image_record(folder / "image.png", "an id"), folder / name

    def test_record(self, tmp_path):
        record, path = self.save(tmp_path, LABELS)
        expected = {"file_name": str(tmp_path / "image.png"), "image_id": "an id", "height": 5, "width": 7}
        assert record == expected
        add_annotations([record], [path])
        assert record == {**expected, "annotations": [mask_annotation(LABELS == value) for value in (1, 2, 3)]}

    def test_gaps_are_kept_with_one_warning(self, tmp_path, caplog):
        pairs = [self.save(tmp_path, np.array([0, 1, 4, 5], dtype=np.uint8)[LABELS], f"{i}.png") for i in range(2)]
        add_annotations(*zip(*pairs, self.save(tmp_path, LABELS), strict=True))
        assert [len(record["annotations"]) for record, _ in pairs] == [3, 3]
        (message,) = [record.getMessage() for record in caplog.records]
        assert message.startswith("2 of 3 label images have gaps in their numbering")
        assert f"{tmp_path / '0.png'} (without 2); {tmp_path / '1.png'} (without 2)." in message

    def test_no_gap_no_warning(self, tmp_path, caplog):
        record, path = self.save(tmp_path, LABELS)
        add_annotations([record], [path])
        assert caplog.records == []

    def test_other_size(self, tmp_path):
        record, path = self.save(tmp_path, LABELS[:4])
        with pytest.raises(
            ValueError, match=r"label\.png is 4 high and 7 wide, but its image .*image\.png is 5 high and 7 wide"
        ):
            add_annotations([record], [path])


def test_image_record_of_no_image(tmp_path):
    (tmp_path / "image.png").write_bytes(b"\x89PNG")
    with pytest.raises(ValueError, match=r"image\.png cannot be decoded"):
        image_record(tmp_path / "image.png", "an id")
