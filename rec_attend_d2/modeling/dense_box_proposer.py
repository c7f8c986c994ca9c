"""Dense box proposer: "where next" as a distribution over the places of the control CNN's map.

Every unclaimed object is a right answer, so that it learns from all of them at every step (see
:mod:`.step_criterion`), where the paper's LSTM has to find one object by glimpses.

Shapes: `B` images, `D` channels of the control CNN's map, `h, w` its size, `H, W` network input.
"""

from collections.abc import Sequence

import torch
from detectron2.config import CfgNode, configurable
from torch import Tensor, nn

from ..layers.boxes import CenterBoxes, scale_axes
from .box_proposer import check_initial_size
from .control_cnn import build_control_cnn
from .inputs import StepInputs
from .registries import BOX_PROPOSER_REGISTRY
from .step_types import Places, Proposal

FRESH_PLACE_LOGIT = -4.0
# The log of a box's side is at most this far from that of INITIAL_SIZE, so that no box overflows.
_LOG_SIZE_LIMIT = 4.0


def cell_centers(image_size: tuple[int, int], map_size: tuple[int, int], like: Tensor) -> Tensor:
    """Centres [h * w, 2] of the cells of a map of the image, pixels (y, x); the centre of pixel i is i."""
    axes = [
        (torch.arange(cells, dtype=like.dtype, device=like.device) + 0.5) * (length / cells) - 0.5
        for length, cells in zip(image_size, map_size, strict=True)
    ]
    return torch.cartesian_prod(*axes)


@BOX_PROPOSER_REGISTRY.register()
class DenseBoxProposer(nn.Module):
    """Scores every cell of the control CNN's map and reads a box at each; proposes that of the best cell."""

    @configurable
    def __init__(self, *, control_cnn: nn.Module, initial_size: Sequence[float]):
        """
        Args:
            control_cnn: with ``out_channels``.
            initial_size: (height, width) of a fresh proposer's boxes, pixels.
        """
        super().__init__()
        self.control_cnn = control_cnn
        channels: int = control_cnn.out_channels  # type: ignore[assignment]
        self.place = nn.Conv2d(channels, 1, 1)
        self.box = nn.Conv2d(channels, 4, 1)
        nn.init.normal_(self.place.weight, std=0.01)
        # As detectors do it: most places are no object's, which a fresh proposer should not have to learn.
        nn.init.constant_(self.place.bias, FRESH_PLACE_LOGIT)  # type: ignore[arg-type]
        for parameter in self.box.parameters():
            nn.init.zeros_(parameter)
        # What the stop scorer reads: the features of the chosen place, the strongest ones of all places, and how sure
        # the best place is.
        self.hidden_dim = 2 * channels + 2
        self._size: Tensor
        self.register_buffer("_size", torch.tensor(initial_size), persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        node = cfg.MODEL.REC_ATTEND
        check_initial_size(cfg)
        if node.ATTENTION.LEARN_GAINS or node.ATTENTION.FILTER_VARIANCE == "learned":
            raise ValueError(
                "DenseBoxProposer learns neither gains nor variances: set MODEL.REC_ATTEND.ATTENTION.LEARN_GAINS to "
                "False and FILTER_VARIANCE to 'from_size' or 'unit'."
            )
        return {
            "control_cnn": build_control_cnn(cfg),
            "initial_size": [node.BOX_PROPOSER.INITIAL_SIZE * side for side in cfg.INPUT.IMAGE_SIZE],
        }

    def _boxes(self, features: Tensor, image_size: tuple[int, int]) -> CenterBoxes:
        """Boxes read at all cells, [B, h * w, 2]."""
        height, width = features.shape[-2:]
        cells = cell_centers(image_size, (height, width), features)
        offset, log_size = self.box(features).flatten(2).transpose(1, 2).split(2, dim=2)
        log_size = log_size.clamp(-_LOG_SIZE_LIMIT, _LOG_SIZE_LIMIT)
        moved = scale_axes(offset, (image_size[0] / height, image_size[1] / width))
        return CenterBoxes(cells + moved, torch.exp(log_size) * self._size)

    def forward(self, inputs: StepInputs, step: int) -> Proposal:
        """Propose a box per image at time step ``step``, counted from 0."""
        features = self.control_cnn(inputs, step)
        logits = self.place(features)[:, 0]
        boxes = self._boxes(features, inputs.image_size)
        flat = logits.flatten(1)
        chosen = flat.argmax(1)
        rows = torch.arange(chosen.shape[0], device=chosen.device)
        box = CenterBoxes(boxes.center[rows, chosen], boxes.size[rows, chosen])
        per_pixel = 1 / inputs.image_size[0], 1 / inputs.image_size[1]
        zeros = box.size.new_zeros(chosen.shape[0])
        hidden = torch.cat(
            [
                features.flatten(2)[rows, :, chosen],
                features.amax((2, 3)),
                flat.amax(1, keepdim=True) / -FRESH_PLACE_LOGIT,
                torch.sigmoid(flat).amax(1, keepdim=True),
            ],
            dim=1,
        )
        return Proposal(
            boxes=box,
            center_normalized=scale_axes(box.center, per_pixel) * 2 - 1,
            log_size=torch.log(scale_axes(box.size, per_pixel)),
            learned_log_variance=torch.zeros_like(box.size),
            learned_patch_log_gain=zeros,
            learned_mask_log_gain=zeros,
            box_map_log_gain=torch.full_like(zeros, 2.0),
            hidden=hidden,
            glimpse_maps=torch.softmax(flat, dim=1).view_as(logits)[:, None],
            places=Places(logits, boxes),
        )
