"""The data sets that are known by name, in the folder that the environment variable DETECTRON2_DATASETS names.

Registering reads and draws nothing; that happens when a data set is used.
"""

import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from .cityscapes import register_cityscapes
from .coco_files import load_coco
from .cvppp import register_cvppp
from .file_trees import not_found
from .kitti import register_kitti
from .registration import register_lazily
from .rosettes import ensure_rosettes

# The paper's subsets of COCO 2017. Any other needs no code: a fourth part of an entry of DATASETS.COCO_FILES names it.
_COCO_CATEGORIES = ("person", "zebra")
# Pictures by microscopes in COCO format, one folder each, and the class of their objects.
_MICROSCOPY = {"nuclei": "nucleus", "fields": "nucleus", "cells": "cell"}


def register_builtin_datasets(root: str | os.PathLike | None = None) -> None:
    """Register the data sets of this project; a repeated call only moves them.

    Args:
        root: folder that holds them; default the value of DETECTRON2_DATASETS, or "datasets".
    """
    folder = Path(root or os.environ.get("DETECTRON2_DATASETS", "datasets")).expanduser()
    for register in (register_rosettes, register_microscopy, register_cvppp, register_kitti, register_cityscapes):
        register(folder)
    register_coco_subsets(folder)


def register_rosettes(root: Path) -> None:
    """Register ``rosettes_train`` and ``rosettes_val``, which are drawn below ``root`` when they are used."""
    for split in ("train", "val"):
        folder = root / "rosettes"
        prepare = partial(ensure_rosettes, root)
        _register(f"rosettes_{split}", folder / f"{split}.json", folder / split, "leaf", prepare)


def register_microscopy(root: Path) -> None:
    """Register ``nuclei``, ``fields`` and ``cells``, each with ``_train`` and ``_val``.

    Of each: ``NAME/{train,val}.json`` and images in ``NAME/images``.
    """
    for folder, class_name in _MICROSCOPY.items():
        for split in ("train", "val"):
            name, paths = f"{folder}_{split}", (root / folder / f"{split}.json", root / folder / "images")
            _register(name, *paths, class_name, partial(_check_present, name, root / folder, paths))


def register_coco_subsets(root: str | os.PathLike) -> None:
    """Register ``coco_2017_{train,val}_{person,zebra}``: COCO 2017 restricted to one category, as in the paper.

    Args:
        root: folder of all data sets. Expects ``coco/annotations/instances_{train,val}2017.json`` and the images in
            ``coco/{train,val}2017``, which is what COCO's archives contain if unpacked in ``coco``.
    """
    folder = Path(root).expanduser() / "coco"
    for split in ("train", "val"):
        paths = (folder / "annotations" / f"instances_{split}2017.json", folder / f"{split}2017")
        remedy = f"Unpack COCO's annotations_trainval2017.zip and {split}2017.zip in 'coco'. "
        for category in _COCO_CATEGORIES:
            name = f"coco_2017_{split}_{category}"
            prepare = partial(_check_present, name, folder, paths, remedy)
            _register(name, *paths, category, prepare, categories=(category,))


def _check_present(name: str, folder: Path, paths: Sequence[Path], remedy: str = "") -> None:
    for path in paths:
        if not path.exists():
            raise not_found(name, str(path.absolute()), folder, path.parent, remedy)


def _register(
    name: str,
    json_file: Path,
    image_root: Path,
    class_name: str,
    prepare: Callable[[], object],
    categories: Sequence[str] = (),
) -> None:
    """Register a data set of one class in COCO format; ``prepare`` is called before it is read."""

    def load() -> list[dict]:
        prepare()
        return load_coco(str(json_file), str(image_root), name, categories)

    register_lazily(
        name,
        load,
        json_file=str(json_file),
        image_root=str(image_root),
        evaluator_type="coco",
        thing_classes=[class_name],
        subset_categories=tuple(categories),
    )
