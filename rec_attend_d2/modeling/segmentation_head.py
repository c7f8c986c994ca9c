"""Segmentation head: cuts the object out of the patch (paper, section 3.1, C).

Shapes: `B` images, `C` input channels, `F_h, F_w` patch, `V` channels of the deepest features of size `f_h, f_w`.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from detectron2.config import CfgNode, configurable
from torch import Tensor, nn

from ..layers.conv_norm import fast_layout
from ..layers.conv_stack import ConvStack, DeconvStack
from ..layers.initialization import initialize
from ..layers.step_norm import STEP_NORMS
from ..registry import look_up
from .inputs import check_conv_layers, feature_size, input_channels, norm_time_steps
from .registries import SEGMENTATION_HEAD_REGISTRY


def build_segmentation_head(cfg: CfgNode) -> Any:
    """The part named by MODEL.REC_ATTEND.SEGMENTATION_HEAD.NAME.

    It has ``feature_shape`` (V, f_h, f_w) and ``gives_logits``.
    """
    key = "MODEL.REC_ATTEND.SEGMENTATION_HEAD.NAME"
    return look_up(SEGMENTATION_HEAD_REGISTRY, cfg.MODEL.REC_ATTEND.SEGMENTATION_HEAD.NAME, key)(cfg)


def _check_layers(node: CfgNode) -> None:
    """Raise where conv pools and deconv strides do not lead back to the patch size, layer by layer."""
    key = "MODEL.REC_ATTEND.SEGMENTATION_HEAD"
    check_conv_layers(node, key)
    if any(stride not in (1, 2) for stride in node.DECONV_STRIDES):
        raise ValueError(f"{key}.DECONV_STRIDES = {list(node.DECONV_STRIDES)}: only strides 1 and 2 are possible.")
    if len(node.DECONV_CHANNELS) != len(node.CONV_CHANNELS) + 1:
        raise ValueError(
            f"{key}.DECONV_CHANNELS needs one entry more than CONV_CHANNELS (each layer but the first takes a skip): "
            f"got {len(node.DECONV_CHANNELS)} and {len(node.CONV_CHANNELS)}."
        )
    if node.DECONV_CHANNELS[-1] != 1:
        raise ValueError(f"{key}.DECONV_CHANNELS must end with 1, the mask; it ends with {node.DECONV_CHANNELS[-1]}.")
    expected = [*reversed(node.CONV_POOLS), 1]
    if list(node.DECONV_STRIDES) != expected:
        raise ValueError(
            f"{key}.DECONV_STRIDES = {list(node.DECONV_STRIDES)} does not undo CONV_POOLS = {list(node.CONV_POOLS)}; "
            f"the skips fit with {expected}."
        )


@SEGMENTATION_HEAD_REGISTRY.register()
class PatchConvDeconvHead(nn.Module):
    """Conv net down, transposed conv net up with skips at every layer, the patch itself being the last skip."""

    # Its last layer has a ReLU, as in the original: what it gives out is pasted by GaussianAttention.
    gives_logits = False

    @configurable
    def __init__(
        self,
        *,
        in_channels: int,
        conv_channels: Sequence[int],
        conv_pools: Sequence[int],
        deconv_channels: Sequence[int],
        deconv_strides: Sequence[int],
        feature_shape: tuple[int, int, int],
        norm: str,
        time_steps: int,
        initializer: str,
    ):
        """
        Args:
            in_channels: C.
            conv_channels, conv_pools: conv layers.
            deconv_channels, deconv_strides: transposed conv layers.
            feature_shape: (V, f_h, f_w) of the deepest features.
            norm: name in STEP_NORMS.
            time_steps: of the norm, see :func:`.inputs.norm_time_steps`.
            initializer: as MODEL.REC_ATTEND.INIT.
        """
        super().__init__()
        self.feature_shape = feature_shape
        norm_class = look_up(STEP_NORMS, norm, "MODEL.REC_ATTEND.NORM")
        make_norm = partial(norm_class, time_steps=time_steps)
        self.conv = ConvStack(in_channels, conv_channels, conv_pools, make_norm)
        skip_channels = [*reversed(conv_channels[:-1]), in_channels]
        self.deconv = DeconvStack(conv_channels[-1], skip_channels, deconv_channels, deconv_strides, make_norm)
        initialize(self, initializer)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        node = cfg.MODEL.REC_ATTEND.SEGMENTATION_HEAD
        _check_layers(node)
        key = "MODEL.REC_ATTEND.SEGMENTATION_HEAD"
        patch_size = cfg.MODEL.REC_ATTEND.ATTENTION.PATCH_SIZE
        deepest = feature_size(
            patch_size, node.CONV_POOLS, f"{key}.CONV_POOLS", "MODEL.REC_ATTEND.ATTENTION.PATCH_SIZE"
        )
        return {
            "in_channels": input_channels(cfg, node.INPUTS, f"{key}.INPUTS"),
            "conv_channels": node.CONV_CHANNELS,
            "conv_pools": node.CONV_POOLS,
            "deconv_channels": node.DECONV_CHANNELS,
            "deconv_strides": node.DECONV_STRIDES,
            "feature_shape": (node.CONV_CHANNELS[-1], *deepest),
            "norm": cfg.MODEL.REC_ATTEND.NORM,
            "time_steps": norm_time_steps(cfg),
            "initializer": cfg.MODEL.REC_ATTEND.INIT,
        }

    def forward(self, patch: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """Segment the object in the middle of the patch.

        Args:
            patch: [B, C, F_h, F_w].
            step: time step, counted from 0.

        Returns:
            Patch mask [B, F_h, F_w], >= 0, and the deepest features [B, V, f_h, f_w].
        """
        patch = fast_layout(patch)
        features = self.conv(patch, step)
        skips = [*reversed(features[:-1]), patch]
        return self.deconv(features[-1], skips, step)[:, 0], features[-1]
