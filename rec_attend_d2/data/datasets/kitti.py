"""KITTI's images with instances of cars, with one class, "car".

Files below the folder of all data sets (DETECTRON2_DATASETS), as the authors' code expects them::

    kitti/images/000123.png    image
    kitti/gt/000123.png        label image of a training image: 0 = background, one value for each car
    kitti/gt_man/000123.png    label image of a validation or test image, drawn by hand
    kitti/train.txt            one number per line: the training images
    kitti/valid_man.txt        the validation images
    kitti/test_man.txt         the test images

The images are those of KITTI's object detection benchmark; the label images were given out by their makers. There is
no test server: the test set has labels.
"""

from functools import partial
from pathlib import Path

from .file_trees import not_found
from .label_images import add_annotations, image_record
from .registration import register_lazily

# Name of each data set: the file that lists its images, and the folder of its label images.
_SPLITS = {
    "kitti_cars_train": ("train.txt", "gt"),
    "kitti_cars_val": ("valid_man.txt", "gt_man"),
    "kitti_cars_test": ("test_man.txt", "gt_man"),
}


def register_kitti(root: str | Path) -> None:
    """Register ``kitti_cars_train``, ``_val`` and ``_test``; nothing is read before it is used.

    A repeated call only moves them.

    Args:
        root: folder that holds ``kitti``.
    """
    folder = Path(root).expanduser() / "kitti"
    for name, (list_name, label_folder) in _SPLITS.items():
        register_lazily(
            name,
            partial(_load, name, folder, list_name, label_folder),
            image_root=str(folder / "images"),
            evaluator_type="kitti",
            thing_classes=["car"],
        )


def _load(name: str, folder: Path, list_name: str, label_folder: str) -> list[dict]:
    list_path = folder / list_name
    for kind, path in (("file", list_path), ("folder", folder / "images"), ("folder", folder / label_folder)):
        if not path.exists():
            raise not_found(name, f"the {kind} {path.absolute()}", folder)
    numbers = _read_numbers(list_path)
    image_paths = [folder / "images" / f"{number:06d}.png" for number in numbers]
    label_paths = [folder / label_folder / f"{number:06d}.png" for number in numbers]
    for kind, paths in (("image", image_paths), ("label image", label_paths)):
        missing = [path for path in paths if not path.is_file()]
        if missing:
            raise FileNotFoundError(
                f"The {kind} {missing[0]} does not exist, though {list_path} lists it; {len(missing)} of {len(paths)} "
                "are missing. Restore the files or correct the list."
            )
    records = [image_record(path, path.stem) for path in image_paths]
    add_annotations(records, label_paths)
    return records


def _read_numbers(path: Path) -> list[int]:
    """Numbers of the images that a split file lists, in its order."""
    numbers: dict[int, None] = {}
    for line_number, line in enumerate(path.read_text().splitlines(), start=1):
        text = line.strip()
        if not text:
            continue
        if not text.isdecimal() or int(text) in numbers:
            raise ValueError(
                f"{path}, line {line_number}: {text!r} is not the number of an image, or was there before. Give one "
                "number per line, such as 123 for 000123.png."
            )
        numbers[int(text)] = None
    if not numbers:
        raise ValueError(f"{path} lists no image. Give one number per line, such as 123 for 000123.png.")
    return list(numbers)
