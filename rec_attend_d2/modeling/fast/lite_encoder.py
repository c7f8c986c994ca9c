"""EfficientNet-Lite0 (Tan, 2020) as the fast model's image encoder, without its classifier.

Weights from ImageNet are loaded where a training starts with MODEL.WEIGHTS :data:`LITE0_WEIGHTS`.

Shapes: `B` images, `C` channels, `H, W` input of a block, even where a block halves it.
"""

from collections.abc import Iterator

import torch
from detectron2.config import CfgNode
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from torch import Tensor, nn
from torch.nn import functional as F

from ...layers.conv_norm import fast_layout
from .blocks import ConvNorm, widened
from .image_encoder import FEATURE_CHANNELS, PyramidEncoder

# What MODEL.WEIGHTS names to start from the ImageNet weights.
LITE0_WEIGHTS = "imagenet://efficientnet-lite0"

STEM_CHANNELS = 32
# Of each stage its groups of blocks: kernel size, stride of the first block, factor of the channels within a block,
# output channels, blocks. The first stage has the stem before it.
STAGES = (
    ((3, 1, 1, 16, 1),),
    ((3, 2, 6, 24, 2),),
    ((5, 2, 6, 40, 2),),
    ((3, 2, 6, 80, 3), (5, 1, 6, 112, 3)),
    ((5, 2, 6, 192, 4), (3, 1, 6, 320, 1)),
)


class ConvNormReLU6(ConvNorm):
    """Conv without bias, batch norm, ReLU that stops at 6.

    It pads as TensorFlow, with which the weights were made: an even side that is halved gets less before than behind.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1, kernel: int = 3, groups: int = 1):
        super().__init__(in_channels, out_channels, stride, kernel, groups)
        self.padding: tuple[int, ...] = ()
        if stride == 2:
            before = (kernel - 2) // 2
            self.padding = (before, kernel - 2 - before) * 2
            self.conv.padding = (0, 0)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C_in, H, W] -> [B, C_out, H / stride, W / stride], 0 to 6"""
        return F.relu6(super().forward(F.pad(x, self.padding) if self.padding else x), inplace=True)


class InvertedResidual(nn.Module):
    """Widens by a 1x1 conv, filters each channel by itself, narrows again; with a shortcut where the shape stays."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, kernel: int, expansion: int):
        """
        Args:
            in_channels, out_channels, stride, kernel: as of a conv.
            expansion: factor of the channels in between.
        """
        super().__init__()
        inner = expansion * in_channels
        self.expand = ConvNormReLU6(in_channels, inner, kernel=1) if expansion > 1 else None
        self.depthwise = ConvNormReLU6(inner, inner, stride, kernel, groups=inner)
        self.project = ConvNorm(inner, out_channels, kernel=1)
        self.adds = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """[B, C_in, H, W] -> [B, C_out, H / stride, W / stride]"""
        new = self.project(self.depthwise(x if self.expand is None else self.expand(x)))
        return x + new if self.adds else new


class ImageNetInput(nn.Module):
    """Images of the model as the weights know them: RGB, 127 at 0, in units of 128."""

    def __init__(self, pixel_mean: list[float], pixel_std: list[float]):
        """
        Args:
            pixel_mean, pixel_std: [3], BGR, with which the model normalised its images of range 0 to 255.
        """
        super().__init__()
        mean, std = (torch.tensor(values).flip(0).view(3, 1, 1) for values in (pixel_mean, pixel_std))
        self.scale: Tensor
        self.shift: Tensor
        self.register_buffer("scale", std / 128, persistent=False)
        self.register_buffer("shift", (mean - 127) / 128, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """[B, 3, H, W] BGR -> [B, 3, H, W] RGB"""
        return fast_layout(images.flip(1) * self.scale + self.shift)


class Lite0Encoder(PyramidEncoder):
    """EfficientNet-Lite0's trunk as stages of a feature pyramid."""

    def __init__(self, pixel_mean: list[float], pixel_std: list[float], feature_channels: list[int]):
        """
        Args:
            pixel_mean, pixel_std: see :class:`ImageNetInput`.
            feature_channels: of the two maps that it returns, at 1/4 and 1/8.
        """
        stages: list[nn.Module] = []
        channels = STEM_CHANNELS
        for groups in STAGES:
            layers: list[nn.Module] = []
            if not stages:
                layers = [ImageNetInput(pixel_mean, pixel_std), ConvNormReLU6(3, channels, stride=2)]
            for kernel, stride, expansion, out, blocks in groups:
                for block in range(blocks):
                    layers.append(InvertedResidual(channels, out, stride if block == 0 else 1, kernel, expansion))
                    channels = out
            stages.append(nn.Sequential(*layers))
        super().__init__(stages, [groups[-1][3] for groups in STAGES], feature_channels)

    def imagenet_names(self) -> dict[str, str]:
        """What the tensors of the trunk are called in the file of ImageNet weights, by their name here."""
        names = dict(_tensor_names("stem.1", "_conv_stem", "_bn0"))
        blocks = [(name, module) for name, module in self.named_modules() if isinstance(module, InvertedResidual)]
        for number, (name, block) in enumerate(blocks):
            their = f"_blocks.{number}."
            if block.expand is not None:
                names.update(_tensor_names(f"{name}.expand", f"{their}_expand_conv", f"{their}_bn0"))
            names.update(_tensor_names(f"{name}.depthwise", f"{their}_depthwise_conv", f"{their}_bn1"))
            names.update(_tensor_names(f"{name}.project", f"{their}_project_conv", f"{their}_bn2"))
        return names


def _tensor_names(ours: str, conv: str, norm: str) -> Iterator[tuple[str, str]]:
    """Names of the tensors of a conv with its norm, here and there."""
    yield f"{ours}.conv.weight", f"{conv}.weight"
    for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
        yield f"{ours}.norm.{name}", f"{norm}.{name}"


@BACKBONE_REGISTRY.register()
def build_lite0_encoder(cfg: CfgNode, input_shape: ShapeSpec) -> Lite0Encoder:
    """EfficientNet-Lite0, whose first MODEL.BACKBONE.FREEZE_AT stages (1 = all before 1/4 of the size) are frozen.

    MODEL.REC_ATTEND.FAST.WIDTH is that of the two maps alone.
    """
    encoder = Lite0Encoder(cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD, widened(cfg, FEATURE_CHANNELS))
    encoder.freeze(cfg.MODEL.BACKBONE.FREEZE_AT)
    return encoder
