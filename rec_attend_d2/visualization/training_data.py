"""Pictures of what a config trains on: images as they come out of its mapper, with their targets.

Shapes: `N` instances, `H, W` network input (of the fast model a window), `R` ignored regions.
"""

import sys

import cv2
import numpy as np
from detectron2.config import CfgNode
from detectron2.utils.env import seed_all_rng

from ..data import RecAttendDatasetMapper, build_mapper
from ..data.windows import CLAIMED
from ..structures import AnyMasks, MaskCrops, as_crops
from .canvas import draw_masks, grid, magnification, magnify, magnify_masks, striped, text_cell, write_at
from .colors import IGNORED, instance_color
from .instances import count_text
from .maps import angle_picture, class_picture
from .steps import seen_image, to_array

# Numbers should leave small objects visible.
_SMALLEST_CELL = 480
_HEADER_HEIGHT = 44


class TrainingDataDrawer:
    """Draws images of a data set after the augmentation of a config, and all that the mapper makes of them.

    Attributes:
        mapper: the one that training uses.
    """

    def __init__(self, cfg: CfgNode):
        self.mapper = build_mapper(cfg)
        if isinstance(self.mapper, RecAttendDatasetMapper):
            # What training leaves out, this one moves as the image is moved: to it ignored regions are objects.
            self._ignored_mapper = RecAttendDatasetMapper(cfg, is_train=True)
            self._ignored_mapper.time_steps = sys.maxsize
            self._ignored_mapper.map_targets = None

    def draw(self, record: dict, seeds: list[int]) -> np.ndarray:
        """A column per random draw; its rows are the image, its instances, and the maps if the mapper makes any.

        Instances have the colour and the number of their place in the order of the targets, which is that of their
        areas. Ignored regions, crowds and pixels of which nothing is known (``void``), are striped; in windows all that
        counts as claimed from the start.

        Args:
            record: Detectron2 dataset dict with ``annotations``.
            seeds: of the random numbers, one for each draw. The global generators are seeded with them.

        Returns:
            uint8 RGB picture.

        Raises:
            FileNotFoundError: the image is missing.
            ValueError: the image has no annotations, or something in them is wrong.
        """
        if "annotations" not in record:
            raise ValueError(
                f"{record['file_name']} has no annotations, so that nothing can be trained on it. Name a data set that "
                "has them."
            )
        columns = [self._column(record, seed) for seed in seeds]
        return grid([[column[row] for column in columns] for row in range(len(columns[0]))])

    def _column(self, record: dict, seed: int) -> list[np.ndarray]:
        seed_all_rng(seed)
        if not isinstance(self.mapper, RecAttendDatasetMapper):
            entry = self.mapper(record)
            labels, count = entry["labels"].numpy(), len(entry["gt_classes"])
            claimed = (labels == CLAIMED)[None]
            words = count_text(count) + ("\nstripes count as claimed" if claimed.any() else "")
            return _with_header(words, entry_cells(entry, MaskCrops.from_labels(labels, count), claimed))
        cut_before = self.mapper.cut_instances
        entry = self.mapper(record)
        cut = self.mapper.cut_instances - cut_before
        ignored = self._ignored_masks(record, seed)
        words = count_text(len(entry["instances"]))
        words += f", {cut} smallest left out" if cut else ""
        words += f"\n{len(ignored)} ignored region{'s' * (len(ignored) != 1)}" if len(ignored) else ""
        return _with_header(words, entry_cells(entry, entry["instances"].gt_masks.tensor, ignored))

    def _ignored_masks(self, record: dict, seed: int) -> np.ndarray:
        """Bool [R, H, W]: crowds and ``void``, moved by the augmentation that ``seed`` draws."""
        regions = [{**item, "iscrowd": 0} for item in record["annotations"] if item.get("iscrowd", 0)]
        if "void" in record:
            regions.append({"id": "void", "category_id": 0, "segmentation": record["void"]})
        if not regions:
            return np.zeros((0, 1, 1), dtype=bool)
        seed_all_rng(seed)
        return self._ignored_mapper({**record, "annotations": regions})["instances"].gt_masks.tensor.numpy()


def _with_header(words: str, cells: list[np.ndarray]) -> list[np.ndarray]:
    return [text_cell(words, _HEADER_HEIGHT, cells[0].shape[1]), *cells]


def entry_cells(entry: dict, masks: AnyMasks, ignored: np.ndarray) -> list[np.ndarray]:
    """The image, its instances, and where they are given foreground and angles, each magnified to one size.

    Args:
        entry: dict of the mapper.
        masks: of the N instances.
        ignored: bool [R, H, W].
    """
    image = seen_image(entry)
    factor = magnification(image, _SMALLEST_CELL)
    large = magnify(image, factor)
    cells = [large, draw_numbered(large, magnify_masks(masks, factor), magnify_masks(ignored, factor))]
    foreground = to_array(entry["foreground"]) if "foreground" in entry else None
    if foreground is not None:
        unknown = to_array(entry["foreground_weight"]) == 0
        cells.append(striped(magnify(class_picture(foreground), factor), magnify(unknown, factor), IGNORED))
    if "angle_map" in entry:
        angle = to_array(entry["angle_map"])
        # Pixels without object have no angle.
        known = angle.max(axis=0, keepdims=True)
        cells.append(magnify(angle_picture(angle, known), factor))
    return cells


def draw_numbered(image: np.ndarray, masks: AnyMasks, ignored: AnyMasks) -> np.ndarray:
    """N masks with their numbers from 1 on, over stripes where R regions are ignored."""
    for region in as_crops(ignored):
        image = striped(image, region.numpy(), IGNORED)
    found = as_crops(masks)
    picture = draw_masks(image, found, list(map(instance_color, range(len(found)))))
    places = []
    for number, (crop, (top, left)) in enumerate(zip(found.crops, found.corners.tolist(), strict=True), start=1):
        y, x = inner_point(crop)
        places.append((str(number), (y + top, x + left)))
    return write_at(picture, places)


def inner_point(mask: np.ndarray) -> tuple[int, int]:
    """The pixel (y, x) of a mask [H, W] that is farthest from its border; at least one pixel is set."""
    # Beyond the picture's edge there is no object either.
    distance = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, 5)
    y, x = np.unravel_index(distance.argmax(), distance.shape)
    return int(y) - 1, int(x) - 1
