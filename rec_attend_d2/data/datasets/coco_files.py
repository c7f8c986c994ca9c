"""Data sets in COCO's instances format, the user's own among them.

Unlike Detectron2's loader this one reports what is wrong with a file instead of leaving annotations out, and does so
before training starts.
"""

import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from ..segmentation import check_polygons, polygons_meet_image, rle_runs
from .coco_content import check_content, without_repetitions
from .file_trees import describe_contents
from .problems import listed, raise_problems
from .registration import register_lazily

logger = logging.getLogger(__name__)

_CONFIG_KEY = "DATASETS.COCO_FILES"


def register_coco_files(entries: Sequence[Sequence[str]]) -> None:
    """Register data sets in COCO format, after checking them.

    Args:
        entries: each [name, annotation json, image folder], as in DATASETS.COCO_FILES, or with a fourth part: names of
            categories separated by commas, to which the data set is restricted (see :func:`keep_categories`). One that
            is registered already with the same parts is left alone.

    Raises:
        FileNotFoundError: json, image folder or an image is missing.
        ValueError: an entry is malformed, its name is taken, or its json is not valid.
    """
    for entry in entries:
        if isinstance(entry, str) or len(entry) not in (3, 4) or not all(isinstance(part, str) for part in entry):
            raise ValueError(
                f"{_CONFIG_KEY} has the entry {entry!r}. Give [name, annotation json, image folder], and for some of "
                "its categories only a fourth part like 'person,zebra'."
            )
        name, json_file, image_root = entry[:3]
        categories = tuple(part.strip() for part in entry[3].split(",")) if len(entry) == 4 else ()
        if name in DatasetCatalog:
            _check_same(name, json_file, image_root, categories)
        else:
            load_coco(json_file, image_root, categories=categories)
            register_coco(name, json_file, image_root, categories)


def register_coco(name: str, json_file: str, image_root: str, categories: Sequence[str] = ()) -> None:
    """Register one data set in COCO format; nothing is read before it is used.

    The metadata's ``subset_categories`` tells evaluators which categories of ``json_file`` count; empty = all.
    """
    register_lazily(
        name,
        lambda: load_coco(json_file, image_root, name, categories),
        json_file=json_file,
        image_root=image_root,
        evaluator_type="coco",
        subset_categories=tuple(categories),
    )


def load_coco(
    json_file: str, image_root: str, dataset_name: str | None = None, categories: Sequence[str] = ()
) -> list[dict]:
    """Read and check a data set in COCO format.

    Images without annotations and crowd annotations are kept.

    Args:
        json_file: the annotations.
        image_root: folder of the images.
        dataset_name: where given, its metadata gets ``thing_classes`` and ``thing_dataset_id_to_contiguous_id``.
        categories: names of those the data set is restricted to, see :func:`keep_categories`; empty = all.

    Returns:
        Detectron2 dataset dicts, sorted by image id. Categories are numbered from 0 in the order of their ids.

    Raises:
        FileNotFoundError: json, image folder or an image is missing.
        ValueError: the json is not valid; the message names the file, the item and the key.
    """
    content = read_coco_json(json_file, image_root)
    if categories:
        content = keep_categories(content, categories, json_file)
    classes = sorted(content["categories"], key=lambda category: category["id"])
    class_numbers = {category["id"]: number for number, category in enumerate(classes)}
    if dataset_name is not None:
        MetadataCatalog.get(dataset_name).set(
            thing_classes=[category["name"] for category in classes],
            thing_dataset_id_to_contiguous_id=class_numbers,
        )
    _check_images(content["images"], json_file, image_root)
    records: dict[Any, dict] = {
        image["id"]: {
            "file_name": os.path.join(image_root, image["file_name"]),
            "height": image["height"],
            "width": image["width"],
            "image_id": image["id"],
            "annotations": [],
        }
        for image in content["images"]
    }
    _check_annotations(content["annotations"], records, json_file)
    for annotation in content["annotations"]:
        records[annotation["image_id"]]["annotations"].append(
            {
                "id": annotation["id"],
                "category_id": class_numbers[annotation["category_id"]],
                "iscrowd": int(annotation["iscrowd"]),
                "bbox": annotation["bbox"],
                "bbox_mode": BoxMode.XYWH_ABS,
                "segmentation": annotation["segmentation"],
            }
        )
    return [records[image_id] for image_id in sorted(records)]


def keep_categories(content: dict, names: Sequence[str], json_file: str) -> dict:
    """The part of a data set in COCO format that some categories make up.

    An image belongs to it if it has an annotation of at least one of the categories, be it of an object or of a crowd;
    for a single category these are the images that pycocotools' ``getImgIds`` gives. All other images and annotations
    are left out.

    Args:
        content: of a json in COCO's instances format, whose annotations have known categories.
        names: of the categories.
        json_file: where ``content`` comes from, for errors.

    Returns:
        A new dict with the same keys; its items are those of ``content``.

    Raises:
        ValueError: a name is unknown or repeated, or no image is left.
    """
    known = {category["name"] for category in content["categories"]}
    unknown = [name for name in names if name not in known]
    if unknown or len(set(names)) < len(names):
        raise ValueError(
            f"{json_file} is to be restricted to the categories {list(names)}. Name each once, and choose from: "
            f"{', '.join(sorted(known))}."
        )
    kept_ids = {category["id"] for category in content["categories"] if category["name"] in names}
    annotations = [annotation for annotation in content["annotations"] if annotation["category_id"] in kept_ids]
    image_ids = {annotation["image_id"] for annotation in annotations}
    if not image_ids:
        raise ValueError(f"{json_file} has no annotation of the categories {', '.join(names)}. Choose others.")
    return {
        **content,
        "images": [image for image in content["images"] if image["id"] in image_ids],
        "annotations": annotations,
        "categories": [category for category in content["categories"] if category["id"] in kept_ids],
    }


def _check_same(name: str, json_file: str, image_root: str, categories: tuple[str, ...]) -> None:
    metadata = MetadataCatalog.get(name)
    registered = (metadata.get("json_file"), metadata.get("image_root"), metadata.get("subset_categories", ()))
    if registered != (json_file, image_root, categories):
        only = f", categories {', '.join(registered[2])}," if registered[2] else ""
        raise ValueError(
            f"{_CONFIG_KEY} names the data set '{name}', which is registered already with json {registered[0]}{only} "
            f"and images {registered[1]}. Choose another name."
        )


def read_coco_json(json_file: str, image_root: str) -> dict:
    """The content of a json in COCO's instances format, checked but for images and outlines; as :func:`load_coco`."""
    if not os.path.isfile(json_file):
        raise FileNotFoundError(
            f"Annotation file {json_file} does not exist. {describe_contents(Path(json_file).parent)} Correct the path "
            f"({_CONFIG_KEY})."
        )
    if not os.path.isdir(image_root):
        raise FileNotFoundError(
            f"The image folder is expected at {image_root}. {describe_contents(Path(image_root))} Correct the path "
            f"({_CONFIG_KEY})."
        )
    with open(json_file, encoding="utf-8") as file:
        try:
            content = json.load(file)
        except ValueError as error:
            raise ValueError(f"{json_file} is not valid JSON ({error}). Write it again.") from error
    check_content(content, json_file)
    content, lines = without_repetitions(content)
    for line in lines:
        logger.warning(f"{json_file}: {line}.")
    zero = next((annotation for annotation in content["annotations"] if annotation["id"] == 0), None)
    if zero is not None:
        logger.warning(
            f"{json_file}: there is an annotation id 0 (image {zero['image_id']}), which pycocotools never matches; "
            "annotations are numbered anew in memory."
        )
    return content


def _check_images(images: Sequence[dict], json_file: str, image_root: str) -> None:
    paths = [os.path.join(image_root, image["file_name"]) for image in images]
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing:
        remedy = "Correct the image folder or the 'file_name'."
        lines = [f"Image {path}, listed in {json_file}, does not exist. {remedy}" for path in missing]
        raise FileNotFoundError(listed(lines, f"{json_file}, which lists {len(images)} images"))


def _check_annotations(annotations: Sequence[dict], records: dict[Any, dict], json_file: str) -> None:
    """Raise a ValueError that names annotations without image, or without a valid outline in theirs."""
    problems = []
    for annotation in annotations:
        record = records.get(annotation["image_id"])
        if record is None:
            problems.append(
                f"{json_file}: annotation {annotation['id']} has the image_id {annotation['image_id']!r}, which no "
                "image has. Add the image or remove the annotation."
            )
            continue
        where = f"{json_file}: annotation {annotation['id']} of image {record['file_name']}"
        try:
            if not _touches_image(annotation["segmentation"], record["height"], record["width"], where):
                problems.append(
                    f"{where} has no pixel inside the image. Correct its segmentation or remove the annotation."
                )
        except ValueError as error:
            problems.append(str(error))
    raise_problems(problems, json_file)
    _check_units(annotations, json_file)


def _check_units(annotations: Sequence[dict], json_file: str) -> None:
    """Raise a ValueError where all polygons lie within one pixel: coordinates that are shares of the image's size."""
    polygons = [item["segmentation"] for item in annotations if isinstance(item["segmentation"], list)]
    if polygons and all(max(map(max, parts)) <= 1 for parts in polygons):
        raise ValueError(
            f"{json_file}: all polygons have coordinates from 0 to 1, shares of the image's width and height. Multiply "
            "them by these: COCO's format has pixels."
        )


def _touches_image(segmentation: object, height: int, width: int, where: str) -> bool:
    """Check a segmentation; returns whether it can have a pixel inside the image."""
    if isinstance(segmentation, dict):
        pixels = rle_runs(segmentation, where)[1::2].sum()
        if list(segmentation["size"]) != [height, width]:
            raise ValueError(
                f"{where} has an RLE of size {segmentation['size']}, but the image is {[height, width]}. Encode the "
                "mask at the size of the image."
            )
        return bool(pixels > 0)
    if isinstance(segmentation, list):
        check_polygons(segmentation, where)
        return polygons_meet_image(segmentation, (height, width))
    raise ValueError(f"{where} has a segmentation that is neither polygons nor RLE. Encode the mask as one of them.")
