"""Control CNNs: the map on which the box proposer decides where to look (paper, section 3.1, B).

Shapes: `B` images, `D` channels of the map, `h, w` its size, `H, W` network input.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from torch import Tensor, nn
from torch.nn import functional as F

from ..layers.conv_norm import concatenate_fast
from ..layers.conv_stack import ConvStack
from ..layers.initialization import initialize
from ..layers.residual import ConvNormReLU, ResidualBlock, calm_residuals, enlarge
from ..layers.step_norm import STEP_NORMS
from ..registry import look_up
from .image_encoder import FEATURE_STRIDES, check_image_size
from .inputs import StepInputs, check_conv_layers, feature_size, input_channels, norm_time_steps
from .memory import memory_channels
from .registries import CONTROL_CNN_REGISTRY

_KEY = "MODEL.REC_ATTEND.BOX_PROPOSER"


def build_control_cnn(cfg: CfgNode) -> Any:
    """The part named by MODEL.REC_ATTEND.BOX_PROPOSER.CONTROL_CNN.

    It has ``out_channels`` (D) and ``map_size`` (h, w).
    """
    key = f"{_KEY}.CONTROL_CNN"
    return look_up(CONTROL_CNN_REGISTRY, cfg.MODEL.REC_ATTEND.BOX_PROPOSER.CONTROL_CNN, key)(cfg)


@CONTROL_CNN_REGISTRY.register()
class ConvControlCNN(ConvStack):
    """The paper's: a stack of conv layers on image, memory and extra maps, run anew at every step."""

    @configurable
    def __init__(
        self,
        *,
        inputs: Sequence[str],
        in_channels: int,
        map_size: tuple[int, int],
        conv_channels: Sequence[int],
        conv_pools: Sequence[int],
        norm: str,
        time_steps: int,
        initializer: str,
    ):
        """
        Args:
            inputs: maps it sees.
            in_channels: their channels.
            map_size: (h, w), cells.
            conv_channels, conv_pools: its layers.
            norm: name in STEP_NORMS.
            time_steps: of the norm, see :func:`.inputs.norm_time_steps`.
            initializer: as MODEL.REC_ATTEND.INIT.
        """
        norm_class = look_up(STEP_NORMS, norm, "MODEL.REC_ATTEND.NORM")
        super().__init__(in_channels, conv_channels, conv_pools, partial(norm_class, time_steps=time_steps))
        self.inputs = list(inputs)
        self.out_channels = conv_channels[-1]
        self.map_size = map_size
        initialize(self, initializer)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        node = cfg.MODEL.REC_ATTEND.BOX_PROPOSER
        check_conv_layers(node, _KEY)
        if "features" in node.INPUTS:
            raise ValueError(
                f"{_KEY}.INPUTS names 'features', which ConvControlCNN cannot see. Take it out, or set "
                f"{_KEY}.CONTROL_CNN to 'FeatureControlCNN'."
            )
        return {
            "inputs": node.INPUTS,
            "in_channels": input_channels(cfg, node.INPUTS, f"{_KEY}.INPUTS"),
            "map_size": feature_size(cfg.INPUT.IMAGE_SIZE, node.CONV_POOLS, f"{_KEY}.CONV_POOLS", "INPUT.IMAGE_SIZE"),
            "conv_channels": node.CONV_CHANNELS,
            "conv_pools": node.CONV_POOLS,
            "norm": cfg.MODEL.REC_ATTEND.NORM,
            "time_steps": norm_time_steps(cfg),
            "initializer": cfg.MODEL.REC_ATTEND.INIT,
        }

    def forward(self, inputs: StepInputs, step: int) -> Tensor:  # type: ignore[override]
        """Map [B, D, h, w] of time step ``step``, counted from 0."""
        return super().forward(concatenate_fast(inputs.maps(self.inputs)), step)[-1]


@CONTROL_CNN_REGISTRY.register()
class FeatureControlCNN(nn.Module):
    """Looks at the memory beside an image encoder's features, which are computed once per image.

    What is left per step is small: the memory meets the features at 1/4 of the image's size, the map has 1/8, and a
    way down to 1/32 and up again lets every cell know about its surroundings.
    """

    @configurable
    def __init__(
        self,
        *,
        memory_channels: int,
        feature_channels: Sequence[int],
        channels: int,
        map_size: tuple[int, int],
        norm: str,
        time_steps: int,
        initializer: str,
    ):
        """
        Args:
            memory_channels: M.
            feature_channels: channels of the two feature maps, at 1/4 and 1/8.
            channels: of its maps (D).
            map_size: (h, w), cells.
            norm: name in STEP_NORMS.
            time_steps: of the norm, see :func:`.inputs.norm_time_steps`.
            initializer: as MODEL.REC_ATTEND.INIT.
        """
        super().__init__()
        make_norm = partial(look_up(STEP_NORMS, norm, "MODEL.REC_ATTEND.NORM"), time_steps=time_steps)
        fine, coarse = feature_channels
        # The memory enters as mean and as maximum of each cell: a small object shows in the maximum.
        self.meet = ConvNormReLU(fine + 2 * memory_channels, channels, make_norm, stride=2)
        self.join = ResidualBlock(channels + coarse, channels, make_norm)
        self.down = nn.ModuleList(ResidualBlock(channels, channels, make_norm, stride=2) for _ in range(2))
        self.up = nn.ModuleList(ConvNormReLU(channels, channels, make_norm) for _ in range(2))
        self.out_channels = channels
        self.map_size = map_size
        initialize(self, initializer)
        calm_residuals(self)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        node = cfg.MODEL.REC_ATTEND
        if set(node.BOX_PROPOSER.INPUTS) != {"memory", "features"}:
            raise ValueError(
                f"{_KEY}.INPUTS is {list(node.BOX_PROPOSER.INPUTS)}, but FeatureControlCNN sees exactly ['memory', "
                "'features']; the image is in the features."
            )
        input_channels(cfg, node.BOX_PROPOSER.INPUTS, f"{_KEY}.INPUTS")
        check_image_size(cfg)
        height, width = cfg.INPUT.IMAGE_SIZE
        return {
            "memory_channels": memory_channels(cfg),
            "feature_channels": node.PREPROCESSOR.FEATURE_CHANNELS,
            "channels": node.BOX_PROPOSER.CONTROL_CHANNELS,
            "map_size": (height // FEATURE_STRIDES[1], width // FEATURE_STRIDES[1]),
            "norm": node.NORM,
            "time_steps": norm_time_steps(cfg),
            "initializer": node.INIT,
        }

    def forward(self, inputs: StepInputs, step: int) -> Tensor:
        """Map [B, D, H / 8, W / 8] of time step ``step``, counted from 0."""
        return self._coarse(self._seen(inputs), inputs, step)

    @staticmethod
    def _seen(inputs: StepInputs) -> Tensor:
        """The finest features and the memory, [B, C, H / 4, W / 4]."""
        memory = inputs.memory[:, None] if inputs.memory.ndim == 3 else inputs.memory
        stride = FEATURE_STRIDES[0]
        pooled = [F.avg_pool2d(memory, stride), F.max_pool2d(memory, stride)]
        return concatenate_fast([inputs.extra.features[0], *pooled])

    def _coarse(self, seen: Tensor, inputs: StepInputs, step: int) -> Tensor:
        levels = [self.join(torch.cat([self.meet(seen, step), inputs.extra.features[1]], dim=1), step)]
        for block in self.down:
            levels.append(block(levels[-1], step))
        x = levels.pop()
        for conv in self.up:
            level = levels.pop()
            x = conv(level + enlarge(x, level), step)
        return x


@CONTROL_CNN_REGISTRY.register()
class FineFeatureControlCNN(FeatureControlCNN):
    """Goes on to a map of 1/4 of the image's size, for objects so small that several of them share a cell of 1/8."""

    @configurable
    def __init__(self, *, memory_channels: int, feature_channels: Sequence[int], channels: int, **coarse: Any):
        """
        Args:
            memory_channels, feature_channels: see :class:`FeatureControlCNN`.
            channels: of the coarser maps; the finest one has half as many (D).
            coarse: its other arguments.
        """
        super().__init__(
            memory_channels=memory_channels, feature_channels=feature_channels, channels=channels, **coarse
        )
        norm_class = look_up(STEP_NORMS, coarse["norm"], "MODEL.REC_ATTEND.NORM")
        make_norm = partial(norm_class, time_steps=coarse["time_steps"])
        self.out_channels = channels // 2
        self.meet_fine = ConvNormReLU(feature_channels[0] + 2 * memory_channels, self.out_channels, make_norm)
        self.to_fine = nn.Conv2d(channels, self.out_channels, 1)
        self.finest = ConvNormReLU(self.out_channels, self.out_channels, make_norm)
        for part in (self.meet_fine, self.to_fine, self.finest):
            initialize(part, coarse["initializer"])

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        height, width = cfg.INPUT.IMAGE_SIZE
        stride = FEATURE_STRIDES[0]
        return {**super().from_config(cfg), "map_size": (height // stride, width // stride)}

    def forward(self, inputs: StepInputs, step: int) -> Tensor:
        """Map [B, D, H / 4, W / 4] of time step ``step``, counted from 0."""
        seen = self._seen(inputs)
        fine = self.meet_fine(seen, step)
        coarse = self.to_fine(self._coarse(seen, inputs, step))
        return self.finest(fine + enlarge(coarse, fine), step)
