"""``rec-attend train``: from annotated pictures to a model, with nothing to choose."""

import argparse
import logging
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from detectron2.config import CfgNode
from tabulate import tabulate
from tqdm import tqdm

from ..checkpoint.files import save_inference_weights
from ..data import register_datasets
from ..data.object_size import network_scale
from ..engine.output_folder import hold_folder
from ..engine.time_budget import SCHEDULE_LENGTH, measure_speed, train_for
from ..planning import Plan
from ..planning.preparation import Prepared, coco_entries, prepare, read_prepared
from ..planning.schedule import make_schedule, without_schedule
from ..prediction import Predictor
from ..report.card import write_card
from ..report.measure import Measured, measure
from ..report.thresholds import PICTURES, THRESHOLDS, Chosen, choose_threshold
from ..report.training_report import write_report
from ..whole_files import written_at_once
from .annotations import add_annotation_arguments, annotated
from .model_folder import (
    CARD,
    CONFIG,
    DATA,
    PLAN,
    REPORT,
    TRAINING,
    WEIGHTS,
    check_free,
    check_same,
    clear,
    is_finished,
)

DEFAULT_MINUTES = 20.0
# Share of the time that learning and what follows get at least, however long it took to look at the pictures.
_LEAST_SHARE = 0.4
# Of fewer validation objects an error says little.
_FEW_OBJECTS = 150
# The options about data, and what they are where nobody gives them.
_DATA_OPTIONS = {
    **dict.fromkeys(("images", "labels", "coco", "val_images", "val_labels", "val_coco", "background", "unlabeled")),
    **{"image_suffix": "", "label_suffix": "", "pieces": "check", "category": "object"},
}
_WORDS = {"pieces": "--split-components and --keep-components"}
# What the bar shows, and its name in the log.
_SHOWN = {"loss": "total_loss", "SBD": "counting/SBD", "count error": "counting/abs_DiC"}
_LOGGED = ("detectron2", "fvcore", "rec_attend_d2")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    add_annotation_arguments(parser)
    validation = parser.add_argument_group("pictures for validation, if not a part of these")
    validation.add_argument("--val-images", type=Path, metavar="FOLDER", help="images (default: the --images)")
    validation.add_argument("--val-labels", type=Path, metavar="FOLDER", help="their label images")
    validation.add_argument("--val-coco", type=Path, metavar="FILE", help="their annotations in COCO format")
    parser.add_argument("--plan", type=Path, metavar="FILE", help="train by a plan.yaml that was written and edited")
    parser.add_argument("--output", type=Path, required=True, metavar="FOLDER", help="folder of the model")
    parser.add_argument("--minutes", type=float, help=f"of all together (default {DEFAULT_MINUTES:g})")
    parser.add_argument("--category", default="object", metavar="NAME", help="what objects of label images are")
    parser.add_argument("--overwrite", action="store_true", help="begin anew, even if a model is there")


def run(arguments: argparse.Namespace) -> None:
    """Look, plan, train, choose the threshold, measure, report; an interrupted run goes on where it was."""
    started = time.perf_counter()
    output, wished = arguments.output, _wished(arguments)
    check_free(output, wished, arguments.plan)
    hold_folder(output, "--output")
    if arguments.overwrite:
        clear(output)
    if (output / PLAN).is_file():
        plan = Plan.read(output / PLAN)
        check_same(plan, wished, output)
        if is_finished(output):
            print(f"{output} is finished: see {output / REPORT}. --overwrite trains it anew.")
            return
        print(f"Going on with {output}.")
        prepared = read_prepared(plan, output / DATA)
    else:
        prepared = _begin(output, wished, started)
    _log_to(output / TRAINING / "log.txt")
    cfg = _training_config(prepared.plan, output)
    weights = _train(cfg, 60 * prepared.plan.learning_minutes)
    _finish(cfg, weights, prepared, output)
    print(f"\nCount by it:\n\n    rec-attend count --model {output} new_images --output results")


def _wished(arguments: argparse.Namespace) -> Plan:
    """What the command line asks for, with settings only where a plan gives them. Raises ValueError."""
    if arguments.plan is not None:
        given = [name for name, usual in _DATA_OPTIONS.items() if getattr(arguments, name) != usual]
        if given:
            names = ", ".join(_WORDS.get(name, f"--{name.replace('_', '-')}") for name in given)
            raise ValueError(
                f"--plan says itself where its data are and how they are read: leave out {names}, or edit it."
            )
        plan = Plan.read(arguments.plan)
        minutes = _checked(plan.minutes if arguments.minutes is None else arguments.minutes)
        plan.config()  # a wrong key is said before the pictures are looked at
        # The schedule of as many minutes may have been edited; that of others is made anew.
        settings = plan.settings if minutes == plan.minutes else without_schedule(plan.settings)
        return replace(plan, minutes=minutes, settings=settings, learning_minutes=0.0)
    if arguments.images is None:
        raise ValueError("Say where the pictures are: --images with --labels or --coco, or --plan.")
    minutes = _checked(DEFAULT_MINUTES if arguments.minutes is None else arguments.minutes)
    data = annotated(arguments, arguments.images, arguments.labels, arguments.coco, arguments.category)
    if arguments.val_labels is None and arguments.val_coco is None:
        if arguments.val_images is not None:
            raise ValueError("--val-images needs --val-labels or --val-coco.")
        return Plan(data, [], "", minutes)
    images = arguments.val_images or arguments.images
    validation = annotated(arguments, images, arguments.val_labels, arguments.val_coco, arguments.category)
    return Plan(data, validation, "given by the user", minutes)


def _checked(minutes: float) -> float:
    if not minutes > 0:
        raise ValueError(f"The time is {minutes} minutes; give more than 0 (--minutes).")
    return minutes


def _begin(output: Path, wished: Plan, started: float) -> Prepared:
    """Look at the data and make the plan, which is written last."""
    clear(output, [REPORT])
    prepared = prepare(wished, output / DATA, partial(tqdm, unit="picture", desc="looking", leave=False, disable=None))
    print(tabulate(prepared.found))
    for line in prepared.doubts:
        print(f"Look at this: {line}.")
    _log_to(output / TRAINING / "log.txt")
    cfg = _training_config(prepared.plan, output)
    speed = measure_speed(cfg)
    left = 60 * wished.minutes - (time.perf_counter() - started)
    least = 60 * _LEAST_SHARE * wished.minutes
    if left < least:
        print(
            f"Looking at the pictures took long: the training ends {(least - left) / 60:.1f} minutes later than wished."
        )
        left = least
    schedule = make_schedule(left, speed, prepared.validation_sizes, network_scale(cfg), PICTURES * len(THRESHOLDS))
    settings = schedule.settings | prepared.plan.settings
    plan = replace(prepared.plan, settings=settings, learning_minutes=round(schedule.learning / 60, 3))
    plan.write(output / PLAN)
    print(tabulate(setting_rows(plan), ["setting", "", "why"], maxcolwidths=[None, 24, 60]))
    print(f"Validation: {plan.why_validation}.\nAll of it, to be edited: {output / PLAN}")
    return replace(prepared, plan=plan)


def setting_rows(plan: Plan) -> list[tuple[str, str, str]]:
    """Key, value and reason of every setting, in words."""
    values = [item.value for item in plan.settings.values()]
    words = [", ".join(map(str, value)) if isinstance(value, list) else str(value) for value in values]
    return [(key, word, item.why) for (key, item), word in zip(plan.settings.items(), words, strict=True)]


def _training_config(plan: Plan, output: Path) -> CfgNode:
    cfg = plan.config()
    cfg.DATASETS.COCO_FILES = coco_entries(plan, output / DATA, output.absolute().name)
    (cfg.DATASETS.TRAIN,), (cfg.DATASETS.TEST,) = ([(entry[0],)] for entry in cfg.DATASETS.COCO_FILES)
    cfg.OUTPUT_DIR = str(output / TRAINING)
    cfg.SOLVER.MAX_ITER = SCHEDULE_LENGTH
    register_datasets(cfg)
    cfg.freeze()
    return cfg


def _log_to(path: Path) -> None:
    """Let the libraries log into a file, and only warnings on the screen."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file, screen = logging.FileHandler(path), logging.StreamHandler(sys.stderr)
    screen.setLevel(logging.WARNING)
    for name in _LOGGED:
        logger = logging.getLogger(name)
        logger.setLevel(logging.INFO)
        logger.handlers, logger.propagate = [file, screen], False


def _train(cfg: CfgNode, seconds: float) -> Path:
    """The checkpoint to use; a bar shows how far it is."""
    layout = "{l_bar}{bar}| {elapsed}, {remaining} left{postfix}"
    with tqdm(total=100, desc="training", bar_format=layout, disable=None) as bar:

        def tell(share: float, latest: Mapping[str, float]) -> None:
            shown = {name: latest[key] for name, key in _SHOWN.items() if key in latest}
            bar.set_postfix({name: f"{value:.3g}" for name, value in shown.items()}, refresh=False)
            bar.update(100 * share - bar.n)

        return train_for(cfg, seconds, tell)


def _finish(cfg: CfgNode, weights: Path, prepared: Prepared, output: Path) -> None:
    """Write the model with its threshold, measure it and report."""
    with written_at_once(output / WEIGHTS) as partial_file:
        save_inference_weights(str(weights), str(partial_file))
    predictor = Predictor(cfg, output / WEIGHTS)
    bar = partial(tqdm, unit="picture", leave=False, disable=None)
    chosen = choose_threshold(predictor, cfg.DATASETS.TRAIN[0], progress=partial(bar, desc="threshold"))
    predictor.score_threshold = chosen.threshold
    with written_at_once(output / CONFIG) as partial_file:
        partial_file.write_text(_final_config(cfg, chosen.threshold).dump(), encoding="utf-8")
    measured = measure(predictor, cfg.DATASETS.TEST[0], partial(bar, desc="measuring"))
    doubts = [("look at this", line) for line in prepared.doubts]
    findings = [*prepared.found, *doubts, ("validation", prepared.plan.why_validation)]
    title = output.absolute().name
    write_card(output / CARD, title, findings, measured, prepared.plan.why_validation)
    settings = [*setting_rows(prepared.plan), _threshold_row(chosen)]
    write_report(
        output,
        f"{title}: what the model finds, and what it misses",
        measured,
        predictor,
        plan=settings,
        findings=findings,
        metrics_file=_logged(output / TRAINING / "metrics.json"),
    )
    _say(measured, chosen, output)


def _logged(metrics_file: Path) -> Path | None:
    """The file, unless the training was too short to log anything (every 20 iterations)."""
    return metrics_file if metrics_file.is_file() and metrics_file.stat().st_size else None


def _final_config(cfg: CfgNode, threshold: float) -> CfgNode:
    """The config of the finished model, without the paths of its training."""
    final = cfg.clone()
    final.defrost()
    final.MODEL.REC_ATTEND.TEST.SCORE_THRESHOLD = threshold
    final.MODEL.WEIGHTS, final.OUTPUT_DIR = WEIGHTS, "output"
    final.DATASETS.COCO_FILES, final.DATASETS.TRAIN, final.DATASETS.TEST = [], (), ()
    final.freeze()
    return final


def _threshold_row(chosen: Chosen) -> tuple[str, str, str]:
    tried = "; ".join(f"{item.threshold:g}: {item.sbd:.3f} / {item.relative_count_error:.1%}" for item in chosen.tried)
    why = f"SBD / count error on {chosen.pictures} training pictures: {tried}"
    return "MODEL.REC_ATTEND.TEST.SCORE_THRESHOLD", f"{chosen.threshold:g}", why


def _say(measured: Measured, chosen: Chosen, output: Path) -> None:
    summary = measured.summary
    (own,) = (item for item in chosen.tried if item.threshold == chosen.threshold)
    print(
        f"\nOn {summary['pictures']:g} validation pictures with {summary['true_count']:g} objects: counts are off by "
        f"{summary['abs_DiC']:.2f} in the mean ({summary['relative_count_error']:.1%} of the objects), outlines agree "
        f"by {summary['SBD']:.3f} (SBD, 1 is best). On {chosen.pictures} training pictures: "
        f"{own.relative_count_error:.1%}, {own.sbd:.3f}."
    )
    if summary["true_count"] < _FEW_OBJECTS:
        print(
            f"These are few objects to measure on: expect more than {summary['relative_count_error']:.1%} on new "
            "pictures."
        )
    print(f"Pictures, curves, what is missed: {output / REPORT}")
