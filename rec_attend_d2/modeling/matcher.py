"""Which step is which true instance.

Shapes: `B` images, `T` steps, `N` instance slots.
"""

import numpy as np
import torch
from detectron2.config import CfgNode
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ..registry import look_up
from .registries import MATCHER_REGISTRY


def build_matcher(cfg: CfgNode):
    """The part named by MODEL.REC_ATTEND.LOSS.MATCHER."""
    return look_up(MATCHER_REGISTRY, cfg.MODEL.REC_ATTEND.LOSS.MATCHER, "MODEL.REC_ATTEND.LOSS.MATCHER")()


@MATCHER_REGISTRY.register()
class HungarianMatcher:
    """Maximum-weight bipartite matching (paper, section 3.3).

    Only the first ``n`` steps and the ``n`` true instances of an image take part.
    """

    def __call__(self, overlap: Tensor, counts: Tensor) -> Tensor:
        """Match steps and instances.

        Args:
            overlap: [B, T, N], any weight; a NaN counts as no overlap, so that one bad step does not stop training.
            counts: [B] number of true instances.

        Returns:
            [B, T, N] float, 1 where step t is instance n. No gradient.
        """
        weights = overlap.detach().double().cpu().numpy()
        matches = np.zeros_like(weights)
        for index, count in enumerate(counts.tolist()):
            cost = np.nan_to_num(weights[index, :count, :count])
            rows, columns = linear_sum_assignment(cost, maximize=True)
            matches[index, rows, columns] = 1
        return torch.from_numpy(matches).to(overlap)


@MATCHER_REGISTRY.register()
class FixedOrderMatcher:
    """Step t is instance t, the t-th largest."""

    def __call__(self, overlap: Tensor, counts: Tensor) -> Tensor:
        """As :meth:`HungarianMatcher.__call__`; the overlap makes no difference."""
        _, steps, slots = overlap.shape
        identity = torch.eye(steps, slots, device=overlap.device)
        valid = torch.arange(slots, device=overlap.device) < counts[:, None]
        return identity * valid[:, None, :]
