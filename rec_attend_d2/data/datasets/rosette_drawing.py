"""Draws plant rosettes seen from above on soil, with the visible part of each leaf.

Shapes: `S` side of the canvas in pixels, `N` leaves. Lengths are fractions of the side unless a name says pixels;
directions are (y, x). Nothing here is random but through the generator that is passed in.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

MAX_LEAVES = 12
_GOLDEN_ANGLE = np.deg2rad(137.5)
_FIXED_POINT_BITS = 4


@dataclass(frozen=True)
class Leaf:
    """One leaf in its own coordinates: ``u`` runs from stem (0) to tip (1), ``v`` across, both in leaf lengths."""

    origin: NDArray[np.float64]
    angle: float
    length: float
    bend: float
    petiole: float
    half_width: float
    widest_at: float
    lobes: int
    lobe_depth: float
    colour: NDArray[np.float64]
    vein_strength: float
    veins: float
    gloss: float

    def width_at(self, u: NDArray) -> NDArray:
        """Half width of the leaf at ``u``."""
        blade = np.clip((u - self.petiole) / (1 - self.petiole), 0, 1)
        # A power moves the maximum of the sine to widest_at.
        profile = np.sin(np.pi * blade ** (np.log(0.5) / np.log(self.widest_at))) ** 0.8
        profile *= 1 - self.lobe_depth * np.sin(np.pi * self.lobes * blade) ** 2
        stalk = np.where(u < self.petiole + 0.1, 0.035, 0.0)
        return np.maximum(self.half_width * profile, stalk)

    def outline(self, points: int = 48) -> NDArray[np.float64]:
        """Polygon [2 * points, 2] as (y, x)."""
        u = np.linspace(0, 1, points)
        width = self.width_at(u)
        along = np.concatenate([u, u[::-1]])
        across = np.concatenate([width, -width[::-1]]) + self.bend * along**2
        sin, cos = np.sin(self.angle), np.cos(self.angle)
        return self.origin + self.length * np.stack([along * sin + across * cos, along * cos - across * sin], axis=1)

    def coordinates(self, y: NDArray, x: NDArray) -> tuple[NDArray, NDArray]:
        """(u, v) of points of the image; v is measured from the bent midrib."""
        dy, dx = (y - self.origin[0]) / self.length, (x - self.origin[1]) / self.length
        sin, cos = np.sin(self.angle), np.cos(self.angle)
        u = dy * sin + dx * cos
        return u, dy * cos - dx * sin - self.bend * u * np.abs(u)


def grow_leaves(rng: Generator, count: int) -> list[Leaf]:
    """Leaves of one plant, oldest (lowest and longest) first."""
    centre = 0.5 + rng.uniform(-0.08, 0.08, 2)
    size = rng.uniform(0.28, 0.46)
    start, direction = rng.uniform(0, 2 * np.pi), rng.choice([-1, 1])
    petiole, half_width, widest_at = rng.uniform(0.05, 0.4), rng.uniform(0.16, 0.32), rng.uniform(0.35, 0.65)
    lobes, lobe_depth = int(rng.choice([1, 3, 4, 5])), float(rng.choice([0, rng.uniform(0.1, 0.3)]))
    # BGR: yellowish to bluish green.
    colour = np.array([rng.uniform(25, 75), rng.uniform(115, 175), rng.uniform(45, 105)])
    vein_strength, veins, gloss = rng.uniform(0.1, 0.35), rng.uniform(5, 9), rng.uniform(0, 0.35)
    leaves = []
    for i in range(count):
        age = 1 - i / max(count, 4)
        angle = start + direction * i * _GOLDEN_ANGLE + rng.normal(0, 0.15)
        leaves.append(
            Leaf(
                origin=centre + rng.normal(0, 0.008, 2),
                angle=angle,
                length=size * (0.4 + 0.6 * age) * rng.uniform(0.85, 1.15),
                bend=rng.normal(0, 0.12),
                petiole=petiole * rng.uniform(0.8, 1.1),
                half_width=half_width * rng.uniform(0.85, 1.15),
                widest_at=widest_at,
                lobes=lobes,
                lobe_depth=lobe_depth,
                colour=colour * rng.uniform(0.88, 1.12, 3) * (1.15 - 0.3 * age),
                vein_strength=vein_strength,
                veins=veins,
                gloss=gloss,
            )
        )
    return leaves


def leaf_coverage(leaf: Leaf, side: int) -> NDArray:
    """Share of each pixel [S, S] the leaf covers, 0 to 1."""
    canvas = np.zeros((side, side), dtype=np.uint8)
    points = np.rint(leaf.outline()[:, ::-1] * side * 2**_FIXED_POINT_BITS).astype(np.int32)
    cv2.fillPoly(canvas, [points], 255, lineType=cv2.LINE_AA, shift=_FIXED_POINT_BITS)
    return canvas.astype(np.float32) / 255


def paint_leaf(canvas: NDArray, leaf: Leaf, coverage: NDArray, light: NDArray, rng: Generator) -> None:
    """Paint the leaf and its shadow onto ``canvas`` [S, S, 3], in place.

    Args:
        canvas: float32 BGR, 0 to 255.
        leaf: what to paint.
        coverage: of :func:`leaf_coverage`.
        light: unit direction (y, x) the light comes from.
        rng: for the texture.
    """
    side = len(canvas)
    rows, columns = np.nonzero(coverage.any(axis=1))[0], np.nonzero(coverage.any(axis=0))[0]
    margin = side // 16
    top, bottom = max(0, rows[0] - margin), min(side, rows[-1] + margin)
    left, right = max(0, columns[0] - margin), min(side, columns[-1] + margin)
    part = canvas[top:bottom, left:right]
    alpha = coverage[top:bottom, left:right]

    offset = -light * side * 0.02
    moved = cv2.warpAffine(alpha, np.array([[1, 0, offset[1]], [0, 1, offset[0]]], dtype=np.float32), alpha.shape[::-1])
    part *= 1 - 0.55 * cv2.GaussianBlur(moved, (0, 0), side * 0.009)[..., None]

    y, x = np.mgrid[top:bottom, left:right].astype(np.float32) / side
    shade, highlight = _leaf_shading(leaf, *leaf.coordinates(y, x), light)
    shade += _smooth_noise(rng, shade.shape, side // 24) * 0.06
    colour = leaf.colour * shade[..., None] + highlight[..., None] * 200
    part += alpha[..., None] * (colour.clip(0, 255) - part)


def _leaf_shading(leaf: Leaf, u: NDArray, v: NDArray, light: NDArray) -> tuple[NDArray, NDArray]:
    """Factor of the leaf's colour and strength of its gloss, at leaf coordinates."""
    width = np.maximum(leaf.width_at(u.clip(0, 1)), 0.02)
    across = (v / width).clip(-1, 1)
    # Each half of the blade tilts away from the midrib, so that one of them faces the light.
    facing = np.cos(leaf.angle) * light[0] - np.sin(leaf.angle) * light[1]
    shade = 0.92 + 0.2 * facing * np.tanh(3 * across) - 0.22 * across**4 + 0.22 * (u - 0.5)
    midrib = np.exp(-((v / (0.014 + 0.012 * (1 - u.clip(0, 1)))) ** 2))
    side_veins = np.maximum(np.cos(2 * np.pi * leaf.veins * (u - 0.9 * np.abs(v))), 0) ** 12 * (np.abs(across) < 0.85)
    shade = shade + leaf.vein_strength * (1.6 * midrib + 0.5 * side_veins * (u > leaf.petiole))
    highlight = leaf.gloss * np.exp(-((across - 0.4 * np.sign(facing)) ** 2) / 0.08 - (u - 0.6) ** 2 / 0.04)
    return shade.astype(np.float32), highlight.astype(np.float32)


def paint_soil(rng: Generator, side: int) -> NDArray:
    """A background [S, S, 3] BGR of soil, with crumbs, pebbles and often the rim of a pot."""
    brown = rng.uniform(40, 85) * np.array([rng.uniform(0.45, 0.75), rng.uniform(0.7, 0.85), 1])
    texture = np.zeros((side, side), dtype=np.float32)
    for cell, weight in ((side // 5, 0.16), (side // 20, 0.16), (side // 60, 0.2), (2, 0.16)):
        texture += _smooth_noise(rng, (side, side), cell) * weight
    soil = (brown * (1 + texture[..., None])).astype(np.float32)
    for _ in range(rng.integers(20, 90)):
        _paint_pebble(soil, rng, side, rng.uniform(0.004, 0.014))
    for _ in range(rng.integers(0, 7)):
        _paint_pebble(soil, rng, side, rng.uniform(0.015, 0.035))
    if rng.random() < 0.4:
        algae = (_smooth_noise(rng, (side, side), side // 8) - 0.6).clip(0, 0.5)[..., None]
        soil += algae * (np.array([25, 75, 45]) - soil)
    if rng.random() < 0.6:
        _paint_pot(soil, rng, side)
    return soil


def _paint_pebble(soil: NDArray, rng: Generator, side: int, radius: float) -> None:
    centre = tuple(int(c) for c in rng.integers(0, side, 2))
    axes = (max(1, int(radius * side * rng.uniform(0.8, 1.3))), max(1, int(radius * side)))
    turn = rng.uniform(0, 180)
    grey = rng.uniform(35, 120) * np.array([0.85, 0.95, 1.05]) * rng.uniform(0.9, 1.1, 3)
    below = (centre[0] + 1, centre[1] + 1)
    cv2.ellipse(soil, below, axes, turn, 0, 360, (grey * 0.25).tolist(), -1, cv2.LINE_AA)
    cv2.ellipse(soil, centre, axes, turn, 0, 360, grey.tolist(), -1, cv2.LINE_AA)
    if min(axes) > 3:
        lit = (centre[0] - axes[0] // 4, centre[1] - axes[1] // 4)
        cv2.ellipse(soil, lit, (axes[0] // 2, axes[1] // 2), turn, 0, 360, (grey * 1.25).tolist(), -1, cv2.LINE_AA)


def _paint_pot(soil: NDArray, rng: Generator, side: int) -> None:
    """Cover what is outside a round pot by a table, and draw the rim."""
    y, x = np.mgrid[:side, :side].astype(np.float32) / side - 0.5 - rng.uniform(-0.03, 0.03, 2)[:, None, None]
    distance = np.hypot(y, x).astype(np.float32)
    radius, rim = rng.uniform(0.46, 0.6), rng.uniform(0.02, 0.04)
    table = np.array([1.0, 1.0, 1.0]) * rng.uniform(50, 150) * rng.uniform(0.92, 1.08, 3)
    plastic = np.array([[70, 105, 165], [40, 40, 42], [150, 155, 160]])[rng.integers(3)] * rng.uniform(0.8, 1.1)
    profile = 0.75 + 0.4 * np.sin(np.pi * ((distance - radius) / rim).clip(0, 1))
    soft = 1.0 / side
    soil *= (1 - 0.5 * np.exp(-((radius - distance).clip(0, None) / 0.04)))[..., None]
    soil += ((distance - radius) / soft).clip(0, 1)[..., None] * (plastic * profile[..., None] - soil)
    outside = table * (1 + 0.04 * _smooth_noise(rng, (side, side), 2)[..., None])
    outside *= (1 - 0.4 * np.exp(-(distance - radius - rim).clip(0, None) / 0.03))[..., None]
    soil += ((distance - radius - rim) / soft).clip(0, 1)[..., None] * (outside - soil)


def illuminate(canvas: NDArray, rng: Generator, light: NDArray) -> NDArray:
    """Uneven light that grows towards ``light``, exposure and white balance."""
    side = len(canvas)
    y, x = np.mgrid[:side, :side].astype(np.float32) / side - 0.5
    fall_off = 1 + rng.uniform(0, 0.35) * (y * light[0] + x * light[1])
    gain = rng.uniform(0.85, 1.3) * rng.uniform(0.95, 1.05, 3)
    return (canvas * fall_off[..., None] * gain).astype(np.float32)


def _smooth_noise(rng: Generator, shape: tuple[int, int], cell: int) -> NDArray:
    """Noise of unit variance on a grid of ``cell`` pixels, interpolated to ``shape``."""
    cell = max(1, cell)
    grid = rng.standard_normal((shape[0] // cell + 2, shape[1] // cell + 2), dtype=np.float32)
    return cv2.resize(grid, shape[::-1], interpolation=cv2.INTER_CUBIC if cell > 2 else cv2.INTER_LINEAR)
