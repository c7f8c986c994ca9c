"""The fast model's preprocessor: features computed once per image, learned together with the rest.

Shapes: `B` images, `H, W` network input.
"""

from collections.abc import Sequence

from detectron2.config import CfgNode, configurable
from torch import Tensor, nn

from ...data.training import training_size
from ...layers.conv_norm import fast_layout
from ..registries import FAST, PREPROCESSOR_REGISTRY
from ..steps import ExtraMaps
from .blocks import ConvNormReLU, ResidualBlock, enlarge, widened

# Image pixels per cell of the feature maps, finest first.
FEATURE_STRIDES = (4, 8)
# Image pixels per cell of the deepest map.
DEEPEST_STRIDE = 32

# Of the levels at 1/2, 1/4, 1/8, 1/16 and 1/32 of the image's size, and of the two maps that are handed on, at 1/4 and
# 1/8; times FAST.WIDTH.
ENCODER_CHANNELS = (16, 32, 64, 96, 96)
FEATURE_CHANNELS = (32, 48)


@PREPROCESSOR_REGISTRY.register()
class ImageEncoder(nn.Module):
    """Residual conv net with a way back up (a feature pyramid); its two finest maps go on to the other parts.

    Attributes:
        feature_channels: of these two maps.
    """

    part_of = FAST

    @configurable
    def __init__(self, *, encoder_channels: Sequence[int], feature_channels: Sequence[int]):
        """
        Args:
            encoder_channels: of the levels at 1/2, 1/4, 1/8, 1/16 and 1/32 of the image's size.
            feature_channels: of the two maps that it returns, at 1/4 and 1/8.
        """
        super().__init__()
        self.feature_channels = tuple(feature_channels)
        half, quarter, eighth, sixteenth, deepest = encoder_channels
        fine, coarse = feature_channels
        self.stem = ConvNormReLU(3, half, stride=2)
        self.quarter = nn.Sequential(ConvNormReLU(half, quarter, stride=2), ResidualBlock(quarter, quarter))
        self.eighth = nn.Sequential(ResidualBlock(quarter, eighth, stride=2), ResidualBlock(eighth, eighth))
        self.sixteenth = ResidualBlock(eighth, sixteenth, stride=2)
        self.deepest = ResidualBlock(sixteenth, deepest, stride=2)
        self.lateral = nn.ModuleList(
            nn.Conv2d(channels, out, 1)
            for channels, out in ((quarter, fine), (eighth, coarse), (sixteenth, coarse), (deepest, coarse))
        )
        self.to_fine = nn.Conv2d(coarse, fine, 1)
        self.smooth = nn.ModuleList(ConvNormReLU(out, out) for out in (fine, coarse, coarse))

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        for key, size in (("INPUT.IMAGE_SIZE", cfg.INPUT.IMAGE_SIZE), ("INPUT.CROP.SIZE", training_size(cfg))):
            if any(side % DEEPEST_STRIDE for side in size):
                raise ValueError(f"{key} is {list(size)}; the fast model needs multiples of {DEEPEST_STRIDE}.")
        return {
            "encoder_channels": widened(cfg, ENCODER_CHANNELS),
            "feature_channels": widened(cfg, FEATURE_CHANNELS),
        }

    def forward(self, images: Tensor, batched_inputs: list[dict]) -> ExtraMaps:
        """Features of ``images`` [B, 3, H, W]: [B, C_1, H / 4, W / 4] and [B, C_2, H / 8, W / 8]."""
        x = self.stem(fast_layout(images))
        quarter = self.quarter(x)
        eighth = self.eighth(quarter)
        sixteenth = self.sixteenth(eighth)
        x = self.lateral[2](sixteenth)
        x = self.smooth[2](x + enlarge(self.lateral[3](self.deepest(sixteenth)), x))
        coarse = self.lateral[1](eighth)
        coarse = self.smooth[1](coarse + enlarge(x, coarse))
        fine = self.lateral[0](quarter)
        fine = self.smooth[0](fine + enlarge(self.to_fine(coarse), fine))
        return ExtraMaps(features=(fine, coarse))
