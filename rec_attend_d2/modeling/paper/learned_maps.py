"""Preprocessors that predict the foreground and angle maps (paper, section 3.1, A).

Shapes: `B` images, `K` foreground channels, `A` angle bins, `H, W` network input.
"""

from abc import ABC, abstractmethod
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn

from ..registries import PAPER
from ..steps import ExtraMaps

_KEY = "MODEL.REC_ATTEND.PREPROCESSOR"


class LearnedMaps(nn.Module, ABC):
    """Base of networks with ``K + A`` logits per pixel: foreground (K = 1) or semantic classes, then angle bins.

    A frozen one has no gradients and always computes as in evaluation, whatever the mode of the model around it.
    """

    part_of = PAPER

    def __init__(self, *, foreground_classes: int, angle_bins: int):
        """
        Args:
            foreground_classes: K; 1 = foreground, more = semantic classes whose first is the background, 0 = none.
            angle_bins: A; 0 = none.
        """
        super().__init__()
        self.foreground_classes = foreground_classes
        self.angle_bins = angle_bins
        self.frozen = False

    @staticmethod
    def maps_arguments(cfg: CfgNode) -> dict[str, Any]:
        """Arguments of this class's constructor.

        Raises:
            ValueError: no map is asked for.
        """
        node = cfg.MODEL.REC_ATTEND.PREPROCESSOR
        if node.FOREGROUND_CLASSES + node.ANGLE_BINS == 0:
            raise ValueError(
                f"{_KEY}.NAME '{node.NAME}' is to predict maps, but FOREGROUND_CLASSES and ANGLE_BINS are both 0. Set "
                "them, or choose 'NoPreprocessor'."
            )
        return {
            "foreground_classes": node.FOREGROUND_CLASSES,
            "angle_bins": node.ANGLE_BINS,
        }

    @abstractmethod
    def logits(self, images: Tensor) -> Tensor:
        """[B, K + A, H, W] of ``images`` [B, 3, H, W], normalised."""

    def probabilities(self, images: Tensor) -> Tensor:
        """[B, K + A, H, W] of ``images`` [B, 3, H, W]."""
        foreground, angle = self.logits(images).split([self.foreground_classes, self.angle_bins], dim=1)
        binary = self.foreground_classes == 1
        foreground = torch.sigmoid(foreground) if binary else torch.softmax(foreground, dim=1)
        return torch.cat([foreground, torch.softmax(angle, dim=1)], dim=1)

    def freeze(self) -> None:
        """Stop learning, for good."""
        self.frozen = True
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "LearnedMaps":
        """Training mode, unless frozen."""
        return super().train(mode and not self.frozen)

    def forward(self, images: Tensor, batched_inputs: list[dict]) -> ExtraMaps:
        """Maps of ``images`` [B, 3, H, W], computed once per image and not per step."""
        foreground, angle = self.probabilities(images).split([self.foreground_classes, self.angle_bins], dim=1)
        return ExtraMaps(
            angle=angle if self.angle_bins else None, foreground=foreground if self.foreground_classes else None
        )
