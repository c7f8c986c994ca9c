"""Says what is wrong with the data of a training before it starts, and what is odd."""

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from tqdm import tqdm

from .picture_check import check_pictures, depth_hints, equal_files
from .training import sees_windows

logger = logging.getLogger(__name__)

_CLASSES_KEY = "MODEL.REC_ATTEND.NUM_CLASSES"


def check_training_data(cfg: CfgNode) -> None:
    """Look at DATASETS.TRAIN and DATASETS.TEST: objects, categories and every picture; log what is odd.

    Raises:
        FileNotFoundError: pictures are missing.
        ValueError: there is nothing to train on, categories do not fit each other or the model, or pictures are wrong;
            the message counts them and names the first ten.
    """
    names = list(dict.fromkeys([*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST]))
    data_sets = {name: DatasetCatalog.get(name) for name in names}
    check_objects([record for name in cfg.DATASETS.TRAIN for record in data_sets[name]], cfg.DATASETS.TRAIN)
    check_categories(cfg)
    percentiles = cfg.INPUT.CONTRAST_PERCENTILES
    bar = partial(tqdm, total=_pictures(data_sets.values()), unit="picture", desc="checking", leave=False, disable=None)
    facts = check_pictures(data_sets, len(percentiles) > 0, bar)
    hints = [] if percentiles else depth_hints(facts)
    for test in (name for name in cfg.DATASETS.TEST if name not in cfg.DATASETS.TRAIN):
        for train in cfg.DATASETS.TRAIN:
            both = equal_files(facts, data_sets[train], data_sets[test])
            if both:
                hints.append(
                    f"{len(both)} of the {len(data_sets[test])} pictures of {test} are also in {train} (first: "
                    f"{both[0][0]}, there {both[0][1]}), so that its figures say little about new pictures."
                )
    for hint in hints:
        logger.warning(hint)


def _pictures(parts: Any) -> int:
    return len({record["file_name"] for part in parts for record in part})


def check_objects(records: Sequence[dict[str, Any]], names: Sequence[str]) -> None:
    """Raise a ValueError unless a picture has an object; crowds are none."""
    annotations = [annotation for record in records for annotation in record.get("annotations", ())]
    if not records or "annotations" not in records[0] or any(not item.get("iscrowd", 0) for item in annotations):
        return
    reason = f"all {len(annotations)} annotations are crowds (iscrowd 1)" if annotations else "there is no annotation"
    raise ValueError(
        f"There is no object to train on in DATASETS.TRAIN {', '.join(names)}: {reason}. Outline objects, or correct "
        "the annotations."
    )


def class_names(name: str) -> list[str] | None:
    """Names of the classes of a data set that has been read; None where it does not say."""
    return MetadataCatalog.get(name).get("thing_classes")


def check_categories(cfg: CfgNode) -> None:
    """Compare the categories of the data sets, which have been read, and of the model.

    Raises:
        ValueError: they are matched by their order, which would take one for another.
    """
    known = {name: class_names(name) for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)}
    of_data = [(name, list(classes)) for name, classes in known.items() if classes]
    if not of_data:
        return
    first, expected = of_data[0]
    for name, classes in of_data[1:]:
        if classes == expected:
            continue
        described = f"{name} has the categories {', '.join(classes)}, but {first} has {', '.join(expected)}"
        if len(classes) == len(expected) == 1:
            logger.warning(f"{described}: they are taken for the same.")
        else:
            raise ValueError(
                f"{described}. Categories count in the order of their ids: give both the same names in the same order."
            )
    number = cfg.MODEL.REC_ATTEND.NUM_CLASSES
    if sees_windows(cfg) and number != len(expected) and (number > 0 or len(expected) > 1):
        right = len(expected) if len(expected) > 1 else 0
        raise ValueError(
            f"{_CLASSES_KEY} is {number}, but {first} has {len(expected)} categories ({', '.join(expected)}). Set it "
            f"to {right}, or make one category of them in the annotations."
        )


def resolve_classes(cfg: CfgNode, own: Sequence[str]) -> None:
    """Set the fast model's NUM_CLASSES in place to the number of categories, where it is 0 and there are several.

    Args:
        cfg: not frozen; the data sets it names are registered.
        own: names of those of DATASETS.COCO_FILES, which are read to learn their categories.
    """
    names = cfg.DATASETS.TRAIN or cfg.DATASETS.TEST
    if not sees_windows(cfg) or cfg.MODEL.REC_ATTEND.NUM_CLASSES != 0 or not names:
        return
    if names[0] in own:
        DatasetCatalog.get(names[0])
    classes = class_names(names[0]) or []
    if len(classes) > 1:
        cfg.MODEL.REC_ATTEND.NUM_CLASSES = len(classes)
        logger.info("%s: %d, the categories of %s.", _CLASSES_KEY, len(classes), names[0])
