"""What looks wrong with label images, seen in the masks of their objects: background, void, pieces, overflow, specks.

Shapes: `H, W` image size in pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

# Share of the picture's border that background or a frame around the picture has; objects never have so much of it.
_BORDER = 0.9
_MOST = 0.5
# An object of so few pixels is hardly one.
_SPECK = 3
# Objects of a picture with 8 bits that are numbered on from 1 after the 255th: so many values, some in pieces.
_FULL, _REPEATED = 250, 3
# Share of objects in pieces, and pieces of an object in the mean, from which on values are no objects. A quarter of the
# leaves of plants are in pieces, since others lie over them.
_SHARE_IN_PIECES, _PIECES_EACH = 0.5, 2.0
_FEWEST = 5


@dataclass
class LabelFacts:
    """What the masks of a picture look like.

    Attributes:
        file_name: of the picture.
        in_pieces: where objects of several pieces are, (x, y) of a pixel of each.
        pieces: of all objects together.
        specks: where objects of at most three pixels are.
        ground: where objects are that look like background, see :func:`looks_like_ground`.
        objects: number of masks.
        is_void: whether its largest value is the largest of its type, and the others are small.
    """

    file_name: str
    in_pieces: list[tuple[int, int]] = field(default_factory=list)
    pieces: int = 0
    specks: list[tuple[int, int]] = field(default_factory=list)
    ground: list[tuple[int, int]] = field(default_factory=list)
    objects: int = 0
    is_void: bool = False

    def add(self, mask: NDArray[np.bool_], pieces: int) -> None:
        """Count the mask [H, W] of an object in so many pieces."""
        row, column = np.unravel_index(int(mask.argmax()), mask.shape)
        place = int(column), int(row)
        self.objects += 1
        self.pieces += pieces
        if pieces > 1:
            self.in_pieces.append(place)
        if np.count_nonzero(mask) <= _SPECK:
            self.specks.append(place)
        if looks_like_ground(mask):
            self.ground.append(place)


def looks_like_ground(mask: NDArray[np.bool_]) -> bool:
    """Whether a mask [H, W] has nearly the whole border, or most of the picture and part of each side."""
    sides = (mask[0], mask[-1], mask[:, 0], mask[:, -1])
    if min(mask.shape) < 3 or not all(side.any() for side in sides):
        return False
    return bool(np.concatenate(sides).mean() >= _BORDER or mask.mean() > _MOST)


def is_void(values: NDArray[np.integer]) -> bool:
    """Whether sorted values [N] of objects are small numbers and the largest of 8 or 16 bits, which marks "unknown"."""
    return len(values) > 1 and values[-1] in (255, 65535) and values[-2] <= min(2 * len(values), 200)


def check_ground(pictures: Sequence[LabelFacts]) -> None:
    """Raise a ValueError if in half of the pictures with objects or more one of these looks like background."""
    labelled = [picture for picture in pictures if picture.objects]
    found = [picture for picture in labelled if picture.ground]
    if len(found) * 2 < len(labelled) or not found:
        return
    raise ValueError(
        f"In {len(found)} of {len(labelled)} label images an object has the whole border or most of the picture, such "
        f"as that at {_place(found[0].ground[0])} in the one of {found[0].file_name}. If it is the background, give "
        "its value or colour by --background; if it is an object, say so by --background 0."
    )


def check_pieces(pictures: Sequence[LabelFacts]) -> None:
    """Raise a ValueError if label images look like anything but one value for each object.

    Photographs: more than half of all values have at most three pixels.
    Binary masks: no picture has more than one value besides the background, and some of these are in pieces. Numbers
    that began anew after 255. Semantic classes and smoothed drawings: a fifth of all values are in pieces, or values
    have two pieces each in the mean.
    """
    in_pieces, objects = sum(len(picture.in_pieces) for picture in pictures), sum(p.objects for p in pictures)
    specks = sum(len(picture.specks) for picture in pictures)
    if specks > max(_FEWEST, objects / 2):
        worst = max(pictures, key=lambda picture: len(picture.specks))
        raise ValueError(
            f"The labels look like photographs instead of objects: {specks} of {objects} values have at most {_SPECK} "
            f"pixels, {len(worst.specks)} of them in the one of {worst.file_name}. Check --labels and --label-suffix; "
            "--keep-components keeps such objects."
        )
    if not in_pieces:
        return
    worst = max(pictures, key=lambda picture: len(picture.in_pieces))
    example = f"such as that at {_place(worst.in_pieces[0])} in the one of {worst.file_name}"
    remedy = (
        "Add --split-components if every connected piece is an object, or --keep-components if objects really are in "
        "pieces."
    )
    if max(picture.objects for picture in pictures) == 1:
        raise ValueError(
            f"The labels look like binary masks: none has more than one value besides the background, and {in_pieces} "
            f"of {len(pictures)} have several pieces that don't touch, {example}. {remedy}"
        )
    full = [p for p in pictures if _FULL <= p.objects <= 255 and len(p.in_pieces) >= _REPEATED]
    if full:
        raise ValueError(
            f"In {len(full)} of {len(pictures)} label images all 255 values of 8 bits are used and values are in "
            f"several pieces that don't touch ({len(full[0].in_pieces)} of {full[0].objects} in the one of "
            f"{full[0].file_name}): numbers seem to have begun anew after 255, so that objects share them. "
            f"Save the labels with 16 bits. {remedy}"
        )
    pieces = sum(picture.pieces for picture in pictures)
    many = in_pieces >= min(_FEWEST, objects) and in_pieces > _SHARE_IN_PIECES * objects
    if many or in_pieces > objects / 2 or pieces > _PIECES_EACH * objects:
        raise ValueError(
            f"The labels look like classes or smoothed drawings instead of objects: {in_pieces} of {objects} values "
            f"are in several pieces that don't touch ({pieces} pieces in all), {example}. {remedy}"
        )


def label_doubts(pictures: Sequence[LabelFacts]) -> list[str]:
    """What else looks wrong, in sentences with counts and the first examples."""
    kinds: list[tuple[Callable[[LabelFacts], list[tuple[int, int]]], str]] = [
        (lambda picture: picture.in_pieces, "objects are in several pieces that don't touch"),
        (lambda picture: picture.specks, f"objects have at most {_SPECK} pixels"),
        (lambda picture: picture.ground, "objects look like background: --background gives its value"),
    ]
    lines = []
    for places_of, what in kinds:
        places = [f"{_place(place)} of {picture.file_name}" for picture in pictures for place in places_of(picture)]
        if places:
            lines.append(f"{len(places)} {what} (at {'; '.join(places[:3])}{'; ...' if len(places) > 3 else ''})")
    void = [picture.file_name for picture in pictures if picture.is_void]
    if void:
        lines.append(
            f"in {len(void)} label images the largest value of 8 or 16 bits is an object besides small ones (first: "
            f"{void[0]}): if it marks what is unknown, give these pixels the background's value"
        )
    return lines


def _place(place: tuple[int, int]) -> str:
    return f"x {place[0]}, y {place[1]}"
