"""The options by which commands are told where annotated pictures are."""

import argparse
from pathlib import Path

from ..data.datasets.annotated import Annotated
from ..data.datasets.label_images import Background
from ..data.datasets.label_sources import UNLABELED
from ..prediction.sources import is_image_name


def background_of(text: str) -> Background:
    """A value, or red, green and blue separated by commas. Raises argparse's error for anything else."""
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) == 1:
        return numbers[0]
    if len(numbers) == 3 and all(0 <= number <= 255 for number in numbers):
        return numbers[0], numbers[1], numbers[2]
    raise argparse.ArgumentTypeError(f"'{text}' is neither a value, such as 0, nor a colour, such as 255,255,255")


def add_label_arguments(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """How label images are read."""
    parser.add_argument("--image-suffix", default="", metavar="TEXT", help="only images whose name ends so, as _img")
    parser.add_argument("--label-suffix", default="", metavar="TEXT", help="only labels whose name ends so, as _label")
    parser.add_argument("--background", type=background_of, metavar="V or R,G,B", help="value or colour (default 0)")
    parser.add_argument(
        "--unlabeled", choices=UNLABELED, help="images without label image: an error (default), no objects, or left out"
    )
    group = parser.add_mutually_exclusive_group()
    for option, const, what in (
        ("--split-components", "split", "every connected piece is an object"),
        ("--keep-components", "keep", "objects are in pieces: do not ask"),
    ):
        group.add_argument(option, dest="pieces", action="store_const", const=const, default="check", help=what)


def add_annotation_arguments(parser: argparse.ArgumentParser) -> None:
    """Where annotated pictures are, and how their labels are read."""
    data = parser.add_argument_group("annotated pictures")
    data.add_argument(
        "--images", type=Path, metavar="FOLDER", help="images; without --labels and --coco ID/images and ID/masks"
    )
    data.add_argument("--labels", type=Path, metavar="FOLDER", help="label images: every object has a value of its own")
    data.add_argument("--coco", type=Path, metavar="FILE", help="annotations in COCO format")
    add_label_arguments(data)


def annotated(
    arguments: argparse.Namespace, images: Path, labels: Path | None, coco: Path | None, category: str = "object"
) -> Annotated:
    """Where the pictures are. Raises a ValueError where options exclude each other."""
    if labels is not None and coco is not None:
        raise ValueError("Give label images or a COCO json, not both.")
    if labels is not None and labels.resolve() == images.resolve() and arguments.image_suffix == arguments.label_suffix:
        raise ValueError(
            f"Images and label images are in the same folder {images}: tell them apart by --image-suffix and "
            "--label-suffix, such as _img and _mask."
        )
    if labels is None and coco is None and images.is_dir() and any(map(is_image_name, images.iterdir())):
        raise ValueError(
            f"{images} has images: name the folder of their label images by --labels, or a json by --coco."
        )
    return Annotated(
        images,
        labels,
        coco,
        image_suffix=arguments.image_suffix,
        label_suffix=arguments.label_suffix,
        background=arguments.background,
        unlabeled=arguments.unlabeled or "refuse",
        pieces=arguments.pieces,
        category=category,
    )
