"""What the fast model is trained on: memories to start from, boxes besides its own, and what its glance is worth.

Shapes: `B` images, `N` object slots, `n` candidates, `m` true boxes fed, `F` side of a patch, `H, W` network input.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ...layers.boxes import CenterBoxes
from ..steps import Feeder, Step, StepInputs, Where
from .losses import PatchPairs
from .targets import ObjectTargets, label_boxes, pixels_of_objects

# Patches per image that are cut out at true boxes of unclaimed objects, so that the head learns from the first
# iteration.
TRUE_PATCHES = 2
# Their noise: centres move by up to half of this share of the size, sizes change by a factor of up to exp(this).
BOX_NOISE = 0.3
# Drawn memories: the share of those with nothing claimed, how far below 1 the value of what is claimed may be, the
# probability that a piece of an unclaimed object is claimed, and the share of the claimed objects whose box was too
# small for them, so that a side is missing, of up to this share of the object's extent.
EMPTY_SHARE = 0.5
VALUE_NOISE = 0.15
PIECE_NOISE = 0.2
CUT_SHARE, LARGEST_CUT = 0.15, 0.3


class TrueBoxes(Feeder):
    """Feeds noisy true boxes of some unclaimed objects after the candidates.

    Attributes:
        image, instance: [m], the image of the batch and the object in it.
    """

    def __init__(self, targets: ObjectTargets, unclaimed: Tensor):
        """
        Args:
            targets: the true objects.
            unclaimed: [B, N] bool.
        """
        # A random order of the slots in which the unclaimed ones come first.
        priority = torch.rand(unclaimed.shape, device=unclaimed.device) + unclaimed
        chosen = priority.topk(min(TRUE_PATCHES, unclaimed.shape[1]), dim=1).indices
        usable = unclaimed.gather(1, chosen)
        self.image = usable.nonzero()[:, 0]
        self.instance = chosen[usable]
        center = targets.boxes.center[self.image, self.instance]
        size = targets.boxes.size[self.image, self.instance]
        noise = (torch.rand(2, *center.shape, device=center.device) - 0.5) * BOX_NOISE
        self._boxes = CenterBoxes(center + noise[0] * size, size * torch.exp(2 * noise[1]))

    def where(self, proposal: Any, inputs: StepInputs) -> Where:
        """The candidates' boxes, and the true ones."""
        own = proposal.boxes
        boxes = CenterBoxes(
            torch.cat([own.center, self._boxes.center.to(own.center)]),
            torch.cat([own.size, self._boxes.size.to(own.size)]),
        )
        return Where(torch.cat([proposal.image, self.image]), boxes)


def draw_memory(labels: Tensor, taken: Tensor) -> Tensor:
    """A memory [H, W] in which some of an image's objects are claimed, spoiled as predicted masks would be.

    Half of the memories are empty. In the others all subset sizes are equally likely, "everything claimed" among them:
    an example of stopping. A quarter of the masks each is eroded or dilated by a pixel, some lack a side, and one
    memory in five has a piece too much, less than half of an unclaimed object.

    Args:
        labels, taken: [H, W], of :class:`.targets.ObjectTargets`.
    """
    return torch.maximum(_claimed_objects(labels), taken.float())


def _claimed_objects(labels: Tensor) -> Tensor:
    count, device = int(labels.max()), labels.device
    memory = torch.zeros(labels.shape, device=device)
    if count == 0 or torch.rand(()) < EMPTY_SHARE:
        return memory
    order = torch.randperm(count, device=device)
    size = int(torch.randint(1, count + 1, ()))
    value = torch.zeros(count + 1, device=device)
    value[order[:size] + 1] = 1 - VALUE_NOISE * torch.rand(size, device=device)
    kind = torch.randint(0, 4, (count + 1,), device=device)
    # Erosion: pixels whose 3x3 neighbours are not all of the same object go, unless it would lose half of itself or
    # more.
    around = labels[None, None].float()
    inner = (F.max_pool2d(around, 3, 1, 1) == around) & (-F.max_pool2d(-around, 3, 1, 1) == around)
    left, whole = (pixels_of_objects(x[None], count)[0] for x in (labels * inner[0, 0], labels))
    eroded = (kind == 0) & F.pad(left > whole / 2, (1, 0))
    memory = value[labels] * (inner[0, 0] | ~eroded[labels]) * ~_missing_sides(labels, count, whole)
    grown = F.max_pool2d((value * (kind == 1))[labels][None], 3, 1, 1)[0]
    memory = torch.maximum(memory, grown)
    if size < count and torch.rand(()) < PIECE_NOISE:
        memory[_piece(labels == order[-1] + 1)] = 1.0
    return memory


def _missing_sides(labels: Tensor, count: int, areas: Tensor) -> Tensor:
    """[H, W] bool, a random side of some of the objects 1 to ``count``, whose areas are [count].

    The rest is more than half of any object: it counts as claimed.
    """
    device = labels.device
    corners = label_boxes(labels, count)[1]
    box = F.pad(corners, (0, 0, 1, 0)).float()
    angle = torch.rand(count + 1, device=device) * 2 * torch.pi
    limit = 0.5 - LARGEST_CUT * torch.rand(count + 1, device=device)
    limit = torch.where(torch.rand(count + 1, device=device) < CUT_SHARE, limit, torch.inf)
    center, extent = (box[:, :2] + box[:, 2:]) / 2, (box[:, 2:] - box[:, :2]).clamp(min=1)
    y, x = (torch.arange(length, device=device) + 0.5 for length in labels.shape)
    along_x = (x - center[labels, 0]) / extent[labels, 0] * torch.cos(angle)[labels]
    along_y = (y[:, None] - center[labels, 1]) / extent[labels, 1] * torch.sin(angle)[labels]
    missing = along_x + along_y > limit[labels]
    lost = pixels_of_objects((labels * missing)[None], count)[0]
    return missing & F.pad(lost < areas / 2, (1, 0))[labels]


def _piece(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels (y, x) of a random side of a mask [H, W] bool, less than half of it."""
    y, x = mask.nonzero(as_tuple=True)
    if len(y) == 0:
        return y, x
    angle = torch.rand((), device=mask.device) * 2 * torch.pi
    depth = torch.cos(angle) * y + torch.sin(angle) * x
    share = 0.1 + 0.35 * torch.rand((), device=mask.device)
    # Strictly below the quantile, so that never as many pixels are covered as count for a claimed object.
    inside = depth < torch.quantile(depth, share, interpolation="lower")
    return y[inside], x[inside]


@torch.no_grad()
def glance_statistics(
    step: Step, found: Tensor, overlap: Tensor, unclaimed: Tensor, pairs: PatchPairs
) -> dict[str, Tensor]:
    """Numbers that tell how training goes, without being optimised.

    Args:
        step: the glance.
        found: [n] bool, candidates that found an object.
        overlap: [n, N], box IoU of candidates with the objects of their image.
        unclaimed: [B, N] bool, objects that were to be found.
        pairs: the judged patches.
    """
    predicted, truth = pairs.logits > 0, pairs.truth > 0.5
    dice = 2 * (predicted & truth).sum((1, 2)) / (predicted.sum((1, 2)) + truth.sum((1, 2))).clamp(min=1)
    boxes = step.proposal.boxes
    places = torch.cat([boxes.center, boxes.size], dim=1)
    return {
        "dice": dice.float().sum() / max(len(dice), 1),
        "box_iou": (overlap * unclaimed[step.proposal.image]).amax(1).mean(),
        "found": found.sum() / unclaimed.sum().clamp(min=1),
        "candidates": torch.tensor(len(found) / len(unclaimed)),
        "score_acc": ((step.score > 0.5) == found).float().mean(),
        "stop_share": 1 - unclaimed.any(1).float().mean(),
        "box_side": boxes.size.amin(1).mean(),
        "box_spread": (places.amax(0) - places.amin(0)).amax(),
        "score_spread": step.score.max() - step.score.min(),
    }
