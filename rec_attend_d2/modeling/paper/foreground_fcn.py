"""The paper's preprocessor network: a conv net down and a deconv net up with skips (paper, section 3.1, A).

Shapes: `B` images, `K` foreground channels, `A` angle bins, `H, W` network input.
"""

from collections.abc import Sequence
from functools import partial
from itertools import accumulate
from operator import mul
from typing import Any

from detectron2.config import CfgNode, configurable
from torch import Tensor, cat, nn

from ...layers.conv_stack import ConvStack, DeconvLayer, PlainDeconvLayer
from ...layers.initialization import initialize
from ...layers.step_norm import STEP_NORMS
from ...registry import look_up
from ..registries import PREPROCESSOR_REGISTRY
from .inputs import check_conv_layers, feature_size
from .learned_maps import LearnedMaps

_KEY = "MODEL.REC_ATTEND.PREPROCESSOR"
# Instead of the number of a skipped feature: the layer has none.
NO_SKIP = -1


def _check_layers(node: CfgNode, image_size: Sequence[int]) -> None:
    """Raise a ValueError unless the layers of ``node``, the config node ``_KEY``, lead back to the image's size."""
    check_conv_layers(node, _KEY)
    feature_size(image_size, node.CONV_POOLS, f"{_KEY}.CONV_POOLS", "INPUT.IMAGE_SIZE")
    if len(node.DECONV_CHANNELS) != len(node.DECONV_STRIDES):
        raise ValueError(
            f"{_KEY}.DECONV_CHANNELS and {_KEY}.DECONV_STRIDES need one entry per layer each (without the last layer, "
            f"which makes the maps): got {list(node.DECONV_CHANNELS)} and {list(node.DECONV_STRIDES)}."
        )
    if any(stride not in (1, 2) for stride in node.DECONV_STRIDES):
        raise ValueError(f"{_KEY}.DECONV_STRIDES = {list(node.DECONV_STRIDES)}: only strides 1 and 2 are possible.")
    # How many image pixels wide a cell is: of the image and every conv layer's output, of every deconv layer's input.
    feature_strides = [1, *accumulate(node.CONV_POOLS, mul)]
    input_strides = [feature_strides[-1]]
    for stride in node.DECONV_STRIDES:
        input_strides.append(input_strides[-1] // stride)
    if input_strides[-1] != 1:
        raise ValueError(
            f"{_KEY}.DECONV_STRIDES = {list(node.DECONV_STRIDES)} does not undo CONV_POOLS = {list(node.CONV_POOLS)}."
        )
    if len(node.DECONV_SKIPS) != len(input_strides):
        raise ValueError(
            f"{_KEY}.DECONV_SKIPS needs an entry for each of the {len(input_strides)} deconv layers, the last one "
            f"included: got {list(node.DECONV_SKIPS)}."
        )
    for layer, (skip, stride) in enumerate(zip(node.DECONV_SKIPS, input_strides, strict=True)):
        # The last conv layer's output is the deconv net's input.
        if skip != NO_SKIP and not (0 <= skip < len(node.CONV_POOLS) and feature_strides[skip] == stride):
            fitting = [i for i in range(len(node.CONV_POOLS)) if feature_strides[i] == stride]
            raise ValueError(
                f"{_KEY}.DECONV_SKIPS[{layer}] is {skip}, but layer {layer} works at 1/{stride} of the image's size, "
                f"as features {fitting} do (0 is the image, i the output of the i-th conv layer). Give one of those, "
                f"or {NO_SKIP} for none."
            )


@PREPROCESSOR_REGISTRY.register()
class ForegroundFCN(LearnedMaps):
    """The last layer has neither norm nor ReLU; skips are concatenated to the deconv layers' inputs."""

    @configurable
    def __init__(
        self,
        *,
        conv_channels: Sequence[int],
        conv_pools: Sequence[int],
        deconv_channels: Sequence[int],
        deconv_strides: Sequence[int],
        deconv_skips: Sequence[int],
        norm: str,
        initializer: str,
        **maps_arguments: Any,
    ):
        """
        Args:
            conv_channels, conv_pools: conv layers.
            deconv_channels, deconv_strides: deconv layers, without the last one.
            deconv_skips: what each deconv layer, the last included, sees besides its predecessor's output: -1 nothing,
                0 the image, i the output of the i-th conv layer.
            norm: name in STEP_NORMS.
            initializer: see :func:`~rec_attend_d2.layers.initialization.initialize`.
            maps_arguments: of :class:`.learned_maps.LearnedMaps`.
        """
        super().__init__(**maps_arguments)
        # An image passes once: one set of statistics.
        make_norm = partial(look_up(STEP_NORMS, norm, "MODEL.REC_ATTEND.NORM"), time_steps=1)
        self.deconv_skips = list(deconv_skips)
        self.conv = ConvStack(3, conv_channels, conv_pools, make_norm)
        feature_channels = [3, *conv_channels]
        skipped = [0 if skip == NO_SKIP else feature_channels[skip] for skip in deconv_skips]
        inputs = [i + s for i, s in zip([conv_channels[-1], *deconv_channels], skipped, strict=True)]
        layers: list[nn.Module] = [
            DeconvLayer(i, o, stride, make_norm)
            for i, o, stride in zip(inputs[:-1], deconv_channels, deconv_strides, strict=True)
        ]
        self.deconv = nn.ModuleList(
            [*layers, PlainDeconvLayer(inputs[-1], self.foreground_classes + self.angle_bins, 1)]
        )
        initialize(self, initializer)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        node = cfg.MODEL.REC_ATTEND.PREPROCESSOR
        _check_layers(node, cfg.INPUT.IMAGE_SIZE)
        return {
            **cls.maps_arguments(cfg),
            "conv_channels": node.CONV_CHANNELS,
            "conv_pools": node.CONV_POOLS,
            "deconv_channels": node.DECONV_CHANNELS,
            "deconv_strides": node.DECONV_STRIDES,
            "deconv_skips": node.DECONV_SKIPS,
            "norm": cfg.MODEL.REC_ATTEND.NORM,
            "initializer": cfg.MODEL.REC_ATTEND.INIT,
        }

    def logits(self, images: Tensor) -> Tensor:
        """[B, K + A, H, W] of ``images`` [B, 3, H, W]."""
        features = [images, *self.conv(images, 0)]
        x = features[-1]
        for layer, skip in zip(self.deconv, self.deconv_skips, strict=True):
            x = layer(x if skip == NO_SKIP else cat([x, features[skip]], dim=1), 0)
        return x
