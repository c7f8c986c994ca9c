"""Pictures of any size: tiles that overlap, one after another, with the memory handed on.

A tile starts from what other tiles have claimed in it, so that nothing is claimed twice and nothing has to be stitched.
What an inner border of a tile cuts is claimed there for the tile's own sake, so that its neighbours are seen beside it
as in the whole picture; then it is forgotten and waits for the tile that sees it whole. An object too large for that
gets a tile of its own. Memory grows with the tile and with the number of objects, not with the picture.

Shapes: `h, w` scaled picture, network pixels; `T` side of a tile.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...layers.boxes import CenterBoxes
from ..steps import select
from .claims import Claims, mask_pixels, new_objects, write_claims
from .image_encoder import DEEPEST_STRIDE
from .sizes import rounded_up

if TYPE_CHECKING:
    from .model import FastRecAttend

# Side of the tiles of large pictures.
USUAL_TILE = 1024
# Starts of tiles are multiples of it, so that the networks' maps lie as in the whole picture.
_GRID = DEEPEST_STRIDE
# Tiles overlap by so many typical widths, and by this number of pixels at least.
_OVERLAP_WIDTHS, _SMALLEST_OVERLAP = 8, 128
# What comes so near to an inner border, in typical widths, is seen better by the next tile.
_MARGIN_WIDTHS = 0.5
# A tile of its own is so many times as wide as what was seen of the object.
_OWN_TILE = 3

Progress = Callable[[Iterable[Any]], Iterable[Any]]


@dataclass(frozen=True)
class Tile:
    """Part of a picture from (top, left) up to (bottom, right)."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)"""
        return self.bottom - self.top, self.right - self.left

    def meets(self, other: "Tile") -> bool:
        """Whether they share a pixel."""
        return (
            self.top < other.bottom and other.top < self.bottom and self.left < other.right and other.left < self.right
        )


def _starts(length: int, side: int, step: int) -> list[int]:
    if length <= side:
        return [0]
    last = rounded_up(length - side, _GRID)
    return [*range(0, last, step), last]


def tiles_of(size: tuple[int, int], side: int, overlap: int) -> list[Tile]:
    """Tiles that cover a picture of ``size`` (h, w), row by row.

    Args:
        size: (h, w).
        side: T, a multiple of 32; the last of a row or column may be smaller.
        overlap: of neighbours at least, a multiple of 32 below ``side``.
    """
    rows, columns = (_starts(length, side, side - overlap) for length in size)
    return [Tile(y, x, min(y + side, size[0]), min(x + side, size[1])) for y in rows for x in columns]


def _moved(claims: Claims, down: float, right: float) -> Claims:
    center = claims.boxes.center + claims.boxes.center.new_tensor([down, right])
    return Claims(CenterBoxes(center, claims.boxes.size), claims.logits, claims.scores, claims.classes)


@dataclass
class TiledSearch:
    """What is known of a picture while its tiles are gone through.

    Attributes:
        model: in evaluation mode.
        image: uint8 [3, h, w], a tensor or anything that gives one for ``image[:, rows, columns]``.
        margin: what comes so near to an inner border waits, network pixels.
        found: claims of each tile, in pixels of the picture, with half precision masks.
        waiting: what inner borders cut.
    """

    model: "FastRecAttend"
    image: Any
    margin: float
    found: list[tuple[Tile, Claims]] = field(default_factory=list)
    waiting: list[tuple[Tile, Claims]] = field(default_factory=list)

    @property
    def size(self) -> tuple[int, int]:
        """(h, w)"""
        return self.image.shape[-2], self.image.shape[-1]

    def memory(self, tile: Tile) -> Tensor:
        """What other tiles have claimed in a tile, [1, H, W] with the sides that the networks take."""
        size = self.model.padded_size(tile.size)
        memory = torch.zeros(1, *size, device=self.model.device)
        parts = [_moved(claims, -tile.top, -tile.left) for other, claims in self.found if other.meets(tile)]
        if parts:
            claims = Claims.cat(parts)
            pixels = mask_pixels(claims.logits, claims.boxes, size)
            memory = write_claims(pixels, torch.zeros(len(claims), dtype=torch.int64, device=memory.device), memory)
        return memory

    def search(self, tile: Tile) -> None:
        """Claim what a tile shows whole."""
        part = self.image[:, tile.top : tile.bottom, tile.left : tile.right]
        claims = Claims.of_steps(self.model.run([{"image": part}], self.memory(tile))[0][0])
        low, high = claims.boxes.top_left, claims.boxes.bottom_right
        cut = torch.zeros(len(claims), dtype=torch.bool, device=low.device)
        for axis, (start, end) in enumerate(((tile.top, tile.bottom), (tile.left, tile.right))):
            if start > 0:
                cut |= low[:, axis] < self.margin
            if end < self.size[axis]:
                cut |= high[:, axis] > end - start - self.margin
        claims = _moved(claims, tile.top, tile.left)
        claims.logits = claims.logits.half()
        self.found.append((tile, select(claims, ~cut)))
        if cut.any():
            self.waiting.append((tile, select(claims, cut)))

    def next_own_tile(self, least: float) -> Tile | None:
        """A tile around something that waits, at least ``least`` pixels wide, and that no tile has claimed since."""
        while self.waiting:
            tile, claims = self.waiting.pop()
            rows = (claims.boxes.size.amax(1) >= least).nonzero()[:, 0]
            claims = select(claims, rows)
            if len(claims) == 0:
                continue
            moved = _moved(claims, -tile.top, -tile.left)
            pixels = mask_pixels(moved.logits, moved.boxes, tile.size)
            new = new_objects(pixels, torch.zeros_like(rows), self.memory(tile), len(claims))
            numbers = new.nonzero()[:, 0].tolist()
            if numbers:
                self.waiting.append((tile, select(claims, new.nonzero()[1:, 0])))
                return self._tile_around(select(claims.boxes, numbers[0]), tile)
        return None

    def _tile_around(self, box: CenterBoxes, before: Tile) -> Tile:
        bounds = []
        for axis, (length, old) in enumerate(zip(self.size, before.size, strict=True)):
            side = max(old, int(_OWN_TILE * float(box.size[axis])))
            # Where the border cut it, the box says little about how far it reaches: what was tried once has to grow.
            start = int(float(box.center[axis]) - side / 2) // _GRID * _GRID
            bounds.append((max(0, start), min(length, max(0, start) + side + _GRID)))
        (top, bottom), (left, right) = bounds
        return Tile(top, left, bottom, right)


def find_in_tiles(model: "FastRecAttend", image: Any, side: int = USUAL_TILE, progress: Progress = iter) -> Claims:
    """All that is found in a picture, in its network pixels, tile by tile.

    Args:
        model: in evaluation mode.
        image: uint8 [3, h, w], or what gives its parts, see :class:`TiledSearch`.
        side: T, of tiles; rounded up to a multiple of 32, and up to twice their overlap.
        progress: goes over the tiles, to show how far it is.
    """
    width = model.sizes.width
    overlap = rounded_up(max(_SMALLEST_OVERLAP, round(_OVERLAP_WIDTHS * width)), _GRID)
    side = max(rounded_up(side, _GRID), 2 * overlap)
    search = TiledSearch(model, image, margin=_MARGIN_WIDTHS * width)
    for tile in progress(tiles_of(search.size, side, overlap)):
        search.search(tile)
    # Smaller objects were seen whole by a tile, which decided on them.
    least = overlap - 3 * search.margin
    tried: set[Tile] = set()
    while (own := search.next_own_tile(least)) is not None:
        if own in tried:
            continue
        tried.add(own)
        search.search(own)
    return Claims.cat([claims for _, claims in search.found])
