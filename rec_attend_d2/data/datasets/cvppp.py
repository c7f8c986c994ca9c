"""The data sets of the leaf segmentation challenge (CVPPP LSC), with one class, "leaf".

Files below the folder of all data sets (DETECTRON2_DATASETS); of each pair, one is enough, and PNG files win::

    cvppp/CVPPP2017_LSC_training/training/A1/plant001_rgb.png     image
                                             plant001_label.png   label image, 0 = background
    cvppp/CVPPP2017_training_images.h5                            or this,
    cvppp/CVPPP2017_training_truth.h5                             with its labels

    cvppp/CVPPP2017_testing/testing/A1/plant003_rgb.png           images to be submitted, A1 to A5
    cvppp/CVPPP2017_testing_images.h5                             or this

The middle folders ``training`` and ``testing`` may be absent, an h5 file may lie in a folder of its own name, and the
folders of the 2014 challenge, ``CVPPP2014_LSC_training_data`` and ``CVPPP2014_LSC_testing_data``, are known too. Plants
of A4 have four digits. Other files, among them ``plant001_fg.png``, are not read. h5 files are unpacked to PNG files
beside them when they are first used.

The test sets have no labels as published. Where all images of a subset have some, they are read.

Split of A1: the plants in the order of their numbers are shuffled with NumPy's ``RandomState(2)``; the first 80 %,
rounded up (103 of 128), are for training and the others for validation. The authors' code splits the same way, so it
gives the same two sets.
"""

import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from .cvppp_h5 import extract_h5
from .file_trees import describe_contents, not_found
from .label_images import add_annotations, image_record
from .registration import register_lazily

logger = logging.getLogger(__name__)

TRAINING_SUBSETS = ("A1", "A2", "A3", "A4")
TEST_SUBSETS = ("A1", "A2", "A3", "A4", "A5")

_SPLIT_SEED = 2
_TRAINING_SHARE = 0.8
_IMAGE_SUFFIX = "_rgb.png"
_LABEL_SUFFIX = "_label.png"


@dataclass(frozen=True)
class _Part:
    """Where the training or the test images may lie below ``cvppp``."""

    folders: tuple[str, ...]
    images: str
    truth: str
    needs_labels: bool


_TRAINING = _Part(
    folders=("CVPPP2017_LSC_training/training", "CVPPP2017_LSC_training", "CVPPP2014_LSC_training_data"),
    images="CVPPP2017_training_images",
    truth="CVPPP2017_training_truth",
    needs_labels=True,
)
_TEST = _Part(
    folders=("CVPPP2017_testing/testing", "CVPPP2017_testing", "CVPPP2014_LSC_testing_data"),
    images="CVPPP2017_testing_images",
    truth="CVPPP2017_testing_truth",
    needs_labels=False,
)

# Of all plants of a subset, those that belong to the data set.
_Choice = Callable[[Sequence[str]], Sequence[str]]


def register_cvppp(root: str | Path) -> None:
    """Register the data sets ``cvppp_*``; nothing is read before it is used. A repeated call only moves them.

    Names: ``cvppp_A1_train`` and ``cvppp_A1_val`` (the split above), ``cvppp_A1_trainval`` to ``cvppp_A4_trainval``
    and ``cvppp_all_trainval`` (all labelled images), ``cvppp_A1_test`` to ``cvppp_A5_test`` and ``cvppp_all_test``.
    A dict has, besides the usual keys, ``subset`` (such as "A1") and ``plant`` (such as "plant001").

    Args:
        root: folder that holds ``cvppp``.
    """
    folder = Path(root).expanduser() / "cvppp"
    _register("cvppp_A1_train", folder, _TRAINING, ("A1",), lambda plants: split_plants(plants)[0])
    _register("cvppp_A1_val", folder, _TRAINING, ("A1",), lambda plants: split_plants(plants)[1])
    for part, subsets, split in ((_TRAINING, TRAINING_SUBSETS, "trainval"), (_TEST, TEST_SUBSETS, "test")):
        _register(f"cvppp_all_{split}", folder, part, subsets, list)
        for subset in subsets:
            _register(f"cvppp_{subset}_{split}", folder, part, (subset,), list)


def _register(name: str, folder: Path, part: _Part, subsets: Sequence[str], choose: _Choice) -> None:
    register_lazily(
        name,
        partial(_load, name, folder, part, subsets, choose),
        image_root=str(folder),
        evaluator_type="cvppp",
        thing_classes=["leaf"],
        subsets=tuple(subsets),
    )


def split_plants(plants: Sequence[str]) -> tuple[list[str], list[str]]:
    """The plants for training and for validation, each in the order of their numbers.

    Args:
        plants: names such as "plant001", in any order, which does not matter.
    """
    in_order = sorted(plants, key=_natural_order)
    shuffled = np.arange(len(in_order))
    np.random.RandomState(_SPLIT_SEED).shuffle(shuffled)
    count = int(np.ceil(_TRAINING_SHARE * len(in_order)))
    return [in_order[i] for i in sorted(shuffled[:count])], [in_order[i] for i in sorted(shuffled[count:])]


def _natural_order(name: str) -> list:
    """Sort key by which plant9 comes before plant10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def _load(name: str, folder: Path, part: _Part, subsets: Sequence[str], choose: _Choice) -> list[dict]:
    """Dataset dicts, subset by subset, in the order of the plants' numbers."""
    records = []
    for subset in subsets:
        subset_folder = _find_subset(name, folder, part, subset)
        logger.info(f"Reading {subset_folder} for data set '{name}'.")
        records += _load_subset(subset_folder, part, subset, choose)
    return records


def _find_subset(name: str, folder: Path, part: _Part, subset: str) -> Path:
    """The folder with the PNG files of a subset; unpacks h5 files where there is none."""
    candidates = [folder / candidate / subset for candidate in part.folders]
    images = _find_h5(folder, part.images)
    if images is not None and not any(candidate.is_dir() for candidate in candidates):
        candidates.append(extract_h5(images, _find_h5(folder, part.truth)) / subset)
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    # The deepest folder that is there says most about what went wrong.
    present = [folder / candidate for candidate in part.folders if (folder / candidate).is_dir()]
    if images is not None:
        present.append(candidates[-1].parent)
    what = f"the folder {candidates[0].absolute()}, or {part.images}.h5 with {subset} in {folder.absolute()}"
    raise not_found(name, what, folder, present[0] if present else folder)


def _find_h5(folder: Path, stem: str) -> Path | None:
    for path in (folder / f"{stem}.h5", folder / stem / f"{stem}.h5"):
        if path.is_file():
            return path
    return None


def _load_subset(folder: Path, part: _Part, subset: str, choose: _Choice) -> list[dict]:
    plants = sorted(_names(folder, _IMAGE_SUFFIX), key=_natural_order)
    if not plants:
        raise FileNotFoundError(
            f"{folder} has no image of the form plant001{_IMAGE_SUFFIX}. {describe_contents(folder)} Unpack the "
            "challenge's files as they are."
        )
    has_labels = _check_labels(folder, plants, part)
    chosen = choose(plants)
    records = []
    for plant in chosen:
        record = image_record(folder / f"{plant}{_IMAGE_SUFFIX}", f"{subset}_{plant}")
        records.append({**record, "subset": subset, "plant": plant})
    if has_labels:
        add_annotations(records, [folder / f"{plant}{_LABEL_SUFFIX}" for plant in chosen])
    return records


def _names(folder: Path, suffix: str) -> set[str]:
    """Names of the plants that have a file with this suffix."""
    return {path.name.removesuffix(suffix) for path in folder.glob(f"*{suffix}")}


def _check_labels(folder: Path, plants: Sequence[str], part: _Part) -> bool:
    """Whether the images of a folder have label images: all do, or, in the test set, none."""
    labelled = _names(folder, _LABEL_SUFFIX)
    without_label = [plant for plant in plants if plant not in labelled]
    without_image = sorted(labelled.difference(plants), key=_natural_order)
    if without_image:
        raise FileNotFoundError(
            f"{folder / without_image[0]}{_LABEL_SUFFIX} has no image {without_image[0]}{_IMAGE_SUFFIX} beside it; "
            f"{len(without_image)} of {len(labelled)} label images have none. Unpack the challenge's files again."
        )
    if without_label and (labelled or part.needs_labels):
        raise FileNotFoundError(
            f"{folder / without_label[0]}{_IMAGE_SUFFIX} has no label image {without_label[0]}{_LABEL_SUFFIX} beside "
            f"it; {len(without_label)} of {len(plants)} images have none. Restore the files, or put {part.truth}.h5 "
            f"beside {part.images}.h5. (The archive of the counting challenge, LCC, has no label images: take LSC's.)"
        )
    return bool(labelled)
