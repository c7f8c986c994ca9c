"""Images of all kinds become 8-bit BGR."""

import re

import cv2
import numpy as np
import pytest
from PIL import Image

from rec_attend_d2.data.image_io import read_image, stretch_contrast, to_bgr


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (7, 11, 3), dtype=np.uint8)


def test_colour_image_is_bgr(tmp_path, pixels):
    Image.fromarray(pixels).save(tmp_path / "rgb.png")
    np.testing.assert_array_equal(read_image(tmp_path / "rgb.png"), pixels[..., ::-1])


def test_alpha_is_dropped(tmp_path, pixels):
    alpha = np.full((7, 11, 1), 3, dtype=np.uint8)
    Image.fromarray(np.concatenate([pixels, alpha], axis=2)).save(tmp_path / "rgba.png")
    np.testing.assert_array_equal(read_image(tmp_path / "rgba.png"), pixels[..., ::-1])


def test_grayscale_with_alpha(tmp_path, pixels):
    Image.fromarray(pixels[..., :2], mode="LA").save(tmp_path / "la.png")
    np.testing.assert_array_equal(read_image(tmp_path / "la.png"), np.repeat(pixels[..., :1], 3, axis=2))


def test_black_and_white_image(tmp_path, pixels):
    Image.fromarray(pixels[..., 0] > 99).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(read_image(tmp_path / "bits.png")[..., 2], (pixels[..., 0] > 99) * 255)


def test_grayscale_gets_three_equal_channels(tmp_path, pixels):
    Image.fromarray(pixels[..., 0]).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), np.repeat(pixels[..., :1], 3, axis=2))


def test_palette_image_has_its_colours(tmp_path):
    image = Image.new("P", (4, 3), 1)
    image.putpalette([0, 0, 0, 10, 20, 30])
    image.save(tmp_path / "palette.png")
    assert (read_image(tmp_path / "palette.png") == (30, 20, 10)).all()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_16_bit_is_divided(tmp_path, channels):
    image = np.full((5, 6, channels), 257 * 40, dtype=np.uint16)
    image[0, 0] = 65535
    image[0, 1] = 100
    cv2.imwrite(str(tmp_path / "deep.png"), image)
    result = read_image(tmp_path / "deep.png")
    assert result.dtype == np.uint8 and result.shape == (5, 6, 3)
    assert (result[1:] == 40).all() and (result[0, 0] == 255).all() and (result[0, 1] == 0).all()


def test_16_bit_is_stretched_at_full_depth(tmp_path):
    # 200 grey levels that would all become 0 in 8 bit.
    ramp = np.tile(np.arange(200, dtype=np.uint16) // 2, (4, 1))
    cv2.imwrite(str(tmp_path / "dark.png"), ramp)
    assert read_image(tmp_path / "dark.png").max() == 0
    stretched = read_image(tmp_path / "dark.png", (0, 100))[0, :, 0]
    np.testing.assert_array_equal(stretched, np.rint(ramp[0] * 255.0 / 99).astype(np.uint8))


def test_exif_rotation_is_applied(tmp_path):
    image = Image.new("RGB", (40, 20))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").shape == (40, 20, 3)


@pytest.mark.parametrize("channels", [1, 3])
def test_float_image_needs_percentiles(tmp_path, channels):
    values = np.linspace(-1, 1, 50, dtype=np.float32).repeat(channels).reshape(5, 10, channels)
    cv2.imwrite(str(tmp_path / "float.tiff"), values)
    with pytest.raises(ValueError, match=r"float\.tiff.*float32.*INPUT\.CONTRAST_PERCENTILES"):
        read_image(tmp_path / "float.tiff")
    result = read_image(tmp_path / "float.tiff", (0, 100))
    assert result[0, 0, 0] == 0 and result[-1, -1, 0] == 255


def test_missing_image_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.png.*does not exist.*Check"):
        read_image(tmp_path / "nothing.png")


@pytest.mark.parametrize("content", [b"", b"this is no image"])
def test_damaged_image_is_named(tmp_path, content):
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"bad\.png.*cannot be decoded.*restore"):
        read_image(tmp_path / "bad.png")


@pytest.mark.parametrize("kept", [0.5, 0.9])
@pytest.mark.parametrize("ending", ["png", "jpg"])
def test_cut_image_is_named(tmp_path, ending, kept):
    path = tmp_path / f"cut.{ending}"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ValueError, match=rf"cut\.{ending} cannot be decoded.*restore"):
        read_image(path)


def test_stretch_is_alike_for_all_channels():
    image = np.zeros((1, 101, 3), dtype=np.uint8)
    image[0, :, :] = np.arange(101)[:, None]
    image[0, 50] = (10, 50, 75)
    result = stretch_contrast(image, (20, 80)).astype(int)
    grey = 0.114 * 10 + 0.587 * 50 + 0.299 * 75
    low, high = np.percentile(np.r_[np.arange(50), grey, np.arange(51, 101)], [20, 80])
    expected = np.rint(((image - low) * 255 / (high - low)).clip(0, 255))
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_constant_image_stretches_to_a_constant(dtype):
    result = stretch_contrast(np.full((4, 5, 3), 90, dtype=dtype), (1, 99))
    assert (result == 0).all()


def test_few_bright_pixels_on_black_survive_the_stretch():
    image = np.zeros((100, 100, 3), dtype=np.uint8)
    image[3, 4] = 120
    result = stretch_contrast(image, (1, 99))
    assert result[3, 4, 0] == 255 and result.sum() == 3 * 255


@pytest.mark.parametrize("percentiles", [(1,), (99, 1), (-1, 50), (0, 101), (5, 5)])
def test_wrong_percentiles(percentiles):
    with pytest.raises(ValueError, match=r"INPUT\.CONTRAST_PERCENTILES"):
        stretch_contrast(np.zeros((2, 2, 3), dtype=np.uint8), percentiles)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("percentiles", [(), (1, 99)])
@pytest.mark.parametrize("shape", [(7, 11), (7, 11, 1), (7, 11, 3), (7, 11, 4)])
def test_an_array_is_treated_as_its_file(tmp_path, shape, percentiles, dtype):
    image = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype=dtype)
    cv2.imwrite(str(tmp_path / "image.png"), image)
    result = to_bgr(image, percentiles)
    assert result.shape == (7, 11, 3)
    np.testing.assert_array_equal(result, read_image(tmp_path / "image.png", percentiles))


def test_finished_pixels_are_not_copied(pixels):
    assert np.shares_memory(to_bgr(pixels), pixels)


@pytest.mark.parametrize("shape", [(5,), (5, 6, 2), (5, 6, 5), (2, 5, 6, 3), (0, 6, 3)])
def test_arrays_of_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match=rf"frame 3 has the shape {re.escape(str(list(shape)))}.*\[H, W\] \(grey\)"):
        to_bgr(np.zeros(shape, dtype=np.uint8), name="frame 3")
