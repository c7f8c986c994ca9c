"""From soft masks to instances (original code, test-time scripts).

Shapes: `T` steps, `H, W` network input, `h0, w0` original image, `K` foreground maps, `n` instances.
"""

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.structures import BitMasks, Instances

from ..registry import look_up
from .registries import POSTPROCESSOR_REGISTRY

# A pixel is foreground above this probability; with semantic classes, where P(background) is at most 1 minus this.
FOREGROUND_THRESHOLD = 0.3


def build_postprocessor(cfg: CfgNode):
    """The part named by MODEL.REC_ATTEND.TEST.POSTPROCESSOR."""
    key = "MODEL.REC_ATTEND.TEST.POSTPROCESSOR"
    return look_up(POSTPROCESSOR_REGISTRY, cfg.MODEL.REC_ATTEND.TEST.POSTPROCESSOR, key)(cfg)


def resize_maps(maps: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear resize of float maps [n, H, W] to [n, height, width]."""
    resized = [cv2.resize(m, (width, height), interpolation=cv2.INTER_LINEAR) for m in maps]
    return np.stack(resized) if resized else np.zeros((0, height, width), np.float32)


def strongest_instance(maps: np.ndarray, threshold: float) -> np.ndarray:
    """Give every pixel to its strongest map, if that is above the threshold.

    Args:
        maps: [n, h0, w0].
        threshold: in [0, 1].

    Returns:
        [n, h0, w0] bool, no two of which overlap.
    """
    if len(maps) == 0:
        return np.zeros(maps.shape, bool)
    winner = maps.argmax(0)
    return (winner[None] == np.arange(len(maps))[:, None, None]) & (maps > threshold)


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
    flat = masks.reshape(len(masks), -1).astype(np.float32)
    return (flat @ foreground[1:].reshape(len(foreground) - 1, -1).T).argmax(1)


@POSTPROCESSOR_REGISTRY.register()
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
        has_foreground = cfg.MODEL.REC_ATTEND.PREPROCESSOR.FOREGROUND_CLASSES > 0 or node.SEM_SEG_DIR
        if node.USE_FOREGROUND and not has_foreground:
            raise ValueError(
                "MODEL.REC_ATTEND.TEST.USE_FOREGROUND needs a foreground map, but "
                "MODEL.REC_ATTEND.PREPROCESSOR.FOREGROUND_CLASSES is 0 and TEST.SEM_SEG_DIR is empty."
            )
        return {
            "score_threshold": node.SCORE_THRESHOLD,
            "mask_threshold": node.MASK_THRESHOLD,
            "bilateral_diameter": node.BILATERAL_DIAMETER,
            "bilateral_sigma": node.BILATERAL_SIGMA,
            "dilation": node.DILATION,
            "use_foreground": node.USE_FOREGROUND,
            "min_area": node.MIN_AREA,
        }

    def _weighted(self, masks: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """What instances compete for a pixel with: score times mask [n, H, W] (original code)."""
        return masks * scores[:, None, None]

    def _smooth(self, maps: np.ndarray) -> np.ndarray:
        if self.bilateral_diameter > 0:
            sigma = self.bilateral_sigma
            maps = np.stack([cv2.bilateralFilter(m, self.bilateral_diameter, sigma, sigma) for m in maps])
        if self.dilation > 0:
            square = np.ones((self.dilation, self.dilation), np.uint8)
            maps = np.stack([cv2.dilate(m, square) for m in maps])
        return maps

    def __call__(
        self,
        masks: torch.Tensor,
        scores: torch.Tensor,
        foreground: torch.Tensor | None,
        original_size: tuple[int, int],
        class_probabilities: torch.Tensor | None = None,
    ) -> Instances:
        """Instances of one image.

        Args:
            masks: [T, H, W] soft masks in [0, 1].
            scores: [T] in [0, 1].
            foreground: [K, ., .] probabilities, of the input's or the original size, or None.
            original_size: (h0, w0), pixels.
            class_probabilities: [T, classes] of the steps; without them the class comes from the foreground map.

        Returns:
            Instances at the original size with ``pred_masks`` [n, h0, w0] bool (no two overlap), ``pred_boxes``
            (tight, XYXY), ``scores`` [n] and ``pred_classes`` [n]. Empty masks are left out.
        """
        masks, scores = masks.detach(), scores.detach()
        keep = scores >= self.score_threshold
        scores = scores[keep].float()
        maps = self._weighted(masks[keep].float(), scores).cpu().numpy()
        maps = resize_maps(maps, *original_size)
        if len(maps):
            maps = self._smooth(maps)
        instances = strongest_instance(maps, self.mask_threshold)
        full_foreground = None
        if foreground is not None:
            full_foreground = resize_maps(foreground.detach().float().cpu().numpy(), *original_size)
            if self.use_foreground:
                instances &= foreground_area(full_foreground)
        large = instances.reshape(len(instances), int(np.prod(original_size))).sum(1) > self.min_area
        instances = instances[large]

        result = Instances(original_size)
        result.pred_masks = torch.from_numpy(instances)
        result.pred_boxes = BitMasks(result.pred_masks).get_bounding_boxes()
        result.scores = scores.cpu()[torch.from_numpy(large)]
        if class_probabilities is None:
            result.pred_classes = torch.from_numpy(majority_classes(instances, full_foreground))
        else:
            result.pred_classes = class_probabilities.detach()[keep].argmax(1).cpu()[torch.from_numpy(large)]
        return result


@POSTPROCESSOR_REGISTRY.register()
class StrongestMask(StrongestInstance):
    """Scores only decide which steps are instances; pixels go by the masks alone.

    Times its score, the mask of an object the model is not sure of would shrink, and vanish below MASK_THRESHOLD.
    """

    def _weighted(self, masks: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The masks [n, H, W] as they are."""
        return masks
