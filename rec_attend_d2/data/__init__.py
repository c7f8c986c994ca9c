"""Data: reading, augmenting and mapping. Importing it registers the project's data sets."""

from . import datasets
from .augmentation import AUGMENTATIONS, build_augmentations
from .build import build_test_loader, build_train_loader, register_datasets
from .dataset_mapper import RecAttendDatasetMapper
from .image_stream import StreamLoader
from .training import build_mapper, sees_windows, training_size
from .window_mapper import WindowMapper

__all__ = [
    "AUGMENTATIONS",
    "RecAttendDatasetMapper",
    "StreamLoader",
    "WindowMapper",
    "build_augmentations",
    "build_mapper",
    "build_test_loader",
    "build_train_loader",
    "datasets",
    "register_datasets",
    "sees_windows",
    "training_size",
]
