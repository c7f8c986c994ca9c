"""What happens to image and masks: the resize to the network's input, and the random changes of training.

The paper flips, transposes and shifts plant images, and shifts those of its other data sets; warps and changes of
intensity are for small data sets. Coordinates are (x, y) in pixels, where the centre of the first pixel is (0.5, 0.5),
as Detectron2's transforms take them. Random numbers come from ``np.random``, which Detectron2 seeds in each worker.
"""

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from numpy.typing import NDArray

from ..registry import look_up
from .warps import ELASTIC, LOG_SCALE, WARP_SHARE, WarpTransform, elastic_displacement

# Share of a pixel that a mask has to cover to own it; a little less than half, so that rounding decides no tie.
_COVERAGE_THRESHOLD = 0.5 - 1e-4


def build_augmentations(cfg: CfgNode) -> list[T.Augmentation]:
    """Everything that happens to a training image, in order: INPUT.AUGMENTATIONS around the resize.

    Raises:
        ValueError: INPUT.AUGMENTATIONS has an unknown name.
    """
    return augmentations_around(build_resize(cfg), cfg)


def augmentations_around(resize: T.Augmentation, cfg: CfgNode) -> list[T.Augmentation]:
    """INPUT.AUGMENTATIONS around any resize to the network's input, in order.

    Raises:
        ValueError: INPUT.AUGMENTATIONS has an unknown name.
    """
    before: list[T.Augmentation] = []
    after: list[T.Augmentation] = []
    for name in cfg.INPUT.AUGMENTATIONS:
        augmentation = look_up(AUGMENTATIONS, name, "INPUT.AUGMENTATIONS")(cfg)
        (after if name in AT_NETWORK_SIZE else before).append(augmentation)
    return [*before, resize, *after]


def window_augmentations(cfg: CfgNode) -> list[T.Augmentation]:
    """What happens to the fast model's windows after they were cut out, in order.

    RandomWarp is part of the cutting (:class:`.windows.RandomWindow`), and EmptyPictures come from elsewhere.

    Raises:
        ValueError: INPUT.AUGMENTATIONS has an unknown name, or one that windows do not need.
    """
    names = [name for name in cfg.INPUT.AUGMENTATIONS if name not in ("RandomWarp", "EmptyPictures")]
    if "RandomShift" in names:
        raise ValueError("INPUT.AUGMENTATIONS has RandomShift: the fast model's windows lie anywhere. Take it out.")
    return [look_up(AUGMENTATIONS, name, "INPUT.AUGMENTATIONS")(cfg) for name in names]


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
    smaller = (min(array.shape[0], height), min(array.shape[1], width))
    array = np.ascontiguousarray(array)
    if smaller != array.shape[:2]:
        array = cv2.resize(array, smaller[::-1], interpolation=cv2.INTER_AREA)
    if smaller != (height, width):
        array = cv2.resize(array, (width, height), interpolation=cv2.INTER_LINEAR)
    return array


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


def shift_transform(down: int, right: int, size: Sequence[int]) -> T.TransformList:
    """Moves the picture of ``size`` (H, W) by ``down`` and ``right`` pixels, less than its sides. What enters is 0."""
    (height, width), rows, columns = size, size[0] - abs(down), size[1] - abs(right)
    crop = T.CropTransform(max(0, -right), max(0, -down), columns, rows, orig_w=width, orig_h=height)
    pad = T.PadTransform(
        *(max(0, right), max(0, down), max(0, -right), max(0, -down)), orig_w=columns, orig_h=rows, seg_pad_value=0
    )
    return T.TransformList([crop, pad])


class IntensityTransform(T.Transform):
    """Changes the values of an image, alike in all channels. Masks and points stay as they are."""

    def __init__(self, table: NDArray[np.float32], noise: NDArray[np.float32] | None = None):
        """
        Args:
            table: [256], what each value becomes; clipped to 0 to 255 after the noise is added.
            noise: [H, W].
        """
        super().__init__()
        self.table = table
        self.noise = noise

    def apply_image(self, img: NDArray) -> NDArray:
        """[H, W, C] or [H, W], uint8."""
        values = cv2.LUT(np.ascontiguousarray(img), self.table).reshape(img.shape)
        if self.noise is not None:
            values = values + (self.noise if img.ndim == 2 else self.noise[..., None])
        return np.rint(values).clip(0, 255).astype(np.uint8)

    def apply_segmentation(self, segmentation: NDArray) -> NDArray:
        """[H, W], unchanged."""
        return segmentation

    def apply_coords(self, coords: NDArray) -> NDArray:
        """Points [N, 2], unchanged."""
        return coords


class ResizeToSize(T.Augmentation):
    """Resizes every image to (``height``, ``width``) pixels."""

    def __init__(self, height: int, width: int):
        super().__init__()
        self.height = height
        self.width = width

    def get_transform(self, image: NDArray) -> T.Transform:
        """The resize of ``image`` [H, W, C]."""
        return ResizeToSizeTransform(image.shape[:2], (self.height, self.width))


class RandomTranspose(T.Augmentation):
    """Transposes every second image."""

    def get_transform(self, image: NDArray) -> T.Transform:
        """The transposition, or nothing."""
        return TransposeTransform() if self._rand_range() < 0.5 else T.NoOpTransform()


class RandomShift(T.Augmentation):
    """Shifts by a whole number of pixels, uniform in [-max_shift, max_shift], on each axis."""

    def __init__(self, max_shift: int):
        super().__init__()
        self.max_shift = max_shift

    def get_transform(self, image: NDArray) -> T.TransformList:
        """A shift drawn at random."""
        down, right = np.random.randint(-self.max_shift, self.max_shift + 1, size=2)
        return shift_transform(int(down), int(right), image.shape[:2])


class RandomWarp(T.Augmentation):
    """Rotates, scales, shifts and bends in one go, see :class:`WarpTransform`.

    Its border is filled with dark pixels, so it suits images whose background is darker than most of the objects.
    """

    def __init__(
        self,
        rotation: float,
        *,
        prob: float = WARP_SHARE,
        log_scale: float = LOG_SCALE,
        shift: float = 0.05,
        elastic: float = ELASTIC,
    ):
        """The defaults were not tuned; docs/ablation.md has what they bring.

        Args:
            rotation: largest angle in degrees, either way.
            prob: share of the images that change.
            log_scale: largest logarithm of the scale, either way.
            shift: largest shift per axis, as share of that side, either way.
            elastic: standard deviation of the displacements in pixels, up to a tenth of the smaller side; 0 = none.
        """
        super().__init__()
        self.rotation = rotation
        self.prob = prob
        self.log_scale = log_scale
        self.shift = shift
        self.elastic = elastic

    def get_transform(self, image: NDArray) -> T.Transform:
        """A warp of ``image`` [H, W, C] drawn at random, or nothing."""
        if self._rand_range() >= self.prob:
            return T.NoOpTransform()
        height, width = image.shape[:2]
        right, down = np.random.uniform(-self.shift, self.shift, size=2) * (width, height)
        return WarpTransform(
            (height, width),
            angle=np.random.uniform(-self.rotation, self.rotation),
            scale=float(np.exp(np.random.uniform(-self.log_scale, self.log_scale))),
            shift=(right, down),
            displacement=elastic_displacement((height, width), self.elastic) if self.elastic > 0 else None,
        )


class RandomIntensity(T.Augmentation):
    """Changes gamma, contrast (about the mean) and brightness and adds Gaussian noise, alike in all channels.

    It suits to name it after RandomWarp, which would smooth the noise.
    """

    def __init__(
        self,
        *,
        prob: float = 0.8,
        log_gamma: float = 0.4,
        contrast: float = 0.25,
        brightness: float = 0.05,
        noise: float = 0.04,
    ):
        """The defaults were not tuned; docs/ablation.md has what they bring.

        Args:
            prob: share of the images that change.
            log_gamma: largest logarithm of the exponent, either way.
            contrast: largest change of the contrast factor 1, either way.
            brightness: largest change of all values, either way; 1 is the range from black to white, also for noise.
            noise: largest standard deviation of the noise.
        """
        super().__init__()
        self.prob = prob
        self.log_gamma = log_gamma
        self.contrast = contrast
        self.brightness = brightness
        self.noise = noise

    def get_transform(self, image: NDArray) -> T.Transform:
        """A change of ``image`` [H, W, C], uint8, drawn at random, or nothing."""
        if self._rand_range() >= self.prob:
            return T.NoOpTransform()
        table = np.linspace(0, 1, 256) ** np.exp(np.random.uniform(-self.log_gamma, self.log_gamma))
        mean = cv2.LUT(np.ascontiguousarray(image), table).mean()
        table = (table - mean) * (1 + np.random.uniform(-self.contrast, self.contrast)) + mean
        table = (255 * (table + np.random.uniform(-self.brightness, self.brightness))).astype(np.float32)
        if self.noise == 0:
            return IntensityTransform(table)
        # A generator of its own, because np.random makes float64 only and takes several times as long.
        generator = np.random.default_rng(np.random.randint(2**31))
        noise = generator.standard_normal(image.shape[:2], dtype=np.float32)
        return IntensityTransform(table, noise * np.float32(255 * np.random.uniform(0, self.noise)))


def _build_shift(cfg: CfgNode) -> RandomShift:
    limit = min(cfg.INPUT.IMAGE_SIZE)
    if not 0 <= cfg.INPUT.MAX_SHIFT < limit:
        raise ValueError(
            f"INPUT.MAX_SHIFT is {cfg.INPUT.MAX_SHIFT}. Choose a number of pixels from 0 to {limit - 1}; "
            f"INPUT.IMAGE_SIZE is {list(cfg.INPUT.IMAGE_SIZE)}."
        )
    return RandomShift(cfg.INPUT.MAX_SHIFT)


def warp_rotation(cfg: CfgNode) -> float:
    """RandomWarp's largest rotation in degrees. Raises a ValueError unless it is from 0 to 180."""
    rotation = cfg.INPUT.WARP.ROTATION
    if not 0 <= rotation <= 180:
        raise ValueError(f"INPUT.WARP.ROTATION is {rotation}. Choose a number of degrees from 0 to 180.")
    return rotation


# What INPUT.AUGMENTATIONS can name.
AUGMENTATIONS: dict[str, Callable[[CfgNode], T.Augmentation]] = {
    "RandomHorizontalFlip": lambda cfg: T.RandomFlip(0.5, horizontal=True, vertical=False),
    "RandomVerticalFlip": lambda cfg: T.RandomFlip(0.5, horizontal=False, vertical=True),
    "RandomTranspose": lambda cfg: RandomTranspose(),
    "RandomShift": _build_shift,
    "RandomWarp": lambda cfg: RandomWarp(warp_rotation(cfg)),
    "RandomIntensity": lambda cfg: RandomIntensity(),
}
# Those that run after the resize to INPUT.IMAGE_SIZE; the others run before it.
AT_NETWORK_SIZE = frozenset({"RandomShift", "RandomWarp", "RandomIntensity"})
