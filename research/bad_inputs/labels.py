"""Label images that are not what they seem."""

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
from PIL import Image

from .base import SIZE, Scratch, case, cut_file, discs, huge_png, picture, tiff_of


def convert(scratch: Scratch, write: Callable[[Path], Any], *options: str, count: int = 2, name: str = "{}.tif") -> str:
    """Convert label images that ``write`` writes; the number of objects of each picture."""
    for number in range(count):
        Image.fromarray(picture()).save(scratch.folder / "images" / f"{number}.png")
        write(scratch.folder / "labels" / name.format(number))
    tool = importlib.import_module("labels_to_coco")
    folders = ["--images", scratch.folder / "images", "--labels", scratch.folder / "labels"]
    old, sys.argv = (
        sys.argv,
        ["labels_to_coco", *map(str, folders), "--output", str(scratch.folder / "o.json"), *options],
    )
    try:
        tool.main()
    finally:
        sys.argv = old
    written = json.loads((scratch.folder / "o.json").read_text())
    return f"{len(written['annotations']) / count:g} objects each"


def labels(name: str, write: Callable[[Path], Any], expected: str, *options: str, suffix: str = "tif") -> None:
    """A conversion of label images."""
    case(f"labels: {name}", "convert", lambda s: convert(s, write, *options, name=f"{{}}.{suffix}"), expected)


THREE = r"result: 3 objects each"
for kind in ("i8", "u8", ">u2", ">i4", "<i4", "f4", "f8", ">f4", "i1", "u4"):
    labels(f"type {kind}", tiff_of(discs(kind)), THREE)
labels("0 is white, 8 bit", tiff_of(discs(), photometric="miniswhite"), THREE)
labels("0 is white, 16 bit", tiff_of(discs(np.uint16), photometric="miniswhite"), THREE)
labels("probabilities", tiff_of(discs(np.float32) * 0.3), r"no whole numbers, such as 0\.3")
labels("not a number", tiff_of(np.where(discs() == 1, np.nan, discs()).astype(np.float32)), r"no whole numbers")
labels("complex numbers", tiff_of(discs().astype(np.complex64)), r"complex64 pixels|cannot be decoded")
labels("background -1", tiff_of(discs(np.int32) - 1), r"--background -1")
labels("background -1, said", tiff_of(discs(np.int32) - 1), THREE, "--background", "-1")
labels("background 1", tiff_of(discs() + 1), r"whole border or most.*--background")
labels("background 1, said", tiff_of(discs() + 1), THREE, "--background", "1")
labels("inverted binary mask", tiff_of(np.where(discs() > 0, 0, 255).astype(np.uint8)), r"whole border or most")
labels("binary mask", tiff_of(np.where(discs() > 0, 255, 0).astype(np.uint8)), r"binary masks.*--split-components")
labels("frame of void", tiff_of(np.pad(discs()[4:-4, 4:-4], 4, constant_values=255)), r"whole border or most")


def _void() -> np.ndarray:
    ring = cv2.dilate((discs() > 0).astype(np.uint8), np.ones((3, 3))) - (discs() > 0)
    return np.where(ring > 0, 255, discs()).astype(np.uint8)


labels("rings of void 255", tiff_of(_void()), r"largest value of 8 or 16 bits is an object|in several pieces")
labels("three pages", tiff_of(np.stack([discs()] * 3), photometric="minisblack"), r"has 3 pages")
labels(
    "a stack of colours",
    tiff_of(np.stack([discs()] * 5, -1), photometric="minisblack", planarconfig="contig"),
    r"shape \[48, 64, 5\]",
)


def _colours(alpha: np.ndarray, ground: int) -> np.ndarray:
    table = np.array([[ground] * 3, [39, 99, 90], [69, 33, 46], [235, 176, 212]], np.uint8)
    return np.dstack([table[discs()], alpha.astype(np.uint8)])


def _png(pixels: np.ndarray) -> Callable[[Path], None]:
    return lambda path: Image.fromarray(pixels).save(path)


opaque = np.where(discs() > 0, 255, 0)
labels("transparent white ground", _png(_colours(opaque, 255)), THREE, suffix="png")
labels("opacity 0 everywhere", _png(_colours(opaque * 0, 0)), THREE, suffix="png")
labels("white ground", _png(_colours(opaque, 255)[..., :3]), r"whole border or most", suffix="png")
labels("white ground, said", _png(_colours(opaque, 255)[..., :3]), THREE, "--background", "255,255,255", suffix="png")


def _deep_colours(path: Path) -> None:
    pixels = np.zeros((*SIZE, 3), np.uint16)
    pixels[..., 0] = np.array([0, 1001, 1002, 1003], np.uint16)[discs()]
    cv2.imwrite(str(path), pixels)


labels("colours of 16 bits", _deep_colours, THREE, suffix="png")


def _many(dtype: Any) -> np.ndarray:
    grid = np.zeros((200, 200), dtype)
    for number in range(324):
        y, x = divmod(number, 18)
        grid[11 * y : 11 * y + 8, 11 * x : 11 * x + 8] = (number % 255) + 1
    return grid


def _overflow(scratch: Scratch) -> str:
    Image.fromarray(np.zeros((200, 200), np.uint8)).save(scratch.folder / "images" / "a.png")
    Image.fromarray(_many(np.uint8)).save(scratch.folder / "labels" / "a.png")
    return convert(scratch, lambda path: Image.fromarray(discs()).save(path), name="{}.png")


case("labels: 324 objects in 8 bits", "convert", _overflow, r"all 255 values of 8 bits.*begun anew after 255")


def _stray(path: Path) -> None:
    stray = discs()
    stray[0, 0] = 1
    tifffile.imwrite(path, np.where(np.arange(SIZE[1]) >= 0, stray, 0))


def _strays(scratch: Scratch) -> str:
    base = np.zeros((100, 100), np.uint8)
    for number in range(25):
        y, x = divmod(number, 5)
        base[20 * y + 4 : 20 * y + 14, 20 * x + 4 : 20 * x + 14] = number + 1
    base[0, 0] = 7
    Image.fromarray(base * 0).save(scratch.folder / "images" / "a.png")
    Image.fromarray(base).save(scratch.folder / "labels" / "a.png")
    return convert(scratch, lambda path: Image.fromarray(discs()).save(path), name="{}.png")


case("labels: a stray pixel", "convert", _strays, r"1 objects are in several pieces.*a\.png")
labels("a third of the values in pieces", _stray, r"in several pieces")


def _classes(path: Path) -> None:
    tifffile.imwrite(path, np.array([0, 1, 2, 1], np.uint8)[discs()])


labels("semantic classes", _classes, r"in several pieces")
labels("a speck", lambda path: tifffile.imwrite(path, _with(discs(), (2, 60), 9)), r"2 objects have at most 3 pixels")


def _with(pixels: np.ndarray, place: tuple[int, int], value: int) -> np.ndarray:
    pixels[place] = value
    return pixels


labels(
    "a photograph",
    lambda path: Image.fromarray(np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)).save(path),
    r"look like photographs",
    suffix="png",
)
labels("jpeg", lambda path: Image.fromarray(discs()).save(path), r"JPEG changes values", suffix="jpg")
labels("cut", lambda path: (tifffile.imwrite(path, discs()), cut_file(path)), r"cannot be decoded|damaged")
labels("text", lambda path: path.write_text("no picture"), r"cannot be decoded")
labels("of another size", tiff_of(discs().T), r"is 64 high and 48 wide, but its image")
labels("black", tiff_of(discs() * 0), r"No label image has an object")
labels("huge in a header", huge_png, r"cannot be decoded", suffix="png")


def _beside(scratch: Scratch) -> str:
    (scratch.folder / "labels" / "notes.txt").write_text("")
    (scratch.folder / "images" / "inside").mkdir()
    (scratch.folder / "labels" / "._0.tif").write_text("")
    return convert(scratch, tiff_of(discs()))


case("labels: other files beside", "convert", _beside, r"Left out: .*inside.*notes\.txt \(2\)")


def _image_pages(scratch: Scratch) -> str:
    tifffile.imwrite(scratch.folder / "images" / "x.tif", np.stack([picture()] * 2), photometric="minisblack")
    tifffile.imwrite(scratch.folder / "labels" / "x.tif", discs())
    return convert(scratch, tiff_of(discs()))


case("pictures of two pages", "convert", _image_pages, r"x\.tif has 2 pages")
