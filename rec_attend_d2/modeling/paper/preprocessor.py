"""Preprocessors add angle and foreground maps to the image (paper, section 3.1, A).

Shapes: `B` images, `H, W` network input.
"""

import torch
from detectron2.config import CfgNode, configurable
from torch import Tensor, nn

from ..registries import PAPER, PREPROCESSOR_REGISTRY, look_up_part
from ..steps import ExtraMaps


def build_preprocessor(cfg: CfgNode) -> nn.Module:
    """The part named by MODEL.REC_ATTEND.PREPROCESSOR.NAME. In stages B and C one that predicts maps does not learn."""
    key, name = "MODEL.REC_ATTEND.PREPROCESSOR.NAME", cfg.MODEL.REC_ATTEND.PREPROCESSOR.NAME
    preprocessor = look_up_part(PREPROCESSOR_REGISTRY, name, key, PAPER)(cfg)
    if cfg.MODEL.META_ARCHITECTURE != "RecAttendPreprocessor" and hasattr(preprocessor, "freeze"):
        preprocessor.freeze()
    return preprocessor


@PREPROCESSOR_REGISTRY.register()
class NoPreprocessor(nn.Module):
    """Adds nothing: the networks see image and memory."""

    part_of = PAPER

    @configurable
    def __init__(self) -> None:
        super().__init__()

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        node = cfg.MODEL.REC_ATTEND.PREPROCESSOR
        if node.ANGLE_BINS or node.FOREGROUND_CLASSES:
            raise ValueError(
                "MODEL.REC_ATTEND.PREPROCESSOR.NAME is 'NoPreprocessor', but ANGLE_BINS or FOREGROUND_CLASSES is not "
                "0. Set them to 0, or choose a preprocessor that makes these maps, such as 'GivenMaps'."
            )
        return {}

    def forward(self, images: Tensor, batched_inputs: list[dict]) -> ExtraMaps:
        """No maps for ``images`` [B, 3, H, W]."""
        return ExtraMaps()


@PREPROCESSOR_REGISTRY.register()
class GivenMaps(nn.Module):
    """Takes the maps from the data: ``angle_map`` [8, H, W] and ``foreground`` [K, H, W] of each dataset dict."""

    part_of = PAPER

    @configurable
    def __init__(self, *, angle_bins: int, foreground_classes: int):
        super().__init__()
        self.angle_bins = angle_bins
        self.foreground_classes = foreground_classes

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        node = cfg.MODEL.REC_ATTEND.PREPROCESSOR
        return {"angle_bins": node.ANGLE_BINS, "foreground_classes": node.FOREGROUND_CLASSES}

    def forward(self, images: Tensor, batched_inputs: list[dict]) -> ExtraMaps:
        """Stack the maps of the batch.

        Args:
            images: [B, 3, H, W], for size and device.
            batched_inputs: the dataset dicts.

        Raises:
            ValueError: an image comes without its map, or with one of another size.
        """
        return ExtraMaps(
            angle=self._stack(images, batched_inputs, "angle_map", self.angle_bins),
            foreground=self._stack(images, batched_inputs, "foreground", self.foreground_classes),
        )

    @staticmethod
    def _stack(images: Tensor, batched_inputs: list[dict], key: str, channels: int) -> Tensor | None:
        if channels == 0:
            return None
        expected = (channels, *images.shape[2:])
        for entry in batched_inputs:
            shape = tuple(entry[key].shape) if key in entry else None
            if shape != expected:
                raise ValueError(
                    f"{entry.get('file_name', 'An image')} has '{key}' of shape {shape}; expected {expected}. "
                    "RecAttendDatasetMapper makes it from the annotations."
                )
        return torch.stack([entry[key] for entry in batched_inputs]).to(images)
