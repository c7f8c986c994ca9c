"""Data loaders with this project's mapper, and the check of the data sets a config names."""

import difflib

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, build_detection_test_loader
from detectron2.utils import comm
from torch.utils.data import DataLoader

from .datasets.coco_files import register_coco_files
from .image_stream import ImageStream, StreamLoader
from .training import build_mapper
from .training_check import check_training_data, resolve_classes


def register_datasets(cfg: CfgNode) -> None:
    """Register DATASETS.COCO_FILES and check that DATASETS.TRAIN and DATASETS.TEST name registered data sets.

    In a config that is not frozen the fast model gets the number of categories, see :func:`.resolve_classes`.

    Raises:
        FileNotFoundError: a file of DATASETS.COCO_FILES is missing.
        ValueError: DATASETS.COCO_FILES is not valid, or a name is unknown.
    """
    register_coco_files(cfg.DATASETS.COCO_FILES)
    for key in ("TRAIN", "TEST"):
        for name in cfg.DATASETS[key]:
            check_registered(name, f"DATASETS.{key}")
    if not cfg.is_frozen():
        resolve_classes(cfg, [entry[0] for entry in cfg.DATASETS.COCO_FILES])


def check_registered(name: str, key: str) -> None:
    """Raise a ValueError with similar names unless the data set ``name``, the value of config ``key``, is known."""
    known = DatasetCatalog.list()
    if name not in known:
        similar = ", ".join(difflib.get_close_matches(name, known, n=5)) or "none"
        raise ValueError(
            f"{key} names the data set '{name}', which is not registered. Similar names: {similar}. For data of your "
            "own in COCO format add [name, annotation json, image folder] to DATASETS.COCO_FILES."
        )


def build_train_loader(cfg: CfgNode) -> StreamLoader:
    """Endless loader over DATASETS.TRAIN. It yields lists of dicts of the mapper of :func:`.training.build_mapper`.

    Its state goes into checkpoints, so that a resumed training gets the images that come next.

    Raises:
        FileNotFoundError, ValueError: something is wrong with the data, see :func:`.check_training_data`.
    """
    register_datasets(cfg)
    if comm.is_main_process():
        check_training_data(cfg)
    return StreamLoader(ImageStream(cfg, build_mapper(cfg, is_train=True)))


def build_test_loader(cfg: CfgNode, dataset_name: str) -> DataLoader:
    """Loader that goes once over the data set ``dataset_name``, without augmentation."""
    register_coco_files(cfg.DATASETS.COCO_FILES)
    check_registered(dataset_name, "DATASETS.TEST")
    return build_detection_test_loader(cfg, dataset_name, mapper=build_mapper(cfg, is_train=False))
