"""Data sets this project knows. Importing it registers them under DETECTRON2_DATASETS."""

from .builtin import register_builtin_datasets
from .coco_files import load_coco, register_coco_files
from .coco_subsets import load_coco_subset, register_coco_subsets
from .rosettes import ensure_rosettes, render_plant

register_builtin_datasets()

__all__ = [
    "ensure_rosettes",
    "load_coco",
    "load_coco_subset",
    "register_builtin_datasets",
    "register_coco_files",
    "register_coco_subsets",
    "render_plant",
]
