"""Pictures that are scaled part by part."""

import numpy as np
import pytest
import tifffile

from rec_attend_d2.data import large_images
from rec_attend_d2.data.augmentation import resize_array
from rec_attend_d2.data.image_io import to_bgr
from rec_attend_d2.data.large_images import ScaledImage, map_large_image


def picture(height: int = 120, width: int = 200, dtype: type = np.uint8) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return (100 + 60 * np.sin(y / 9) + 60 * np.cos(x / 7)).astype(dtype)


def test_parts_at_the_files_scale_are_its_pixels():
    image = picture()
    scaled = ScaledImage(image, 1.0)
    assert scaled.shape == (3, 120, 200)
    np.testing.assert_array_equal(scaled[:, 10:50, 30:190].numpy(), np.stack([image[10:50, 30:190]] * 3))


@pytest.mark.parametrize("scale", [0.4, 0.8, 1.7])
def test_parts_of_a_scaled_picture_fit_together(scale):
    image = picture()
    scaled = ScaledImage(image, scale)
    _, height, width = scaled.shape
    whole = resize_array(image, (height, width)).astype(int)
    parts = [
        np.concatenate([scaled[:, y : y + 16, x : x + 16].numpy()[0] for x in range(0, width, 16)], axis=1)
        for y in range(0, height, 16)
    ]
    difference = np.abs(np.concatenate(parts).astype(int) - whole)[2:-2, 2:-2]
    assert difference.mean() <= 3


def test_contrast_is_that_of_the_whole_picture():
    image = picture(dtype=np.uint16) * 40
    scaled = ScaledImage(image, 1.0, (1.0, 99.8))
    expected = to_bgr(image, (1.0, 99.8))
    np.testing.assert_array_equal(scaled[:, 40:80, :60].numpy(), expected[40:80, :60].transpose(2, 0, 1))


def test_only_large_uncompressed_tiffs_of_one_page_are_mapped(tmp_path, monkeypatch):
    image = picture(dtype=np.uint16)
    tifffile.imwrite(tmp_path / "plain.tif", image)
    tifffile.imwrite(tmp_path / "packed.tif", image, compression="zlib")
    tifffile.imwrite(tmp_path / "pages.tif", np.stack([image, image]), photometric="minisblack")
    (tmp_path / "broken.tif").write_bytes(b"II*\0nothing")
    assert map_large_image(tmp_path / "plain.tif") is None  # it is small
    monkeypatch.setattr(large_images, "LARGEST_READ", 1000)
    mapped = map_large_image(tmp_path / "plain.tif")
    assert isinstance(mapped, np.memmap)
    np.testing.assert_array_equal(mapped, image)
    for name in ("packed.tif", "pages.tif", "broken.tif", "plain.png"):
        assert map_large_image(tmp_path / name) is None
