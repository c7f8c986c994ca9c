"""What the tables of bad inputs have in common: inputs, what is drawn in them, and ways to spoil a file."""

import re
import struct
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "demo")]
SIZE = (48, 64)
CENTERS = ((12, 14), (30, 30), (50, 20))


@dataclass
class Scratch:
    """A folder for an input, and a name for data sets that no other input has."""

    folder: Path
    name: str

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        (self.folder / "images").mkdir()
        (self.folder / "labels").mkdir()


@dataclass(frozen=True)
class Case:
    """An input.

    Attributes:
        name: what is wrong with it.
        command: that gets it.
        run: makes it in a folder and runs the command; returns the result in words.
        expected: what the message, or "result: ...", has to hold.
    """

    name: str
    command: str
    run: Callable[[Scratch], Any]
    expected: re.Pattern


CASES: list[Case] = []


def case(name: str, command: str, run: Callable[[Scratch], Any], expected: str) -> None:
    """Add an input."""
    CASES.append(Case(name, command, run, re.compile(expected, re.DOTALL)))


def discs(dtype: Any = np.uint8) -> np.ndarray:
    """Label image with three discs."""
    labels = np.zeros(SIZE, np.uint8)
    for number, center in enumerate(CENTERS, start=1):
        cv2.circle(labels, center, 7, number, -1)
    return labels.astype(dtype)


def picture() -> np.ndarray:
    """Grey picture of the discs."""
    return np.where(discs() > 0, 200, 40).astype(np.uint8)


def content(count: int = 2, first: int = 1) -> dict:
    """COCO annotations of pictures with three discs each."""
    images, annotations = [], []
    for number in range(first, first + count):
        images.append({"id": number, "file_name": f"{number}.png", "height": SIZE[0], "width": SIZE[1]})
        for x, y in CENTERS:
            angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
            polygon = np.stack([x + 7 * np.cos(angle), y + 7 * np.sin(angle)], 1).round(2).ravel().tolist()
            entry = {"id": 3 * number + len(annotations) % 3 - 2, "image_id": number, "category_id": 1, "iscrowd": 0}
            annotations.append({**entry, "area": 150, "bbox": [x - 7, y - 7, 14, 14], "segmentation": [polygon]})
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "disc"}]}


def cut_file(path: Path) -> None:
    """Take the end of a file away."""
    path.write_bytes(path.read_bytes()[:-40])


def huge_png(path: Path) -> None:
    """Write a small PNG that claims 10 gigapixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 10_000))
        + chunk(b"IEND", b"")
    )


def tiff_of(pixels: np.ndarray, **options: Any) -> Callable[[Path], None]:
    """Writes these pixels."""
    return lambda path: tifffile.imwrite(path, pixels, **options)
