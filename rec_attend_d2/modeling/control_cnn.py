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
from ..layers.step_norm import STEP_NORM_REGISTRY
from ..registry import look_up
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
            norm: name in STEP_NORM_REGISTRY.
            time_steps: of the norm, see :func:`.inputs.norm_time_steps`.
            initializer: name in INITIALIZER_REGISTRY.
        """
        norm_class = look_up(STEP_NORM_REGISTRY, norm, "MODEL.REC_ATTEND.NORM")
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
