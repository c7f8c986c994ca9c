#!/usr/bin/env python
"""Pictures of how a trained model goes through images, step by step or glance by glance.

    python tools/visualize_steps.py --config-file configs/Nuclei/fast.yaml --output pictures \
        [--dataset nuclei_val] [--images 4] MODEL.WEIGHTS model_final.pth [KEY VALUE ...]

For every image NAME it writes NAME_steps.png (a column per step), NAME_steps.gif (a frame per step) and
NAME_instances.png (the result at the image's own size, beside the truth where the data set has annotations).
"""

import argparse
import os
import sys
from pathlib import Path

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.modeling import build_model
from PIL import Image

from rec_attend_d2.checkpoint import load_weights
from rec_attend_d2.config import load_config
from rec_attend_d2.data import build_mapper, register_datasets
from rec_attend_d2.data.image_io import read_image
from rec_attend_d2.modeling import RecurrentAttention
from rec_attend_d2.prediction import find_weights
from rec_attend_d2.prediction.sources import distinct_names
from rec_attend_d2.threads import choose_and_say
from rec_attend_d2.visualization import draw_instances, save_steps, side_by_side, trace, true_instances


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", required=True, help="the config the weights were trained with")
    parser.add_argument("--output", required=True, type=Path, help="folder for the pictures; made if there is none")
    parser.add_argument("--dataset", help="name of the data set; default the first of DATASETS.TEST")
    parser.add_argument("--images", type=int, default=4, help="so many images from the data set's first on")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="config changes, such as MODEL.WEIGHTS file")
    arguments = parser.parse_args()
    if arguments.images < 1:
        parser.error(f"--images is {arguments.images}; give at least 1.")
    return arguments


def configure(arguments: argparse.Namespace) -> CfgNode:
    """Config with the one data set to draw in DATASETS.TEST. Raises ValueError without data set or weights."""
    cfg = load_config(arguments.config_file, arguments.opts)
    choose_and_say(cfg.MODEL.DEVICE, print)
    names = [arguments.dataset] if arguments.dataset else list(cfg.DATASETS.TEST)[:1]
    if not names:
        raise ValueError("DATASETS.TEST is empty: name a data set by --dataset.")
    if not cfg.MODEL.WEIGHTS:
        raise ValueError("MODEL.WEIGHTS is empty: add 'MODEL.WEIGHTS file.pth' with trained weights to the command.")
    cfg.MODEL.WEIGHTS = os.path.expanduser(find_weights(cfg, arguments.config_file))
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (), tuple(names)
    register_datasets(cfg)
    return cfg


@torch.no_grad()
def draw_record(model: RecurrentAttention, record: dict, cfg: CfgNode, prefix: Path) -> None:
    """Write the three pictures of one image; their paths start with ``prefix``."""
    entry = build_mapper(cfg, is_train=False)(record)
    save_steps(prefix, trace(model, entry))

    original = read_image(record["file_name"], cfg.INPUT.CONTRAST_PERCENTILES)[:, :, ::-1]
    results = {"found": draw_instances(original, model([entry])[0]["instances"])}
    if "annotations" in record:
        results["truth"] = draw_instances(original, true_instances(record, original.shape[:2]))
    Image.fromarray(side_by_side(results)).save(f"{prefix}_instances.png")


def draw(arguments: argparse.Namespace) -> None:
    """Draw the first images of a data set."""
    cfg = configure(arguments)
    model = build_model(cfg)
    load_weights(model, cfg.MODEL.WEIGHTS, complete=True)
    model.eval()
    arguments.output.mkdir(parents=True, exist_ok=True)
    records = DatasetCatalog.get(cfg.DATASETS.TEST[0])[: arguments.images]
    names = distinct_names([record["file_name"] for record in records])
    for record, name in zip(records, names, strict=True):
        draw_record(model, record, cfg, arguments.output / name)
        print(f"{arguments.output / name}: _steps.png, _steps.gif, _instances.png")


def main() -> None:
    """Draw, or say in one line what is wrong."""
    arguments = parse_arguments()
    try:
        draw(arguments)
    except (ValueError, OSError) as error:
        sys.exit(f"visualize_steps: {error}")


if __name__ == "__main__":
    main()
