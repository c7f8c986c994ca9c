"""Registers data sets that are read when they are used, and moves them when they are registered again."""

from collections.abc import Callable
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog


def register_lazily(name: str, load: Callable[[], list[dict]], **metadata: Any) -> None:
    """Register the data set ``name``, in place of an earlier one of the same name.

    Args:
        name: for DATASETS.TRAIN and DATASETS.TEST.
        load: gives the dataset dicts; not called here.
        metadata: what MetadataCatalog keeps of the data set, such as ``thing_classes`` and ``evaluator_type``.
    """
    if name in DatasetCatalog:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    DatasetCatalog.register(name, load)
    MetadataCatalog.get(name).set(**metadata)
