#!/usr/bin/env python
"""Write the file that a test server takes, or check and score a finished one.

    python tools/make_submission.py --config-file CONFIG --format cityscapes|coco|cvppp --output FILE
        [--dataset NAME] MODEL.WEIGHTS model_final.pth [KEY VALUE ...]
    python tools/make_submission.py --config-file CONFIG --format cityscapes --check FILE [--dataset NAME]

The data set is the first of DATASETS.TEST unless --dataset names another one, such as rec_attend_cityscapes_test.
--check lists what is wrong with a file by the format's rules (exit code 1 if there is anything) and, for a data set
with labels, scores it by the official scorer.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.evaluation import inference_context
from detectron2.modeling import build_model
from detectron2.structures import Instances
from tabulate import tabulate
from tqdm import tqdm

from rec_attend_d2.checkpoint import load_weights
from rec_attend_d2.config import load_config
from rec_attend_d2.data import build_test_loader, register_datasets
from rec_attend_d2.evaluation import submission_cityscapes, submission_coco, submission_cvppp
from rec_attend_d2.evaluation.per_image_evaluator import has_annotations, records_by_id
from rec_attend_d2.evaluation.submission import listed
from rec_attend_d2.threads import choose_and_say

FORMATS = {"cityscapes": submission_cityscapes, "coco": submission_coco, "cvppp": submission_cvppp}


def predictions(cfg: CfgNode, dataset_name: str) -> Iterator[tuple[Any, Instances]]:
    """(image_id, Instances on the CPU) of every image of a data set."""
    model = build_model(cfg)
    load_weights(model, cfg.MODEL.WEIGHTS, complete=True)
    loader = build_test_loader(cfg, dataset_name)
    with torch.no_grad(), inference_context(model):
        for batch in tqdm(loader, desc=dataset_name, unit="batch"):
            for entry, output in zip(batch, model(batch), strict=True):
                if "instances" not in output:
                    sys.exit(
                        f"make_submission: {cfg.MODEL.META_ARCHITECTURE} predicts no instances. Give the config and "
                        "weights of stage C or of the fast recipe."
                    )
                yield entry["image_id"], output["instances"].to("cpu")


def check(form: ModuleType, path: Path, dataset_name: str, max_detections: int) -> None:
    """Print what is wrong with a file and exit, or its scores."""
    problems = form.check(path, dataset_name)
    if problems:
        sys.exit(f"make_submission: {path} is not valid for '{dataset_name}':\n{listed(problems)}")
    print(f"{path} is valid for '{dataset_name}'.")
    if has_annotations(dataset_name, records_by_id(dataset_name)):
        limit = {"max_detections": max_detections} if form is submission_coco else {}
        scores = form.score(path, dataset_name, **limit)
        print(tabulate(sorted(scores.items()), headers=["metric", "value"], floatfmt=".4f"))
    else:
        print("The data set has no labels, so there is nothing to score.")


def main() -> None:
    """Write or check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", required=True)
    parser.add_argument("--format", required=True, choices=FORMATS)
    parser.add_argument("--dataset", help="default: the first of DATASETS.TEST")
    action = parser.add_mutually_exclusive_group(required=True)
    action.add_argument("--output", type=Path, help="file to write")
    action.add_argument("--check", type=Path, help="finished file to check and score")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE overrides of the config")
    arguments = parser.parse_args()
    form = FORMATS[arguments.format]
    try:
        cfg = load_config(arguments.config_file, arguments.opts)
        choose_and_say(cfg.MODEL.DEVICE, print)
        if arguments.dataset:
            cfg.DATASETS.TEST = (arguments.dataset,)
        register_datasets(cfg)
        if not cfg.DATASETS.TEST:
            sys.exit("make_submission: DATASETS.TEST is empty; name a data set with --dataset.")
        dataset_name = cfg.DATASETS.TEST[0]
        path = arguments.check or arguments.output
        if path.suffix != form.SUFFIX:
            sys.exit(f"make_submission: {path} should end with {form.SUFFIX}, as files of this format do.")
        if arguments.output:
            if not cfg.MODEL.WEIGHTS:
                sys.exit("make_submission: add MODEL.WEIGHTS path/to/model_final.pth.")
            form.pack(path, dataset_name, predictions(cfg, dataset_name))
            print(f"{path} is written.")
        check(form, path, dataset_name, cfg.TEST.DETECTIONS_PER_IMAGE)
    except (FileNotFoundError, ValueError) as error:
        sys.exit(f"make_submission: {error}")


if __name__ == "__main__":
    main()
