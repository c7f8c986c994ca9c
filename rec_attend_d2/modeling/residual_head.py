"""Segmentation head of the fast recipe: a small residual U-Net on the patch that gives out logits.

Shapes: `n` patches, `C` input channels, `F_h, F_w` patch, `V` channels of the deepest features of size `f_h, f_w`.
"""

from collections.abc import Sequence
from functools import partial

import torch
from detectron2.config import CfgNode, configurable
from torch import Tensor, nn

from ..layers.conv_norm import fast_layout
from ..layers.initialization import initialize
from ..layers.residual import ConvNormReLU, ResidualBlock, calm_residuals, enlarge
from ..layers.step_norm import STEP_NORMS
from ..registry import look_up
from .inputs import check_conv_layers, feature_size, input_channels, norm_time_steps
from .registries import SEGMENTATION_HEAD_REGISTRY

_KEY = "MODEL.REC_ATTEND.SEGMENTATION_HEAD"


@SEGMENTATION_HEAD_REGISTRY.register()
class ResidualPatchHead(nn.Module):
    """Levels of residual blocks down, and back up with a skip per level."""

    gives_logits = True

    @configurable
    def __init__(
        self,
        *,
        in_channels: int,
        channels: Sequence[int],
        strides: Sequence[int],
        feature_shape: tuple[int, int, int],
        norm: str,
        time_steps: int,
        initializer: str,
    ):
        """
        Args:
            in_channels: C.
            channels, strides: of the levels; the first has the patch's size.
            feature_shape: (V, f_h, f_w) of the deepest level.
            norm: name in STEP_NORMS.
            time_steps: of the norm, see :func:`.inputs.norm_time_steps`.
            initializer: as MODEL.REC_ATTEND.INIT.
        """
        super().__init__()
        self.feature_shape = feature_shape
        make_norm = partial(look_up(STEP_NORMS, norm, "MODEL.REC_ATTEND.NORM"), time_steps=time_steps)
        first = channels[0]
        self.stem = nn.ModuleList([ConvNormReLU(in_channels, first, make_norm), ConvNormReLU(first, first, make_norm)])
        self.down = nn.ModuleList(
            ResidualBlock(i, o, make_norm, stride)
            for i, o, stride in zip(channels[:-1], channels[1:], strides[1:], strict=True)
        )
        self.up = nn.ModuleList(
            ConvNormReLU(below + here, here, make_norm)
            for below, here in zip(channels[:0:-1], channels[-2::-1], strict=True)
        )
        self.mask = nn.Conv2d(first, 1, 1)
        initialize(self, initializer)
        calm_residuals(self)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        node = cfg.MODEL.REC_ATTEND.SEGMENTATION_HEAD
        check_conv_layers(node, _KEY)
        if node.CONV_POOLS[0] != 1:
            raise ValueError(f"{_KEY}.CONV_POOLS must start with 1 for ResidualPatchHead: {list(node.CONV_POOLS)}.")
        patch_size = cfg.MODEL.REC_ATTEND.ATTENTION.PATCH_SIZE
        size_key = "MODEL.REC_ATTEND.ATTENTION.PATCH_SIZE"
        return {
            "in_channels": input_channels(cfg, node.INPUTS, f"{_KEY}.INPUTS"),
            "channels": node.CONV_CHANNELS,
            "strides": node.CONV_POOLS,
            "feature_shape": (
                node.CONV_CHANNELS[-1],
                *feature_size(patch_size, node.CONV_POOLS, f"{_KEY}.CONV_POOLS", size_key),
            ),
            "norm": cfg.MODEL.REC_ATTEND.NORM,
            "time_steps": norm_time_steps(cfg),
            "initializer": cfg.MODEL.REC_ATTEND.INIT,
        }

    def forward(self, patch: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Segment the object in the middle of the patch.

        Args:
            patch: [n, C, F_h, F_w].
            step: time step, counted from 0.

        Returns:
            Logits [n, F_h, F_w] and the deepest features [n, V, f_h, f_w].
        """
        x = fast_layout(patch)
        for conv in self.stem:
            x = conv(x, step)
        levels = [x]
        for block in self.down:
            levels.append(block(levels[-1], step))
        x = levels.pop()
        deepest = x
        for conv in self.up:
            level = levels.pop()
            x = conv(torch.cat([enlarge(x, level), level], dim=1), step)
        return self.mask(x)[:, 0], deepest
