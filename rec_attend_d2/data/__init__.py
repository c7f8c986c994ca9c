"""Data: reading, augmenting and mapping. Importing it registers the project's data sets."""

from . import datasets
from .augmentation import AUGMENTATIONS, build_augmentations
from .build import build_test_loader, build_train_loader, register_datasets
from .dataset_mapper import RecAttendDatasetMapper
from .image_stream import StreamLoader
from .state_pool import ImageState, StatePoolLoader

__all__ = [
    "AUGMENTATIONS",
    "ImageState",
    "RecAttendDatasetMapper",
    "StatePoolLoader",
    "StreamLoader",
    "build_augmentations",
    "build_test_loader",
    "build_train_loader",
    "datasets",
    "register_datasets",
]
