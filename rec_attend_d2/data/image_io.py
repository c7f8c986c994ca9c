"""Reads the images of a data set as 8-bit BGR, whatever their depth and number of channels.

Shapes: `H, W` image size in pixels.
"""

import io
import math
import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageOps

# Highest 16-bit value / highest 8-bit value.
_DEPTH_RATIO = 257
# A picture is dark that has almost no pixel in the upper seven eighths of its range: 12 of 16 bits are a sixteenth.
_DARK, _BRIGHT_SHARE = 0.125, 1e-4
# Of contrast_range: the floor, the pixels that are looked at, and rows of the bands that they lie in.
_NOISE_DEVIATIONS, _SAMPLED, _BAND = 20.0, 2**24, 64
_LAPLACIANS = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)


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
    if len(contrast_percentiles) > 0:
        channels = stretch_contrast(channels[..., :3], contrast_percentiles)
    color = np.repeat(channels, 3, axis=2) if channels.shape[2] == 1 else channels[..., :3]
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
        image = cv2.imdecode(data, cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR)
    except cv2.error:  # a header that promises more pixels than OpenCV takes
        return None
    # Where 0 is white OpenCV inverts 8 bits and forgets the others.
    if image is not None and image.dtype == np.uint16 and _is_white_zero(data):
        return np.iinfo(np.uint16).max - image
    return image


def _is_white_zero(data: NDArray[np.uint8]) -> bool:
    """Whether a file's bytes are a TIFF in which 0 is white and the highest value black."""
    if data[:2].tobytes() not in (b"II", b"MM"):
        return False
    try:
        with tifffile.TiffFile(io.BytesIO(data.tobytes())) as file:
            return file.pages.first.photometric == tifffile.PHOTOMETRIC.MINISWHITE
    except (tifffile.TiffFileError, ValueError):
        return False


def pillow_pixels(image: Image.Image) -> NDArray:
    """The pixels of a Pillow image as :func:`to_bgr` takes them, turned as its EXIF orientation says."""
    image = ImageOps.exif_transpose(image)
    if image.mode in ("L", "I;16", "I;16B", "I", "F"):
        return np.asarray(image)
    if image.mode == "1":
        return np.asarray(image.convert("L"))
    return np.ascontiguousarray(np.asarray(image.convert("RGB"))[..., ::-1])


def is_dark(image: NDArray) -> bool:
    """Whether pixels of 8 or 16 bits use less than an eighth of their range, as those of a camera of 12 bits do."""
    if image.dtype not in (np.uint8, np.uint16):
        return False
    sample = _sample(image)
    bright = int(np.count_nonzero(sample >= _DARK * (np.iinfo(image.dtype).max + 1)))
    return bright <= _BRIGHT_SHARE * sample.size


def dark_note(image: NDArray, contrast_percentiles: Sequence[float]) -> tuple[str, ...]:
    """What a reader of results has to know of a picture that the model sees nearly, but not entirely, black."""
    if len(contrast_percentiles) > 0 or not is_dark(image) or not image.any():
        return ()
    return ("the picture is nearly black: if it has 12 bits or is dim, set INPUT.CONTRAST_PERCENTILES [0.1, 99.9]",)


def count_pages(path: str | os.PathLike) -> int:
    """Pictures of an image file: pages of a TIFF but for smaller copies, frames of an animation. 1 where unknown."""
    try:
        if Path(path).suffix.lower() in (".tif", ".tiff"):
            with tifffile.TiffFile(path) as file:
                return max(1, sum(not getattr(page, "is_reduced", False) for page in file.pages))
        with Image.open(path) as image:
            # The further pictures of a camera's file are previews.
            return 1 if image.format == "MPO" else getattr(image, "n_frames", 1)
    except Exception:  # of any kind: decoding says what is wrong with the file
        return 1


def stretch_contrast(image: NDArray, percentiles: Sequence[float]) -> NDArray[np.uint8]:
    """Map two percentiles of the grey values to 0 and 255, linearly and alike for all channels.

    Args:
        image: [H, W, C] BGR or grey, of any real type.
        percentiles: low and high, 0 to 100.

    Returns:
        [H, W, C]; values beyond the range of :func:`contrast_range` are clipped.

    Raises:
        ValueError: percentiles that are not two increasing numbers between 0 and 100.
    """
    return stretch_to(image, *contrast_range(image, percentiles))


def stretch_to(image: NDArray, low: float, high: float) -> NDArray[np.uint8]:
    """Map ``low`` and ``high`` to 0 and 255 and clip; no number becomes 0."""
    if image.dtype == np.uint8:
        table = np.rint((np.arange(256, dtype=np.float32) - low) * (255.0 / (high - low))).clip(0, 255)
        return np.asarray(cv2.LUT(np.ascontiguousarray(image), table.astype(np.uint8)), np.uint8).reshape(image.shape)
    stretched = (image.astype(np.float32) - np.float32(low)) * np.float32(255.0 / (high - low))
    return np.rint(np.nan_to_num(stretched).clip(0, 255)).astype(np.uint8)


def contrast_range(image: NDArray, percentiles: Sequence[float]) -> tuple[float, float]:
    """Two percentiles of the grey values, but at least as far apart as 20 standard deviations of the pixels' noise.

    The floor keeps the noise of a picture without objects dark, which a stretch would make as bright as objects: of
    real pictures of cells the percentiles are 25 deviations apart at least, of noise alone 5.

    Args:
        image: [H, W, C] BGR or grey, of any real type; of more than 16 million pixels a part spread evenly is looked
            at. Pixels that are no number or infinite do not count.
        percentiles: low and high, 0 to 100.

    Returns:
        Low and high value. Never equal: at least one grey level apart, of floats one step of float32.

    Raises:
        ValueError: percentiles that are not two increasing numbers between 0 and 100.
    """
    check_percentiles(percentiles)
    values = _sample(image).astype(np.float32)
    grey = np.asarray(cv2.cvtColor(values, cv2.COLOR_BGR2GRAY), np.float32) if values.shape[2] == 3 else values[..., 0]
    if np.issubdtype(image.dtype, np.floating):
        grey = np.where(np.isfinite(grey), grey, np.float32(np.nan))
        if np.isnan(grey).all():
            return 0.0, 1.0
    low, high = (float(value) for value in np.nanpercentile(grey, percentiles))
    smallest = 1.0 if np.issubdtype(image.dtype, np.integer) else max(1e-30, float(np.spacing(np.float32(abs(low)))))
    return low, low + max(high - low, smallest, _NOISE_DEVIATIONS * pixel_noise(grey))


def _sample(image: NDArray) -> NDArray:
    """Bands of rows, spread evenly, of an image with more than _SAMPLED pixels; else all of it."""
    rows, columns = image.shape[:2]
    if rows * columns <= _SAMPLED:
        return image
    bands = max(1, min(rows // 2, _SAMPLED // (_BAND * columns)))
    height = max(1, min(_BAND, rows // bands))
    starts = np.linspace(0, rows - height, bands).astype(int)
    return np.concatenate([image[start : start + height] for start in starts])


def pixel_noise(grey: NDArray[np.float32]) -> float:
    """Standard deviation of the noise of single pixels of [H, W]: what a difference of Laplacians leaves of structure.

    J. Immerkaer, "Fast noise variance estimation", Computer Vision and Image Understanding 64 (1996).
    """
    response = cv2.filter2D(np.nan_to_num(grey), -1, _LAPLACIANS, borderType=cv2.BORDER_REFLECT_101)
    return float(np.abs(response).mean()) * math.sqrt(math.pi / 2) / 6


def check_percentiles(percentiles: Sequence[float]) -> None:
    """Raise a ValueError unless ``percentiles`` are two increasing numbers between 0 and 100."""
    if len(percentiles) != 2 or not 0 <= percentiles[0] < percentiles[1] <= 100:
        raise ValueError(
            f"INPUT.CONTRAST_PERCENTILES is {list(percentiles)}. Give a low and a high percentile, such as "
            "[0.1, 99.9], or [] for no stretch."
        )
