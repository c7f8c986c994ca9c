"""Reads the images of a data set as 8-bit BGR, whatever their depth and number of channels.

Shapes: `H, W` image size in pixels.
"""

import os
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

# Highest 16-bit value / highest 8-bit value.
_DEPTH_RATIO = 257


def read_image(path: str | os.PathLike, contrast_percentiles: Sequence[float] = ()) -> NDArray[np.uint8]:
    """Read an image file.

    A grayscale image gets three equal channels, an alpha channel is dropped and an EXIF orientation is applied.

    Args:
        path: any format OpenCV reads.
        contrast_percentiles: see :func:`stretch_contrast`, applied at the file's full depth; empty = no stretch: 8-bit
            values stay as they are and 16-bit values are divided by 257.

    Returns:
        [H, W, 3] BGR, 0 to 255.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no image, or its pixels are neither 8 nor 16 bit and no percentiles are given.
    """
    return to_bgr(decode_image(path), contrast_percentiles, f"Image {os.fspath(path)}")


def to_bgr(image: NDArray, contrast_percentiles: Sequence[float] = (), name: str = "The image") -> NDArray[np.uint8]:
    """Pixels of any depth and number of channels as :func:`read_image` gives them.

    Args:
        image: grey [H, W] or [H, W, 1], BGR [H, W, 3] or BGRA [H, W, 4].
        contrast_percentiles: as for :func:`read_image`.
        name: of the image, for errors.

    Returns:
        [H, W, 3] BGR, 0 to 255; ``image`` itself where that is what it is.

    Raises:
        ValueError: another shape, or pixels that are neither 8 nor 16 bit while no percentiles are given.
    """
    channels = image[..., None] if image.ndim == 2 else image
    if channels.ndim != 3 or channels.shape[2] not in (1, 3, 4) or channels.size == 0:
        raise ValueError(
            f"{name} has the shape {list(image.shape)}. Give [H, W] (grey), [H, W, 3] (BGR) or [H, W, 4] (BGRA)."
        )
    color = np.repeat(channels, 3, axis=2) if channels.shape[2] == 1 else channels[..., :3]
    if len(contrast_percentiles) > 0:
        return stretch_contrast(color, contrast_percentiles)
    if color.dtype == np.uint8:
        return color.astype(np.uint8, copy=False)
    if color.dtype == np.uint16:
        return np.rint(color.astype(np.float32) / _DEPTH_RATIO).astype(np.uint8)
    raise ValueError(
        f"{name} has {color.dtype} pixels, whose range is unknown. Set INPUT.CONTRAST_PERCENTILES, for example to "
        "[0.1, 99.9], or convert it to 8 or 16 bit."
    )


def decode_image(path: str | os.PathLike) -> NDArray:
    """The pixels of an image file at its own depth: [H, W] or [H, W, 3] BGR, turned as its EXIF orientation says.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no image.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"Image {os.fspath(path)} does not exist. Check the image folder and the file names of the annotations."
        )
    data = np.fromfile(path, dtype=np.uint8)
    image = _decode(data) if data.size else None
    if image is None:
        raise ValueError(
            f"Image {os.fspath(path)} cannot be decoded. The file is damaged or of a format OpenCV does not read; "
            "restore it, or convert it to PNG."
        )
    return image


def _decode(data: NDArray[np.uint8]) -> NDArray | None:
    """Pixels [H, W] or [H, W, 3] BGR of an image file's bytes; None where OpenCV cannot read them."""
    try:
        # Not IMREAD_COLOR: OpenCV refuses to make three channels of a TIFF of floats itself.
        return cv2.imdecode(data, cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR)
    except cv2.error:  # a header that promises more pixels than OpenCV takes
        return None


def stretch_contrast(image: NDArray, percentiles: Sequence[float]) -> NDArray[np.uint8]:
    """Map two percentiles of the grey values to 0 and 255, linearly and alike for all channels.

    Args:
        image: [H, W, 3] BGR of any real type.
        percentiles: low and high, 0 to 100.

    Returns:
        [H, W, 3]; values beyond the percentiles are clipped. Where both percentiles are the same grey value, pixels
        up to it become 0, and brighter ones are stretched as if the percentiles were one grey level apart.

    Raises:
        ValueError: percentiles that are not two increasing numbers between 0 and 100.
    """
    check_percentiles(percentiles)
    values = image.astype(np.float32)
    grey = cv2.cvtColor(values, cv2.COLOR_BGR2GRAY)
    low, high = np.nanpercentile(grey, percentiles)
    smallest_range = 1.0 if np.issubdtype(image.dtype, np.integer) else float(np.finfo(np.float32).tiny)
    stretched = (values - low) * (255.0 / max(high - low, smallest_range))
    return np.rint(np.nan_to_num(stretched).clip(0, 255)).astype(np.uint8)


def check_percentiles(percentiles: Sequence[float]) -> None:
    """Raise a ValueError unless ``percentiles`` are two increasing numbers between 0 and 100."""
    if len(percentiles) != 2 or not 0 <= percentiles[0] < percentiles[1] <= 100:
        raise ValueError(
            f"INPUT.CONTRAST_PERCENTILES is {list(percentiles)}. Give a low and a high percentile, such as "
            "[0.1, 99.9], or [] for no stretch."
        )
