"""Where next, as a question to every place of the image: is there an unclaimed object here, and how large is it?

Every unclaimed object is a right answer, so that the proposer learns from all of them at once (see :mod:`.losses`),
where the paper's LSTM has to find one object by glimpses. And objects that stand apart need not wait for each other: a
glance looks at the best place, and at every other good place whose box keeps apart from those already taken.

Shapes: `B` images, `n` candidates of all images together, `D` channels of the control CNN's map, `h, w` its size, `P =
h w` places, `H, W` network input.
"""

import math
from dataclasses import dataclass

import torch
from detectron2.config import CfgNode, configurable
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import nms

from ...layers.boxes import CenterBoxes
from ..registries import BOX_PROPOSER_REGISTRY, FAST
from ..steps import Proposal, Scan, StepInputs
from .blocks import widened
from .control_cnn import PLACE_STRIDE, ControlCNN
from .sizes import Sizes

_KEY = "MODEL.REC_ATTEND"

# Of the control CNN's maps at 1/8 and coarser, times FAST.WIDTH.
CONTROL_CHANNELS = 64
# As detectors start: most places are no object's, which a fresh proposer should not have to learn.
FRESH_PLACE_LOGIT = -4.0
# The log of a box's side is at most this far from that of a fresh proposer, so that no box overflows.
_LOG_SIZE_LIMIT = 4.0
# A place is looked at above this probability; an image's best one always.
PLACE_PROBABILITY = 0.1
# Boxes of one glance overlap by at most this IoU. With 0.4 neighbours are confused (docs/ablation.md).
BOXES_APART = 0.05
# Candidates per image that training cuts out, drawn at random: a window of a hundred objects would take several times
# longer than one of ten and teach little more.
TRAINED_CANDIDATES = 40
# Side, in places, of the neighbourhood whose strongest features the scorer sees beside those of the place.
NEIGHBORHOOD = 7


@dataclass
class PlaceScan(Scan):
    """What all places say.

    Attributes:
        logits: [B, h, w], is there an unclaimed object.
        boxes: [B, P, 2] each, the box read at every place.
        stride: pixels per place.
    """

    logits: Tensor
    boxes: CenterBoxes
    stride: int

    def heat(self) -> Tensor:
        """Probability of an unclaimed object at every place, [B, h, w]."""
        return torch.sigmoid(self.logits)


def cell_centers(map_size: tuple[int, int], stride: int, like: Tensor) -> Tensor:
    """Centres [h * w, 2] of the cells of a map of the image, pixels (y, x)."""
    axes = [(torch.arange(cells, dtype=like.dtype, device=like.device) + 0.5) * stride - 0.5 for cells in map_size]
    return torch.cartesian_prod(*axes)


def places_apart(logits: Tensor, corners: Tensor, limit: int) -> tuple[Tensor, Tensor]:
    """The places of a glance: an image's best place, and others whose boxes stand apart.

    Args:
        logits: [B, P].
        corners: [B, P, 4], boxes, XYXY.
        limit: at most so many per image; 0 = as many as there are.

    Returns:
        Images [n], ascending, and places [n], best first within each image.
    """
    if limit == 1:
        return torch.arange(logits.shape[0], device=logits.device), logits.argmax(1)
    least = logits.amax(1).clamp(max=math.log(PLACE_PROBABILITY / (1 - PLACE_PROBABILITY)))
    images, places = [], []
    for image, (own, boxes) in enumerate(zip(logits, corners, strict=True)):
        good = (own >= least[image]).nonzero()[:, 0]
        kept = good[nms(boxes[good].float(), own[good].float(), BOXES_APART)]
        places.append(kept[:limit] if limit else kept)
        images.append(torch.full_like(places[-1], image))
    return torch.cat(images), torch.cat(places)


def trained_candidates(image: Tensor, batch: int) -> Tensor:
    """Numbers, ascending, of at most TRAINED_CANDIDATES candidates of each image, drawn at random.

    Args:
        image: [n], the image of each candidate, ascending.
        batch: B.
    """
    counts = torch.bincount(image, minlength=batch)
    if int(counts.max()) <= TRAINED_CANDIDATES:
        return torch.arange(len(image), device=image.device)
    # A random order within each image.
    order = (image + torch.rand(len(image), device=image.device)).argsort()
    rank = torch.arange(len(image), device=image.device) - (counts.cumsum(0) - counts)[image]
    return order[rank < TRAINED_CANDIDATES].sort().values


@BOX_PROPOSER_REGISTRY.register()
class PlaceProposer(nn.Module):
    """Scores every place of the control CNN's map and reads a box at each."""

    part_of = FAST

    @configurable
    def __init__(self, *, control_cnn: ControlCNN, initial_size: float, objects_per_glance: int):
        """
        Args:
            control_cnn: makes the map.
            initial_size: side of a fresh proposer's boxes, pixels.
            objects_per_glance: largest number of candidates per image; 0 = all that stand apart, 1 = one by one, as in
                the paper.
        """
        super().__init__()
        self.control_cnn = control_cnn
        self.initial_size = initial_size
        self.objects_per_glance = objects_per_glance
        channels = control_cnn.out_channels
        self.place = nn.Conv2d(channels, 1, 1)
        self.box = nn.Conv2d(channels, 4, 1)
        nn.init.normal_(self.place.weight, std=0.01)
        nn.init.constant_(self.place.bias, FRESH_PLACE_LOGIT)  # type: ignore[arg-type]
        for parameter in self.box.parameters():
            nn.init.zeros_(parameter)
        # The features of the place, the strongest ones around it, its logit and probability. Nothing here may depend on
        # the image's size, or scores would.
        self.hidden_dim = 2 * channels + 2

    @classmethod
    def from_config(cls, cfg: CfgNode, feature_channels: tuple[int, ...]) -> dict:
        node = cfg.MODEL.REC_ATTEND
        if node.FAST.OBJECTS_PER_GLANCE < 0:
            raise ValueError(f"{_KEY}.FAST.OBJECTS_PER_GLANCE is {node.FAST.OBJECTS_PER_GLANCE}; give 0 or more.")
        (channels,) = widened(cfg, [CONTROL_CHANNELS])
        return {
            "control_cnn": ControlCNN(feature_channels=feature_channels, channels=channels),
            "initial_size": Sizes(cfg.INPUT.OBJECT_PIXELS).initial_box,
            "objects_per_glance": node.FAST.OBJECTS_PER_GLANCE,
        }

    def _boxes(self, features: Tensor) -> CenterBoxes:
        """Boxes read at all places, [B, P, 2] each."""
        height, width = features.shape[-2:]
        stride = PLACE_STRIDE
        # In half precision pixels beyond 256 would no longer be told apart.
        offset, log_size = self.box(features).float().flatten(2).transpose(1, 2).split(2, dim=2)
        log_size = log_size.clamp(-_LOG_SIZE_LIMIT, _LOG_SIZE_LIMIT)
        centers = cell_centers((height, width), stride, offset) + offset * stride
        return CenterBoxes(centers, torch.exp(log_size) * self.initial_size)

    def forward(self, inputs: StepInputs) -> tuple[Proposal, PlaceScan]:
        """Candidates of a glance, and what all places say."""
        features = self.control_cnn(inputs)
        logits, boxes = self.place(features)[:, 0], self._boxes(features)
        flat = logits.flatten(1)
        if self.training and not torch.isfinite(flat).all():
            raise FloatingPointError("The logits of places are not finite: {'place': nan}")
        image, place = places_apart(flat.detach(), boxes.xyxy().detach(), self.objects_per_glance)
        if self.training:
            image, place = (kept[trained_candidates(image, len(flat))] for kept in (image, place))
        around = F.max_pool2d(features, NEIGHBORHOOD, stride=1, padding=NEIGHBORHOOD // 2)
        own, chosen = flat[image, place], CenterBoxes(boxes.center[image, place], boxes.size[image, place])
        hidden = torch.cat(
            [
                features.flatten(2)[image, :, place],
                around.flatten(2)[image, :, place],
                (own / -FRESH_PLACE_LOGIT)[:, None],
                torch.sigmoid(own)[:, None],
            ],
            dim=1,
        )
        scan = PlaceScan(logits, boxes, PLACE_STRIDE)
        return Proposal(image, chosen, hidden), scan
