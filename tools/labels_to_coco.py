#!/usr/bin/env python
"""Make a data set in COCO format of images and label images, to train on it by DATASETS.COCO_FILES.

    python tools/labels_to_coco.py --images FOLDER --labels FOLDER --output train.json \
        [--val-fraction 0.2 --val-output val.json] [--label-suffix _label] [--category cell]

Label images are PNG, TIFF or BMP files with a palette, 8-bit or 16-bit values or colours. Every value or colour but the
background's is one object, be it in one piece or not. An image and its label image have the same name, but for the
suffixes and the endings; both may lie in one folder, if their suffixes differ.

Without --labels, FOLDER has the layout of the Data Science Bowl 2018: ID/images/*.png with one image and ID/masks/*.png
with a mask for each object, for every image ID.
"""

import argparse
import shlex
import sys
from pathlib import Path

from rec_attend_d2.cli.annotations import add_label_arguments
from rec_attend_d2.data.datasets.label_conversion import (
    ConvertedImage,
    convert_images,
    split_images,
    summary,
    write_coco,
)
from rec_attend_d2.data.datasets.label_sources import (
    Selection,
    Source,
    find_mask_folders,
    pair_files,
    some_names,
    unused_entries,
)


def parse_arguments() -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, metavar="FOLDER", help="the images")
    parser.add_argument("--labels", type=Path, metavar="FOLDER", help="the label images; default: see above")
    parser.add_argument("--output", type=Path, required=True, metavar="FILE.json", help="json to write")
    parser.add_argument("--val-fraction", type=float, metavar="X", help="share of the images for validation")
    parser.add_argument("--val-output", type=Path, metavar="FILE.json", help="json to write for validation")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of images for validation (default 0)")
    parser.add_argument("--category", default="cell", metavar="NAME", help="what the objects are (default cell)")
    add_label_arguments(parser)
    arguments = parser.parse_args()
    if (arguments.val_fraction is None) != (arguments.val_output is None):
        parser.error("--val-fraction and --val-output belong together; give both or none.")
    if arguments.val_fraction is not None and not 0 < arguments.val_fraction < 1:
        parser.error(f"--val-fraction is {arguments.val_fraction}; give a number above 0 and below 1.")
    if arguments.val_output == arguments.output:
        parser.error("--output and --val-output are the same file.")
    for name in ("image_suffix", "label_suffix", "background", "unlabeled"):
        if arguments.labels is None and getattr(arguments, name) not in ("", None):
            parser.error(f"--{name.replace('_', '-')} is for label images; name their folder by --labels.")
    return arguments


def find_sources(arguments: argparse.Namespace) -> list[Source]:
    """The images in one of the two layouts; says what lies beside them and is left out."""
    if arguments.labels is None:
        return list(find_mask_folders(arguments.images))
    images, labels = (
        Selection(arguments.images, arguments.image_suffix),
        Selection(arguments.labels, arguments.label_suffix),
    )
    pairs = pair_files(images, labels, arguments.unlabeled or "refuse", arguments.background or 0)
    unused = unused_entries(pairs, [arguments.images, arguments.labels])
    if unused:
        print(f"Left out: {some_names(unused)}.")
    return list(pairs)


def training_options(splits: dict[Path, list[ConvertedImage]], image_root: Path) -> str:
    """Options with which tools/train_net.py trains on what was written."""
    names = ["my_train", "my_val"][: len(splits)]
    entries = [[name, str(path), str(image_root)] for name, path in zip(names, splits, strict=True)]
    options = ["DATASETS.COCO_FILES", str(entries), "DATASETS.TRAIN", f"('{names[0]}',)"]
    options += ["DATASETS.TEST", f"('{names[-1]}',)"]
    return shlex.join(options)


def convert(arguments: argparse.Namespace) -> None:
    """Read, write, and say how to go on."""
    known = arguments.background is not None
    images = convert_images(find_sources(arguments), arguments.images, arguments.pieces, known)
    splits = {arguments.output: images}
    if arguments.val_output:
        parts = split_images(images, arguments.val_fraction, arguments.seed)
        splits = dict(zip((arguments.output, arguments.val_output), parts, strict=True))
    for path, part in splits.items():
        write_coco(part, arguments.category, path)
        print(f"{path}: {summary(part)}")
    deep = [image for image in images if image.depth not in ("uint8", "uint16")]
    if deep:
        print(
            f"{len(deep)} images have {deep[0].depth} pixels, first {deep[0].file_name}: training needs "
            "INPUT.CONTRAST_PERCENTILES, such as [0.1, 99.9]."
        )
    print(f"\nTrain on it by\n\n    {training_options(splits, arguments.images)}")


def main() -> None:
    """Convert, or say in one line what is wrong."""
    arguments = parse_arguments()
    try:
        convert(arguments)
    except (ValueError, OSError) as error:
        sys.exit(f"labels_to_coco: {error}")


if __name__ == "__main__":
    main()
