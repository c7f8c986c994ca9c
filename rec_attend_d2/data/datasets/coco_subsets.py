"""COCO 2017 restricted to one category, as in the paper: persons and zebras.

Any other subset needs no code: a fourth part of an entry of DATASETS.COCO_FILES names its categories.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from .coco_files import load_coco
from .file_trees import describe_contents
from .registration import register_lazily

CATEGORIES = ("person", "zebra")
SPLITS = ("train", "val")


def register_coco_subsets(root: str | Path) -> None:
    """Register ``coco_2017_{train,val}_{person,zebra}``; nothing is read. A repeated call only moves them.

    Args:
        root: folder of all data sets. Expects ``coco/annotations/instances_{train,val}2017.json`` and the images in
            ``coco/{train,val}2017``, which is what COCO's archives contain if unpacked in ``coco``.
    """
    folder = Path(root).expanduser() / "coco"
    for split in SPLITS:
        json_file = str(folder / "annotations" / f"instances_{split}2017.json")
        image_root = str(folder / f"{split}2017")
        for category in CATEGORIES:
            name = f"coco_2017_{split}_{category}"
            register_lazily(
                name,
                partial(load_coco_subset, json_file, image_root, [category], name),
                json_file=json_file,
                image_root=image_root,
                evaluator_type="coco",
                thing_classes=[category],
                subset_categories=(category,),
            )


def load_coco_subset(
    json_file: str, image_root: str, categories: Sequence[str], dataset_name: str | None = None
) -> list[dict]:
    """Read and check the part of a COCO file that some categories make up.

    An image belongs to it if it has an annotation of at least one of the categories. One that has only crowd regions of
    them belongs to it too: nothing is to be found there, and nothing inside the regions is wrong. Of an image's
    annotations those of the categories stay, crowd regions with ``iscrowd`` 1.

    Args:
        json_file: annotations in COCO's instances format.
        image_root: folder of its images; those of the subset have to be there.
        categories: names of at least one category.
        dataset_name: where given, its metadata gets ``thing_classes`` and ``thing_dataset_id_to_contiguous_id``.

    Returns:
        Detectron2 dataset dicts, sorted by image id. The categories are numbered from 0 in the order of their ids.

    Raises:
        FileNotFoundError: a file is missing; the message says what was found instead.
        ValueError: no category is named, one is not in the file, or the file is not valid.
    """
    if not categories:
        raise ValueError(f"No category of {json_file} is named. Name at least one, or use load_coco for all.")
    _check_present(Path(json_file), "annotations_trainval2017.zip")
    _check_present(Path(image_root), f"{Path(image_root).name}.zip")
    return load_coco(json_file, image_root, dataset_name, categories)


def _check_present(path: Path, archive: str) -> None:
    if not path.exists():
        raise FileNotFoundError(
            f"{path.absolute()} does not exist. {describe_contents(path.parent)} Unpack COCO's {archive} in the folder "
            "'coco' of the folder that the environment variable DETECTRON2_DATASETS names."
        )
