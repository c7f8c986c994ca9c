"""Pictures that are too large to be scaled as a whole.

Shapes: `H, W` picture, `h, w` scaled picture; pixels.
"""

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
import torch
from numpy.typing import NDArray
from torch import Tensor

from .image_io import contrast_range, stretch_to, to_bgr
from .windows import WindowTransform

# Pictures of more network pixels are scaled and looked at part by part.
LARGEST_WHOLE = 1536**2
# Files of more pixels are not read as a whole.
LARGEST_READ = 2**26


def map_large_image(path: str | os.PathLike) -> NDArray | None:
    """The pixels of a large TIFF that lie uncompressed in the file, [H, W] or [H, W, 3] RGB turned to BGR, not read.

    None of any other file, of one with less than 67 million pixels, of one with several pages and of one whose pixels
    cannot be taken as they are.
    """
    if Path(path).suffix.lower() not in (".tif", ".tiff"):
        return None
    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages.first
            if len(file.pages) != 1 or math.prod(page.shape[:2]) < LARGEST_READ or not page.is_memmappable:
                return None
            is_native = page.dtype is not None and page.dtype.newbyteorder(file.byteorder).isnative
            # The pixels of others are to be changed: inverted, looked up, turned to this machine's order of bytes.
            if not is_native or page.photometric in (tifffile.PHOTOMETRIC.MINISWHITE, tifffile.PHOTOMETRIC.PALETTE):
                return None
        pixels = tifffile.memmap(path, mode="r")
    except (tifffile.TiffFileError, OSError, ValueError, IndexError):  # another reader says what is wrong with it
        return None
    return pixels[..., 2::-1] if pixels.ndim == 3 else pixels


class ScaledImage:
    """A picture that is stretched and scaled where and when a part of it is asked for.

    ``image[:, top:bottom, left:right]`` is that part of the scaled picture, uint8 [3, ., .] BGR.

    Attributes:
        shape: (3, h, w).
    """

    def __init__(self, image: NDArray, scale: float, contrast_percentiles: tuple[float, ...] = ()):
        """
        Args:
            image: [H, W], [H, W, 3] BGR or [H, W, 4] BGRA, also mapped from a file.
            scale: scaled pixels per pixel.
            contrast_percentiles: of the whole picture's grey values that become 0 and 255; empty = they stay.
        """
        self._image = image
        self._range = None
        if contrast_percentiles:
            self._range = contrast_range(image[..., None] if image.ndim == 2 else image[..., :3], contrast_percentiles)
        self.shape = (3, *(max(1, round(length * scale)) for length in image.shape[:2]))

    def __getitem__(self, key: tuple[Any, slice, slice]) -> Tensor:
        _, rows, columns = key
        top, bottom, _ = rows.indices(self.shape[1])
        left, right, _ = columns.indices(self.shape[2])
        height, width = self._image.shape[:2]
        # From scaled pixels to the picture's, whose sides need not have the same ratio.
        down, across = height / self.shape[1], width / self.shape[2]
        pixels = WindowTransform(
            ((left + right) / 2 * across, (top + bottom) / 2 * down),
            (1 / across, 1 / down),
            (bottom - top, right - left),
        ).apply_image(self._image)
        if self._range is not None:
            pixels = stretch_to(pixels, *self._range)
        return torch.from_numpy(np.ascontiguousarray(to_bgr(pixels).transpose(2, 0, 1)))
