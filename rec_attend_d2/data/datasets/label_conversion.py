"""Turns label images into a data set in COCO's instances format.

Shapes: `H, W` image size in pixels.
"""

import json
import logging
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ..image_io import count_pages, decode_image
from .label_doubts import LabelFacts, check_ground, check_pieces, label_doubts
from .label_images import coco_object
from .label_sources import Source

logger = logging.getLogger(__name__)

# What can be done with an object of several pieces that do not touch.
PIECES = ("check", "keep", "split")


@dataclass
class ConvertedImage:
    """An image and its objects.

    Attributes:
        file_name: relative to the image folder.
        size: (height, width), pixels.
        depth: type of the file's pixels, such as "uint8".
        objects: annotations in COCO's format, without ids.
        facts: what its masks look like.
    """

    file_name: str
    size: tuple[int, int]
    depth: str
    objects: list[dict] = field(default_factory=list)
    facts: LabelFacts = field(default_factory=lambda: LabelFacts(""))


def convert_images(
    sources: Iterable[Source], image_root: Path, pieces: str = "check", background_is_known: bool = False
) -> list[ConvertedImage]:
    """Read images and their objects; what looks odd is logged.

    Args:
        sources: the images.
        image_root: folder that file names will be relative to.
        pieces: one of ``PIECES``: an object of several pieces stays one ("keep"), each piece becomes an object
            ("split"), or it stays one unless the label images look like something else ("check"), see
            :func:`.check_pieces`.
        background_is_known: what looks like background is an object, unless it is the background that was given.

    Raises:
        FileNotFoundError, ValueError: a file is missing, damaged, of a wrong kind or size, no label image has an
            object, or labels look like something else; the message names it.
    """
    images = [_convert_image(source, image_root, pieces == "split") for source in sources]
    if not any(image.objects for image in images):
        raise ValueError("No label image has an object. Check the labels and --background.")
    facts = [image.facts for image in images]
    if not background_is_known:
        check_ground(facts)
    if pieces == "check":
        check_pieces(facts)
    for line in label_doubts(facts):
        logger.warning("Label images: %s.", line)
    return images


def _convert_image(source: Source, image_root: Path, split: bool) -> ConvertedImage:
    pages = count_pages(source.image)
    if pages > 1:
        raise ValueError(f"Image {source.image} has {pages} pages. Save each in a file of its own.")
    pixels = decode_image(source.image)
    size = (pixels.shape[0], pixels.shape[1])
    name = source.image.relative_to(image_root).as_posix()
    image = ConvertedImage(name, size, str(pixels.dtype), facts=LabelFacts(name))
    for mask in source.masks(size):
        parts = components(mask)
        if split:
            for part in parts:
                image.facts.add(part, 1)
        else:
            image.facts.add(mask, len(parts))
        image.objects += map(coco_object, parts if split else [mask])
    image.facts.is_void = source.has_void()
    return image


def components(mask: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    """The pieces [H, W] of a mask that do not touch each other, not even at a corner; in the order of their rows."""
    count, labels = cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)
    return [mask] if count == 2 else [labels == number for number in range(1, count)]


def split_images(
    images: Sequence[ConvertedImage], fraction: float, seed: int
) -> tuple[list[ConvertedImage], list[ConvertedImage]]:
    """Divide images at random into those for training and those for validation, each in their former order.

    Args:
        images: at least two.
        fraction: share for validation, above 0 and below 1; at least one image is left on either side.
        seed: of the random numbers.

    Raises:
        ValueError: there are less than two images.
    """
    if len(images) < 2:
        raise ValueError("There is one image only, which can't be divided. Leave out --val-fraction.")
    count = min(max(1, round(fraction * len(images))), len(images) - 1)
    chosen = set(np.random.default_rng(seed).permutation(len(images))[:count].tolist())
    training = [image for index, image in enumerate(images) if index not in chosen]
    return training, [images[index] for index in sorted(chosen)]


def write_coco(images: Sequence[ConvertedImage], category: str, path: Path) -> None:
    """Write the json in COCO's instances format, for which folders that are missing are made.

    All objects are of one category, and ids count from 1.
    """
    content: dict = {"images": [], "annotations": [], "categories": [{"id": 1, "name": category}]}
    for number, image in enumerate(images, start=1):
        height, width = image.size
        entry = {"id": number, "file_name": image.file_name, "height": height, "width": width}
        content["images"].append(entry)
        for annotation in image.objects:
            ids = {"id": len(content["annotations"]) + 1, "image_id": number, "category_id": 1}
            content["annotations"].append({**ids, **annotation})
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def summary(images: Sequence[ConvertedImage]) -> str:
    """How many images and objects there are, and how large, in a line; at least one object."""
    counts = [len(image.objects) for image in images]
    if not any(counts):
        return f"{len(images)} images without objects"
    sides = [
        (item["bbox"][3] / image.size[0], item["bbox"][2] / image.size[1]) for image in images for item in image.objects
    ]
    height, width = (statistics.median(side) for side in zip(*sides, strict=True))
    return (
        f"{len(images)} images ({counts.count(0)} without objects), {sum(counts)} objects: "
        f"median {statistics.median(counts):g} and at most {max(counts)} per image, median size {height:.2f} x "
        f"{width:.2f} of the image's height and width"
    )
