"""Segmentation head: cuts the object out of the patch (paper, section 3.1, C).

Shapes: `B` images, `C` input channels, `F_h, F_w` patch, `V` channels of the deepest features of size `f_h, f_w`.
"""

from collections.abc import Sequence
from functools import partial

from detectron2.config import CfgNode, configurable
from torch import Tensor, nn

from ...layers.conv_norm import fast_layout
from ...layers.conv_stack import ConvStack, DeconvStack
from ...layers.initialization import initialize
from ...layers.step_norm import STEP_NORMS
from ...registry import look_up
from ..registries import PAPER, SEGMENTATION_HEAD_REGISTRY
from .inputs import check_conv_layers, feature_size, input_channels

_KEY = "MODEL.REC_ATTEND.SEGMENTATION_HEAD"


def deconv_strides(conv_pools: Sequence[int]) -> list[int]:
    """Strides of the transposed conv layers, which lead back to the patch's size as the skips ask for."""
    return [*reversed(conv_pools), 1]


def _check_layers(node: CfgNode) -> None:
    """Raise where conv and transposed conv layers do not fit each other."""
    check_conv_layers(node, _KEY)
    if any(pool not in (1, 2) for pool in node.CONV_POOLS):
        raise ValueError(f"{_KEY}.CONV_POOLS = {list(node.CONV_POOLS)}: only 1 and 2 can be undone on the way up.")
    if len(node.DECONV_CHANNELS) != len(node.CONV_CHANNELS) + 1:
        raise ValueError(
            f"{_KEY}.DECONV_CHANNELS needs one entry more than CONV_CHANNELS (each layer but the first takes a skip): "
            f"got {len(node.DECONV_CHANNELS)} and {len(node.CONV_CHANNELS)}."
        )
    if node.DECONV_CHANNELS[-1] != 1:
        raise ValueError(f"{_KEY}.DECONV_CHANNELS must end with 1, the mask; it ends with {node.DECONV_CHANNELS[-1]}.")


@SEGMENTATION_HEAD_REGISTRY.register()
class PatchConvDeconvHead(nn.Module):
    """Conv net down, transposed conv net up with skips at every layer, the patch itself being the last skip."""

    part_of = PAPER

    @configurable
    def __init__(
        self,
        *,
        in_channels: int,
        conv_channels: Sequence[int],
        conv_pools: Sequence[int],
        deconv_channels: Sequence[int],
        feature_shape: tuple[int, int, int],
        norm: str,
        time_steps: int,
        initializer: str,
    ):
        """
        Args:
            in_channels: C.
            conv_channels, conv_pools: conv layers.
            deconv_channels: transposed conv layers, whose strides undo the pools.
            feature_shape: (V, f_h, f_w) of the deepest features.
            norm: name in STEP_NORMS.
            time_steps: T.
            initializer: see :func:`~rec_attend_d2.layers.initialization.initialize`.
        """
        super().__init__()
        self.feature_shape = feature_shape
        norm_class = look_up(STEP_NORMS, norm, "MODEL.REC_ATTEND.NORM")
        make_norm = partial(norm_class, time_steps=time_steps)
        self.conv = ConvStack(in_channels, conv_channels, conv_pools, make_norm)
        skip_channels = [*reversed(conv_channels[:-1]), in_channels]
        self.deconv = DeconvStack(
            conv_channels[-1], skip_channels, deconv_channels, deconv_strides(conv_pools), make_norm
        )
        initialize(self, initializer)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        node = cfg.MODEL.REC_ATTEND.SEGMENTATION_HEAD
        _check_layers(node)
        patch_size = cfg.MODEL.REC_ATTEND.ATTENTION.PATCH_SIZE
        deepest = feature_size(
            patch_size, node.CONV_POOLS, f"{_KEY}.CONV_POOLS", "MODEL.REC_ATTEND.ATTENTION.PATCH_SIZE"
        )
        return {
            "in_channels": input_channels(cfg, node.INPUTS, f"{_KEY}.INPUTS"),
            "conv_channels": node.CONV_CHANNELS,
            "conv_pools": node.CONV_POOLS,
            "deconv_channels": node.DECONV_CHANNELS,
            "feature_shape": (node.CONV_CHANNELS[-1], *deepest),
            "norm": cfg.MODEL.REC_ATTEND.NORM,
            "time_steps": cfg.MODEL.REC_ATTEND.TIME_STEPS,
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
