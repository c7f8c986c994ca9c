"""The control CNN: the map at which the box proposer takes its glimpses (paper, section 3.1, B).

Shapes: `B` images, `D` channels of the map, `h, w` its size, `H, W` network input.
"""

from collections.abc import Sequence
from functools import partial

from detectron2.config import CfgNode, configurable
from torch import Tensor

from ...layers.conv_norm import concatenate_fast
from ...layers.conv_stack import ConvStack
from ...layers.initialization import initialize
from ...layers.step_norm import STEP_NORMS
from ...registry import look_up
from ..steps import StepInputs
from .inputs import check_conv_layers, feature_size, input_channels, input_maps

_KEY = "MODEL.REC_ATTEND.BOX_PROPOSER"


class ControlCNN(ConvStack):
    """A stack of conv layers on image, memory and extra maps, run anew at every step."""

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
            time_steps: T.
            initializer: see :func:`~rec_attend_d2.layers.initialization.initialize`.
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
        return {
            "inputs": node.INPUTS,
            "in_channels": input_channels(cfg, node.INPUTS, f"{_KEY}.INPUTS"),
            "map_size": feature_size(cfg.INPUT.IMAGE_SIZE, node.CONV_POOLS, f"{_KEY}.CONV_POOLS", "INPUT.IMAGE_SIZE"),
            "conv_channels": node.CONV_CHANNELS,
            "conv_pools": node.CONV_POOLS,
            "norm": cfg.MODEL.REC_ATTEND.NORM,
            "time_steps": cfg.MODEL.REC_ATTEND.TIME_STEPS,
            "initializer": cfg.MODEL.REC_ATTEND.INIT,
        }

    def forward(self, inputs: StepInputs) -> Tensor:  # type: ignore[override]
        """Map [B, D, h, w]."""
        return super().forward(concatenate_fast(input_maps(inputs, self.inputs)), inputs.number)[-1]
