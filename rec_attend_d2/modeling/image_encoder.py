"""An image encoder as preprocessor: features computed once per image, learned together with the rest.

Shapes: `B` images, `H, W` network input.
"""

from collections.abc import Sequence
from functools import partial

from detectron2.config import CfgNode, configurable
from torch import Tensor, nn

from ..layers.conv_norm import fast_layout
from ..layers.initialization import initialize
from ..layers.residual import ConvNormReLU, ResidualBlock, calm_residuals, enlarge
from ..layers.step_norm import STEP_NORMS
from ..registry import look_up
from .image_model import training_size
from .registries import PREPROCESSOR_REGISTRY
from .step_types import ExtraMaps

# Image pixels per cell of the feature maps, finest first.
FEATURE_STRIDES = (4, 8)
# Image pixels per cell of the deepest map.
DEEPEST_STRIDE = 32

_KEY = "MODEL.REC_ATTEND.PREPROCESSOR"


def check_image_size(cfg: CfgNode) -> None:
    """Raise a ValueError unless INPUT.IMAGE_SIZE and crops of it can be halved down to the deepest map."""
    for key, size in (("INPUT.IMAGE_SIZE", cfg.INPUT.IMAGE_SIZE), ("INPUT.CROP.SIZE", training_size(cfg))):
        if any(side % DEEPEST_STRIDE for side in size):
            raise ValueError(
                f"{key} is {list(size)}; ImageEncoder and FeatureControlCNN need multiples of {DEEPEST_STRIDE}."
            )


@PREPROCESSOR_REGISTRY.register()
class ImageEncoder(nn.Module):
    """Residual conv net with a way back up (a feature pyramid); its two finest maps go on to the other parts."""

    @configurable
    def __init__(
        self, *, encoder_channels: Sequence[int], feature_channels: Sequence[int], norm: str, initializer: str
    ):
        """
        Args:
            encoder_channels: of the levels at 1/2, 1/4, 1/8, 1/16 and 1/32 of the image's size.
            feature_channels: of the two maps that it returns, at 1/4 and 1/8.
            norm: name in STEP_NORMS.
            initializer: as MODEL.REC_ATTEND.INIT.
        """
        super().__init__()
        # An image passes once, whatever the number of steps: one set of statistics.
        make_norm = partial(look_up(STEP_NORMS, norm, "MODEL.REC_ATTEND.NORM"), time_steps=1)
        half, quarter, eighth, sixteenth, deepest = encoder_channels
        fine, coarse = feature_channels
        self.stem = ConvNormReLU(3, half, make_norm, stride=2)
        self.quarter = nn.ModuleList(
            [ConvNormReLU(half, quarter, make_norm, stride=2), ResidualBlock(quarter, quarter, make_norm)]
        )
        self.eighth = nn.ModuleList(
            [ResidualBlock(quarter, eighth, make_norm, stride=2), ResidualBlock(eighth, eighth, make_norm)]
        )
        self.sixteenth = ResidualBlock(eighth, sixteenth, make_norm, stride=2)
        self.deepest = ResidualBlock(sixteenth, deepest, make_norm, stride=2)
        self.lateral = nn.ModuleList(
            nn.Conv2d(channels, out, 1)
            for channels, out in ((quarter, fine), (eighth, coarse), (sixteenth, coarse), (deepest, coarse))
        )
        self.to_fine = nn.Conv2d(coarse, fine, 1)
        self.smooth = nn.ModuleList(ConvNormReLU(out, out, make_norm) for out in (fine, coarse, coarse))
        initialize(self, initializer)
        calm_residuals(self)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        node = cfg.MODEL.REC_ATTEND.PREPROCESSOR
        if node.ANGLE_BINS or node.FOREGROUND_CLASSES:
            raise ValueError(f"{_KEY}.NAME 'ImageEncoder' makes no angle or foreground map: set both keys to 0.")
        for name, expected in (("ENCODER_CHANNELS", 5), ("FEATURE_CHANNELS", 2)):
            if len(node[name]) != expected:
                raise ValueError(f"{_KEY}.{name} needs {expected} numbers of channels, got {list(node[name])}.")
        check_image_size(cfg)
        return {
            "encoder_channels": node.ENCODER_CHANNELS,
            "feature_channels": node.FEATURE_CHANNELS,
            "norm": cfg.MODEL.REC_ATTEND.NORM,
            "initializer": cfg.MODEL.REC_ATTEND.INIT,
        }

    def forward(self, images: Tensor, batched_inputs: list[dict]) -> ExtraMaps:
        """Features of ``images`` [B, 3, H, W]: [B, C_1, H / 4, W / 4] and [B, C_2, H / 8, W / 8]."""
        levels = [self.stem(fast_layout(images), 0)]
        for stage in (self.quarter, self.eighth, [self.sixteenth], [self.deepest]):
            x = levels[-1]
            for layer in stage:
                x = layer(x, 0)
            levels.append(x)
        _, quarter, eighth, sixteenth, deepest = levels
        x = self.lateral[2](sixteenth)
        x = self.smooth[2](x + enlarge(self.lateral[3](deepest), x), 0)
        coarse = self.lateral[1](eighth)
        coarse = self.smooth[1](coarse + enlarge(x, coarse), 0)
        fine = self.lateral[0](quarter)
        fine = self.smooth[0](fine + enlarge(self.to_fine(coarse), fine), 0)
        return ExtraMaps(features=(fine, coarse))
