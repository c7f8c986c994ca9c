"""Masks of many objects of one image, each kept as the crop around it.

A dense array [N, H, W] of the 2,000 objects of an image of 4096 x 4096 pixels takes 33 GB; their crops take a few MB.

Shapes: `N` objects, `H, W` image, `h, w` crop; all in pixels.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import pycocotools.mask as mask_util
import torch
from numpy.typing import ArrayLike, DTypeLike, NDArray
from scipy import ndimage
from scipy.sparse import csr_array
from torch import Tensor

Crop = tuple[NDArray[np.bool_], tuple[int, int]]
"""Pixels [h, w] of an object, and (y, x) of the top left one in the image."""
Window = tuple[slice, slice]


class MaskCrops:
    """Masks of many objects of one image, each kept as the crop around it; may overlap, and may be empty.

    Works as ``Instances.pred_masks``, also with Detectron2's own code: an item or a step of the iteration is a dense
    mask, a selection is again MaskCrops. It never leaves the CPU, and nothing changes it.

    Attributes:
        crops: N bool arrays [h, w].
        corners: int64 [N, 2], (y, x) of each crop's top left pixel.
        image_size: (H, W).
    """

    def __init__(self, crops: Sequence[NDArray[np.bool_]], corners: ArrayLike, image_size: tuple[int, int]):
        """
        Args:
            crops: [h, w] each, best without a margin; [0, 0] for a mask without a pixel.
            corners: [N, 2].
            image_size: (H, W).

        Raises:
            ValueError: numbers of crops and corners differ, or a crop is not two-dimensional or reaches beyond the
                image.
            TypeError: a crop is not of bool.
        """
        self.crops = list(crops)
        self.corners = np.asarray(corners, dtype=np.int64).reshape(-1, 2)
        self.image_size = (int(image_size[0]), int(image_size[1]))
        if len(self.crops) != len(self.corners):
            raise ValueError(f"There are {len(self.crops)} crops but {len(self.corners)} corners. Give one for each.")
        if any(crop.dtype != np.bool_ for crop in self.crops):
            raise TypeError("A crop is not of bool. Compare soft masks with a threshold first.")
        if any(crop.ndim != 2 for crop in self.crops):
            raise ValueError("A crop is not two-dimensional; each is [height, width].")
        sizes = np.array([crop.shape for crop in self.crops], dtype=np.int64).reshape(-1, 2)
        self._ends = self.corners + sizes
        outside = ((self.corners < 0) | (self._ends > self.image_size)).any(axis=1) & (sizes > 0).all(axis=1)
        if outside.any():
            index = int(outside.argmax())
            raise ValueError(
                f"Crop {index} reaches from {self.corners[index].tolist()} to {self._ends[index].tolist()} (y, x), but "
                f"the image's height and width are {list(self.image_size)}. Cut it off at the border."
            )

    @classmethod
    def from_crops(cls, found: Iterable[Crop], image_size: tuple[int, int]) -> "MaskCrops":
        """Masks of pairs of crop and corner."""
        pairs = list(found)
        return cls([crop for crop, _ in pairs], [corner for _, corner in pairs], image_size)

    @classmethod
    def from_masks(cls, masks: Tensor | NDArray) -> "MaskCrops":
        """Of dense masks [N, H, W], which are copied; what is not 0 belongs to an object.

        Raises:
            ValueError: they are not three-dimensional.
        """
        array = masks.detach().cpu().numpy() if isinstance(masks, Tensor) else np.asarray(masks)
        if array.ndim != 3:
            raise ValueError(f"Masks must be [n, H, W], got {array.shape}.")
        return cls.from_crops((tight_crop(mask) for mask in array), array.shape[1:])

    @classmethod
    def from_labels(cls, labels: NDArray[np.integer], count: int) -> "MaskCrops":
        """Of a label image [H, W], in which mask k is where the value is k + 1; ``count`` is N, other values are none.

        A value that does not occur gives an empty mask.
        """
        windows = ndimage.find_objects(labels, max_label=count) if count else []
        found = [
            empty_crop() if window is None else (labels[window] == value, (window[0].start, window[1].start))
            for value, window in enumerate(windows, start=1)
        ]
        return cls.from_crops(found, labels.shape)

    @staticmethod
    def cat(parts: Sequence["MaskCrops"]) -> "MaskCrops":
        """All masks of several, of one image size; Detectron2's Instances.cat calls it.

        Raises:
            ValueError: there is nothing, or the image sizes differ.
        """
        if len({part.image_size for part in parts}) != 1:
            raise ValueError(f"Masks to be joined are of images of {[part.image_size for part in parts]}.")
        crops = [crop for part in parts for crop in part.crops]
        return MaskCrops(crops, np.concatenate([part.corners for part in parts]), parts[0].image_size)

    # As a tensor [N, H, W] behaves.

    def __len__(self) -> int:
        return len(self.crops)

    def __iter__(self) -> Iterator[Tensor]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, item: Any) -> Any:
        """A dense bool Tensor [H, W] of an int; MaskCrops of a slice, or of numbers or bools [N] of any kind."""
        index = item.detach().cpu().numpy() if isinstance(item, Tensor) else item
        if np.ndim(index) == 0 and not isinstance(index, slice):
            mask = np.zeros(self.image_size, dtype=bool)
            mask[self.window(int(index))] = self.crops[int(index)]
            return torch.from_numpy(mask)
        # An empty list has no type by which it could be an index.
        numbers = np.arange(len(self))[index if isinstance(index, slice) or len(index) else []]
        return MaskCrops([self.crops[number] for number in numbers], self.corners[numbers], self.image_size)

    def __repr__(self) -> str:
        return f"MaskCrops({len(self)} masks of {self.image_size[0]} x {self.image_size[1]} pixels)"

    @property
    def shape(self) -> tuple[int, int, int]:
        """(N, H, W)."""
        return len(self), *self.image_size

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    def to(self, *args: Any, **kwargs: Any) -> "MaskCrops":
        """Itself: masks stay on the CPU."""
        return self

    def cpu(self) -> "MaskCrops":
        """Itself."""
        return self

    @property
    def tensor(self) -> Tensor:
        """Dense masks, bool [N, H, W]: for small images or few objects."""
        return torch.from_numpy(self.numpy())

    def numpy(self) -> NDArray[np.bool_]:
        """Dense masks, bool [N, H, W]: for small images or few objects."""
        masks = np.zeros(self.shape, dtype=bool)
        for mask, crop, window in zip(masks, self.crops, self.windows, strict=True):
            mask[window] = crop
        return masks

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray:
        """For NumPy's functions: :meth:`numpy`."""
        return self.numpy() if dtype is None else self.numpy().astype(dtype)

    # What is computed of the crops.

    def window(self, index: int) -> Window:
        """Rows and columns of the image where a crop lies."""
        (top, left), (bottom, right) = self.corners[index].tolist(), self._ends[index].tolist()
        return slice(top, bottom), slice(left, right)

    @property
    def windows(self) -> list[Window]:
        """:meth:`window` of all N crops, faster than one by one."""
        return [
            (slice(top, bottom), slice(left, right))
            for (top, left), (bottom, right) in zip(self.corners.tolist(), self._ends.tolist(), strict=True)
        ]

    def areas(self) -> NDArray[np.int64]:
        """Number of pixels of each mask, [N]."""
        return np.array([np.count_nonzero(crop) for crop in self.crops], dtype=np.int64)

    def boxes(self) -> NDArray[np.int64]:
        """Tight boxes (x0, y0, x1, y1) [N, 4], where x1, y1 lie one beyond the last pixel; of an empty mask all 0."""
        found = np.array([bounding_rectangle(crop) for crop in self.crops], dtype=np.int64).reshape(-1, 4)
        corner, size = found[:, :2] + self.corners[:, ::-1], found[:, 2:]
        return np.concatenate([corner, corner + size], axis=1) * size.any(axis=1, keepdims=True)

    def rles(self) -> list[dict]:
        """COCO's compressed run-length codes of the whole image; ``counts`` are text, as JSON takes them."""
        height, width = self.image_size
        runs = [
            {"size": [height, width], "counts": crop_runs(crop, corner, self.image_size)}
            for crop, corner in zip(self.crops, self.corners.tolist(), strict=True)
        ]
        codes = mask_util.frPyObjects(runs, height, width) if runs else []
        return [{"size": [height, width], "counts": code["counts"].decode("ascii")} for code in codes]

    def label_image(self, dtype: DTypeLike | None = None) -> NDArray[np.integer]:
        """One image [H, W] of all masks: k + 1 where mask k is, of overlapping masks the first one; 0 elsewhere.

        Args:
            dtype: None: uint16 of up to 65,535 masks, else uint32.

        Raises:
            ValueError: ``dtype`` cannot hold so many numbers.
        """
        usual = np.uint16 if len(self) <= np.iinfo(np.uint16).max else np.uint32
        chosen = np.dtype(usual if dtype is None else dtype)
        if len(self) > np.iinfo(chosen).max:
            raise ValueError(f"A label image of {chosen} cannot hold {len(self)} objects. Choose a larger type.")
        labels = np.zeros(self.image_size, dtype=chosen)
        for number, crop, window in zip(range(len(self), 0, -1), self.crops[::-1], self.windows[::-1], strict=True):
            np.copyto(labels[window], number, where=crop)
        return labels

    def union(self) -> NDArray[np.bool_]:
        """Where any mask is, bool [H, W]."""
        union = np.zeros(self.image_size, dtype=bool)
        for crop, window in zip(self.crops, self.windows, strict=True):
            union[window] |= crop
        return union

    def areas_inside(self, region: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Number of pixels of each mask inside a region [H, W] of the image, [N]."""
        pairs = zip(self.crops, self.windows, strict=True)
        return np.array([np.count_nonzero(crop & region[window]) for crop, window in pairs], dtype=np.int64)


AnyMasks = MaskCrops | Tensor | NDArray
"""Masks as this package makes them, or dense [N, H, W] as other models of Detectron2 do."""


def as_crops(masks: AnyMasks) -> MaskCrops:
    """Masks of either kind as crops. Raises a ValueError of dense masks that are not [N, H, W]."""
    return masks if isinstance(masks, MaskCrops) else MaskCrops.from_masks(masks)


def intersections(first: MaskCrops, second: MaskCrops) -> csr_array:
    """Number of pixels that every mask of one set shares with every mask of the other, overlaps or not.

    Only pairs whose crops meet are looked at, so that it takes time and memory in proportion to the objects.

    Args:
        first: P masks.
        second: N masks of an image of the same size.

    Returns:
        Sparse int64 [P, N], without the zeros; ``.toarray()`` makes it dense.

    Raises:
        ValueError: the image sizes differ.
    """
    if first.image_size != second.image_size:
        raise ValueError(
            f"Masks must be [n, H, W] of the same H and W, got {first.shape} and {second.shape}. "
            "Resize the predictions to the original image size first."
        )
    rows, columns, pixels = [], [], []
    others = second.corners.tolist()
    tops, lefts, bottoms, rights = np.ascontiguousarray(np.concatenate([second.corners, second._ends], axis=1).T)
    for row, (crop, (top, left), (bottom, right)) in enumerate(
        zip(first.crops, first.corners.tolist(), first._ends.tolist(), strict=True)
    ):
        meets = (tops < bottom) & (bottoms > top) & (lefts < right) & (rights > left)
        for column in np.flatnonzero(meets).tolist():
            other, (y, x) = second.crops[column], others[column]
            # The same pixels of the image, cut out of both crops.
            y0, x0, y1, x1 = max(top, y), max(left, x), min(bottom, y + len(other)), min(right, x + other.shape[1])
            shared = crop[y0 - top : y1 - top, x0 - left : x1 - left] & other[y0 - y : y1 - y, x0 - x : x1 - x]
            count = np.count_nonzero(shared)
            if count:
                rows.append(row)
                columns.append(column)
                pixels.append(count)
    return csr_array((np.array(pixels, dtype=np.int64), (rows, columns)), shape=(len(first), len(second)))


def empty_crop() -> Crop:
    """The crop of a mask without a pixel."""
    return np.zeros((0, 0), dtype=bool), (0, 0)


def bounding_rectangle(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """(x, y, width, height) around the pixels of a mask [h, w]; all 0 of one without a pixel."""
    return tuple(cv2.boundingRect(mask.view(np.uint8))) if mask.size else (0, 0, 0, 0)  # type: ignore[return-value]


def tight_crop(mask: NDArray) -> Crop:
    """The crop of a mask [H, W], a copy; what is not 0 belongs to the object."""
    pixels = mask if mask.dtype == np.bool_ else mask != 0
    x, y, width, height = bounding_rectangle(np.ascontiguousarray(pixels))
    return pixels[y : y + height, x : x + width].copy(), (y, x)


def crop_runs(crop: NDArray[np.bool_], corner: Sequence[int], size: tuple[int, int]) -> NDArray[np.int64]:
    """Lengths of the runs of 0 and 1 pixels in turn, column by column, of a crop in an image of ``size`` (H, W).

    It is COCO's uncompressed run-length code, in the shortest form, of which pycocotools makes the compressed one.
    """
    height, width = size
    # With a row of background above and below the crop no run goes on in the next column.
    columns = np.zeros((crop.shape[1], crop.shape[0] + 2), dtype=bool)
    columns[:, 1:-1] = crop.T
    flat = columns.ravel()
    column, row = np.divmod(np.flatnonzero(flat[1:] != flat[:-1]), columns.shape[1])
    changes = (corner[1] + column) * height + corner[0] + row
    # But in a crop of the image's height, where a run ends as the next one begins, it does.
    joined = np.flatnonzero(changes[1:] == changes[:-1])
    changes = np.delete(changes, np.concatenate([joined, joined + 1]))
    runs = np.diff(changes, prepend=0, append=height * width)
    return runs[:-1] if len(runs) > 1 and runs[-1] == 0 else runs


def crop_of_runs(runs: NDArray[np.int64], height: int) -> Crop:
    """The tight crop of runs as :func:`crop_runs` gives them, of an image of ``height`` pixels; zeros are allowed."""
    ends = np.cumsum(runs)
    filled = runs[1::2] > 0
    first, last = ends[:-1:2][filled], ends[1::2][filled] - 1
    if not len(first):
        return empty_crop()
    first_column, first_row = np.divmod(first, height)
    last_column, last_row = np.divmod(last, height)
    # A run that goes on in the next column takes up the whole height.
    whole = (first_column != last_column).any()
    top, bottom = (0, height) if whole else (first_row.min(), last_row.max() + 1)
    left, right = first_column[0], last_column[-1] + 1
    rows, columns = int(bottom - top), int(right - left)
    begin = (first_column - left) * rows + first_row - top
    end = (last_column - left) * rows + last_row - top + 1
    changes = np.stack([begin, end], axis=1).ravel()
    lengths = np.diff(changes, prepend=0, append=rows * columns)
    flat = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths)
    return np.ascontiguousarray(flat.reshape(columns, rows).T), (int(top), int(left))
