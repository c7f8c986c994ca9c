"""Finds and reads the files of Cityscapes' official tree, and says what is wrong with it.

Shapes: `H, W` size of an image in pixels. A *stem* is what all files of one image begin with: ``CITY_SEQUENCE_FRAME``.
"""

import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..cityscapes_scripts import cityscapes_module, draw_instance_ids
from .file_trees import describe_contents, is_archive
from .label_pixels import read_pixels

_STEM = r"(?P<stem>(?P<city>[^_]+)_\d{6}_\d{6})"
_IMAGE_NAME = re.compile(_STEM + r"_leftImg8bit\.png")
_IDS_NAME, _POLYGONS_NAME = "{}_{}_instanceIds.png", "{}_{}_polygons.json"
# Pixel modes of label images in Pillow: 8 bit, 16 bit and what older versions make of 16 bit.
_LABEL_MODES = ("L", "I;16", "I;16B", "I")


def list_images(image_dir: Path) -> dict[str, Path]:
    """Images ``CITY/CITY_SEQUENCE_FRAME_leftImg8bit.png`` of one split by their stem, in sorted order.

    Raises:
        FileNotFoundError: the folder is missing or has no such image.
        ValueError: a PNG file in a city's folder is not named as the official ones are.
    """
    _require_folder(image_dir)
    images = {}
    for path in sorted(image_dir.glob("[!.]*/[!.]*.png")):
        match = _IMAGE_NAME.fullmatch(path.name)
        if match is None or match["city"] != path.parent.name:
            raise ValueError(
                f"{path} is not named as Cityscapes' images are: CITY/CITY_SEQUENCE_FRAME_leftImg8bit.png with six "
                "digits each for SEQUENCE and FRAME. Rename it or move it away."
            )
        images[match["stem"]] = path
    if not images:
        raise FileNotFoundError(
            f"{image_dir} has no images CITY/CITY_SEQUENCE_FRAME_leftImg8bit.png. {_advice(image_dir)}"
        )
    return images


def check_complete(images: Iterable[str], gt_dir: Path, truth_type: str) -> None:
    """Raise a FileNotFoundError unless exactly the images of these stems have instance ids or polygons.

    Args:
        images: stems.
        gt_dir: with the cities' folders.
        truth_type: "gtFine" or "gtCoarse", as in the files' names.
    """
    _require_folder(gt_dir)
    name = re.compile(_STEM + f"_{truth_type}_(instanceIds\\.png|polygons\\.json)")
    matches = (name.fullmatch(path.name) for path in gt_dir.glob("[!.]*/[!.]*"))
    image_stems, truth_stems = set(images), {match["stem"] for match in matches if match is not None}
    unlabelled, imageless = sorted(image_stems - truth_stems), sorted(truth_stems - image_stems)
    if unlabelled:
        stem = unlabelled[0]
        expected = " or ".join(name.format(stem, truth_type) for name in (_IDS_NAME, _POLYGONS_NAME))
        raise FileNotFoundError(
            f"{len(unlabelled)} of {len(image_stems)} images have no labels in {gt_dir}, the first is {stem}: expected "
            f"{city_of(stem)}/{expected}. {_advice(gt_dir)}"
        )
    if imageless:
        raise FileNotFoundError(
            f"{len(imageless)} images that have labels in {gt_dir} are missing, the first is {imageless[0]}. Restore "
            "the images from the archive, or move the labels away as well."
        )


def city_of(stem: str) -> str:
    """The city of an image, whose folder its files are in."""
    return stem.partition("_")[0]


def instance_ids_path(gt_dir: Path, stem: str, truth_type: str) -> Path:
    """Where the instance ids of an image are, if there are any."""
    return gt_dir / city_of(stem) / _IDS_NAME.format(stem, truth_type)


def read_instance_ids(gt_dir: Path, stem: str, truth_type: str) -> NDArray[np.uint16]:
    """The instance ids of an image, from its PNG, or where that is missing from its polygons.

    Returns:
        [H, W]; label id * 1000 + number of the instance, or the label id alone for groups and for classes without
        instances.

    Raises:
        FileNotFoundError: there is neither file.
        ValueError: a file is damaged, or has labels beyond the class list.
    """
    path = instance_ids_path(gt_dir, stem, truth_type)
    if path.is_file():
        ids = read_label_png(path)
    else:
        polygons = path.with_name(_POLYGONS_NAME.format(stem, truth_type))
        if not polygons.is_file():
            raise FileNotFoundError(f"Image {stem} has neither {path} nor {polygons.name}. Restore one of them.")
        path, ids = polygons, draw_instance_ids(polygons)
    _check_labels(ids, path)
    return ids


def read_label_png(path: Path) -> NDArray[np.uint16]:
    """Read a PNG [H, W] of 8 or 16 bit.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged or has colours; names the file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist. Restore it from the archive.")
    mode, pixels = read_pixels(path)
    if mode not in _LABEL_MODES:
        raise ValueError(f"{path} has pixels of mode {mode}, expected one channel of 8 or 16 bit. Restore the file.")
    return pixels.astype(np.uint16)


def label_of(ids: NDArray) -> NDArray:
    """Label ids of instance ids, of the same shape."""
    return np.where(ids >= 1000, ids // 1000, ids)


def unscored_labels() -> list[int]:
    """Label ids of whose pixels cityscapesscripts' semantic scores take no notice, whatever is predicted there."""
    labels = cityscapes_module("helpers.labels").labels
    return sorted({label.id for label in labels if label.ignoreInEval and label.id >= 0})


def _check_labels(ids: NDArray[np.uint16], path: Path) -> None:
    known = cityscapes_module("helpers.labels").id2label
    values = np.unique(ids)
    for value, label in zip(values.tolist(), label_of(values).tolist(), strict=True):
        if label not in known:
            raise ValueError(
                f"{path} has the value {value}, whose label id {label} is not in cityscapesscripts' class list "
                f"(0 to {max(known)}). Its pixels have to be label id * 1000 + number of the instance, or "
                "the label id alone; restore the file from the archive."
            )


def _require_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise FileNotFoundError(f"Cityscapes expects the folder {folder.absolute()}. {_advice(folder)}")


def _advice(folder: Path) -> str:
    """Sentences for an error message: what is in ``folder``, or above it, and what to do."""
    # The archives are unpacked in "cityscapes", from which leftImg8bit/train, for example, is two folders down.
    base = folder.absolute().parents[:2][-1]
    archives = sorted(path.name for path in base.glob(f"{folder.absolute().parent.name}*") if is_archive(path))
    unpack = f"In {base} there are archives to be unpacked there: {', '.join(archives)}. " if archives else ""
    return (
        f"{describe_contents(folder)} {unpack}Unpack the archives in the folder 'cityscapes', and set the environment "
        "variable DETECTRON2_DATASETS to the folder that holds it."
    )
