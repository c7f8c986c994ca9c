"""From soft masks to instances (original code, test-time scripts).

Shapes: `T` steps, `H, W` network input, `h0, w0` original image, `K` foreground maps, `n` instances.
"""

import math
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.structures import Boxes, Instances

# Bilateral filter on the resized masks: diameter in pixels and sigma of value and distance (original code).
BILATERAL_DIAMETER = 5
BILATERAL_SIGMA = 10.0
# A pixel is foreground above this probability; with semantic classes, where P(background) is at most 1 minus this.
FOREGROUND_THRESHOLD = 0.3


def resize_map(soft_mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear resize of a float map [H, W] to [height, width]."""
    return cv2.resize(soft_mask, (width, height), interpolation=cv2.INTER_LINEAR)


def resize_maps(maps: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear resize of float maps [n, H, W] to [n, height, width]."""
    resized = [resize_map(m, height, width) for m in maps]
    return np.stack(resized) if resized else np.zeros((0, height, width), np.float32)


# Rows and columns of an image.
Window = tuple[slice, slice]


def tight_window(mask: np.ndarray) -> Window:
    """The smallest window around a mask [H, W] bool; empty where the mask is."""
    x, y, width, height = cv2.boundingRect(mask.view(np.uint8))
    return slice(y, y + height), slice(x, x + width)


def window_above(soft_mask: np.ndarray, threshold: float, size: tuple[int, int], margin: int) -> Window:
    """Where a map [H, W] can lie above a threshold once it is resized to ``size`` (h0, w0), and a margin around it.

    Most objects are small, and everything after the resize is many times faster in their surroundings.
    """
    above = tight_window(soft_mask > threshold)
    if above[0].start == above[0].stop:
        return above
    scales = (new / old for new, old in zip(size, soft_mask.shape, strict=True))
    rows, columns = (
        # Interpolation reaches a pixel of the map further.
        slice(
            max(0, math.floor((span.start - 1) * scale) - margin),
            min(limit, math.ceil((span.stop + 1) * scale) + margin),
        )
        for span, scale, limit in zip(above, scales, size, strict=True)
    )
    return rows, columns


def strongest_instance(maps: np.ndarray, threshold: float) -> np.ndarray:
    """Give every pixel to its strongest map (of equal ones the first), if that is above the threshold.

    Args:
        maps: [n, h0, w0].
        threshold: in [0, 1].

    Returns:
        [n, h0, w0] bool, no two of which overlap.
    """
    height, width = maps.shape[1:]
    return strongest_in_windows(list(maps), [np.s_[:, :]] * len(maps), threshold, (height, width))


def strongest_in_windows(
    maps: Sequence[np.ndarray], windows: Sequence[Window], threshold: float, size: tuple[int, int]
) -> np.ndarray:
    """:func:`strongest_instance` of maps that are known in a window each and not above the threshold elsewhere.

    Args:
        maps: n maps, each of the size of its window.
        windows: of an image of size ``size`` (h0, w0).
        threshold: in [0, 1].
        size: pixels.

    Returns:
        [n, h0, w0] bool, no two of which overlap.
    """
    strongest = np.full(size, threshold, np.float32)
    owner = np.full(size, -1, np.int32)
    for index, (values, window) in enumerate(zip(maps, windows, strict=True)):
        stronger = values > strongest[window]
        strongest[window][stronger] = values[stronger]
        owner[window][stronger] = index
    masks = np.zeros((len(maps), *size), bool)
    for index, window in enumerate(windows):
        np.equal(owner[window], index, out=masks[index][window])
    return masks


def tight_boxes(masks: np.ndarray) -> Boxes:
    """Boxes [n, 4] (x0, y0, x1, y1), pixels, around masks [n, h0, w0] bool."""
    windows = [tight_window(mask) for mask in masks]
    corners = [(columns.start, rows.start, columns.stop, rows.stop) for rows, columns in windows]
    return Boxes(torch.tensor(corners, dtype=torch.float32).reshape(-1, 4))


def foreground_area(foreground: np.ndarray) -> np.ndarray:
    """Where the preprocessor sees foreground, [h0, w0] bool.

    Args:
        foreground: [K, h0, w0] probabilities; K = 1 foreground, K > 1 classes of which the first is background.
    """
    if len(foreground) == 1:
        return foreground[0] > FOREGROUND_THRESHOLD
    return foreground[0] <= 1 - FOREGROUND_THRESHOLD


def majority_classes(masks: np.ndarray, foreground: np.ndarray | None) -> np.ndarray:
    """Class of every mask: the non-background class with the largest mean probability inside it.

    Args:
        masks: [n, h0, w0] bool, none empty.
        foreground: [K, h0, w0] probabilities or None.

    Returns:
        [n] contiguous class ids, 0 for the first class that is not background; all 0 where there are no classes.
    """
    if foreground is None or len(foreground) == 1 or len(masks) == 0:
        return np.zeros(len(masks), np.int64)
    classes = []
    for mask in masks:
        rows, columns = tight_window(mask)
        inside = foreground[1:, rows, columns][:, mask[rows, columns]]
        classes.append(inside.sum(1, dtype=np.float64).argmax())
    return np.array(classes, np.int64)


class StrongestInstance:
    """Scores times masks, resized and smoothed; each pixel goes to its strongest instance."""

    @configurable
    def __init__(
        self,
        *,
        score_threshold: float,
        mask_threshold: float,
        bilateral_diameter: int,
        bilateral_sigma: float,
        dilation: int,
        use_foreground: bool,
        min_area: int,
    ):
        """
        Args:
            score_threshold: steps with a smaller score are left out.
            mask_threshold: of score times soft mask.
            bilateral_diameter, bilateral_sigma: of the filter on the resized masks; diameter 0 = none.
            dilation: side of the grey dilation in pixels; 0 = none.
            use_foreground: remove pixels outside the foreground map.
            min_area: remove instances of at most this many pixels.
        """
        self.score_threshold = score_threshold
        self.mask_threshold = mask_threshold
        self.bilateral_diameter = bilateral_diameter
        self.bilateral_sigma = bilateral_sigma
        self.dilation = dilation
        self.use_foreground = use_foreground
        self.min_area = min_area

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        node = cfg.MODEL.REC_ATTEND.TEST
        if node.USE_FOREGROUND and cfg.MODEL.REC_ATTEND.PREPROCESSOR.FOREGROUND_CLASSES == 0:
            raise ValueError(
                "MODEL.REC_ATTEND.TEST.USE_FOREGROUND needs a foreground map, but "
                "MODEL.REC_ATTEND.PREPROCESSOR.FOREGROUND_CLASSES is 0."
            )
        return {
            "score_threshold": node.SCORE_THRESHOLD,
            "mask_threshold": node.MASK_THRESHOLD,
            "bilateral_diameter": BILATERAL_DIAMETER,
            "bilateral_sigma": BILATERAL_SIGMA,
            "dilation": node.DILATION,
            "use_foreground": node.USE_FOREGROUND,
            "min_area": node.MIN_AREA,
        }

    def _smooth(self, values: np.ndarray) -> np.ndarray:
        if self.bilateral_diameter > 0:
            values = cv2.bilateralFilter(values, self.bilateral_diameter, self.bilateral_sigma, self.bilateral_sigma)
        if self.dilation > 0:
            values = cv2.dilate(values, np.ones((self.dilation, self.dilation), np.uint8))
        return values

    def _strongest(self, maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Masks [n, h0, w0] of the maps [n, H, W]: resized to ``size`` (h0, w0), smoothed, and the strongest one."""
        # Twice the reach of the filters: at its border a window sees itself mirrored.
        margin = 2 * (self.bilateral_diameter // 2 + self.dilation // 2 + 1)
        windows = [window_above(soft_mask, self.mask_threshold, size, margin) for soft_mask in maps]
        values = []
        for soft_mask, window in zip(maps, windows, strict=True):
            inside = np.ascontiguousarray(resize_map(soft_mask, *size)[window])
            values.append(self._smooth(inside) if inside.size else inside)
        return strongest_in_windows(values, windows, self.mask_threshold, size)

    def __call__(
        self,
        masks: torch.Tensor,
        scores: torch.Tensor,
        foreground: torch.Tensor | None,
        original_size: tuple[int, int],
    ) -> Instances:
        """Instances of one image.

        Args:
            masks: [T, H, W] soft masks in [0, 1].
            scores: [T] in [0, 1].
            foreground: [K, ., .] probabilities, of the input's or the original size, or None.
            original_size: (h0, w0), pixels.

        Returns:
            Instances at the original size with ``pred_masks`` [n, h0, w0] bool (no two overlap), ``pred_boxes``
            (tight, XYXY), ``scores`` [n] and ``pred_classes`` [n]. Empty masks are left out.
        """
        masks, scores = masks.detach(), scores.detach()
        keep = scores >= self.score_threshold
        scores = scores[keep].float()
        maps = (masks[keep].float() * scores[:, None, None]).cpu().numpy()
        instances = self._strongest(maps, original_size)
        full_foreground = None
        if foreground is not None:
            full_foreground = resize_maps(foreground.detach().float().cpu().numpy(), *original_size)
            if self.use_foreground:
                instances &= foreground_area(full_foreground)
        large = instances.reshape(len(instances), int(np.prod(original_size))).sum(1) > self.min_area
        instances = instances[large]

        result = Instances(original_size)
        result.pred_masks = torch.from_numpy(instances)
        result.pred_boxes = tight_boxes(instances)
        result.scores = scores.cpu()[torch.from_numpy(large)]
        result.pred_classes = torch.from_numpy(majority_classes(instances, full_foreground))
        return result
