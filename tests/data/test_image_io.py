"""Images of all kinds become 8-bit BGR."""

import re

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from rec_attend_d2.data import image_io
from rec_attend_d2.data.image_io import (
    contrast_range,
    decode_image,
    pixel_noise,
    read_image,
    stretch_contrast,
    to_bgr,
)


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
@pytest.mark.parametrize("value", [0, 90])
def test_constant_image_stretches_to_a_constant(dtype, value):
    result = stretch_contrast(np.full((4, 5, 3), value, dtype=dtype), (1, 99))
    assert (result == 0).all()


def test_few_bright_pixels_on_black_survive_the_stretch():
    image = np.zeros((100, 100, 3), dtype=np.uint8)
    image[3, 4] = 120
    result = stretch_contrast(image, (1, 99))
    assert result[3, 4, 0] == 255 and result.sum() == 3 * 255


# ---------------------------------------------------------------- the floor of the stretch


def noise(deviation: float, size: tuple[int, int] = (256, 256), seed: int = 0) -> np.ndarray:
    """Gaussian noise [H, W] about 40."""
    return (40 + deviation * np.random.default_rng(seed).standard_normal(size)).astype(np.float32)


def discs(deviation: float) -> np.ndarray:
    """Bright discs of 100 above the ground, blurred as a microscope does, with noise."""
    picture = np.zeros((256, 256), np.float32)
    for number in range(30):
        cv2.circle(picture, (20 + 43 * (number % 6), 20 + 50 * (number // 6)), 10, 100, -1)
    return cv2.GaussianBlur(picture, (0, 0), 1.5) + noise(deviation)


def as_depth(grey: np.ndarray, dtype: type) -> np.ndarray:
    """[H, W, 3] with the values of ``grey``, of 16 bit 100 times as high."""
    values = grey if dtype == np.float32 else np.rint(grey * (100 if dtype == np.uint16 else 1)).clip(0)
    return np.repeat(values.astype(dtype)[..., None], 3, axis=2)


@pytest.mark.parametrize("deviation", [0.5, 2.0, 8.0])
def test_the_noise_of_pixels_is_measured_beside_structure(deviation):
    assert pixel_noise(noise(deviation)) == pytest.approx(deviation, rel=0.03)
    assert pixel_noise(discs(deviation)) == pytest.approx(deviation, rel=0.2)
    ramp = np.add.outer(np.arange(256), 0.3 * np.arange(256)).astype(np.float32)
    assert pixel_noise(ramp) < 1e-3


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_noise_alone_stays_dark(dtype):
    stretched = stretch_contrast(as_depth(noise(4.0), dtype), (0.1, 99.9))
    # 255 are 20 deviations, and the lowest value lies 3 below the mean.
    assert stretched.std() == pytest.approx(255 / 20, rel=0.1) and stretched.max() < 255 * 0.4


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_the_noise_does_not_change_the_stretch_of_objects(dtype):
    image = as_depth(discs(3.0), dtype)
    low, high = contrast_range(image, (0.1, 99.9))
    np.testing.assert_allclose((low, high), np.percentile(image[..., 0], (0.1, 99.9)), rtol=1e-4)
    assert (stretch_contrast(image, (0.1, 99.9)) > 200).mean() > 0.08


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_a_gradient_is_stretched_as_without_a_floor(dtype):
    image = as_depth(np.tile(np.linspace(20, 220, 256), (64, 1)), dtype)
    np.testing.assert_allclose(contrast_range(image, (1, 99)), np.percentile(image[..., 0], (1, 99)), rtol=1e-4)


def test_hot_pixels_do_not_raise_the_noise():
    image = as_depth(noise(4.0), np.uint8)
    image[::50, ::50] = 255  # 36 pixels
    low, high = contrast_range(image, (0.1, 99.9))
    assert high - low == pytest.approx(80, rel=0.15)
    assert (stretch_contrast(image, (0.1, 99.9))[::50, ::50] == 255).all()


def test_of_a_large_picture_bands_are_looked_at(monkeypatch):
    image = as_depth(discs(3.0), np.uint8)
    whole = contrast_range(image, (1, 99))
    monkeypatch.setattr(image_io, "_SAMPLED", 64 * 256)
    monkeypatch.setattr(image_io, "_BAND", 4)
    np.testing.assert_allclose(contrast_range(image, (1, 99)), whole, atol=8)
    for shape in [(1, 70_000), (70_000, 1), (2, 40_000), (3, 9_000)]:
        low, high = contrast_range(np.tile(np.uint8(90), (*shape, 3)), (1, 99))
        assert (low, high) == (90, 91)


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


def test_infinite_pixels_do_not_count():
    pixels = np.linspace(0, 1, 400, dtype=np.float32).reshape(20, 20)
    expected = stretch_contrast(pixels[..., None], (0, 100))
    pixels[0, 0], pixels[19, 19], pixels[10, 10] = np.nan, np.inf, -np.inf
    stretched = stretch_contrast(pixels[..., None], (0, 100))
    assert (stretched[0, 0], stretched[19, 19], stretched[10, 10]) == (0, 255, 0)
    assert np.abs(stretched.astype(int) - expected)[1:9].max() <= 2
    assert stretch_contrast(np.full((4, 5, 1), np.nan, np.float32), (0, 100)).max() == 0


@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"byteorder": ">"}])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_where_zero_is_white(tmp_path, dtype, options):
    pixels = np.arange(12, dtype=dtype).reshape(3, 4)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="miniswhite", **options)
    np.testing.assert_array_equal(decode_image(tmp_path / "a.tif"), np.iinfo(dtype).max - pixels)
