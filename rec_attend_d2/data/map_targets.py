"""True foreground and angle maps of one image, after augmentation (paper, section 3.1, A).

Shapes: `N` instances, `H, W` image file, `h, w` network input, `K` foreground channels, `A` angle bins.
"""

from dataclasses import dataclass

import numpy as np
import torch
from detectron2.data import transforms as T
from numpy.typing import NDArray
from torch import Tensor

from .angle_map import angle_map, foreground_map
from .instances import InstanceTargets, class_of, transform_mask
from .segmentation import annotation_mask

# Weight of coarsely annotated images (Cityscapes' train_extra) in stage A's loss of the foreground: the rims of
# their regions are wrong.
COARSE_WEIGHT = 0.1


@dataclass(frozen=True)
class MapTargetGenerator:
    """Makes the maps that a preprocessor learns, or that take its place.

    Attributes:
        foreground_classes: K; 0 = no foreground map.
        angle_bins: A; 0 = no angle map.
        coarse_weight: of images whose dict says ``coarse``, in the loss of the foreground.
    """

    foreground_classes: int
    angle_bins: int
    coarse_weight: float = COARSE_WEIGHT

    def __call__(
        self, dataset_dict: dict, targets: InstanceTargets, size: tuple[int, int], transforms: T.Transform
    ) -> dict[str, Tensor]:
        """Maps by their key in the mapper's output.

        Args:
            dataset_dict: of Detectron2. Crowd annotations belong to the foreground but have no angle; pixels of its
                ``void`` segmentation (as in annotations), where nothing is known, have no weight. ``coarse``: roughly
                outlined regions instead of instances, whose angles mean nothing.
            targets: its instances at network size.
            size: (H, W).
            transforms: what was applied to the image.

        Returns:
            ``angle_map`` float32 [A, h, w], ``foreground`` float32 [K, h, w] and ``foreground_weight`` float32 [h, w],
            those that are asked for.

        Raises:
            ValueError: a segmentation or class is wrong; the message names the file.
        """
        maps: dict[str, Tensor] = {}
        coarse = dataset_dict.get("coarse", False)
        new_size = targets.masks.shape[1:]
        if self.angle_bins:
            known = targets.masks[:0] if coarse else targets.masks
            maps["angle_map"] = torch.from_numpy(angle_map(known, self.angle_bins))
        if self.foreground_classes:
            maps["foreground"] = torch.from_numpy(self._foreground(dataset_dict, targets, size, transforms))
            weight = np.full(new_size, self.coarse_weight if coarse else 1.0, dtype=np.float32)
            if "void" in dataset_dict:
                where = f"{dataset_dict['file_name']}: void"
                void = annotation_mask({"segmentation": dataset_dict["void"]}, size, where)
                weight[transform_mask(void, transforms)] = 0
            maps["foreground_weight"] = torch.from_numpy(weight)
        return maps

    def _foreground(
        self, dataset_dict: dict, targets: InstanceTargets, size: tuple[int, int], transforms: T.Transform
    ) -> NDArray[np.float32]:
        masks, classes = [], []
        for index, annotation in enumerate(dataset_dict["annotations"]):
            if annotation.get("iscrowd", 0):
                where = f"{dataset_dict['file_name']}: annotation {annotation.get('id', f'number {index}')}"
                masks.append(transform_mask(annotation_mask(annotation, size, where), transforms))
                classes.append(class_of(annotation, where))
        # Groups first, so that the objects in front of them decide.
        all_masks = np.concatenate([np.array(masks, dtype=bool).reshape(-1, *targets.masks.shape[1:]), targets.masks])
        all_classes = np.concatenate([np.array(classes, dtype=np.int64), targets.classes])
        try:
            return foreground_map(all_masks, all_classes, self.foreground_classes)
        except ValueError as error:
            raise ValueError(f"{dataset_dict['file_name']}: {error}") from error
