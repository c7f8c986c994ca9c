"""What a json in COCO's instances format holds: its items checked, and repeated ones taken together in memory."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from .problems import raise_problems

# The lists, and what an entry of each is called.
_KINDS = {"images": "image", "annotations": "annotation", "categories": "category"}
_TOP_KEYS = tuple(_KINDS)
_IMAGE_KEYS = ("id", "file_name", "height", "width")
# The last three are what pycocotools' evaluation reads.
_ANNOTATION_KEYS = ("id", "image_id", "category_id", "segmentation", "iscrowd", "area", "bbox")
_NAMES_SHOWN = 3


def check_content(content: Any, json_file: str) -> None:
    """Check keys, types and ids of all items.

    Args:
        content: of the file.
        json_file: its name, for errors.

    Raises:
        ValueError: something is wrong; the message counts all of it and names the first items with their keys.
    """
    for key in _TOP_KEYS:
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise ValueError(f"{json_file} has no list '{key}'. COCO's instances format needs {', '.join(_TOP_KEYS)}.")
    for key in ("images", "categories"):
        if not content[key]:
            raise ValueError(f"{json_file} has an empty list '{key}'. At least one entry is needed.")
    checks: dict[str, tuple[Sequence[str], Callable[[dict], list[str]]]] = {
        "images": (_IMAGE_KEYS, _image_problems),
        "categories": (("id", "name"), _category_problems),
        "annotations": (_ANNOTATION_KEYS, _annotation_problems),
    }
    problems = []
    for list_name, (keys, find) in checks.items():
        kind = _KINDS[list_name]
        for index, item in enumerate(content[list_name]):
            missing = [key for key in keys if not isinstance(item, dict) or key not in item]
            if missing:
                names = ", ".join(map(repr, missing))
                problems.append(f"{kind} number {index} has no {names}. COCO's instances format needs it; add it.")
            else:
                problems += find(item)
    # What follows compares the values that were found wrong here.
    raise_problems([f"{json_file}: {problem}" for problem in problems], json_file)
    problems = [*_id_problems(content), *_reference_problems(content)]
    raise_problems([f"{json_file}: {problem}" for problem in problems], json_file)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_id(value: Any) -> bool:
    return isinstance(value, str) or (_is_number(value) and value == int(value))


def _image_problems(image: dict) -> list[str]:
    name, problems = image["file_name"], []
    if not isinstance(name, str) or not name.strip():
        problems.append(f"image {image['id']!r} has file_name {name!r}. Give the name of its file.")
    if not _is_id(image["id"]):
        problems.append(f"image {name} has id {image['id']!r}. Give a number.")
    problems += [
        f"image {name} has {key} {image[key]!r}. Give a number of pixels."
        for key in ("height", "width")
        if not isinstance(image[key], int) or isinstance(image[key], bool) or image[key] < 1
    ]
    return problems


def _category_problems(category: dict) -> list[str]:
    problems = []
    if not _is_id(category["id"]):
        problems.append(f"category {category['name']} has id {category['id']!r}. Give a number.")
    if not isinstance(category["name"], str) or not category["name"].strip():
        problems.append(f"category {category['id']!r} has name {category['name']!r}. Give it a name.")
    return problems


def _annotation_problems(annotation: dict) -> list[str]:
    where = f"annotation {annotation['id']!r} of image {annotation['image_id']!r}"
    problems = [
        f"{where} has {key} {annotation[key]!r}. Give a number."
        for key in ("id", "image_id", "category_id")
        if not _is_id(annotation[key])
    ]
    crowd, area, box = annotation["iscrowd"], annotation["area"], annotation["bbox"]
    # Text is refused, since "0" counts as true wherever it is asked for.
    if isinstance(crowd, str) or crowd not in (0, 1):
        problems.append(f"{where} has iscrowd {crowd!r}. Give the number 0 for an object, or 1 for a crowd.")
    if not _is_number(area) or area < 0:
        problems.append(f"{where} has area {area!r}. Give its pixels.")
    if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)) or min(box[2:]) < 0:
        problems.append(f"{where} has bbox {box!r}. Give [x, y, width, height] in pixels.")
    if annotation["segmentation"] in (None, [], {}, "") and not problems:
        problems.append(
            f"{where} has no outline, only a box (segmentation {annotation['segmentation']!r}). Outline the objects: "
            "masks cannot be learned from boxes."
        )
    return problems


def _id_problems(content: dict) -> list[str]:
    """Ids that two items share, and those of mixed types, which cannot be sorted."""
    problems = []
    for key in _TOP_KEYS:
        seen: dict[Any, dict] = {}
        for item in content[key]:
            if item["id"] in seen:
                problems.append(f"two {_KINDS[key]} entries have the id {item['id']}. Give each its own.")
            seen[item["id"]] = item
        texts = [id_ for id_ in seen if isinstance(id_, str)]
        numbers = [id_ for id_ in seen if not isinstance(id_, str)]
        if texts and numbers:
            problems.append(
                f"the ids of '{key}' are numbers, such as {numbers[0]}, and text, such as {texts[0]!r}. Make all of "
                "them numbers, and 'image_id' and 'category_id' of the annotations with them."
            )
    names = [category["name"] for category in content["categories"]]
    for name in {name for name in names if names.count(name) > 1}:
        problems.append(f"two category entries have the name '{name}'. Make one of them.")
    return problems


def _reference_problems(content: dict) -> list[str]:
    known = {category["id"] for category in content["categories"]}
    return [
        f"annotation {annotation['id']} has category_id {annotation['category_id']!r}, which is not in 'categories'. "
        "Add the category, or correct the annotation."
        for annotation in content["annotations"]
        if annotation["category_id"] not in known
    ]


def without_repetitions(content: dict) -> tuple[dict, list[str]]:
    """A data set in which an image file and an object are listed once, and what was taken together, in sentences.

    Images of the same file become one, with the annotations of all. Of annotations with the same image, category,
    crowd flag and outline the first is kept.

    Args:
        content: of a checked json; one without "annotations" has no labels.

    Returns:
        A new dict, whose items are those of ``content`` but for changed ``image_id``; and a line for each kind.
    """
    first_of: dict[tuple, Any] = {}
    moved: dict[Any, Any] = {}
    images, repeated = [], []
    for image in content["images"]:
        # Entries of one file with different sizes are both kept: one of them is wrong, which the picture shows.
        key = image["file_name"], image["height"], image["width"]
        if key in first_of:
            moved[image["id"]] = first_of[key]
            repeated.append(image["file_name"])
        else:
            first_of[key] = image["id"]
            images.append(image)
    lines = []
    if repeated:
        lines.append(
            f"{len(repeated)} image entries name a file a second time and are taken as one: {_first(repeated)}"
        )
    if "annotations" not in content:
        return {**content, "images": images}, lines
    names = {image["id"]: image["file_name"] for image in content["images"]}
    annotations, doubled = [], []
    outlines: dict[tuple, list] = {}
    for annotation in content["annotations"]:
        image_id = moved.get(annotation["image_id"], annotation["image_id"])
        # Few have the same box, so that few outlines are compared.
        key = image_id, annotation["category_id"], annotation.get("iscrowd", 0), *annotation.get("bbox", ())
        known = outlines.setdefault(key, [])
        if annotation.get("segmentation") in known:
            doubled.append(f"{annotation['id']} of {names.get(image_id)}")
            continue
        known.append(annotation.get("segmentation"))
        annotations.append({**annotation, "image_id": image_id} if annotation["image_id"] in moved else annotation)
    if doubled:
        lines.append(f"{len(doubled)} annotations repeat another one and are left out: {_first(doubled)}")
    return {**content, "images": images, "annotations": annotations}, lines


def renumbered(content: dict) -> dict:
    """The same data set, with annotation ids from 1 on where one is 0, which pycocotools takes for "no match"."""
    if all(annotation["id"] != 0 for annotation in content.get("annotations", ())):
        return content
    numbered = [{**annotation, "id": number} for number, annotation in enumerate(content["annotations"], start=1)]
    return {**content, "annotations": numbered}


def _first(names: Sequence[str]) -> str:
    return f"{', '.join(names[:_NAMES_SHOWN])}{', ...' if len(names) > _NAMES_SHOWN else ''}"
