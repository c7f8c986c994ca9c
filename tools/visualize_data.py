#!/usr/bin/env python
"""Pictures of what a config trains on: images after its augmentation, with their objects and maps.

    python tools/visualize_data.py --config-file configs/Nuclei/fast.yaml --output pictures \
        [--dataset nuclei_train] [--images 4] [--draws 3] [--seed 0] [KEY VALUE ...]

For every image NAME it writes NAME_data.png, a column for each random draw of the augmentation: the image, or window of
it, as the network gets it; its objects, numbered in the order of the targets (largest first); and, where the training
data have them, foreground and angles. Crowds and pixels of which nothing is known are striped.
"""

import argparse
import sys
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from PIL import Image

from rec_attend_d2.config import load_config
from rec_attend_d2.data import register_datasets
from rec_attend_d2.prediction.sources import distinct_names
from rec_attend_d2.visualization import TrainingDataDrawer


def parse_arguments() -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", required=True, help="the config that is to be trained")
    parser.add_argument("--output", required=True, type=Path, help="folder for the pictures; made if there is none")
    parser.add_argument("--dataset", help="name of the data set; default the first of DATASETS.TRAIN")
    parser.add_argument("--images", type=int, default=4, help="so many images from the data set's first on (default 4)")
    parser.add_argument("--draws", type=int, default=3, help="random draws of the augmentation (default 3)")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default 0)")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="config changes")
    arguments = parser.parse_args()
    for name, least in (("images", 1), ("draws", 1), ("seed", 0)):
        if getattr(arguments, name) < least:
            parser.error(f"--{name} is {getattr(arguments, name)}; give at least {least}.")
    return arguments


def configure(arguments: argparse.Namespace) -> CfgNode:
    """Config with the one data set to draw in DATASETS.TRAIN.

    Raises:
        FileNotFoundError: there is no such config.
        ValueError: there is no data set of that name or no such key, or a KEY without VALUE.
    """
    try:
        cfg = load_config(arguments.config_file, arguments.opts)
    except (KeyError, AssertionError) as error:  # of CfgNode
        raise ValueError(f"Config {arguments.config_file} with {' '.join(arguments.opts)}: {error}") from error
    names = [arguments.dataset] if arguments.dataset else list(cfg.DATASETS.TRAIN)[:1]
    if not names:
        raise ValueError("DATASETS.TRAIN is empty: name a data set by --dataset.")
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = tuple(names), ()
    register_datasets(cfg)
    return cfg


def draw(arguments: argparse.Namespace) -> None:
    """Draw the first images of the data set."""
    cfg = configure(arguments)
    drawer = TrainingDataDrawer(cfg)
    records = DatasetCatalog.get(cfg.DATASETS.TRAIN[0])[: arguments.images]
    arguments.output.mkdir(parents=True, exist_ok=True)
    names = distinct_names([record["file_name"] for record in records])
    for number, (record, name) in enumerate(zip(records, names, strict=True)):
        first = arguments.seed + number * arguments.draws
        path = arguments.output / f"{name}_data.png"
        Image.fromarray(drawer.draw(record, list(range(first, first + arguments.draws)))).save(path)
        print(path)


def main() -> None:
    """Draw, or say in one line what is wrong."""
    arguments = parse_arguments()
    try:
        draw(arguments)
    except (ValueError, OSError) as error:
        sys.exit(f"visualize_data: {error}")


if __name__ == "__main__":
    main()
