"""Registers annotated pictures of a user: label images beside the pictures, or annotations in COCO format."""

from pathlib import Path

from .coco_files import register_coco_files
from .label_conversion import convert_images, write_coco
from .label_sources import Selection, Source, find_mask_folders, pair_files

CATEGORY = "object"


def register_annotated(name: str, images: Path, labels: Path | None, coco: Path | None, json_folder: Path) -> None:
    """Register the data set ``name``.

    Args:
        name: of the data set.
        images: folder of the pictures.
        labels: folder of label images, each named as its picture; None = ``coco``, or else ``images`` has the layout of
            the Data Science Bowl 2018, see :func:`.label_sources.find_mask_folders`.
        coco: annotations in COCO's instances format.
        json_folder: for the annotations NAME.json that label images are converted to.

    Raises:
        FileNotFoundError, ValueError: something is missing or not valid; the message names it.
    """
    if coco is None:
        sources: list[Source] = []
        if labels is None:
            sources += find_mask_folders(images)
        else:
            sources += pair_files(Selection(images), Selection(labels), "refuse")
        coco = json_folder / f"{name}.json"
        write_coco(convert_images(sources, images), CATEGORY, coco)
    register_coco_files([[name, str(coco), str(images)]])
