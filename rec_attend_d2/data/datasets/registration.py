"""Registers data sets that are read when they are used, and moves them when they are registered again."""

import pickle
from collections.abc import Callable
from functools import cache
from typing import Any

from detectron2.data import DatasetCatalog, MetadataCatalog


def register_lazily(name: str, load: Callable[[], list[dict]], **metadata: Any) -> None:
    """Register the data set ``name``, in place of an earlier one of the same name.

    Its files are read once in a process, though every loader, evaluator and submission asks for the dicts: register it
    again where they have changed. Each caller gets dicts of its own.

    Args:
        name: for DATASETS.TRAIN and DATASETS.TEST.
        load: gives the dataset dicts, which can be pickled; not called here. If it fails, it is called again next time.
        metadata: what MetadataCatalog keeps of the data set, such as ``thing_classes`` and ``evaluator_type``.
    """

    # Serialized they are compact, and nobody can change those of another.
    @cache
    def serialized() -> bytes:
        return pickle.dumps(load(), pickle.HIGHEST_PROTOCOL)

    if name in DatasetCatalog:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
    DatasetCatalog.register(name, lambda: pickle.loads(serialized()))
    MetadataCatalog.get(name).set(**metadata)
