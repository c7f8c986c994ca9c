"""The smooth warp of image and masks behind RandomWarp.

Coordinates are (x, y) in pixels, where the centre of the first pixel is (0.5, 0.5). Shapes: `H, W` image size.
"""

import math
from collections.abc import Sequence

import cv2
import numpy as np
from detectron2.data import transforms as T
from numpy.typing import NDArray
from scipy.ndimage import map_coordinates

# Nodes of the coarse grid, on which a random field is drawn, per sigma of its Gaussian filter.
_NODES_PER_SIGMA = 2.5
_FILTER_RADIUS = 8
# Sigma of the elastic field in pixels; larger where displacements are, so that the picture does not fold.
_SMALLEST_SIGMA = 10.0
_SIGMA_PER_DISPLACEMENT = 4.0
# Share of the area it would have in an endless image that an object has to keep; less shows too little to learn from.
SMALLEST_SHARE = 0.2
# Of RandomWarp, whatever is warped: the share of pictures that change, the largest logarithm of the scale and the
# standard deviation of the displacements in pixels. They were not tuned (docs/ablation.md).
WARP_SHARE, LOG_SCALE, ELASTIC = 0.7, 0.25, 1.5
# Steps to invert the elastic field; each makes the error several times smaller.
_ITERATIONS = 5
# Value of a pixel inside a mask while it is interpolated, so that half of it is a whole number.
_INSIDE = 254


class WarpTransform(T.Transform):
    """Rotates and scales about the centre of the image, shifts and displaces, in one interpolation.

    What enters has no objects: masks get 0 and the image the median of its outermost pixels, by channel, which is the
    background of most images. (Reflecting the image would show objects twice, which the masks would have to follow.)
    """

    def __init__(
        self,
        size: tuple[int, int],
        *,
        angle: float = 0.0,
        scale: float = 1.0,
        shift: tuple[float, float] = (0.0, 0.0),
        displacement: NDArray[np.float32] | None = None,
    ):
        """
        Args:
            size: (H, W).
            angle: in degrees, from the x axis towards the y axis.
            scale: factor of lengths.
            shift: (x, y) in pixels.
            displacement: [H, W, 2] as (x, y) in pixels: how far each pixel looks away from itself, in the rotated,
                scaled and shifted image.
        """
        super().__init__()
        self.scale = scale
        self.displacement = displacement
        cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        self._matrix = scale * np.array([[cos, -sin], [sin, cos]])
        self._from = np.array([size[1], size[0]]) / 2
        self._to = self._from + shift
        self._reach = 0.0 if displacement is None else float(np.abs(displacement).max())
        # Fixed point: made once, used for the image and every mask.
        self._maps = cv2.convertMaps(*self._source_maps(size), cv2.CV_16SC2)

    def _source_maps(self, size: tuple[int, int]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Column and row, [H, W] each, that every pixel is taken from; 0 is the centre of the first one."""
        xs = np.arange(size[1], dtype=np.float32) + np.float32(0.5 - self._to[0])
        ys = np.arange(size[0], dtype=np.float32)[:, None] + np.float32(0.5 - self._to[1])
        if self.displacement is not None:
            xs, ys = xs + self.displacement[..., 0], ys + self.displacement[..., 1]
        inverse = np.linalg.inv(self._matrix).astype(np.float32)
        offset = (self._from - 0.5).astype(np.float32)
        return (
            inverse[0, 0] * xs + inverse[0, 1] * ys + offset[0],
            inverse[1, 0] * xs + inverse[1, 1] * ys + offset[1],
        )

    def _remap(self, array: NDArray, fill: Sequence[float], window: tuple[slice, slice] = np.s_[:, :]) -> NDArray:
        """The pixels of the warped ``array`` in ``window``."""
        return cv2.remap(
            np.ascontiguousarray(array),
            self._maps[0][window],
            self._maps[1][window],
            interpolation=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=fill,
        )

    def apply_image(self, img: NDArray) -> NDArray:
        """[H, W, C] (at most 4 channels) or [H, W], uint8 or float32, linearly interpolated."""
        outermost = np.concatenate([img[0], img[-1], img[:, 0], img[:, -1]])
        fill = np.median(outermost, axis=0)
        return self._remap(img, np.atleast_1d(fill).astype(float).tolist()).reshape(img.shape)

    def apply_segmentation(self, segmentation: NDArray) -> NDArray:
        """A mask [H, W] of 0 and 1: a pixel is 1 where the mask covers at least half of it.

        The mask becomes empty if it has less than a fifth of the pixels that the change of scale alone would leave.
        """
        mask = np.ascontiguousarray(segmentation, dtype=np.uint8) * np.uint8(_INSIDE)
        warped = np.zeros_like(segmentation)
        window = self._window(mask)
        if window is not None:
            found = self._remap(mask, [0.0], window) >= _INSIDE // 2
            if np.count_nonzero(found) >= SMALLEST_SHARE * self.scale**2 * np.count_nonzero(mask):
                warped[window] = found
        return warped

    def _window(self, mask: NDArray[np.uint8]) -> tuple[slice, slice] | None:
        """Rows and columns of the image outside which the warped ``mask`` is 0; None if it is 0 everywhere.

        Most objects are small, and warping only their surroundings is several times faster.
        """
        left, top, width, height = cv2.boundingRect(mask)
        if width == 0:
            return None
        center = self._affine(np.array([left + width / 2, top + height / 2]))
        # Interpolation reaches one pixel of the source further.
        reach = np.abs(self._matrix) @ np.array([width / 2 + 1, height / 2 + 1]) + (self._reach + 1)
        columns, rows = (
            slice(max(0, math.floor(center[i] - reach[i])), min(mask.shape[1 - i], math.ceil(center[i] + reach[i])))
            for i in (0, 1)
        )
        return (rows, columns) if columns.start < columns.stop and rows.start < rows.stop else None

    def _affine(self, coords: NDArray) -> NDArray:
        """Points [..., 2] as (x, y), before the displacement."""
        return (coords - self._from) @ self._matrix.T + self._to

    def apply_coords(self, coords: NDArray) -> NDArray:
        """Points [N, 2] as (x, y)."""
        moved = self._affine(coords)
        if self.displacement is None or len(coords) == 0:
            return moved
        # The point p shows what lies at `moved` = p + displacement(p); solved for p by iteration.
        point = moved
        for _ in range(_ITERATIONS):
            row_column = point[:, ::-1].T - 0.5
            point = moved - np.stack(
                [map_coordinates(self.displacement[..., i], row_column, order=1, mode="nearest") for i in (0, 1)],
                axis=1,
            )
        return point


def elastic_displacement(size: tuple[int, int], std: float) -> NDArray[np.float32]:
    """A random smooth displacement: white noise after a Gaussian filter with a sigma of max(10, 4 ``std``) pixels.

    Args:
        size: (H, W).
        std: standard deviation of each component in pixels, small against H and W.

    Returns:
        [H, W, 2].
    """
    step = max(_SMALLEST_SIGMA, _SIGMA_PER_DISPLACEMENT * std) / _NODES_PER_SIGMA
    rows, columns = math.ceil(size[0] / step), math.ceil(size[1] / step)
    # Noise beyond the image too: a filter that mirrored it at the border would give larger values there.
    margin = 2 * _FILTER_RADIUS
    noise = np.random.standard_normal((rows + margin, columns + margin, 2)).astype(np.float32)
    kernel = cv2.getGaussianKernel(margin + 1, _NODES_PER_SIGMA)
    inside = slice(_FILTER_RADIUS, -_FILTER_RADIUS)
    nodes = cv2.sepFilter2D(noise, -1, kernel, kernel)[inside, inside]
    nodes = np.ascontiguousarray(nodes * np.float32(std / np.square(kernel).sum()))
    return np.asarray(cv2.resize(nodes, (size[1], size[0]), interpolation=cv2.INTER_LINEAR), dtype=np.float32)
