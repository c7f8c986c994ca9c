"""Turns a Detectron2 dataset dict into what the paper's models take.

Shapes: `N` instances, `h, w` network input, `K` foreground channels; pixels.
"""

import logging
from collections.abc import Sequence

import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import transforms as T
from numpy.typing import NDArray

from .augmentation import build_augmentations, build_resize
from .image_io import check_percentiles, dark_note, read_image
from .instances import InstanceTargets, build_targets
from .map_targets import MapTargetGenerator
from .object_size import SMALLEST_WIDTH

logger = logging.getLogger(__name__)


class RecAttendDatasetMapper:
    """Reads an image, augments it, resizes it to the network's input and makes its targets.

    The dict it returns keeps ``file_name``, ``image_id``, ``height`` and ``width`` (of the file) and has:

    * ``image``: uint8 [3, h, w], BGR.
    * ``instances``, if the dict has annotations: Instances at network size, largest area first, at most
      ``time_steps``: ``gt_masks`` (BitMasks), ``gt_classes``, ``gt_boxes`` (tight, XYXY absolute).
    * ``angle_map``, ``foreground`` and ``foreground_weight``, if asked for: see
      :class:`.map_targets.MapTargetGenerator`.

    Attributes:
        cut_instances: objects left out so far because their image has more than ``time_steps``. Each worker process
            of a data loader counts on its own.
        crowd_regions: crowd annotations left out so far; they mark groups, not objects.
    """

    @configurable
    def __init__(
        self,
        *,
        augmentations: Sequence[T.Augmentation],
        time_steps: int,
        contrast_percentiles: Sequence[float] = (),
        object_size: float = 0.0,
        map_targets: MapTargetGenerator | None = None,
    ):
        """
        Args:
            augmentations: applied in order; among them is the resize.
            time_steps: largest number of instances kept.
            contrast_percentiles: of the grey values that become 0 and 255; empty = no stretch.
            object_size: typical width of an object in pixels of the file, to warn of images that are shrunk too far;
                0 = not known.
            map_targets: makes the angle and foreground maps; None = there are none.
        """
        if len(contrast_percentiles) > 0:
            check_percentiles(contrast_percentiles)
        self.augmentations = T.AugmentationList(augmentations)
        self.time_steps = time_steps
        self.contrast_percentiles = tuple(contrast_percentiles)
        self.object_size = object_size
        self.map_targets = map_targets
        self.cut_instances = 0
        self.crowd_regions = 0

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict:
        node = cfg.MODEL.REC_ATTEND
        maps = MapTargetGenerator(node.PREPROCESSOR.FOREGROUND_CLASSES, node.PREPROCESSOR.ANGLE_BINS)
        return {
            "augmentations": build_augmentations(cfg) if is_train else [build_resize(cfg)],
            "time_steps": node.TIME_STEPS,
            "contrast_percentiles": cfg.INPUT.CONTRAST_PERCENTILES,
            "object_size": 0.0 if is_train else cfg.INPUT.OBJECT_SIZE,
            "map_targets": maps if _needs_maps(cfg, is_train) else None,
        }

    def __call__(self, dataset_dict: dict) -> dict:
        """Map one dataset dict, which stays as it is.

        Raises:
            FileNotFoundError: the image is missing.
            ValueError: an image, annotation or size is wrong; the message names the file.
        """
        file_name = dataset_dict["file_name"]
        image = read_image(file_name, self.contrast_percentiles)
        size = image.shape[:2]
        check_size(dataset_dict, size)
        output, transforms = self.map_image(image)
        output.update({key: dataset_dict[key] for key in ("file_name", "image_id") if key in dataset_dict})
        annotations = dataset_dict.get("annotations")
        if annotations is not None:
            new_size = tuple(output["image"].shape[1:])
            targets = build_targets(annotations, size, transforms, new_size, file_name)
            output["instances"] = targets.to_instances(self.time_steps)
            self._count_left_out(targets, file_name)
            if self.map_targets is not None:
                output.update(self.map_targets(dataset_dict, targets, size, transforms))
        elif self.map_targets is not None:
            raise ValueError(
                f"{file_name} has no annotations, of which MODEL.REC_ATTEND.PREPROCESSOR.NAME 'GivenMaps' and stage A "
                "make the angle and foreground maps. Use a data set with annotations, or a preprocessor that predicts "
                "maps."
            )
        return output

    def map_image(self, image: NDArray[np.uint8]) -> tuple[dict, T.TransformList]:
        """Augment and resize an image without annotations.

        Args:
            image: [H, W, 3] BGR, as :func:`.image_io.to_bgr` gives it with ``contrast_percentiles``.

        Returns:
            ``image``, ``height`` and ``width`` of the dict described above and ``notes``, what a reader of the results
            has to know; and what was done to the image.
        """
        aug_input = T.AugInput(image)
        transforms = self.augmentations(aug_input)
        pixels = np.ascontiguousarray(aug_input.image.transpose(2, 0, 1))
        height, width = image.shape[:2]
        entry = {"height": height, "width": width, "image": torch.from_numpy(pixels)}
        notes = self._notes((height, width), pixels.shape[1:]) + dark_note(image, self.contrast_percentiles)
        return {**entry, "notes": notes}, transforms

    def _notes(self, size: tuple[int, int], network_size: tuple[int, ...]) -> tuple[str, ...]:
        """What a reader of the results has to know of an image of ``size`` in a network of ``network_size``."""
        width = self.object_size * min(network_size[0] / size[0], network_size[1] / size[1])
        if width == 0 or width >= SMALLEST_WIDTH:
            return ()
        note = f"objects of {self.object_size:g} pixels are shrunk to {width:.1f}"
        logger.warning(
            f"An image of {size[0]} x {size[1]}: {note} in the network, too small to be told apart. Cut the image into "
            "parts, raise INPUT.IMAGE_SIZE, or use the fast model, which takes images of any size."
        )
        return (note,)

    def _count_left_out(self, targets: InstanceTargets, file_name: str) -> None:
        cut = max(0, len(targets.masks) - self.time_steps)
        if _passes_power_of_two(self.cut_instances, cut):
            logger.warning(
                f"{file_name} has {len(targets.masks)} objects, but MODEL.REC_ATTEND.TIME_STEPS is {self.time_steps}: "
                f"the {cut} smallest are left out. {self.cut_instances + cut} left out so far in this process; raise "
                "TIME_STEPS to keep all."
            )
        if _passes_power_of_two(self.crowd_regions, targets.crowd_regions):
            logger.warning(
                f"{file_name} has {targets.crowd_regions} crowd annotation(s), which are not used as objects. "
                f"{self.crowd_regions + targets.crowd_regions} left out so far in this process."
            )
        self.cut_instances += cut
        self.crowd_regions += targets.crowd_regions


def _needs_maps(cfg: CfgNode, is_train: bool) -> bool:
    """Whether the annotations' maps are the networks' input (oracle), or what stage A learns."""
    if cfg.MODEL.REC_ATTEND.PREPROCESSOR.NAME == "GivenMaps":
        return True
    return is_train and cfg.MODEL.META_ARCHITECTURE == "RecAttendPreprocessor"


def check_size(dataset_dict: dict, size: tuple[int, int]) -> None:
    """Raise a ValueError if the image of ``size`` (height, width) is not of the size the data set says."""
    expected = (dataset_dict.get("height", size[0]), dataset_dict.get("width", size[1]))
    if expected != tuple(size):
        raise ValueError(
            f"Image {dataset_dict['file_name']} is {size[0]} high and {size[1]} wide, but its annotations say "
            f"{expected[0]} high and {expected[1]} wide. Correct 'height' and 'width' (they count after an EXIF "
            "rotation), or put the image there that was annotated."
        )


def _passes_power_of_two(before: int, added: int) -> bool:
    """Whether a count that grows from ``before`` by ``added`` reaches a new power of two."""
    return before.bit_length() < (before + added).bit_length()
