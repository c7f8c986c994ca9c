"""The fast model's preprocessor: features computed once per image by a backbone, learned together with the rest.

The backbone is one of Detectron2's BACKBONE_REGISTRY with maps at strides 4 and 8 (MODEL.BACKBONE.NAME): the small
encoder, the one of :mod:`.lite_encoder`, or any other, such as "build_resnet_fpn_backbone".

Shapes: `B` images, `H, W` network input.
"""

from collections.abc import Sequence

from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import Tensor, nn

from ...layers.conv_norm import fast_layout
from ...registry import look_up
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


class PyramidEncoder(Backbone):
    """Stages of convs that halve the map five times, and a way back up (a feature pyramid) to its two finest maps."""

    def __init__(self, stages: Sequence[nn.Module], stage_channels: Sequence[int], feature_channels: Sequence[int]):
        """
        Args:
            stages: from the image to 1/2 of its size, from there to 1/4, and so on to 1/8, 1/16 and 1/32.
            stage_channels: of what each of them gives.
            feature_channels: of the two maps that it returns, at 1/4 and 1/8.
        """
        super().__init__()
        _, quarter, eighth, sixteenth, deepest = stage_channels
        fine, coarse = feature_channels
        self._shapes = {
            f"p{level}": ShapeSpec(channels=channels, stride=stride)
            for level, channels, stride in zip((2, 3), feature_channels, FEATURE_STRIDES, strict=True)
        }
        self._frozen: tuple[nn.Module, ...] = ()
        self.stem, self.quarter, self.eighth, self.sixteenth, self.deepest = stages
        self.lateral = nn.ModuleList(
            nn.Conv2d(channels, out, 1)
            for channels, out in ((quarter, fine), (eighth, coarse), (sixteenth, coarse), (deepest, coarse))
        )
        self.to_fine = nn.Conv2d(coarse, fine, 1)
        self.smooth = nn.ModuleList(ConvNormReLU(out, out) for out in (fine, coarse, coarse))

    @property
    def size_divisibility(self) -> int:
        """Sides of images have to be multiples of it."""
        return DEEPEST_STRIDE

    def output_shape(self) -> dict[str, ShapeSpec]:
        """Channels and strides of what it gives."""
        return self._shapes

    def freeze(self, count: int) -> None:
        """Let the first ``count`` stages (1 = stem) stay as they are in training, running statistics included."""
        self._frozen = (self.stem, self.quarter, self.eighth, self.sixteenth, self.deepest)[:count]
        for stage in self._frozen:
            stage.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> "PyramidEncoder":
        """As of any module; frozen stages stay in evaluation mode."""
        super().train(mode)
        for stage in self._frozen:
            stage.eval()
        return self

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Maps "p2" [B, C_1, H / 4, W / 4] and "p3" [B, C_2, H / 8, W / 8] of ``images`` [B, 3, H, W]."""
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
        return {"p2": fine, "p3": coarse}


@BACKBONE_REGISTRY.register()
def build_small_encoder(cfg: CfgNode, input_shape: ShapeSpec) -> PyramidEncoder:
    """The fast model's own encoder of residual blocks, as wide as MODEL.REC_ATTEND.FAST.WIDTH says.

    MODEL.BACKBONE.FREEZE_AT means nothing to it, since it has no weights from elsewhere.
    """
    channels = widened(cfg, ENCODER_CHANNELS)
    half, quarter, eighth, sixteenth, deepest = channels
    stages = [
        ConvNormReLU(3, half, stride=2),
        nn.Sequential(ConvNormReLU(half, quarter, stride=2), ResidualBlock(quarter, quarter)),
        nn.Sequential(ResidualBlock(quarter, eighth, stride=2), ResidualBlock(eighth, eighth)),
        ResidualBlock(eighth, sixteenth, stride=2),
        ResidualBlock(sixteenth, deepest, stride=2),
    ]
    return PyramidEncoder(stages, channels, widened(cfg, FEATURE_CHANNELS))


@PREPROCESSOR_REGISTRY.register()
class ImageEncoder(nn.Module):
    """A backbone's maps at strides 4 and 8, brought to the numbers of channels that the other parts take.

    Attributes:
        feature_channels: of the two maps.
        multiple: sides of images have to be multiples of it.
    """

    part_of = FAST

    @configurable
    def __init__(self, *, backbone: Backbone, names: Sequence[str], feature_channels: Sequence[int]):
        """
        Args:
            backbone: gives maps by name.
            names: of the maps at strides 4 and 8.
            feature_channels: of what is handed on; a map with another number goes through a conv of 1x1.
        """
        super().__init__()
        self.backbone = backbone
        self.names = tuple(names)
        self.feature_channels = tuple(feature_channels)
        self.multiple = max(DEEPEST_STRIDE, backbone.size_divisibility)
        shapes = backbone.output_shape()
        self.project = nn.ModuleList(
            nn.Identity() if shapes[name].channels == out else ConvNormReLU(shapes[name].channels or 0, out, kernel=1)
            for name, out in zip(self.names, self.feature_channels, strict=True)
        )

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        build = look_up(BACKBONE_REGISTRY, cfg.MODEL.BACKBONE.NAME, "MODEL.BACKBONE.NAME")
        backbone = build(cfg, ShapeSpec(channels=len(cfg.MODEL.PIXEL_MEAN)))
        strides = {shape.stride: name for name, shape in backbone.output_shape().items()}
        if not set(FEATURE_STRIDES) <= set(strides):
            raise ValueError(
                f"MODEL.BACKBONE.NAME '{cfg.MODEL.BACKBONE.NAME}' gives maps of strides {sorted(map(str, strides))}; "
                "the fast model needs 4 and 8. Of a ResNet without FPN set MODEL.RESNETS.OUT_FEATURES to ['res2', "
                "'res3']."
            )
        return {
            "backbone": backbone,
            "names": [strides[stride] for stride in FEATURE_STRIDES],
            "feature_channels": widened(cfg, FEATURE_CHANNELS),
        }

    def forward(self, images: Tensor, batched_inputs: list[dict]) -> ExtraMaps:
        """Features of ``images`` [B, 3, H, W]: [B, C_1, H / 4, W / 4] and [B, C_2, H / 8, W / 8]."""
        maps = self.backbone(images)
        return ExtraMaps(
            features=tuple(project(maps[name]) for project, name in zip(self.project, self.names, strict=True))
        )
