"""Dense box proposer: "where next" as a distribution over the places of the control CNN's map.

Every unclaimed object is a right answer, so that it learns from all of them at every step (see
:mod:`.step_criterion`), where the paper's LSTM has to find one object by glimpses.

Shapes: `B` images, `D` channels of the control CNN's map, `h, w` its size, `H, W` network input.
"""

import torch
from detectron2.config import CfgNode, configurable
from torch import Tensor, nn

from ..layers.boxes import CenterBoxes
from .box_proposer import check_initial_size
from .control_cnn import build_control_cnn
from .inputs import StepInputs
from .registries import BOX_PROPOSER_REGISTRY
from .step_types import Places, Proposal

FRESH_PLACE_LOGIT = -4.0
# The log of a box's side is at most this far from that of INITIAL_SIZE, so that no box overflows.
_LOG_SIZE_LIMIT = 4.0


@BOX_PROPOSER_REGISTRY.register()
class DenseBoxProposer(nn.Module):
    """Scores every cell of the control CNN's map and reads a box at each; proposes that of the best cell."""

    @configurable
    def __init__(self, *, control_cnn: nn.Module, image_size: tuple[int, int], initial_size: float):
        """
        Args:
            control_cnn: with ``out_channels`` and ``map_size``.
            image_size: (H, W), pixels.
            initial_size: size of a fresh proposer's boxes relative to the image.
        """
        super().__init__()
        self.control_cnn = control_cnn
        self.image_size = image_size
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
        height, width = control_cnn.map_size  # type: ignore[misc]
        stride = torch.tensor([image_size[0] / height, image_size[1] / width])
        cells = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"), dim=-1)
        self._stride: Tensor
        self._cell_centers: Tensor
        self._size: Tensor
        self.register_buffer("_stride", stride, persistent=False)
        # Centre of pixel i is i.
        self.register_buffer("_cell_centers", (cells.flatten(0, 1) + 0.5) * stride - 0.5, persistent=False)
        self.register_buffer("_size", initial_size * torch.tensor(image_size), persistent=False)

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
            "image_size": tuple(cfg.INPUT.IMAGE_SIZE),
            "initial_size": node.BOX_PROPOSER.INITIAL_SIZE,
        }

    def _boxes(self, features: Tensor) -> CenterBoxes:
        """Boxes read at all cells, [B, h * w, 2]."""
        offset, log_size = self.box(features).flatten(2).transpose(1, 2).split(2, dim=2)
        log_size = log_size.clamp(-_LOG_SIZE_LIMIT, _LOG_SIZE_LIMIT)
        return CenterBoxes(self._cell_centers + offset * self._stride, torch.exp(log_size) * self._size)

    def forward(self, inputs: StepInputs, step: int) -> Proposal:
        """Propose a box per image at time step ``step``, counted from 0."""
        features = self.control_cnn(inputs, step)
        logits = self.place(features)[:, 0]
        boxes = self._boxes(features)
        flat = logits.flatten(1)
        chosen = flat.argmax(1)
        rows = torch.arange(len(chosen), device=chosen.device)
        box = CenterBoxes(boxes.center[rows, chosen], boxes.size[rows, chosen])
        sides = box.size.new_tensor(self.image_size)
        zeros = box.size.new_zeros(len(chosen))
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
            center_normalized=box.center / sides * 2 - 1,
            log_size=torch.log(box.size / sides),
            learned_log_variance=torch.zeros_like(box.size),
            learned_patch_log_gain=zeros,
            learned_mask_log_gain=zeros,
            box_map_log_gain=torch.full_like(zeros, 2.0),
            hidden=hidden,
            glimpse_maps=torch.softmax(flat, dim=1).view_as(logits)[:, None],
            places=Places(logits, boxes),
        )
