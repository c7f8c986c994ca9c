#!/usr/bin/env python
"""Parameters, operations and activations of a model, part by part and step by step.

    python tools/analyze_model.py --config-file configs/CVPPP/stage_c.yaml \
        [--tasks parameters,flops,activations,structure] [--steps N] [--depth N] [--json FILE] [--device cpu|cuda] \
        [KEY VALUE ...]

takes any config of this project and, for comparison, Detectron2's own, by path or by its name in the model zoo
(COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml). Nothing is read but the config: weights are random, and the one
image, of INPUT.IMAGE_SIZE (also for Detectron2's models), is synthetic.

* fvcore counts: a multiplication and an addition are one operation (two for tools/benchmark_speed.py); activations are
  the outputs of matrix products and convolutions. Operators that it does not count are named.
* The first step holds what is done once per image. Post-processing is not part of a recurrent model's figures.
* A Detectron2 detector with random weights finds nothing; MODEL.ROI_HEADS.SCORE_THRESH_TEST 0.0 lets it find objects.
"""

import argparse
from pathlib import Path

from benchmark_speed import configure, plain_path

from rec_attend_d2.benchmark.analysis import ANALYSES, analyze
from rec_attend_d2.benchmark.analysis_report import tables
from rec_attend_d2.whole_files import write_json

TASKS = ["parameters", *ANALYSES, "structure"]


def tasks_of(text: str) -> list[str]:
    """Tasks separated by commas. Raises argparse's error for an unknown one."""
    unknown = [task for task in text.split(",") if task not in TASKS]
    if unknown:
        raise argparse.ArgumentTypeError(f"'{unknown[0]}' is no task; choose from {','.join(TASKS)}")
    return text.split(",")


def parse_arguments() -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", required=True, help="the config, or its name in Detectron2's model zoo")
    # Commas, because a list of words would swallow the KEY VALUE pairs after it.
    parser.add_argument(
        "--tasks", type=tasks_of, default=TASKS[:-1], metavar="TASK,TASK", help="default all but structure"
    )
    parser.add_argument("--steps", type=int, metavar="N", help="time steps of the totals (default TIME_STEPS)")
    parser.add_argument("--depth", type=int, default=2, metavar="N", help="how deep parts of parts go (default 2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="default cpu")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="config changes")
    arguments = parser.parse_args()
    for name in ("steps", "depth"):
        value = getattr(arguments, name)
        if value is not None and value < 1:
            parser.error(f"--{name} is {value}; give at least 1.")
    return arguments


def run(arguments: argparse.Namespace) -> None:
    """Analyse, print the tables, and write the json if it is asked for."""
    report = analyze(configure(arguments), arguments.tasks, arguments.steps, arguments.depth)
    print(tables(report))
    if arguments.json:
        write_json(arguments.json, {"config_file": plain_path(arguments.config_file), **report})
        print(f"\nWritten to {arguments.json}")


def main() -> None:
    """Analyse, or say in one line what is wrong."""
    arguments = parse_arguments()
    try:
        run(arguments)
    except (ValueError, OSError) as error:
        raise SystemExit(f"analyze_model: {error}") from error


if __name__ == "__main__":
    main()
