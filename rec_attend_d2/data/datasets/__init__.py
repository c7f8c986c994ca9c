"""Data sets this project knows. Importing it registers them under DETECTRON2_DATASETS."""

from .builtin import register_builtin_datasets
from .coco_files import load_coco, register_coco_files
from .rosettes import ensure_rosettes, render_plant

register_builtin_datasets()

__all__ = [
    "ensure_rosettes",
    "load_coco",
    "register_builtin_datasets",
    "register_coco_files",
    "render_plant",
]
