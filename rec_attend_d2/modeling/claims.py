"""Which objects a memory has claimed, and memories drawn from true masks to train on.

A time step is an ordinary feed-forward problem once its memory is given (no gradient flows through the memory and the
LSTM starts from zero at every step), so that training may start from any memory.

Shapes: `B` images, `T` steps, `N` instance slots, `H, W` network input.
"""

import torch
from detectron2.config import CfgNode, configurable
from torch import Tensor
from torch.nn import functional as F

from ..layers.overlap import pairwise_intersection
from .targets import Targets

# A pixel counts as claimed above this value of the memory, an object once this share of its pixels is claimed.
CLAIMED_VALUE = 0.5
CLAIMED_SHARE = 0.5


def unclaimed_instances(claimed: Tensor, targets: Targets) -> Tensor:
    """Instances that are still to be found.

    Args:
        claimed: [B, T, H, W] in [0, 1], what the memory holds before each step.
        targets: the true instances.

    Returns:
        [B, T, N] bool; empty slots are false.
    """
    covered = pairwise_intersection((claimed > CLAIMED_VALUE).to(targets.masks), targets.masks)
    share = covered / targets.masks.flatten(2).sum(2)[:, None].clamp(min=1)
    return targets.valid[:, None] & (share < CLAIMED_SHARE)


def dilate(masks: Tensor) -> Tensor:
    """Grow masks [N, H, W] by a pixel (3x3)."""
    return F.max_pool2d(masks[:, None], 3, stride=1, padding=1)[:, 0]


def erode(masks: Tensor) -> Tensor:
    """Shrink masks [N, H, W] in {0, 1} by a pixel (3x3); one that would lose half of itself or more stays."""
    smaller = -F.max_pool2d(-masks[:, None], 3, stride=1, padding=1)[:, 0]
    enough = smaller.flatten(1).sum(1) > masks.flatten(1).sum(1) / 2
    return torch.where(enough[:, None, None], smaller, masks)


class DrawnMemories:
    """Draws a random claimed subset of an image's true masks, spoiled as predicted masks would be.

    Every mask keeps values of at least ``1 - value_noise``; with ``shape_noise`` it is eroded or dilated by a pixel (a
    quarter of them each), and every image has with probability ``piece_noise`` a piece too much: a fragment of an
    unclaimed object of which less than half is covered.
    """

    @configurable
    def __init__(self, *, empty_share: float, value_noise: float, shape_noise: bool, piece_noise: float):
        """
        Args:
            empty_share: share of the images that start with nothing claimed.
            value_noise: claimed values are 1 - U(0, value_noise).
            shape_noise: erode and dilate.
            piece_noise: probability of a claimed piece of an unclaimed object.
        """
        self.empty_share = empty_share
        self.value_noise = value_noise
        self.shape_noise = shape_noise
        self.piece_noise = piece_noise

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        node = cfg.MODEL.REC_ATTEND.TRAINING.DRAWN_MEMORY
        for name in ("EMPTY_SHARE", "VALUE_NOISE", "PIECE_NOISE"):
            if not 0 <= node[name] <= 1:
                raise ValueError(f"MODEL.REC_ATTEND.TRAINING.DRAWN_MEMORY.{name} is {node[name]}; give 0 to 1.")
        if node.VALUE_NOISE >= 1 - CLAIMED_VALUE:
            raise ValueError(
                f"MODEL.REC_ATTEND.TRAINING.DRAWN_MEMORY.VALUE_NOISE is {node.VALUE_NOISE}: values of claimed pixels "
                f"have to stay above {CLAIMED_VALUE}, so give less than {1 - CLAIMED_VALUE}."
            )
        return {
            "empty_share": node.EMPTY_SHARE,
            "value_noise": node.VALUE_NOISE,
            "shape_noise": node.SHAPE_NOISE,
            "piece_noise": node.PIECE_NOISE,
        }

    def draw(self, masks: Tensor) -> Tensor:
        """Masks [k, H, W] in [0, 1] to write to the memory of one image, k >= 0.

        Args:
            masks: [n, H, W] in {0, 1}, all true instances of the image.
        """
        count = len(masks)
        if count == 0 or torch.rand(()) < self.empty_share:
            return masks[:0]
        order = torch.randperm(count, device=masks.device)
        # All subset sizes are equally likely, "everything claimed" among them: an example of stopping.
        size = int(torch.randint(1, count + 1, ()))
        chosen = masks[order[:size]]
        if self.shape_noise:
            kind = torch.randint(0, 4, (size,)).tolist()
            spoil = {0: erode, 1: dilate}
            chosen = torch.stack([spoil[k](m[None])[0] if k in spoil else m for k, m in zip(kind, chosen, strict=True)])
        chosen = chosen * (1 - self.value_noise * torch.rand(size, 1, 1, device=masks.device))
        if size < count and torch.rand(()) < self.piece_noise:
            chosen = torch.cat([chosen, _piece(masks[order[-1]])[None]])
        return chosen


def _piece(mask: Tensor) -> Tensor:
    """A random side of a mask [H, W], less than half of it."""
    y, x = mask.nonzero(as_tuple=True)
    angle = torch.rand((), device=mask.device) * 2 * torch.pi
    depth = torch.cos(angle) * y + torch.sin(angle) * x
    share = 0.1 + 0.35 * torch.rand((), device=mask.device)
    piece = torch.zeros_like(mask)
    # Strictly below the quantile, so that never as many pixels are covered as count for a claimed object.
    inside = depth < torch.quantile(depth, share, interpolation="lower")
    piece[y[inside], x[inside]] = 1.0
    return piece
