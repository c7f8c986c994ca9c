"""The data sets that are known by name, in the folder that the environment variable DETECTRON2_DATASETS names.

Registering reads and draws nothing; that happens when a data set is used.
"""

import os
from collections.abc import Callable
from pathlib import Path

from .cityscapes import register_cityscapes
from .coco_files import load_coco
from .coco_subsets import register_coco_subsets
from .cvppp import register_cvppp
from .file_trees import describe_contents
from .kitti import register_kitti
from .registration import register_lazily
from .rosettes import ensure_rosettes

# (root, json file, image folder, name) -> dataset dicts
_Loader = Callable[[str, str, str, str], list[dict]]

# Name of each nuclei split: annotation file and image folder below the root.
_NUCLEI = {
    "nuclei_train": ("nuclei/train.json", "nuclei/images"),
    "nuclei_val": ("nuclei/val.json", "nuclei/images"),
}
_ROSETTES = {
    "rosettes_train": ("rosettes/train.json", "rosettes/train"),
    "rosettes_val": ("rosettes/val.json", "rosettes/val"),
}


def register_builtin_datasets(root: str | None = None) -> None:
    """Register the data sets of this project; a repeated call only moves them.

    Args:
        root: folder that holds them; default the value of DETECTRON2_DATASETS, or "datasets".
    """
    root = os.path.expanduser(root or os.environ.get("DETECTRON2_DATASETS", "datasets"))
    for name, (json_file, image_root) in _NUCLEI.items():
        _register(name, root, json_file, image_root, ["nucleus"], _load_nuclei)
    for name, (json_file, image_root) in _ROSETTES.items():
        _register(name, root, json_file, image_root, ["leaf"], _load_rosettes)
    for register in (register_cvppp, register_kitti, register_cityscapes, register_coco_subsets):
        register(root)


def _register(name: str, root: str, json_file: str, image_root: str, classes: list[str], load: _Loader) -> None:
    json_path, image_path = os.path.join(root, json_file), os.path.join(root, image_root)
    register_lazily(
        name,
        lambda: load(root, json_path, image_path, name),
        json_file=json_path,
        image_root=image_path,
        evaluator_type="coco",
        thing_classes=classes,
        thing_dataset_id_to_contiguous_id={1: 0},
    )


def _load_nuclei(root: str, json_file: str, image_root: str, name: str) -> list[dict]:
    for path in (Path(json_file), Path(image_root)):
        if not path.exists():
            raise FileNotFoundError(
                f"Data set '{name}' expects {path.absolute()}, which does not exist. {describe_contents(path.parent)} "
                "Set the environment variable DETECTRON2_DATASETS to the folder that holds 'nuclei' (now "
                f"{os.path.abspath(root)})."
            )
    return load_coco(json_file, image_root, name)


def _load_rosettes(root: str, json_file: str, image_root: str, name: str) -> list[dict]:
    ensure_rosettes(Path(root))
    return load_coco(json_file, image_root, name)
