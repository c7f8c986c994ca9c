"""Geometric changes of image and masks: the resize to the network's input, and the random ones of training.

The paper flips, transposes and shifts plant images, and shifts those of its other data sets. Coordinates are (x, y) in
pixels, where the centre of the first pixel is (0.5, 0.5), as Detectron2's transforms take them. Random numbers come
from ``np.random``, which Detectron2 seeds in each worker.
"""

from collections.abc import Sequence

import cv2
import numpy as np
from detectron2.config import CfgNode, configurable
from detectron2.data import transforms as T
from fvcore.common.registry import Registry
from numpy.typing import NDArray

AUGMENTATION_REGISTRY = Registry("AUGMENTATION")
AUGMENTATION_REGISTRY.__doc__ = """
Augmentations that INPUT.AUGMENTATIONS can name: ``T.Augmentation`` classes that are called with the config. Those with
a true ``at_network_size`` run after the resize to INPUT.IMAGE_SIZE, the others before it.
"""

# Share of a pixel that a mask has to cover to own it; a little less than half, so that rounding decides no tie.
_COVERAGE_THRESHOLD = 0.5 - 1e-4


def build_augmentations(cfg: CfgNode) -> list[T.Augmentation]:
    """Everything that happens to a training image, in order: INPUT.AUGMENTATIONS around the resize.

    Raises:
        ValueError: INPUT.AUGMENTATIONS has an unknown name.
    """
    before: list[T.Augmentation] = []
    after: list[T.Augmentation] = []
    for name in cfg.INPUT.AUGMENTATIONS:
        if name not in AUGMENTATION_REGISTRY:
            known = ", ".join(sorted(registered for registered, _ in AUGMENTATION_REGISTRY))
            raise ValueError(f"INPUT.AUGMENTATIONS names '{name}'. Choose from: {known}.")
        augmentation = AUGMENTATION_REGISTRY.get(name)(cfg)
        (after if getattr(augmentation, "at_network_size", False) else before).append(augmentation)
    return [*before, build_resize(cfg), *after]


def build_resize(cfg: CfgNode) -> "ResizeToSize":
    """The resize to INPUT.IMAGE_SIZE, the only change of a test image.

    Raises:
        ValueError: INPUT.IMAGE_SIZE is not two positive numbers.
    """
    size = list(cfg.INPUT.IMAGE_SIZE)
    if len(size) != 2 or min(size) < 1:
        raise ValueError(f"INPUT.IMAGE_SIZE is {size}. Give [height, width] in pixels, such as [224, 224].")
    return ResizeToSize(*size)


def resize_array(array: NDArray, size: Sequence[int]) -> NDArray:
    """Resize an image or a map.

    Args:
        array: [H, W] or [H, W, C], uint8 or float32.
        size: new (height, width).

    Returns:
        Averaged over areas along an axis that shrinks, linearly interpolated along one that grows.
    """
    height, width = size
    smaller = (min(array.shape[1], width), min(array.shape[0], height))
    array = cv2.resize(np.ascontiguousarray(array), smaller, interpolation=cv2.INTER_AREA)
    return cv2.resize(array, (width, height), interpolation=cv2.INTER_LINEAR)


class ResizeToSizeTransform(T.Transform):
    """Resizes an image from ``old`` to ``new`` (height, width), whatever that does to its aspect ratio."""

    def __init__(self, old: tuple[int, int], new: tuple[int, int]):
        super().__init__()
        self.old = old
        self.new = new

    def apply_image(self, img: NDArray) -> NDArray:
        """[H, W, C] or [H, W] to the new size."""
        return resize_array(img, self.new)

    def apply_segmentation(self, segmentation: NDArray) -> NDArray:
        """A mask [H, W] of 0 and 1 to the new size: a pixel is 1 where the mask covers at least half of it.

        This keeps areas; picking the nearest pixel would leave out or double thin parts.
        """
        covered = resize_array(segmentation.astype(np.float32), self.new)
        return (covered >= _COVERAGE_THRESHOLD).astype(segmentation.dtype)

    def apply_coords(self, coords: NDArray) -> NDArray:
        """Points [N, 2] as (x, y)."""
        return coords * np.array([self.new[1] / self.old[1], self.new[0] / self.old[0]])


class TransposeTransform(T.Transform):
    """Mirrors at the main diagonal: rows become columns."""

    def apply_image(self, img: NDArray) -> NDArray:
        """[H, W, C] or [H, W] to [W, H, C] or [W, H]; masks likewise."""
        return np.swapaxes(img, 0, 1)

    def apply_coords(self, coords: NDArray) -> NDArray:
        """Points [N, 2] as (x, y)."""
        return coords[:, ::-1]


class ShiftTransform(T.Transform):
    """Moves the picture by ``down`` and ``right`` pixels. What enters is 0, as if it were padded and cropped."""

    def __init__(self, down: int, right: int):
        super().__init__()
        self.down = down
        self.right = right

    def apply_image(self, img: NDArray) -> NDArray:
        """[H, W, C] or [H, W]; masks likewise."""
        height, width = img.shape[:2]
        moved = np.zeros_like(img)
        kept = img[max(0, -self.down) : height - self.down, max(0, -self.right) : width - self.right]
        top, left = max(0, self.down), max(0, self.right)
        moved[top : top + kept.shape[0], left : left + kept.shape[1]] = kept
        return moved

    def apply_coords(self, coords: NDArray) -> NDArray:
        """Points [N, 2] as (x, y)."""
        return coords + np.array([self.right, self.down])


class ResizeToSize(T.Augmentation):
    """Resizes every image to (``height``, ``width``) pixels."""

    def __init__(self, height: int, width: int):
        super().__init__()
        self.height = height
        self.width = width

    def get_transform(self, image: NDArray) -> T.Transform:
        """The resize of ``image`` [H, W, C]."""
        return ResizeToSizeTransform(image.shape[:2], (self.height, self.width))


@AUGMENTATION_REGISTRY.register()
class RandomHorizontalFlip(T.RandomFlip):
    """Swaps left and right of every second image."""

    @configurable
    def __init__(self, *, prob: float = 0.5):
        super().__init__(prob, horizontal=True, vertical=False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        return {}


@AUGMENTATION_REGISTRY.register()
class RandomVerticalFlip(T.RandomFlip):
    """Swaps top and bottom of every second image."""

    @configurable
    def __init__(self, *, prob: float = 0.5):
        super().__init__(prob, horizontal=False, vertical=True)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        return {}


@AUGMENTATION_REGISTRY.register()
class RandomTranspose(T.Augmentation):
    """Transposes every second image."""

    @configurable
    def __init__(self, *, prob: float = 0.5):
        super().__init__()
        self.prob = prob

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        return {}

    def get_transform(self, image: NDArray) -> T.Transform:
        """The transposition, or nothing."""
        return TransposeTransform() if self._rand_range() < self.prob else T.NoOpTransform()


@AUGMENTATION_REGISTRY.register()
class RandomShift(T.Augmentation):
    """Shifts by a whole number of pixels, uniform in [-max_shift, max_shift], on each axis."""

    at_network_size = True

    @configurable
    def __init__(self, *, max_shift: int):
        super().__init__()
        self.max_shift = max_shift

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict:
        limit = min(cfg.INPUT.IMAGE_SIZE)
        if not 0 <= cfg.INPUT.MAX_SHIFT < limit:
            raise ValueError(
                f"INPUT.MAX_SHIFT is {cfg.INPUT.MAX_SHIFT}. Choose a number of pixels from 0 to {limit - 1}; "
                f"INPUT.IMAGE_SIZE is {list(cfg.INPUT.IMAGE_SIZE)}."
            )
        return {"max_shift": cfg.INPUT.MAX_SHIFT}

    def get_transform(self, image: NDArray) -> T.Transform:
        """A shift drawn at random."""
        down, right = np.random.randint(-self.max_shift, self.max_shift + 1, size=2)
        return ShiftTransform(int(down), int(right))
