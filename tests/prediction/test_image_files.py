"""Pictures of TIFF stacks and of other files."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from rec_attend_d2.data import large_images
from rec_attend_d2.prediction import image_files
from rec_attend_d2.prediction.image_files import Choice, ImageReader, ImageSource, list_pictures, read_stack
from rec_attend_d2.prediction.pixel_size import PixelSize, read_scale

RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (20, 30), dtype=np.uint8)
COLOR = RANDOM.integers(0, 256, (20, 30, 3), dtype=np.uint8)


def read(path: Path, page: int | None = None, channel: int | None = None) -> image_files.Picture:
    return ImageReader(channel).read(ImageSource(str(path), "label", page))


def listed(*paths: Path, page: int | str | None = None, channel: int | None = None, any_type: bool = True) -> list:
    sources, failures = list_pictures([str(path) for path in paths], Choice(page, channel), any_type, {})
    assert failures == []
    return [(Path(source.file).name, source.label, source.page) for source in sources]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.int32, np.uint32, np.float32, np.float64])
@pytest.mark.parametrize("byteorder", ["<", ">"])
def test_pixels_of_every_type(tmp_path, dtype, byteorder):
    pixels = (GREY.astype(np.float64) * 3 - 50).clip(0 if np.dtype(dtype).kind == "u" else None).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", pixels, byteorder=byteorder, compression="zlib")
    picture = read(tmp_path / "a.tif")
    assert picture.image.dtype.isnative and picture.image.shape == (20, 30)
    np.testing.assert_array_equal(picture.image, pixels)
    np.testing.assert_array_equal(picture.channels, pixels[..., None])


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_where_zero_is_white(tmp_path, options, dtype):
    pixels = GREY.astype(dtype) * (np.iinfo(dtype).max // 255)
    tifffile.imwrite(tmp_path / "one.tif", pixels, photometric="miniswhite", **options)
    tifffile.imwrite(tmp_path / "two.tif", np.stack([pixels, pixels]), photometric="miniswhite", **options)
    for name, page in (("one.tif", None), ("two.tif", 2)):
        np.testing.assert_array_equal(read(tmp_path / name, page).image, np.iinfo(dtype).max - pixels)


def test_colour_is_blue_green_red_for_the_model(tmp_path):
    tifffile.imwrite(tmp_path / "rgb.tif", COLOR, photometric="rgb")
    tifffile.imwrite(tmp_path / "planes.tif", COLOR.transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
    tifffile.imwrite(tmp_path / "pages.tif", np.stack([COLOR * 0, COLOR]), photometric="rgb")
    Image.fromarray(COLOR).save(tmp_path / "a.png")
    for name, page in (("rgb.tif", None), ("planes.tif", None), ("pages.tif", 2), ("a.png", None)):
        picture = read(tmp_path / name, page)
        np.testing.assert_array_equal(picture.image, COLOR[..., ::-1])
        np.testing.assert_array_equal(picture.channels, COLOR)
        np.testing.assert_array_equal(read(tmp_path / name, page, channel=1).image, COLOR[..., 0])
    with pytest.raises(ValueError, match=r"a\.png has 3 channels, so that there is no channel 4"):
        read(tmp_path / "a.png", channel=4)


def test_palettes_and_bits(tmp_path):
    palette = [value for index in range(256) for value in (index, 255 - index, 7)]
    indexed = Image.fromarray(GREY).convert("P")
    indexed.putpalette(palette)
    indexed.save(tmp_path / "palette.tif")
    indexed.save(tmp_path / "pages.tif", save_all=True, append_images=[indexed])
    expected = np.array(palette, np.uint8).reshape(256, 3)[np.asarray(indexed)]
    for name, page in (("palette.tif", None), ("pages.tif", 2)):
        np.testing.assert_array_equal(read(tmp_path / name, page).channels, expected)
    Image.fromarray(GREY > 100).save(tmp_path / "bits.tif")
    np.testing.assert_array_equal(read(tmp_path / "bits.tif").image, (GREY > 100) * np.uint8(255))


def hyperstack() -> np.ndarray:
    return RANDOM.integers(0, 60000, (3, 2, 20, 30), dtype=np.uint16)


@pytest.mark.parametrize(
    "options",
    [
        {"imagej": True, "metadata": {"axes": "TCYX"}},
        {"imagej": True, "metadata": {"axes": "TCYX"}, "compression": "zlib"},
        {"ome": True, "metadata": {"axes": "TCYX"}},
        {"ome": True, "metadata": {"axes": "TCYX"}, "compression": "zlib", "bigtiff": True, "tile": (16, 16)},
    ],
)
def test_time_and_channels(tmp_path, options):
    pixels = hyperstack()
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack", **options)
    stack = read_stack(tmp_path / "a.tif")
    assert (stack.axes, stack.pages, stack.channels, stack.samples) == ("TCYX", 3, 2, 1)
    for page in (1, 3):
        picture = read(tmp_path / "a.tif", page, channel=2)
        np.testing.assert_array_equal(picture.image, pixels[page - 1, 1])
        np.testing.assert_array_equal(picture.channels, pixels[page - 1].transpose(1, 2, 0))
        assert not isinstance(picture.image, np.memmap)


def test_compressions_that_only_opencv_knows(tmp_path):
    first, second = (Image.fromarray(image) for image in (GREY, GREY[::-1].copy()))
    first.save(tmp_path / "a.tif", save_all=True, append_images=[second], compression="tiff_lzw")
    np.testing.assert_array_equal(read(tmp_path / "a.tif", 2).image, GREY[::-1])
    colors = [Image.fromarray(image) for image in (COLOR, COLOR[::-1].copy())]
    colors[0].save(tmp_path / "b.tif", save_all=True, append_images=colors[1:], compression="tiff_lzw")
    np.testing.assert_array_equal(read(tmp_path / "b.tif", 2).channels, COLOR[::-1])


def test_pages_of_several_sizes(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as writer:
        writer.write(GREY, photometric="minisblack")
        writer.write(GREY[:10], photometric="minisblack")
        writer.write(GREY[::4, ::4], photometric="minisblack", subfiletype=1)  # a thumbnail
    assert read_stack(tmp_path / "a.tif").pages == 2
    np.testing.assert_array_equal(read(tmp_path / "a.tif", 2).image, GREY[:10])
    with pytest.raises(ValueError, match="has no page 3"):
        read(tmp_path / "a.tif", 3)


def test_large_pages_stay_in_the_file(tmp_path, monkeypatch):
    for module in (image_files, large_images):
        monkeypatch.setattr(module, "LARGEST_READ", 500)
    pixels = hyperstack()
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack", metadata={"axes": "TCYX"})
    tifffile.imwrite(tmp_path / "b.tif", pixels, photometric="minisblack", metadata={"axes": "TCYX"}, byteorder=">")
    tifffile.imwrite(tmp_path / "c.tif", GREY)
    tifffile.imwrite(tmp_path / "d.tif", GREY, photometric="miniswhite")
    for name, page, mapped in (("a.tif", 2, True), ("b.tif", 2, False), ("c.tif", None, True), ("d.tif", None, False)):
        picture = read(tmp_path / name, page, channel=1)
        assert isinstance(picture.image, np.memmap) == mapped
    np.testing.assert_array_equal(read(tmp_path / "a.tif", 2, channel=1).image, pixels[1, 0])
    np.testing.assert_array_equal(read(tmp_path / "b.tif", 2, channel=1).image, pixels[1, 0])


def test_what_has_to_be_chosen(tmp_path):
    tifffile.imwrite(tmp_path / "plain.tif", GREY)
    tifffile.imwrite(tmp_path / "pages.tif", np.stack([GREY] * 5), photometric="minisblack")
    tifffile.imwrite(tmp_path / "channels.tif", hyperstack()[0], metadata={"axes": "CYX"}, photometric="minisblack")
    tifffile.imwrite(tmp_path / "two.tif", COLOR[..., :2], photometric="minisblack", planarconfig="contig")
    cv2.imwrite(str(tmp_path / "a.png"), GREY)
    plain, pages, channels, two, png = (
        tmp_path / name for name in ("plain.tif", "pages.tif", "channels.tif", "two.tif", "a.png")
    )
    assert listed(plain, png, tmp_path / "missing.png") == [
        *(("plain.tif", "plain", None), ("a.png", "a", None), ("missing.png", "missing", None))
    ]
    assert listed(pages, page=4) == [("pages.tif", "pages_p0004", 4)]
    assert listed(plain, png, pages, page=1)[::2] == [("plain.tif", "plain", None), ("pages.tif", "pages_p0001", 1)]
    for path in (plain, png):
        with pytest.raises(ValueError, match=rf"{path.name} holds 1 page.*: there is no page 4"):
            listed(pages, path, page=4)
    assert len(listed(plain, pages, page="all")) == 6
    assert listed(channels, two, channel=2) == [("channels.tif", "channels", None), ("two.tif", "two", None)]
    for path, option in ((pages, "--page N"), (channels, "--channel N"), (two, "--channel N")):
        with pytest.raises(ValueError, match=rf"{path.name} holds .* Say which to count by {option}"):
            listed(plain, path)
    with pytest.raises(ValueError, match=r"So it is with 1 other file\."):
        listed(pages, channels)
    tifffile.imwrite(tmp_path / "float.tif", GREY.astype(np.float32))
    with pytest.raises(ValueError, match=r"float\.tif has pixels of type float32.*--percentiles"):
        listed(tmp_path / "float.tif", any_type=False)


def test_a_picture_of_no_numbers(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.full((4, 5), np.nan, np.float32))
    with pytest.raises(ValueError, match=r"a\.tif has no pixel that is a number"):
        read(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"imagej": True, "resolution": (4, 2), "metadata": {"unit": "um"}}, PixelSize(0.5, 0.25)),
        ({"imagej": True, "resolution": (4, 4), "metadata": {"unit": "\\u00B5m"}}, PixelSize(0.25, 0.25)),
        ({"imagej": True, "resolution": (2, 2), "metadata": {"unit": "mm"}}, PixelSize(500, 500)),
        ({"imagej": True, "resolution": (2, 2), "metadata": {"unit": "pixel"}}, None),
        ({"ome": True, "metadata": {"PhysicalSizeX": 0.3, "PhysicalSizeY": 0.2}}, PixelSize(0.2, 0.3)),
        ({"ome": True, "metadata": {"PhysicalSizeX": 300, "PhysicalSizeXUnit": "nm"}}, PixelSize(0.3, 0.3)),
        ({"resolution": (300, 300), "resolutionunit": 2}, None),
        ({}, None),
    ],
)
def test_how_large_pixels_are(tmp_path, options, expected):
    tifffile.imwrite(tmp_path / "a.tif", GREY, **options)
    size = read_scale(tmp_path / "a.tif").size
    assert (size is None) == (expected is None)
    if expected is not None:
        assert (size.y, size.x) == pytest.approx((expected.y, expected.x))


def test_the_resolution_of_any_tiff(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", GREY, resolution=(300, 150), resolutionunit=3)
    assert read_scale(tmp_path / "a.tif").resolution == (300, 150, 3)
