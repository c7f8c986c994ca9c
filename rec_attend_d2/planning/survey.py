"""Looks at every picture of a data set and its outlines: what has to be known to choose settings, and what is odd.

Shapes: `H, W` picture in pixels.
"""

import hashlib
import math
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from statistics import median
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..data.image_io import contrast_range, decode_image
from ..data.object_size import typical_width
from ..data.picture_cache import paint
from ..data.picture_check import Progress
from ..data.segmentation import annotation_crop
from ..threads import usable_cores

# Of more pictures so many are looked at, spread evenly.
LARGEST_LOOK = 2000
# Percentiles that are stretched to black and white where values are dark or their range is unknown.
PERCENTILES = (1.0, 99.8)
# Side of the small copies by which near-equal pictures are found.
_THUMBNAIL = 24
# Objects with a gap of at most one pixel between them count as touching: many outline so.
_NEAR = 2


@dataclass(frozen=True)
class PictureFacts:
    """What one picture is.

    Attributes:
        file_name: its path.
        size: (H, W) in pixels.
        depth: type of its pixels, such as "uint8".
        grey: whether its channels are equal.
        areas: of its objects, pixels.
        classes: of its objects, from 0.
        crowds: regions that mark groups instead of objects.
        touching: objects that have at most one pixel between them and another.
        in_pieces: objects of several pieces that do not touch each other.
        solidity: of its objects, area over that of the convex hull, the median; NaN without objects.
        levels: (outside of objects, inside), medians of the grey values, from 0 (PERCENTILES' low) to 1 (high).
        brightness: median grey value of an 8-bit picture; NaN of another.
        digest: of the pixels; equal pictures have the same.
        thumbnail: grey values [24, 24] without mean and scale, by which near-equal pictures are found.
    """

    file_name: str
    size: tuple[int, int]
    depth: str
    grey: bool
    areas: list[int]
    classes: list[int]
    crowds: int
    touching: int
    in_pieces: int
    solidity: float
    levels: tuple[float, float]
    brightness: float
    digest: str
    thumbnail: NDArray[np.float32] = field(repr=False)


def look(record: dict[str, Any]) -> PictureFacts:
    """Facts of the picture of a dataset dict. Raises FileNotFoundError or ValueError, which name the file."""
    name = record["file_name"]
    image = decode_image(name)
    size = (image.shape[0], image.shape[1])
    labels, areas, pieces, solidities = np.zeros(size, np.int32), [], 0, []
    classes, crowds = [], 0
    for index, annotation in enumerate(record.get("annotations", ())):
        crop = annotation_crop(annotation, size, f"{name}: annotation {annotation.get('id', f'number {index}')}")
        if annotation.get("iscrowd", 0):
            crowds += 1
            continue
        areas.append(int(np.count_nonzero(crop[0])))
        classes.append(int(annotation.get("category_id", 0)))
        pieces += cv2.connectedComponents(crop[0].astype(np.uint8), connectivity=8)[0] > 2
        solidities.append(solidity(crop[0]))
        paint(labels, crop, len(areas))
    channels = image[..., None] if image.ndim == 2 else image
    grey = np.asarray(channels, np.float32).mean(axis=2)
    return PictureFacts(
        file_name=name,
        size=size,
        depth=str(image.dtype),
        grey=bool((channels == channels[..., :1]).all()),
        areas=areas,
        classes=classes,
        crowds=crowds,
        touching=count_touching(labels),
        in_pieces=pieces,
        solidity=median(solidities) if solidities else math.nan,
        levels=_levels(channels, grey, labels),
        brightness=float(np.median(grey)) if image.dtype == np.uint8 else math.nan,
        digest=hashlib.sha256(image.tobytes()).hexdigest(),
        thumbnail=_thumbnail(grey),
    )


def solidity(mask: NDArray[np.bool_]) -> float:
    """Area of a mask's largest piece over that of its convex hull, in (0, 1]; 1 of pieces without an inside."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    largest = max(contours, key=cv2.contourArea)
    hull = cv2.contourArea(cv2.convexHull(largest))
    return cv2.contourArea(largest) / hull if hull > 0 else 1.0


def count_touching(labels: NDArray[np.int32]) -> int:
    """Objects of a label image [H, W] that have at most one pixel between them and another."""
    found: set[int] = set()
    for rows, columns in ((0, 1), (1, 0), (1, 1), (1, -1), (0, _NEAR), (_NEAR, 0)):
        here = labels[rows:, max(columns, 0) : labels.shape[1] + min(columns, 0)]
        there = labels[: labels.shape[0] - rows, max(-columns, 0) : labels.shape[1] - max(columns, 0)]
        near = (here != there) & (here > 0) & (there > 0)
        found |= set(here[near].tolist()) | set(there[near].tolist())
    return len(found)


def _levels(channels: NDArray, grey: NDArray[np.float32], labels: NDArray[np.int32]) -> tuple[float, float]:
    low, high = contrast_range(channels, PERCENTILES)
    parts = (grey[labels == 0], grey[labels > 0])
    outside, inside = (float(np.median(part)) if part.size else math.nan for part in parts)
    return (outside - low) / (high - low), (inside - low) / (high - low)


def _thumbnail(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    small = cv2.resize(np.nan_to_num(grey), (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA)
    centred = small - small.mean()
    norm = float(np.linalg.norm(centred))
    return np.asarray(centred / norm if norm > 0 else centred, np.float32)


@dataclass(frozen=True)
class Survey:
    """What a data set is.

    Attributes:
        pictures: those that were looked at.
        total: number of pictures.
        class_names: of class 0, 1, ...
    """

    pictures: Sequence[PictureFacts]
    total: int
    class_names: Sequence[str]

    @cached_property
    def counts(self) -> list[int]:
        """Objects of each picture."""
        return [len(picture.areas) for picture in self.pictures]

    @cached_property
    def widths(self) -> list[float]:
        """:func:`.object_size.typical_width` of each picture that has objects."""
        return [typical_width(picture.areas) for picture in self.pictures if picture.areas]

    @cached_property
    def object_widths(self) -> NDArray[np.float64]:
        """Square root of the area of every object, pixels."""
        return np.sqrt([area for picture in self.pictures for area in picture.areas])

    @property
    def object_size(self) -> float:
        """Typical width of an object, the median over pictures, pixels."""
        return round(median(self.widths), 2)

    @property
    def solidity(self) -> float:
        """Median over pictures: near 1 of round things, less of ragged or bent ones."""
        return median(picture.solidity for picture in self.pictures if picture.areas)

    @property
    def touching_share(self) -> float:
        """Share of the objects that touch another."""
        return sum(picture.touching for picture in self.pictures) / max(1, sum(self.counts))

    @property
    def is_grey(self) -> bool:
        """Whether more than half of the pictures have no colours."""
        return 2 * sum(picture.grey for picture in self.pictures) > len(self.pictures)

    @property
    def is_deep(self) -> bool:
        """Whether a picture has other values than those of 8 bits."""
        return any(picture.depth != "uint8" for picture in self.pictures)

    @property
    def levels(self) -> tuple[float, float]:
        """Grey value (outside of objects, inside), medians over pictures with objects; see :class:`PictureFacts`."""
        pairs = [picture.levels for picture in self.pictures if picture.areas]
        outside, inside = (float(np.nanmedian(values)) for values in zip(*pairs, strict=True))
        return outside, inside

    @property
    def brightness(self) -> float:
        """Median grey value of the 8-bit pictures; NaN where there are none."""
        values = [picture.brightness for picture in self.pictures if picture.depth == "uint8"]
        return median(values) if values else math.nan


def survey(
    records: Sequence[dict[str, Any]], class_names: Sequence[str], progress: Progress = lambda items: items
) -> Survey:
    """Look at the pictures of dataset dicts, several at a time.

    Args:
        records: with ``annotations``.
        class_names: of class 0, 1, ...
        progress: goes over the pictures, such as ``tqdm``.

    Raises:
        FileNotFoundError, ValueError: a picture or an annotation is wrong, or there is no object; the message names it.
    """
    chosen = np.linspace(0, len(records) - 1, min(len(records), LARGEST_LOOK)).round().astype(int)
    with ThreadPoolExecutor(usable_cores()) as threads:
        facts = list(progress(threads.map(look, [records[index] for index in chosen])))
    found = Survey(facts, len(records), list(class_names))
    if not any(found.counts):
        crowds = sum(picture.crowds for picture in facts)
        reason = f"all {crowds} annotations are crowds (iscrowd 1)" if crowds else "there is no annotation"
        raise ValueError(f"There is no object to train on: {reason}. Outline some, or correct the annotations.")
    return found


def findings(found: Survey) -> list[tuple[str, str]]:
    """What the data are, as rows of a table: what, and its value in words."""
    counts, widths = found.counts, found.widths
    looked = f" ({len(found.pictures)} looked at)" if len(found.pictures) < found.total else ""
    depths = Counter(picture.depth for picture in found.pictures)
    classes = Counter(class_ for picture in found.pictures for class_ in picture.classes)
    low, high = np.percentile(widths, [5, 95])
    smallest, largest = np.percentile(found.object_widths, [5, 95])
    rows = [
        ("pictures", f"{found.total}{looked}"),
        ("sizes", _some(Counter(f"{p.size[1]} x {p.size[0]}" for p in found.pictures), " of {}")),
        ("pixels", f"{_some(depths, ' of {}')}, {'grey' if found.is_grey else 'colours'}"),
        ("objects", f"{sum(counts)}; {median(counts):g} in a typical picture, {max(counts)} at most"),
        ("pictures without objects", str(counts.count(0))),
        ("width of objects", f"{found.object_size:g} pixels typically; {smallest:.0f} to {largest:.0f}"),
        ("... by picture", f"{low:.0f} to {high:.0f} pixels"),
        ("objects that touch", f"{found.touching_share:.0%}"),
        ("shape", f"{found.solidity:.2f} of their convex hull"),
    ]
    if len(found.class_names) > 1:
        rows.append(("classes", ", ".join(f"{name} {classes[i]}" for i, name in enumerate(found.class_names))))
    return rows


def _some(values: Counter, template: str, shown: int = 3) -> str:
    """The most common values, and how many others there are."""
    if len(values) == 1:
        return next(iter(values))
    words = [f"{value}{template.format(number)}" for value, number in values.most_common(shown)]
    return ", ".join(words) + (f" and {len(values) - shown} others" if len(values) > shown else "")


def doubts(found: Survey) -> list[str]:
    """What looks wrong with the data, each with the first pictures that it is about."""
    pictures = found.pictures
    by_digest: dict[str, list[PictureFacts]] = {}
    for picture in pictures:
        by_digest.setdefault(picture.digest, []).append(picture)
    copies = [group for group in by_digest.values() if len(group) > 1]
    differing = [group for group in copies if len({tuple(sorted(picture.areas)) for picture in group}) > 1]
    unlabelled = [picture.file_name for picture in pictures if not picture.areas]
    largest = [p.file_name for p in pictures if p.areas and max(p.areas) > 0.5 * p.size[0] * p.size[1]]
    specks = [p.file_name for p in pictures for area in p.areas if area == 1]
    tiny = [p.file_name for p in pictures for area in p.areas if 1 < area < (found.object_size / 8) ** 2]
    pieces = [p.file_name for p in pictures for _ in range(p.in_pieces)]
    few = [p.file_name for p in pictures if p.areas and len(p.areas) * 20 < median(found.counts)]
    checks = [
        (specks, "objects of one pixel"),
        (tiny, "objects narrower than an eighth of the typical width"),
        (pieces, "objects in several pieces that do not touch"),
        (largest, "pictures in which one object covers more than half: is it the background?"),
        (few, "pictures with less than a twentieth of the usual number of objects: are they outlined completely?"),
        ([group[1].file_name for group in copies], "pictures that are copies of another"),
        ([group[1].file_name for group in differing], "copies that are outlined differently"),
    ]
    lines = [f"{len(names)} {what} (first: {names[0]})" for names, what in checks if names]
    if unlabelled and len(unlabelled) > len(pictures) / 4:
        lines.append(f"{len(unlabelled)} pictures have no object at all (first: {unlabelled[0]}): is that so?")
    low, high = np.percentile(found.widths, [5, 95])
    if high > 2.5 * low:
        lines.append(
            f"objects are {low:.0f} pixels wide in some pictures and {high:.0f} in others: if these are several "
            "magnifications, bring the pictures to one"
        )
    return lines
