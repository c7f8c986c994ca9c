"""Reads the pixels of label files as the numbers that were stored, whatever the format makes of them for the eye.

Shapes: `H, W` image size in pixels, `C` channels.
"""

from pathlib import Path

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

_TIFF_MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PNG_MARK = b"\x89PNG\r\n\x1a\n"
# Mode of a TIFF's pixels by the samples of each.
_MODES = {1: "I", 2: "LA", 3: "RGB", 4: "RGBA"}


def read_pixels(path: Path) -> tuple[str, NDArray]:
    """Pillow's mode of an image file ("I" of TIFFs with one number for each pixel), and its pixels as they are.

    Neither a palette nor "0 is white" changes numbers, and nothing is brought to 8 bits.

    Returns:
        The mode and [H, W] or [H, W, C].

    Raises:
        ValueError: the file is damaged or no image, or has several pages; the message names it.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(26)
        if head[:4] in _TIFF_MARKS:
            return _read_tiff(path)
        with Image.open(path) as image:
            pages = getattr(image, "n_frames", 1)
            mode, pixels = image.mode, np.asarray(image)
    except (OSError, SyntaxError) as error:  # Pillow raises SyntaxError for some broken PNG files.
        raise undecodable(path, error) from error
    except (Image.DecompressionBombError, tifffile.TiffFileError) as error:
        raise undecodable(path, error) from error
    _check_pages(path, pages)
    if head[:8] == _PNG_MARK and head[24] == 16 and pixels.ndim == 3:
        # Pillow halves the bits of colours, OpenCV turns their order.
        deep = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if deep is None:
            raise undecodable(path, "16 bits a channel")
        order = [2, 1, 0, 3] if deep.shape[2] == 4 else [2, 1, 0]
        pixels = deep[..., order]
        if mode == "LA":
            pixels = pixels[..., [0, 3]]
    return mode, pixels


def undecodable(path: Path, error: object) -> ValueError:
    """The error of a file that is damaged or no image."""
    return ValueError(f"Image {path} cannot be decoded ({error}). The file is damaged or no image; restore it.")


def _check_pages(path: Path, pages: int) -> None:
    if pages > 1:
        raise ValueError(f"Image {path} has {pages} pages, of which one can be used. Save each in a file of its own.")


def _read_tiff(path: Path) -> tuple[str, NDArray]:
    try:
        with tifffile.TiffFile(path) as file:
            pages = [page for page in file.pages if not getattr(page, "is_reduced", False)]
            _check_pages(path, len(pages))
            page = file.pages.first
            try:
                pixels = page.asarray()
            except (ValueError, NotImplementedError):  # a compression that needs a package beside tifffile
                return _read_compressed(path, page.photometric == tifffile.PHOTOMETRIC.MINISWHITE)
            if page.axes.startswith("S"):
                pixels = np.moveaxis(pixels, 0, 2)
    except (tifffile.TiffFileError, IndexError, KeyError, TypeError) as error:
        raise undecodable(path, error) from error
    pixels = pixels.squeeze(2) if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels
    samples = pixels.shape[2] if pixels.ndim == 3 else 1
    if pixels.ndim not in (2, 3) or samples not in _MODES:
        raise ValueError(
            f"Label image {path} is an array of shape {list(pixels.shape)}. Save [height, width] with a number for "
            "each object, or with colours."
        )
    return _MODES[samples], pixels


def _read_compressed(path: Path, white_is_zero: bool) -> tuple[str, NDArray]:
    try:
        with Image.open(path) as image:
            mode, pixels = image.mode, np.asarray(image)
    except (OSError, SyntaxError) as error:
        raise undecodable(path, f"{error}; or save it without compression") from error
    # Pillow inverts 8 bits and leaves others.
    return mode, ~pixels if white_is_zero and mode in ("1", "L") else pixels


def whole_numbers(pixels: NDArray, path: Path) -> NDArray:
    """Pixels [H, W] of any type as integers of 64 bits.

    Raises:
        ValueError: some are no whole numbers; names ``path``.
    """
    if pixels.dtype.kind == "f":
        broken = pixels[~np.isfinite(pixels) | (pixels != np.round(pixels))]
        if broken.size:
            raise ValueError(
                f"Label image {path} has {broken.size} pixels that are no whole numbers, such as {broken[0]:g}. Save "
                "the numbers of the objects, not probabilities, and without smoothing."
            )
    elif pixels.dtype.kind not in "iub":
        raise ValueError(f"Label image {path} has {pixels.dtype} pixels. Save whole numbers of up to 32 bits.")
    elif pixels.dtype == np.uint64 and pixels.max(initial=0) > np.iinfo(np.int64).max:
        # As signed numbers they are others, but distinct ones.
        return pixels.view(np.int64).copy() if pixels.dtype.isnative else pixels.astype("=u8").view(np.int64)
    return pixels.astype(np.int64)
