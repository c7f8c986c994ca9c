"""Box proposer: a control CNN and an LSTM that takes glimpses at its map (paper, section 3.1, B).

Shapes: `B` images, `C` input channels, `D` channels of the control CNN's map, `h, w` its size, `K` glimpses,
`S` LSTM size, `H, W` network input.
"""

import math
from collections.abc import Sequence

import torch
from detectron2.config import CfgNode, configurable
from torch import Tensor, nn
from torch.nn import functional as F

from ...layers.boxes import CenterBoxes, scale_axes
from ...layers.initialization import initialize
from ..registries import BOX_PROPOSER_REGISTRY, PAPER
from ..steps import StepInputs
from .control_cnn import ControlCNN
from .sequence import BoxProposal, GlimpseScan

_KEY = "MODEL.REC_ATTEND.BOX_PROPOSER"

# Numbers a box head predicts: centre (2), log size (2), log variance (2), and the log gains of patch, box map, mask.
BOX_PARAMETERS = 9


def decode_box_parameters(parameters: Tensor, image_size: tuple[int, int], squash: bool, hidden: Tensor) -> BoxProposal:
    """Turn the 9 numbers of the box head into a proposal.

    Args:
        parameters: [B, 9].
        image_size: (H, W), pixels.
        squash: tanh on the centre and -softplus on the log size.
        hidden: [B, S], kept in the proposal.
    """
    center, log_size = parameters[:, 0:2], parameters[:, 2:4]
    if squash:
        center, log_size = torch.tanh(center), -F.softplus(log_size)
    height, width = image_size
    return BoxProposal(
        image=torch.arange(len(parameters), device=parameters.device),
        boxes=CenterBoxes(
            center=scale_axes(center + 1, (height / 2, width / 2)), size=scale_axes(torch.exp(log_size), image_size)
        ),
        hidden=hidden,
        center_normalized=center,
        log_size=log_size,
        learned_log_variance=parameters[:, 4:6],
        learned_patch_log_gain=parameters[:, 6],
        learned_mask_log_gain=parameters[:, 8],
        box_map_log_gain=parameters[:, 7],
    )


def initial_log_size(relative_size: float, squash: bool) -> float:
    """Output of the box head for which the box has ``relative_size`` (0 to 1) of the image's side."""
    if squash:
        # Inverse of -softplus; exactly the whole image would need minus infinity.
        return math.log(1 / min(relative_size, 0.99) - 1)
    return math.log(relative_size)


class LSTMCell(nn.Module):
    """LSTM cell with one bias per gate; the gates stand in the order input, forget, output, candidate."""

    def __init__(self, input_size: int, hidden_size: int):
        super().__init__()
        self.hidden_size = hidden_size
        self.gates = nn.Linear(input_size + hidden_size, 4 * hidden_size)

    def reset_forget_bias(self) -> None:
        """Set the forget gate's bias to 1, so that a fresh cell remembers."""
        with torch.no_grad():
            self.gates.bias[self.hidden_size : 2 * self.hidden_size] = 1.0

    def forward(self, x: Tensor, hidden: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
        """Next (hidden, cell), [B, S] each, for the input ``x`` [B, D]."""
        gates = self.gates(torch.cat([x, hidden], dim=1))
        sigmoid_gates, candidate = gates.split([3 * self.hidden_size, self.hidden_size], dim=1)
        input_gate, forget_gate, output_gate = torch.sigmoid(sigmoid_gates).chunk(3, dim=1)
        cell = forget_gate * cell + input_gate * torch.tanh(candidate)
        return output_gate * torch.tanh(cell), cell


class MLP(nn.Module):
    """Linear layers with ReLU in between."""

    def __init__(self, sizes: Sequence[int]):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in zip(sizes[:-1], sizes[1:], strict=True))

    def forward(self, x: Tensor) -> Tensor:
        """[B, sizes[0]] -> [B, sizes[-1]]"""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)


class GlimpseLSTM(nn.Module):
    """Takes ``K`` glimpses at a feature map, each where the last one's LSTM output says.

    The LSTM's state is zero at the start of every time step.
    """

    def __init__(self, channels: int, places: int, hidden_size: int, glimpses: int, mlp_layers: int):
        """
        Args:
            channels: D.
            places: h * w.
            hidden_size: S.
            glimpses: K.
            mlp_layers: linear layers of the MLP that makes the next glimpse map.
        """
        super().__init__()
        self.glimpses = glimpses
        self.lstm = LSTMCell(channels, hidden_size)
        # A single glimpse has no next one, and a layer without gradients would stop distributed training.
        self.next_glimpse = MLP([hidden_size] * mlp_layers + [places]) if glimpses > 1 else None

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Look at ``features`` [B, D, h, w], the control CNN's map; the first glimpse is spread evenly.

        Returns:
            The last LSTM output [B, S] and the glimpse maps [B, K, h, w], each of which sums to 1.
        """
        places = features.flatten(2).transpose(1, 2)
        glimpse = features.new_full(places.shape[:2], 1 / places.shape[1])
        hidden = cell = features.new_zeros(features.shape[0], self.lstm.hidden_size)
        maps = []
        for k in range(self.glimpses):
            if self.next_glimpse is not None and k > 0:
                glimpse = torch.softmax(self.next_glimpse(hidden), dim=1)
            maps.append(glimpse)
            seen = torch.bmm(glimpse[:, None], places)[:, 0]
            hidden, cell = self.lstm(seen, hidden, cell)
        return hidden, torch.stack(maps, dim=1).unflatten(2, features.shape[2:])


@BOX_PROPOSER_REGISTRY.register()
class GlimpseLSTMBoxProposer(nn.Module):
    """The paper's box proposer: control CNN, glimpse LSTM and a linear layer (or MLP) to the box."""

    part_of = PAPER

    @configurable
    def __init__(
        self,
        *,
        control_cnn: ControlCNN,
        image_size: tuple[int, int],
        hidden_dim: int,
        glimpses: int,
        glimpse_mlp_layers: int,
        box_mlp_dims: Sequence[int],
        squash: bool,
        initial_size: float,
        initializer: str,
    ):
        """
        Args:
            control_cnn: makes the map.
            image_size: (H, W), pixels.
            hidden_dim: S.
            glimpses: K.
            glimpse_mlp_layers: linear layers from LSTM output to the next glimpse map.
            box_mlp_dims: hidden sizes of the MLP to the box; none = one linear layer.
            squash: see :func:`decode_box_parameters`.
            initial_size: size of a fresh proposer's boxes relative to the image.
            initializer: see :func:`~rec_attend_d2.layers.initialization.initialize`.
        """
        super().__init__()
        self.image_size = image_size
        self.squash = squash
        self.hidden_dim = hidden_dim
        self.control_cnn = control_cnn
        places = math.prod(control_cnn.map_size)
        self.glimpse = GlimpseLSTM(control_cnn.out_channels, places, hidden_dim, glimpses, glimpse_mlp_layers)
        self.box = MLP([hidden_dim, *box_mlp_dims, BOX_PARAMETERS])
        self._initialize(initializer, initial_size)

    def _initialize(self, initializer: str, initial_size: float) -> None:
        for part in (self.glimpse, self.box):
            initialize(part, initializer)
        self.glimpse.lstm.reset_forget_bias()
        last = self.box.layers[-1]
        assert isinstance(last, nn.Linear)
        nn.init.trunc_normal_(last.weight, std=0.01, a=-0.02, b=0.02)
        nn.init.constant_(last.bias[2:4], initial_log_size(initial_size, self.squash))

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        node = cfg.MODEL.REC_ATTEND.BOX_PROPOSER
        if node.GLIMPSES < 1:
            raise ValueError(f"{_KEY}.GLIMPSES is {node.GLIMPSES}; give at least 1.")
        if node.INITIAL_SIZE <= 0:
            raise ValueError(f"{_KEY}.INITIAL_SIZE is {node.INITIAL_SIZE}; give a share of the image's side above 0.")
        return {
            "control_cnn": ControlCNN(cfg),
            "image_size": tuple(cfg.INPUT.IMAGE_SIZE),
            "hidden_dim": node.HIDDEN_DIM,
            "glimpses": node.GLIMPSES,
            "glimpse_mlp_layers": node.GLIMPSE_MLP_LAYERS,
            "box_mlp_dims": node.BOX_MLP_DIMS,
            "squash": node.SQUASH,
            "initial_size": node.INITIAL_SIZE,
            "initializer": cfg.MODEL.REC_ATTEND.INIT,
        }

    def forward(self, inputs: StepInputs) -> tuple[BoxProposal, GlimpseScan]:
        """A box per image, and where the glimpses went."""
        hidden, glimpse_maps = self.glimpse(self.control_cnn(inputs))
        proposal = decode_box_parameters(self.box(hidden), self.image_size, self.squash, hidden)
        return proposal, GlimpseScan(glimpse_maps)
