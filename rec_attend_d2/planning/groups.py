"""Which pictures are kept for validation: whole groups of pictures that look alike, so that neighbours stay together.

Pictures of one plate, plant or film resemble each other. With one of them on either side the validation would be too
optimistic.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .survey import PictureFacts

# Share of the pictures that is kept for validation, and how many at most: more cost time and say hardly more.
SHARE, MOST = 0.2, 60
# Small copies of pictures that correlate more are near-equal.
_NEAR_EQUAL = 0.95
# Groups of more than this share of the pictures, or fewer groups, are kinds of pictures, of which both sides need some.
_LARGEST_GROUP, _FEWEST_GROUPS = 0.2, 5
# Pictures of a series, all alike, are cut into so many runs in the order of their names.
_RUNS = 10


@dataclass(frozen=True)
class Split:
    """Which pictures are for validation.

    Attributes:
        validation: their file names.
        why: how they were chosen, in words.
    """

    validation: list[str]
    why: str


def choose_validation(pictures: Sequence[PictureFacts], seed: int = 0) -> Split:
    """Keep about a fifth of the pictures for validation, whole groups that look alike.

    Args:
        pictures: at least two; both sides get one with objects.
        seed: of the order in which groups are drawn.

    Raises:
        ValueError: there are too few pictures with objects, or all are copies of one.
    """
    with_objects = sum(bool(picture.areas) for picture in pictures)
    if with_objects < 2:
        raise ValueError(
            f"{with_objects} picture has objects, but at least two are needed: one to learn from and one to measure "
            "on. Outline more pictures, or cut this one into parts."
        )
    groups, why = look_alike_groups(pictures)
    wished = min(SHARE * len(pictures), MOST)
    order = np.random.default_rng(seed).permutation(len(groups))
    chosen: list[int] = []
    for group in (groups[index] for index in order):
        left = [i for other in groups if other is not group for i in other if i not in chosen]
        has_objects = any(pictures[index].areas for index in chosen)
        if has_objects and len(chosen) + len(group) > 1.5 * wished:
            continue
        if not any(pictures[index].areas for index in left):
            continue
        chosen += group
        if len(chosen) >= wished and any(pictures[index].areas for index in chosen):
            break
    if not any(pictures[index].areas for index in chosen):
        raise ValueError(
            "The pictures cannot be divided: all those with objects look alike. Name others for validation "
            "(--val-images with --val-labels or --val-coco)."
        )
    names = [pictures[index].file_name for index in sorted(chosen)]
    return Split(names, f"{len(names)} of {len(pictures)} pictures; {why}")


def look_alike_groups(pictures: Sequence[PictureFacts]) -> tuple[list[list[int]], str]:
    """Groups of pictures (numbers) that belong together, and how that was told, in words."""
    numbers = np.arange(len(pictures))
    by_name = _numbered([name_stem(picture.file_name) for picture in pictures])
    by_look = near_equal(np.stack([picture.thumbnail.ravel() for picture in pictures]))
    reasons = []
    merged = numbers
    for labels, reason in ((by_name, "names that differ in the last number"), (by_look, "that look nearly equal")):
        if _tells_groups(labels):
            merged = _join(merged, labels)
            reasons.append(reason)
    # Copies are never divided, whatever the rules say.
    merged = _join(merged, _numbered([picture.digest for picture in pictures]))
    if reasons and _largest(merged) <= _LARGEST_GROUP:
        return _members(merged), f"pictures with {' or '.join(reasons)} are on the same side"
    if _largest(by_look) > 0.5:
        order = sorted(numbers, key=lambda index: _natural(pictures[int(index)].file_name))
        runs = np.empty(len(pictures), int)
        runs[order] = numbers * min(_RUNS, len(pictures)) // len(pictures)
        digests = _numbered([picture.digest for picture in pictures])
        return _members(
            _join(runs, digests)
        ), "all look alike, as in a film, so that runs in the order of their names stay together"
    return _members(_join(numbers, _numbered([picture.digest for picture in pictures]))), "drawn by chance"


def name_stem(file_name: str) -> str:
    """A file's name up to its last number, such as "plate1_" of "plate1_007.png"; with its folder."""
    path = Path(file_name)
    match = re.match(r"(.*?)(\d+)(\D*)$", path.stem)
    return str(path.parent / (match[1] if match else path.stem))


def near_equal(thumbnails: NDArray[np.float32]) -> NDArray[np.int64]:
    """Group number of each of [n, pixels] thumbnails: those that correlate, or are linked by others that do."""
    near = thumbnails @ thumbnails.T > _NEAR_EQUAL
    labels = np.arange(len(thumbnails))
    while True:  # every picture takes the smallest number among its likes, until nothing changes
        smallest = np.where(near, labels[None], len(labels)).min(axis=1)
        smallest = np.minimum(smallest, labels)
        if (smallest == labels).all():
            return labels
        labels = smallest


def _numbered(keys: Sequence[str]) -> NDArray[np.int64]:
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys])


def _join(first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    """Groups in which all are that share a group in either."""
    labels = first.copy()
    while True:
        before = labels.copy()
        for groups in (first, second):
            smallest = np.full(groups.max() + 1, len(labels))
            np.minimum.at(smallest, groups, labels)
            labels = np.minimum(labels, smallest[groups])
        if (labels == before).all():
            return labels


def _largest(labels: NDArray[np.int64]) -> float:
    return float(np.unique(labels, return_counts=True)[1].max() / len(labels))


def _tells_groups(labels: NDArray[np.int64]) -> bool:
    """Whether a rule puts some pictures together, and not nearly all."""
    groups = len(np.unique(labels))
    return _FEWEST_GROUPS <= groups < len(labels) and _largest(labels) <= _LARGEST_GROUP


def _members(labels: NDArray[np.int64]) -> list[list[int]]:
    return [np.flatnonzero(labels == value).tolist() for value in np.unique(labels)]


def _natural(file_name: str) -> list:
    """Sorts t2 before t10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", file_name)]


def beside_validation(validation: Sequence[str], looked_at: Sequence[str], file_names: Sequence[str]) -> list[str]:
    """Pictures that were not looked at and lie beside one for validation, in the order of the names.

    They may be of the same plate or film, so that they are for neither side.
    """
    kept, known = set(validation), set(looked_at)
    order = sorted(file_names, key=_natural)
    places = np.array([place for place, name in enumerate(order) if name in known])
    after = np.clip(np.searchsorted(places, np.arange(len(order))), 1, len(places) - 1) if len(places) > 1 else None
    found = []
    for place, name in enumerate(order):
        if name in known or after is None:
            continue
        near = min(places[after[place] - 1], places[after[place]], key=lambda other: abs(int(other) - place))
        if order[near] in kept:
            found.append(name)
    return found
