"""Turns a Detectron2 dataset dict into what the fast model takes: windows in training, whole scaled pictures otherwise.

Shapes: `H, W` picture, `S` side of a window, `h, w` scaled picture, `N` objects; pixels.
"""

import logging
import math
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import transforms as T
from numpy.typing import NDArray

from .augmentation import resize_array, warp_rotation, window_augmentations
from .dataset_mapper import check_size
from .empty_pictures import draw_empty_picture
from .image_io import check_percentiles, read_image, to_bgr
from .large_images import LARGEST_WHOLE, ScaledImage
from .object_size import network_scale
from .picture_cache import Picture, PictureCache
from .warps import SMALLEST_SHARE
from .windows import CLAIMED, CentralWindow, RandomWindow

logger = logging.getLogger(__name__)

# Share of the windows that training takes from drawn pictures without objects, where INPUT.AUGMENTATIONS asks for them.
_EMPTY_SHARE = 0.03


class WindowMapper:
    """Reads a picture and scales it so that a typical object gets INPUT.OBJECT_PIXELS; training sees windows of it.

    The dict it returns keeps ``file_name``, ``image_id``, ``height`` and ``width`` (of the file) and has:

    * ``image``: uint8 [3, h, w] BGR; in training [3, S, S], where what lies outside the picture is 0.
    * in training ``labels``: int32 [S, S], k + 1 where object k is, 0 where none is and :data:`.windows.CLAIMED` where
      nothing is to be found: outside the picture, in crowds, and on objects of which the window shows too little; and
      ``gt_classes``: int64 [N]. Of overlapping objects the smaller has the pixels.

    Attributes:
        scale: network pixels per pixel of the file.
        object_size: typical width of objects, pixels of the file.
    """

    @configurable
    def __init__(
        self,
        *,
        scale: float,
        object_size: float,
        window: T.Augmentation | None,
        augmentations: Sequence[T.Augmentation] = (),
        draws_empty: bool = False,
        contrast_percentiles: Sequence[float] = (),
    ):
        """
        Args:
            scale: network pixels per pixel of the file.
            object_size: typical width of objects, pixels of the file.
            window: cuts windows out, see :mod:`.windows`; None = whole pictures, without annotations.
            augmentations: of windows.
            draws_empty: some windows are of drawn pictures that show nothing (:mod:`.empty_pictures`).
            contrast_percentiles: of the grey values that become 0 and 255; empty = no stretch.
        """
        if len(contrast_percentiles) > 0:
            check_percentiles(contrast_percentiles)
        self.scale = scale
        self.object_size = object_size
        self.window = window
        self.augmentations = T.AugmentationList(augmentations)
        self.draws_empty = draws_empty
        self.contrast_percentiles = tuple(contrast_percentiles)
        self._pictures = PictureCache(self.contrast_percentiles)

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True, augment: bool = True) -> dict:
        scale, names = network_scale(cfg), cfg.INPUT.AUGMENTATIONS
        arguments = {
            "scale": scale,
            "object_size": cfg.INPUT.OBJECT_PIXELS / scale,
            "window": None,
            "contrast_percentiles": cfg.INPUT.CONTRAST_PERCENTILES,
        }
        if not is_train:
            return arguments
        side = cfg.INPUT.WINDOW_SIZE
        if not augment:
            return {**arguments, "window": CentralWindow(side, scale)}
        rotation = warp_rotation(cfg) if "RandomWarp" in names else None
        return {
            **arguments,
            "window": RandomWindow(side, scale, rotation),
            "augmentations": window_augmentations(cfg),
            "draws_empty": "EmptyPictures" in names,
        }

    def __call__(self, dataset_dict: dict) -> dict:
        """Map one dataset dict, which stays as it is.

        Raises:
            FileNotFoundError: the image is missing.
            ValueError: an image, annotation or size is wrong, or training gets a picture without annotations; the
                message names the file.
        """
        if self.window is None:
            image = read_image(dataset_dict["file_name"], self.contrast_percentiles)
            check_size(dataset_dict, image.shape[:2])
            output = self.map_image(image)[0]
        else:
            output = self._map_window(dataset_dict)
        output.update({key: dataset_dict[key] for key in ("file_name", "image_id") if key in dataset_dict})
        return output

    def _map_window(self, dataset_dict: dict) -> dict:
        if self.draws_empty and np.random.random() < _EMPTY_SHARE:
            image = to_bgr(draw_empty_picture(self.window.side), self.contrast_percentiles)  # type: ignore[union-attr]
            labels, classes = np.zeros(image.shape[:2], np.int32), np.zeros(0, np.int64)
            height = width = len(labels)
        else:
            picture = self._pictures.read(dataset_dict)
            height, width = picture.labels.shape
            image, labels, classes = self._cut(picture)
        aug_input = T.AugInput(image)
        transforms = self.augmentations(aug_input)
        labels = transforms.apply_segmentation(labels)
        return {
            "height": height,
            "width": width,
            "image": _to_tensor(aug_input.image),
            "labels": torch.from_numpy(np.ascontiguousarray(labels)),
            "gt_classes": torch.from_numpy(classes),
        }

    def _cut(self, picture: Picture) -> tuple[NDArray, NDArray, NDArray]:
        """A window of a picture: image [S, S, 3], labels [S, S] int32 from 1 on without gaps, and classes [N]."""
        transform = self.window.get_transform(picture.image)  # type: ignore[union-attr]
        window = transform.apply_image(picture.image)
        if window.ndim == 2:
            window = cv2.cvtColor(window, cv2.COLOR_GRAY2BGR)
        cut = transform.apply_segmentation(picture.labels)
        counts = np.bincount(np.maximum(cut, 0).ravel(), minlength=len(picture.classes) + 1)[1:]
        known = counts >= np.maximum(SMALLEST_SHARE * math.prod(transform.scale) * picture.areas, 1)
        numbers = np.where(known, known.cumsum(), CLAIMED)
        table = np.concatenate([[CLAIMED, 0], numbers]).astype(np.int32)  # for labels from -1 on
        return window, table[cut + 1], picture.classes[known]

    def map_image(self, image: NDArray) -> tuple[dict, T.Transform]:
        """Scale an image without annotations; a large one is scaled where parts of it are looked at.

        Args:
            image: [H, W, 3] BGR, as :func:`.image_io.to_bgr` gives it with ``contrast_percentiles``; or mapped from a
                file as it is there.

        Returns:
            ``image`` (large ones as :class:`.large_images.ScaledImage`), ``height`` and ``width`` of the dict described
            above and ``notes``, what a reader of the result has to know; and a transform that does nothing: the model
            gives its results at the picture's own size.
        """
        height, width = image.shape[:2]
        size = [max(1, round(length * self.scale)) for length in (height, width)]
        scaled: torch.Tensor | ScaledImage
        if isinstance(image, np.memmap):
            scaled = ScaledImage(image, self.scale, self.contrast_percentiles)
            if math.prod(size) <= LARGEST_WHOLE:  # its objects are so large that it is small for the network
                scaled = scaled[:, :, :]
        elif math.prod(size) > LARGEST_WHOLE:
            scaled = ScaledImage(image, self.scale)
        else:
            scaled = _to_tensor(resize_array(image, size))
        notes = self._notes(height, width)
        return {"height": height, "width": width, "notes": notes, "image": scaled}, T.NoOpTransform()

    def _notes(self, height: int, width: int) -> tuple[str, ...]:
        if self.object_size <= max(height, width):
            return ()
        note = f"objects of {self.object_size:g} pixels do not fit into {height} x {width}: set INPUT.OBJECT_SIZE"
        logger.warning("%s (typical width in the file; --object-size of the demo).", note)
        return (note,)


def _to_tensor(image: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
