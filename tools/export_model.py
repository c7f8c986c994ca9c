#!/usr/bin/env python
"""Export a trained model to a file that runs without this package, and compare it with the original on real images.

    python tools/export_model.py --config-file CONFIG --format torch_export|onnx --output model.pt2|model.onnx
        [--steps T] [--stop-loop] [--images 4 | --input FILE ...] [--tolerance 0.0001]
        MODEL.WEIGHTS model_final.pth [KEY VALUE ...]

torch_export needs PyTorch alone to run: torch.export.load("model.pt2").module()(images). onnx needs onnxruntime alone.

Input "images": float32 [B, 3, H, W], any B, BGR, of size INPUT.IMAGE_SIZE (of the fast model INPUT.WINDOW_SIZE), less
MODEL.PIXEL_MEAN and divided by MODEL.PIXEL_STD (so in [0, 1] with this project's configs). Outputs by name for T steps:
soft "masks" [B, T, H, W], "scores" [B, T], "centers" and "sizes" of the boxes [B, T, 2] as (y, x) in pixels;
"class_probabilities" [B, T, K] of a model that scores classes, "foreground" [B, K, H, W] of one whose preprocessor
makes such maps. Postprocessing (threshold, size of the file, filters) is left to the caller.

Without --stop-loop the graph takes exactly T steps, unrolled; T is MODEL.REC_ATTEND.TIME_STEPS unless --steps says
otherwise. With --stop-loop there is one step in a loop, which ends when every image of the batch has had a step that
claims nothing, after T steps at the latest; scores from there on are 0, the rest of all outputs is filled with 0, and a
further output "steps" [] is the number of steps taken. Both formats have such loops. The fast model is exported with
one object per step, and needs --steps: more than any image has objects, since those beyond are not found.

The images are the first of DATASETS.TEST's first data set, or the files given. The exit code is 1 if an output differs
by more than --tolerance: absolutely, or relative to values above 1 (pixels).
"""

import argparse
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.modeling import build_model
from tabulate import tabulate
from torch import Tensor
from torch.nn import functional as F

from rec_attend_d2.checkpoint import load_weights
from rec_attend_d2.config import load_config
from rec_attend_d2.data import build_mapper, register_datasets, training_size
from rec_attend_d2.export import (
    EXPORT_FORMATS,
    Comparison,
    ExportError,
    ExportFormat,
    StopLoopModel,
    UnrolledModel,
    compare,
    trace,
)
from rec_attend_d2.modeling import RecurrentAttention

# Images per comparison.
BATCH = 4


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", required=True, help="the config the weights were trained with")
    parser.add_argument("--format", required=True, choices=sorted(EXPORT_FORMATS))
    parser.add_argument("--output", required=True, type=Path, help="file to write: .pt2 or .onnx")
    parser.add_argument("--steps", type=int, help="number of steps, with --stop-loop the largest one")
    parser.add_argument("--stop-loop", action="store_true", help="stop when there is no object left")
    images = parser.add_mutually_exclusive_group()
    images.add_argument("--images", type=int, default=4, help="compare on so many images of the test set (default 4)")
    images.add_argument("--input", type=Path, action="append", help="compare on this file; may be given several times")
    parser.add_argument("--tolerance", type=float, default=1e-4, help="largest difference allowed (default 0.0001)")
    parser.add_argument("opts", nargs="*", metavar="KEY VALUE", help="config changes, such as MODEL.WEIGHTS file")
    arguments = parser.parse_args()
    if arguments.images < 1:
        parser.error(f"--images is {arguments.images}; give at least 1.")
    if not arguments.tolerance >= 0:
        parser.error(f"--tolerance is {arguments.tolerance}; give 0 or more.")
    suffix = EXPORT_FORMATS[arguments.format].suffix
    if arguments.output.suffix != suffix:
        parser.error(f"--output is {arguments.output}, but files of format {arguments.format} end with {suffix}.")
    return arguments


def image_records(arguments: argparse.Namespace, cfg: CfgNode) -> list[dict]:
    """Dataset dicts of the images to compare on, without truth.

    Raises:
        ValueError, FileNotFoundError: there are none.
    """
    if arguments.input:
        missing = [str(path) for path in arguments.input if not path.is_file()]
        if missing:
            raise FileNotFoundError(f"--input names {', '.join(missing)}, which does not exist.")
        return [{"file_name": str(path)} for path in arguments.input]
    if not cfg.DATASETS.TEST:
        raise ValueError("DATASETS.TEST is empty: name images by --input.")
    cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (), tuple(cfg.DATASETS.TEST)[:1]
    register_datasets(cfg)
    records = DatasetCatalog.get(cfg.DATASETS.TEST[0])[: arguments.images]
    return [{"file_name": record["file_name"]} for record in records]


def build_trained_model(cfg: CfgNode) -> RecurrentAttention:
    """The model with its weights. Raises ValueError or FileNotFoundError where they are missing or do not fit."""
    if not cfg.MODEL.WEIGHTS:
        raise ValueError("MODEL.WEIGHTS is empty: add 'MODEL.WEIGHTS file.pth' with trained weights to the command.")
    model = build_model(cfg)
    load_weights(model, os.path.expanduser(cfg.MODEL.WEIGHTS), complete=True)
    return model.eval()


def batches(model: RecurrentAttention, records: list[dict], cfg: CfgNode) -> Iterator[Tensor]:
    """Network inputs: the first image alone, then batches, so that several numbers of images are tried."""
    mapper, (height, width) = build_mapper(cfg, is_train=False), training_size(cfg)

    def window(record: dict) -> dict:
        """The upper left part of a picture, of one size for all."""
        image = mapper(record)["image"]
        return {"image": F.pad(image, (0, width - image.shape[2], 0, height - image.shape[1]))}

    starts = [0, *range(1, len(records), BATCH)]
    for start, end in zip(starts, [*starts[1:], len(records)], strict=True):
        yield model.preprocess_image([window(record) for record in records[start:end]])


def export_and_compare(arguments: argparse.Namespace) -> Comparison:
    """Write the file, read it back and run it beside the original."""
    form: ExportFormat = EXPORT_FORMATS[arguments.format]
    form.check()
    cfg = load_config(arguments.config_file, arguments.opts)
    records = image_records(arguments, cfg)
    model = build_trained_model(cfg)
    steps = getattr(model, "time_steps", None) if arguments.steps is None else arguments.steps
    if steps is None:
        raise ExportError(
            "The fast model has no number of steps of its own: give --steps, more than an image has objects."
        )
    module: StopLoopModel | UnrolledModel = (StopLoopModel if arguments.stop_loop else UnrolledModel)(model, steps)
    program = trace(module, next(batches(model, records, cfg)))
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    form.save(program, arguments.output)
    size = arguments.output.stat().st_size / 1e6
    print(f"{arguments.output} is written: {size:.1f} MB, up to {module.steps} steps.")
    return compare(form.load(arguments.output), module.reference, batches(model, records, cfg))


def main() -> None:
    """Export, compare, print."""
    arguments = parse_arguments()
    try:
        comparison = export_and_compare(arguments)
    except (ExportError, FileNotFoundError, ValueError) as error:
        sys.exit(f"export_model: {error}")
    print(f"Largest differences from the original on {comparison.images} images (relative where values are above 1):")
    print(tabulate(comparison.differences.items(), headers=["output", "difference"], floatfmt=".2e"))
    above = comparison.above(arguments.tolerance)
    if above:
        sys.exit(f"export_model: {', '.join(above)} differ by more than --tolerance {arguments.tolerance:g}.")


if __name__ == "__main__":
    main()
