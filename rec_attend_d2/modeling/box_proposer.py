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

from ..layers.boxes import CenterBoxes, scale_axes
from ..layers.initialization import initialize
from ..registry import look_up, register_as
from .control_cnn import build_control_cnn
from .image_model import training_size
from .inputs import StepInputs
from .registries import BOX_PROPOSER_REGISTRY, FIRST_GLIMPSE_REGISTRY
from .step_types import Places, Proposal

_KEY = "MODEL.REC_ATTEND.BOX_PROPOSER"

# Numbers a box head predicts: centre (2), log size (2), log variance (2), and the log gains of patch, box map, mask.
BOX_PARAMETERS = 9


def build_box_proposer(cfg: CfgNode) -> nn.Module:
    """The part named by MODEL.REC_ATTEND.BOX_PROPOSER.NAME."""
    return look_up(BOX_PROPOSER_REGISTRY, cfg.MODEL.REC_ATTEND.BOX_PROPOSER.NAME, f"{_KEY}.NAME")(cfg)


def decode_box_parameters(
    parameters: Tensor,
    image_size: tuple[int, int],
    squash: bool,
    hidden: Tensor,
    glimpse_maps: Tensor,
    origin: Tensor | None = None,
) -> Proposal:
    """Turn the 9 numbers of the box head into a proposal.

    Args:
        parameters: [B, 9].
        image_size: (H, W), pixels.
        squash: tanh on the centre and -softplus on the log size.
        hidden: [B, S], kept in the proposal.
        glimpse_maps: [B, K, h, w], kept in the proposal.
        origin: [B, 2], -1 to 1, where a centre of 0 lies; by default in the image's middle, as in the paper.
    """
    center, log_size = parameters[:, 0:2], parameters[:, 2:4]
    if origin is not None:
        # With squash so that tanh(0 + shift) is the origin, and no box leaves the image.
        center = center + (torch.atanh(origin) if squash else origin)
    if squash:
        center, log_size = torch.tanh(center), -F.softplus(log_size)
    height, width = image_size
    return Proposal(
        boxes=CenterBoxes(
            center=scale_axes(center + 1, (height / 2, width / 2)), size=scale_axes(torch.exp(log_size), image_size)
        ),
        center_normalized=center,
        log_size=log_size,
        learned_log_variance=parameters[:, 4:6],
        learned_patch_log_gain=parameters[:, 6],
        learned_mask_log_gain=parameters[:, 8],
        box_map_log_gain=parameters[:, 7],
        hidden=hidden,
        glimpse_maps=glimpse_maps,
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

    def forward(self, features: Tensor, first: Tensor) -> tuple[Tensor, Tensor]:
        """Look at ``features`` [B, D, h, w], the control CNN's map, at first with the glimpse ``first`` [B, h, w].

        Returns:
            The last LSTM output [B, S] and the glimpse maps [B, K, h, w], each of which sums to 1.
        """
        places = features.flatten(2).transpose(1, 2)
        glimpse = first.flatten(1)
        hidden = cell = features.new_zeros(features.shape[0], self.lstm.hidden_size)
        maps = []
        for k in range(self.glimpses):
            if self.next_glimpse is not None and k > 0:
                glimpse = torch.softmax(self.next_glimpse(hidden), dim=1)
            maps.append(glimpse)
            seen = torch.bmm(glimpse[:, None], places)[:, 0]
            hidden, cell = self.lstm(seen, hidden, cell)
        return hidden, torch.stack(maps, dim=1).unflatten(2, features.shape[2:])


@register_as(FIRST_GLIMPSE_REGISTRY, "uniform")
class UniformFirstGlimpse(nn.Module):
    """The paper's: the first glimpse is spread evenly."""

    def __init__(self, channels: int):
        del channels  # part of the registry's signature
        super().__init__()

    def forward(self, features: Tensor) -> tuple[Tensor, None]:
        """The glimpse [B, h, w] for ``features`` [B, D, h, w]; no place has a score."""
        batch, _, height, width = features.shape
        return features.new_full((batch, height, width), 1 / (height * width)), None


@register_as(FIRST_GLIMPSE_REGISTRY, "learned")
class LearnedFirstGlimpse(nn.Module):
    """Scores every place of the map, and the first glimpse goes to the best one.

    To that one alone: spread over all good places, the glimpse would mix the features of all unclaimed objects, of
    which no single box can be read. Its gradient is that of the softmax (straight-through).
    """

    def __init__(self, channels: int):
        super().__init__()
        self.score = nn.Conv2d(channels, 1, 1)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The glimpse and the scores (logits), [B, h, w] each, for ``features`` [B, D, h, w]."""
        logits = self.score(features)[:, 0]
        flat = logits.flatten(1)
        best = F.one_hot(flat.argmax(1), flat.shape[1]).to(flat)
        soft = torch.softmax(flat, dim=1)
        return (best + soft - soft.detach()).view_as(logits), logits


def place_coordinates(height: int, width: int) -> Tensor:
    """Coordinates of the places of a map, [1, 2, height, width], (y, x), from -1 to 1."""
    axes = [(torch.arange(length) + 0.5) / length * 2 - 1 for length in (height, width)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))[None]


def check_initial_size(cfg: CfgNode) -> None:
    """Raise a ValueError unless BOX_PROPOSER.INITIAL_SIZE is positive."""
    size = cfg.MODEL.REC_ATTEND.BOX_PROPOSER.INITIAL_SIZE
    if size <= 0:
        raise ValueError(f"{_KEY}.INITIAL_SIZE is {size}; give a share of the image's side above 0.")


@BOX_PROPOSER_REGISTRY.register()
class GlimpseLSTMBoxProposer(nn.Module):
    """The paper's box proposer: control CNN, glimpse LSTM and a linear layer (or MLP) to the box."""

    @configurable
    def __init__(
        self,
        *,
        control_cnn: nn.Module,
        image_size: tuple[int, int],
        hidden_dim: int,
        glimpses: int,
        glimpse_mlp_layers: int,
        box_mlp_dims: Sequence[int],
        first_glimpse: str,
        coordinates: bool,
        squash: bool,
        initial_size: float,
        initializer: str,
    ):
        """
        Args:
            control_cnn: with ``out_channels`` (D) and ``map_size`` (h, w).
            image_size: (H, W), pixels.
            hidden_dim: S.
            glimpses: K.
            glimpse_mlp_layers: linear layers from LSTM output to the next glimpse map.
            box_mlp_dims: hidden sizes of the MLP to the box; none = one linear layer.
            first_glimpse: name in FIRST_GLIMPSE_REGISTRY.
            coordinates: the LSTM also sees where its glimpses lie, and the box's centre is relative to the first one.
            squash: see :func:`decode_box_parameters`.
            initial_size: size of a fresh proposer's boxes relative to the image.
            initializer: as MODEL.REC_ATTEND.INIT.
        """
        super().__init__()
        self.image_size = image_size
        self.squash = squash
        self.hidden_dim = hidden_dim
        self.control_cnn = control_cnn
        channels: int = control_cnn.out_channels  # type: ignore[assignment]
        map_size: tuple[int, int] = control_cnn.map_size  # type: ignore[assignment]
        self.first_glimpse = look_up(FIRST_GLIMPSE_REGISTRY, first_glimpse, f"{_KEY}.FIRST_GLIMPSE")(channels)
        self.coordinates: Tensor | None
        self.register_buffer("coordinates", place_coordinates(*map_size) if coordinates else None, persistent=False)
        seen = channels + (2 if coordinates else 0)
        self.glimpse = GlimpseLSTM(seen, map_size[0] * map_size[1], hidden_dim, glimpses, glimpse_mlp_layers)
        self.box = MLP([hidden_dim, *box_mlp_dims, BOX_PARAMETERS])
        self._initialize(initializer, initial_size)

    def _initialize(self, initializer: str, initial_size: float) -> None:
        for part in (self.first_glimpse, self.glimpse, self.box):
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
        if training_size(cfg) != tuple(cfg.INPUT.IMAGE_SIZE):
            raise ValueError(
                f"{_KEY}.NAME 'GlimpseLSTMBoxProposer' looks at maps of one size: take 'RandomCrop' out of "
                "INPUT.AUGMENTATIONS, or choose 'DenseBoxProposer'."
            )
        check_initial_size(cfg)
        return {
            "control_cnn": build_control_cnn(cfg),
            "image_size": tuple(cfg.INPUT.IMAGE_SIZE),
            "hidden_dim": node.HIDDEN_DIM,
            "glimpses": node.GLIMPSES,
            "glimpse_mlp_layers": node.GLIMPSE_MLP_LAYERS,
            "box_mlp_dims": node.BOX_MLP_DIMS,
            "first_glimpse": node.FIRST_GLIMPSE,
            "coordinates": node.COORDINATES,
            "squash": node.SQUASH,
            "initial_size": node.INITIAL_SIZE,
            "initializer": cfg.MODEL.REC_ATTEND.INIT,
        }

    def forward(self, inputs: StepInputs, step: int) -> Proposal:
        """Propose a box per image at time step ``step``, counted from 0."""
        features = self.control_cnn(inputs, step)
        first, logits = self.first_glimpse(features)
        origin = None
        if self.coordinates is not None:
            features = torch.cat([features, self.coordinates.expand(features.shape[0], -1, -1, -1)], dim=1)
            origin = (first[:, None] * self.coordinates).sum((2, 3))
        hidden, glimpse_maps = self.glimpse(features, first)
        proposal = decode_box_parameters(self.box(hidden), self.image_size, self.squash, hidden, glimpse_maps, origin)
        proposal.places = None if logits is None else Places(logits, None)
        return proposal
