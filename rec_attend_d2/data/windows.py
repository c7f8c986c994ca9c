"""Windows of scaled pictures: what the fast model is trained on.

Picture and annotations go from the file to the window's pixels in one step. Objects are a label image, which costs the
same however many there are. Coordinates are (x, y) in pixels, where the centre of the first pixel is (0.5, 0.5).
Shapes: `H, W` picture, `S` side of a window.
"""

import math

import cv2
import numpy as np
from detectron2.data import transforms as T
from numpy.typing import NDArray

from .warps import ELASTIC, LOG_SCALE, WARP_SHARE, elastic_displacement

# Label of pixels that count as claimed from the start: outside the picture, crowds, and what a window cuts off too much
# of an object to be known.
CLAIMED = -1
# Where a picture is shrunk by more than this factor its pixels are averaged, so that none is left out.
_LARGEST_SKIP = 1.3
# How far a window may reach beyond a larger picture, as share of its side: the border is to be learned too.
_BEYOND = 0.125


class WindowTransform(T.Transform):
    """Scales, turns and bends a picture about a point of it and cuts out a window around that point."""

    def __init__(
        self,
        center: tuple[float, float],
        scale: tuple[float, float],
        size: tuple[int, int],
        angle: float = 0.0,
        displacement: NDArray[np.float32] | None = None,
    ):
        """
        Args:
            center: (x, y) of the picture that comes to lie in the window's centre.
            scale: window pixels per pixel of the picture, along x and y; alike where it is turned.
            size: (rows, columns) of the window.
            angle: in degrees, from the x axis towards the y axis.
            displacement: [rows, columns, 2] as (x, y), how far each pixel of the window looks away from itself.
        """
        super().__init__()
        self.size = size
        self.scale = scale
        cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        # From the window to the picture.
        self._matrix = np.array([[cos, sin], [-sin, cos]]) / np.array(scale)[:, None]
        self._offset = np.array(center) - self._matrix @ np.array(size[::-1]) / 2
        self._displacement = displacement

    def _footprint(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Rows and columns (y0, y1, x0, x1) of a picture of ``size`` (H, W) that the window can show."""
        reach = 2.0 if self._displacement is None else 2.0 + float(np.abs(self._displacement).max())
        axes = [(-reach, length + reach) for length in self.size[::-1]]
        corners = np.stack(np.meshgrid(*axes), axis=-1).reshape(-1, 2) @ self._matrix.T + self._offset
        # Where the picture is enlarged, the pixel beside may lie farther than the reach.
        low, high = np.floor(corners.min(0)).astype(int) - 1, np.ceil(corners.max(0)).astype(int) + 1
        (x0, y0), (x1, y1) = (np.clip(corner, 0, size[::-1]).tolist() for corner in (low, high))
        return y0, max(y1, y0), x0, max(x1, x0)

    def _sample(self, part: NDArray, origin: NDArray, pitch: NDArray, flags: int, fill: float) -> NDArray:
        """The window's pixels, of a part of the picture whose pixels lie at origin + pitch * place."""
        # OpenCV counts from the centre of the first pixel.
        matrix = self._matrix / pitch[:, None]
        offset = (self._offset - origin) / pitch - 0.5 + matrix @ [0.5, 0.5]
        if self._displacement is None:
            return cv2.warpAffine(
                part,
                np.column_stack([matrix, offset]),
                self.size[::-1],
                flags=flags | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_CONSTANT,
                borderValue=(fill,) * 4,
            )
        columns, rows = (np.arange(length, dtype=np.float32) for length in self.size[::-1])
        place = np.stack(np.meshgrid(columns, rows), axis=-1) + self._displacement
        x, y = np.moveaxis((place @ matrix.T + offset).astype(np.float32), -1, 0)
        return cv2.remap(part, x, y, flags, borderMode=cv2.BORDER_CONSTANT, borderValue=(fill,) * 4)

    def apply_image(self, img: NDArray) -> NDArray:
        """[H, W] or [H, W, C] to the window's size; what lies outside is 0."""
        y0, y1, x0, x1 = self._footprint(img.shape[:2])
        part, pitch = np.ascontiguousarray(img[y0:y1, x0:x1]), np.ones(2)
        if part.size == 0:
            return np.zeros((*self.size, *img.shape[2:]), img.dtype)
        if max(self.scale) * _LARGEST_SKIP < 1:
            width, height = (
                max(1, round(length * factor)) for length, factor in zip((x1 - x0, y1 - y0), self.scale, strict=True)
            )
            pitch = np.array([(x1 - x0) / width, (y1 - y0) / height])
            part = cv2.resize(part, (width, height), interpolation=cv2.INTER_AREA)
        return self._sample(part, np.array([x0, y0]), pitch, cv2.INTER_LINEAR, 0)

    def apply_segmentation(self, segmentation: NDArray) -> NDArray:
        """Label image [H, W], int32, to the window's size; what lies outside is CLAIMED."""
        y0, y1, x0, x1 = self._footprint(segmentation.shape[:2])
        # OpenCV cuts no int32; float32 tells 16 million objects apart.
        part = segmentation[y0:y1, x0:x1].astype(np.float32)
        if part.size == 0:
            return np.full(self.size, CLAIMED, segmentation.dtype)
        window = self._sample(part, np.array([x0, y0]), np.ones(2), cv2.INTER_NEAREST, CLAIMED)
        return window.astype(segmentation.dtype)

    def apply_coords(self, coords: NDArray) -> NDArray:
        """Points [N, 2] as (x, y), before the displacement."""
        return (coords - self._offset) @ np.linalg.inv(self._matrix).T


class RandomWindow(T.Augmentation):
    """A window at a random place of a picture; with ``rotation`` also turned, scaled and bent at random."""

    def __init__(self, side: int, scale: float, rotation: float | None = None):
        """
        Args:
            side: S.
            scale: window pixels per pixel of the picture.
            rotation: largest angle in degrees, either way; None = the picture is only scaled, always alike.
        """
        super().__init__()
        self.side = side
        self.scale = scale
        self.rotation = rotation

    def get_transform(self, image: NDArray) -> WindowTransform:
        """A window of ``image`` [H, W, C] drawn at random."""
        scale, angle, displacement = self.scale, 0.0, None
        if self.rotation is not None and self._rand_range() < WARP_SHARE:
            scale *= math.exp(np.random.uniform(-LOG_SCALE, LOG_SCALE))
            angle = np.random.uniform(-self.rotation, self.rotation)
            displacement = elastic_displacement((self.side, self.side), ELASTIC)
        center = [self._place(length * scale) / scale for length in (image.shape[1], image.shape[0])]
        return WindowTransform((center[0], center[1]), (scale, scale), (self.side, self.side), angle, displacement)

    def _place(self, length: float) -> float:
        """Centre of the window on an axis of the scaled picture."""
        beyond = _BEYOND * self.side
        low, high = self.side / 2, length - self.side / 2
        if length <= self.side:  # all of it stays in the window
            return np.random.uniform(high, low)
        return np.random.uniform(low - beyond, high + beyond)


class CentralWindow(T.Augmentation):
    """The window in the middle of a picture: the same each time, for the loss of validation pictures."""

    def __init__(self, side: int, scale: float):
        """
        Args:
            side: S.
            scale: window pixels per pixel of the picture.
        """
        super().__init__()
        self.side = side
        self.scale = scale

    def get_transform(self, image: NDArray) -> WindowTransform:
        """The window of ``image`` [H, W, C]."""
        center = (image.shape[1] / 2, image.shape[0] / 2)
        return WindowTransform(center, (self.scale, self.scale), (self.side, self.side))
