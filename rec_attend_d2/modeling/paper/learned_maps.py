"""Preprocessors that predict the foreground and angle maps (paper, section 3.1, A).

Shapes: `B` images, `K` foreground channels, `A` angle bins, `H, W` network input.
"""

from abc import ABC, abstractmethod
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn

from ..steps import ExtraMaps
from .map_cache import MapCache

_KEY = "MODEL.REC_ATTEND.PREPROCESSOR"


class LearnedMaps(nn.Module, ABC):
    """Base of networks with ``K + A`` logits per pixel: foreground (K = 1) or semantic classes, then angle bins.

    A frozen one has no gradients and always computes as in evaluation, whatever the mode of the model around it.
    """

    def __init__(self, *, foreground_classes: int, angle_bins: int, cache_dir: str = ""):
        """
        Args:
            foreground_classes: K; 1 = foreground, more = semantic classes whose first is the background, 0 = none.
            angle_bins: A; 0 = none.
            cache_dir: folder for the maps of a frozen network, see :class:`.map_cache.MapCache`; empty = none.
        """
        super().__init__()
        self.foreground_classes = foreground_classes
        self.angle_bins = angle_bins
        self.cache_dir = cache_dir
        self.frozen = False
        self._cache: MapCache | None = None

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
            "cache_dir": node.CACHE_DIR,
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

    def _cached_probabilities(self, images: Tensor) -> Tensor:
        if self._cache is None:  # not earlier: the weights are loaded after the model is built
            self._cache = MapCache(self.cache_dir, self.state_dict())
        maps = [self._cache.get(image) for image in images]
        missing = [index for index, found in enumerate(maps) if found is None]
        if missing:
            computed = self.probabilities(images[missing])
            for index, values in zip(missing, computed, strict=True):
                self._cache.put(images[index], values)
                # As it will be read, so that the first time is like all others.
                maps[index] = values.half().to(values)
        return torch.stack(maps)  # type: ignore[arg-type]

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
        cached = self.frozen and self.cache_dir
        maps = self._cached_probabilities(images) if cached else self.probabilities(images)
        foreground, angle = maps.split([self.foreground_classes, self.angle_bins], dim=1)
        return ExtraMaps(
            angle=angle if self.angle_bins else None, foreground=foreground if self.foreground_classes else None
        )
