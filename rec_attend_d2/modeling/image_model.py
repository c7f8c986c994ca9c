"""What all meta-architectures share: images, normalised.

Shapes: `B` images, `H, W` network input.
"""

from collections.abc import Callable
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.utils.events import EventStorage, get_event_storage
from torch import Tensor, nn

# Training statistics are put into the event storage every so many iterations.
STATISTICS_PERIOD = 20


class ImageModel(nn.Module):
    """Base of the meta-architectures: takes dataset dicts of the mapper of :func:`rec_attend_d2.data.build_mapper`."""

    def __init__(
        self,
        *,
        image_size: tuple[int, int] | None,
        pixel_mean: list[float],
        pixel_std: list[float],
    ):
        """
        Args:
            image_size: (H, W), pixels, which all images have to have; None = any size.
            pixel_mean, pixel_std: [3], BGR, subtracted from and divided into images of range 0 to 255.
        """
        super().__init__()
        self.image_size = image_size
        self.pixel_mean: Tensor
        self.pixel_std: Tensor
        self.register_buffer("pixel_mean", torch.tensor(pixel_mean).view(-1, 1, 1), False)
        self.register_buffer("pixel_std", torch.tensor(pixel_std).view(-1, 1, 1), False)

    @staticmethod
    def image_arguments(cfg: CfgNode) -> dict[str, Any]:
        """Arguments of this class's constructor."""
        return {
            "image_size": tuple(cfg.INPUT.IMAGE_SIZE),
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
        }

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return self.pixel_mean.device

    def _check_size(self, entry: dict, what: str, size: tuple[int, int]) -> None:
        if self.image_size is not None and tuple(size) != self.image_size:
            raise ValueError(
                f"{entry.get('file_name', 'An image')} has {what} {tuple(size)} (height, width), but INPUT.IMAGE_SIZE "
                f"is {self.image_size}. RecAttendDatasetMapper resizes images and instances."
            )

    def check_instances(self, entry: dict) -> None:
        """Raise a ValueError unless a dataset dict has instances of the network's size, which training needs."""
        if "instances" not in entry:
            raise ValueError(
                f"{entry.get('file_name', 'An image')} has no 'instances', which training needs: its data set has no "
                "annotations, or the mapper left them out."
            )
        self._check_size(entry, "instances of an image of size", entry["instances"].image_size)

    def preprocess_image(self, batched_inputs: list[dict]) -> Tensor:
        """Images [B, 3, H, W], BGR, normalised (in [0, 1] with the default mean and std).

        Raises:
            ValueError: an image that does not have the network's input size.
        """
        for entry in batched_inputs:
            self._check_size(entry, "size", entry["image"].shape[-2:])
        return self.normalize(torch.stack([entry["image"] for entry in batched_inputs]))

    def normalize(self, images: Tensor) -> Tensor:
        """Images [B, 3, H, W] of range 0 to 255 as the networks take them, on the model's device."""
        return (images.to(self.device) - self.pixel_mean) / self.pixel_std

    def original_size(self, entry: dict) -> tuple[int, int]:
        """(height, width) of the file of a dataset dict, or that of its image where it does not say."""
        height, width = entry["image"].shape[-2:]
        return entry.get("height", height), entry.get("width", width)

    @staticmethod
    def _log_statistics(statistics: Callable[[], dict[str, Tensor]]) -> None:
        try:
            storage: EventStorage = get_event_storage()
        except AssertionError:
            return  # called outside a training loop, where nobody listens
        if storage.iter % STATISTICS_PERIOD == 0:
            for name, value in statistics().items():
                storage.put_scalar(f"train/{name}", value.item())


def backbone_of(model: nn.Module) -> nn.Module | None:
    """The backbone of the model's preprocessor, which is Detectron2's or in its registry; None where it has none."""
    return getattr(getattr(model, "preprocessor", None), "backbone", None)
