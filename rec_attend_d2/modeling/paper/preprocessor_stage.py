"""Stage A: trains the preprocessor alone on the true foreground and angle maps (paper, section 3.1, A).

Shapes: `B` images, `K` foreground channels, `A` angle bins, `H, W` network input.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from torch import Tensor
from torch.nn import functional as F

from ...registry import look_up
from ..image_model import ImageModel
from .foreground_losses import FOREGROUND_LOSSES, MapTargets, angle_cross_entropy, map_statistics
from .learned_maps import LearnedMaps
from .losses import weight_decay_loss
from .preprocessor import build_preprocessor


@META_ARCH_REGISTRY.register()
class RecAttendPreprocessor(ImageModel):
    """A preprocessor and its losses. Its weights have the names that stages B and C give their preprocessor's."""

    @configurable
    def __init__(
        self,
        *,
        preprocessor: LearnedMaps,
        foreground_loss: Callable[[Tensor, MapTargets], Tensor],
        weight_decay: float,
        **image_arguments: Any,
    ):
        """
        Args:
            preprocessor: learns.
            foreground_loss: of FOREGROUND_LOSSES.
            weight_decay: factor of the weight decay term of the loss.
            image_arguments: of :class:`..image_model.ImageModel`.
        """
        super().__init__(**image_arguments)
        self.preprocessor = preprocessor
        self.foreground_loss = foreground_loss
        self.weight_decay = weight_decay

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        node = cfg.MODEL.REC_ATTEND
        preprocessor = build_preprocessor(cfg)
        if not isinstance(preprocessor, LearnedMaps) or preprocessor.foreground_classes == 0:
            raise ValueError(
                f"MODEL.REC_ATTEND.PREPROCESSOR.NAME '{node.PREPROCESSOR.NAME}' has no foreground map that stage A "
                "could train. Choose 'ForegroundFCN' or 'BackboneFCN', with FOREGROUND_CLASSES of at least 1."
            )
        return {
            "preprocessor": preprocessor,
            "foreground_loss": look_up(FOREGROUND_LOSSES, node.LOSS.FOREGROUND, "MODEL.REC_ATTEND.LOSS.FOREGROUND"),
            "weight_decay": node.LOSS.WEIGHT_DECAY,
            **cls.image_arguments(cfg),
        }

    def extract_targets(self, batched_inputs: list[dict]) -> MapTargets:
        """True maps of a training batch, on the model's device.

        Raises:
            ValueError: an entry without them.
        """
        angle_bins = self.preprocessor.angle_bins
        wanted = ["foreground", "foreground_weight"] + (["angle_map"] if angle_bins else [])
        for entry in batched_inputs:
            for key in wanted:
                if key not in entry:
                    raise ValueError(
                        f"{entry.get('file_name', 'An image')} has no '{key}', which training needs: its data set has "
                        "no annotations, or the mapper left them out."
                    )
        maps = {key: torch.stack([entry[key] for entry in batched_inputs]).to(self.device) for key in wanted}
        return MapTargets(maps["foreground"], maps.get("angle_map"), maps["foreground_weight"])

    def compute_losses(self, images: Tensor, targets: MapTargets) -> tuple[dict[str, Tensor], Callable[[], dict]]:
        """Losses by name for normalised ``images`` [B, 3, H, W], and a function that computes statistics."""
        maps = self.preprocessor(images, [])
        losses = {"loss_foreground": self.foreground_loss(maps.foreground, targets)}
        if maps.angle is not None:
            losses["loss_angle"] = angle_cross_entropy(maps.angle, targets)
        losses["loss_weight_decay"] = weight_decay_loss(self, self.weight_decay)
        return losses, partial(map_statistics, maps.foreground, maps.angle, targets)

    def forward(self, batched_inputs: list[dict]) -> dict[str, Tensor] | list[dict]:
        """Losses in training, maps otherwise.

        Args:
            batched_inputs: dataset dicts of RecAttendDatasetMapper: ``image`` uint8 [3, H, W] BGR, ``height`` and
                ``width`` of the original image, and in training ``foreground`` [K, H, W], ``foreground_weight`` [H, W]
                and ``angle_map`` [A, H, W].

        Returns:
            In training scalar losses by name; else one dict per image, at its original size: ``sem_seg`` [K, h, w] and
            ``angle_map`` [A, h, w], probabilities.
        """
        images = self.preprocess_image(batched_inputs)
        if self.training:
            losses, statistics = self.compute_losses(images, self.extract_targets(batched_inputs))
            self._log_statistics(statistics)
            return losses
        maps = self.preprocessor(images, batched_inputs)
        results = []
        for index, entry in enumerate(batched_inputs):
            size = self.original_size(entry)
            named = {"sem_seg": maps.foreground, "angle_map": maps.angle}
            results.append({key: resize_map(value[index], size) for key, value in named.items() if value is not None})
        return results


def resize_map(values: Tensor, size: tuple[int, int]) -> Tensor:
    """``values`` [C, H, W] at ``size`` (h, w), bilinear."""
    return F.interpolate(values[None], size=size, mode="bilinear", align_corners=False)[0]
