"""``rec-attend evaluate``: compare what a model finds with what people outlined, and write a report."""

import argparse
from functools import partial
from pathlib import Path

from tqdm import tqdm

from ..data.datasets.annotated import register_annotated
from ..prediction import Predictor
from ..prediction.models import find_model
from ..report import Measured, measure, write_report
from ..threads import choose_and_say
from .annotations import add_annotation_arguments, annotated
from .model_folder import PLAN

# Name in the catalogue of what --images names.
_OWN_PICTURES = "evaluated_pictures"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's options."""
    parser.add_argument("--model", required=True, metavar="M", help="folder of a training, a config, or a name: nuclei")
    add_annotation_arguments(parser)
    parser.add_argument("--dataset", metavar="NAME", help="instead a data set known by name, such as nuclei_val")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="for the report and its tables")
    parser.add_argument(
        "--object-size", type=float, metavar="X", help="typical width of an object in pixels (default: the training's)"
    )
    parser.add_argument(
        "--threshold", type=float, metavar="X", help="smallest score of an object, 0 to 1 (default: the model's)"
    )
    parser.add_argument("--opts", nargs=argparse.REMAINDER, default=[], metavar="KEY VALUE", help="settings, come last")


def run(arguments: argparse.Namespace) -> None:
    """Measure, write the report, and print what matters.

    Raises:
        FileNotFoundError, ValueError: something is missing or wrong; the message names it.
    """
    _check(arguments)
    options = list(arguments.opts)
    if arguments.threshold is not None:
        options += ["MODEL.REC_ATTEND.TEST.SCORE_THRESHOLD", arguments.threshold]
    cfg, weights = find_model(arguments.model).load_config(options)
    dataset = arguments.dataset
    if dataset is None:
        dataset = _OWN_PICTURES
        pictures = annotated(arguments, arguments.images, arguments.labels, arguments.coco)
        register_annotated(dataset, pictures, arguments.output)
    choose_and_say(cfg.MODEL.DEVICE, print)
    predictor = Predictor(cfg, weights, object_size=arguments.object_size)
    measured = measure(predictor, dataset, progress=partial(tqdm, unit="picture", leave=False, disable=None))
    page = write_report(arguments.output, f"{arguments.model} on {_described(arguments)}", measured, predictor)
    print(_told(measured))
    print(f"Report: {page}")


def _check(arguments: argparse.Namespace) -> None:
    """Raise a ValueError unless the pictures are named in one of the ways, and the threshold is a score."""
    own = (arguments.images, arguments.labels, arguments.coco)
    by_name = arguments.dataset is not None and not any(own)
    by_files = arguments.dataset is None and arguments.images and (arguments.labels is None or arguments.coco is None)
    if not (by_name or by_files):
        raise ValueError(
            "Name the annotated pictures in one way: --images FOLDER with --labels FOLDER or --coco FILE (or neither, "
            "of a folder with ID/images and ID/masks), or --dataset NAME."
        )
    if (arguments.output / PLAN).exists():
        raise ValueError(
            f"{arguments.output} is the folder of a model, whose own report is there: name another --output."
        )
    if arguments.threshold is not None and not 0 <= arguments.threshold <= 1:
        raise ValueError(f"--threshold is {arguments.threshold}; give a score from 0 to 1.")


def _described(arguments: argparse.Namespace) -> str:
    return arguments.dataset or str(arguments.images)


def _told(measured: Measured) -> str:
    """What matters, in a line for each."""
    summary = measured.summary
    pictures, true, predicted = (int(summary[name]) for name in ("pictures", "true_count", "predicted_count"))
    error = "" if not true else f" ({summary['relative_count_error']:.1%})"
    return (
        f"{pictures} pictures: {predicted} objects counted where people outlined {true}.\n"
        f"Count error {summary['abs_DiC']:.2f} objects per picture{error}, {int(summary['exact'])} of {pictures} "
        f"pictures exact.\nOutlines: SBD {summary['SBD']:.3f}, AP {summary['AP']:.1f}."
    )
