"""One part of a comparison in a process of its own, so that memory, threads and failures are that part's alone:

    python -m rec_attend_d2.comparison.worker {pace,train,evaluate} FOLDER

FOLDER/model.json holds a :class:`.models.ModelSpec`. ``pace``, which only a budget in minutes needs, leaves pace.json,
``train`` weights and training.json, ``evaluate`` predictions and results.json, each only once it is done.
"""

import os
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.modeling import build_model
from detectron2.utils.env import seed_all_rng
from detectron2.utils.logger import setup_logger
from torch import nn

from ..benchmark.batches import is_of_this_project
from ..benchmark.compute import count_flops
from ..benchmark.suite import Effort, timing_row
from ..benchmark.timing import Timing
from ..checkpoint import load_weights
from ..evaluation.coco_evaluator import load_truth
from ..process_memory import peak_memory
from ..whole_files import write_json
from .budget import Spent, fit_schedule
from .files import ComparisonError, read_json
from .models import ModelSpec, inference_mapper
from .predictions import Predictions, predict
from .scoring import choose_threshold, evenly_spaced, score_images, summarize_images
from .training import CURVE, FINAL, build_trainer

MODEL, PACE, TRAINING, RESULTS = "model.json", "pace.json", "training.json", "results.json"
PREDICTIONS = "predictions.json"
# Images on which FLOPs are counted.
FLOP_IMAGES = 5
# Of all results, what the learning curve keeps.
CURVE_METRICS = ("AP", "AP50", "SBD", "abs_DiC", "count_accuracy", "MWCov")


def annotated(dataset_name: str) -> list[dict]:
    """The images of a data set. Raises a ComparisonError unless all have annotations."""
    records = DatasetCatalog.get(dataset_name)
    if not records or any("annotations" not in record for record in records):
        raise ComparisonError(f"Data set '{dataset_name}' has images without annotations: name one with truth.")
    return records


class Judge:
    """Predicts and scores on the data sets of a comparison: always the same images, and the same rule."""

    def __init__(self, spec: ModelSpec, cfg: CfgNode):
        self._mapper = inference_mapper(cfg)
        self._device = cfg.MODEL.DEVICE
        self._truths = {name: load_truth(name) for name in (spec.train, spec.test)}
        self._spec = spec
        self.records = annotated(spec.test)
        self.training_records = evenly_spaced(annotated(spec.train), spec.threshold_images)

    def on_training(self, model: nn.Module) -> Predictions:
        """Predictions for the training images on which the threshold is chosen."""
        return predict(model, self.training_records, self._mapper, self._truths[self._spec.train], self._device)

    def on_test(self, model: nn.Module) -> Predictions:
        """Predictions for the test images."""
        return predict(model, self.records, self._mapper, self._truths[self._spec.test], self._device)

    def summarize(self, training: Predictions, test: Predictions) -> tuple[float, list, dict[str, float]]:
        """Threshold, scored test images and metrics."""
        threshold = choose_threshold(self.training_records, training.detections)
        images = score_images(self.records, test.detections, threshold)
        return threshold, images, summarize_images(images, self._truths[self._spec.test], test.detections)

    def curve_point(self, model: nn.Module) -> dict[str, float]:
        """What the learning curve keeps of a model in training."""
        threshold, _, metrics = self.summarize(self.on_training(model), self.on_test(model))
        return {"threshold": threshold, **{name: metrics[name] for name in CURVE_METRICS}}

    def mean_flops(self, model: nn.Module) -> float:
        """Counted operations per image, mean over some test images; see :func:`..benchmark.compute.count_flops`."""
        records = evenly_spaced(self.records, FLOP_IMAGES)
        return sum(count_flops(partial(model.forward, [self._mapper(record)])) for record in records) / len(records)


def measure_pace(spec: ModelSpec, folder: Path) -> None:
    """Measure the seconds of a training iteration."""
    with tempfile.TemporaryDirectory() as scratch:
        cfg = spec.config(Path(scratch))
        seed_all_rng(spec.seed)
        pace = build_trainer(cfg, Spent(spec.training_budget())).pace()
    write_json(folder / PACE, {"seconds_per_iteration": pace})


def train(spec: ModelSpec, folder: Path) -> None:
    """Train, or go on with an interrupted training."""
    cfg = spec.config(folder)
    budget = spec.training_budget()
    fit_schedule(
        cfg, budget.iterations or budget.expected_iterations(read_json(folder / PACE)["seconds_per_iteration"])
    )
    spent = Spent(budget)
    seed_all_rng(spec.seed)
    trainer = build_trainer(cfg, spent)
    trainer.resume_or_load(resume=True)
    # Not the images over again that were seen before the interruption.
    seed_all_rng(spec.seed + spent.iterations)
    (folder / "config.yaml").write_text(cfg.dump())
    trainer.train_under_budget(Judge(spec, cfg).curve_point)
    content = {
        "seconds": spent.seconds,
        "cpu_seconds": spent.cpu_seconds,
        "stalls": spent.stalls,
        "iterations": spent.iterations,
        "initial_weights": cfg.MODEL.WEIGHTS,
        "images_per_iteration": cfg.SOLVER.IMS_PER_BATCH,
        "planned_iterations": cfg.SOLVER.MAX_ITER,
        "peak_memory": spent.peak_memory,
        "curve": read_json(folder / CURVE),
    }
    write_json(folder / TRAINING, content)


def load_model(cfg: CfgNode, weights: str) -> nn.Module:
    """The model of a config with finished weights, in evaluation mode."""
    model = build_model(cfg)
    if is_of_this_project(cfg):
        load_weights(model, os.path.expanduser(weights), complete=True)
    else:
        DetectionCheckpointer(model).load(weights)
    return model.eval()


def evaluate(spec: ModelSpec, folder: Path) -> None:
    """Predict once, and compute every figure from that."""
    cfg = spec.config(folder)
    model = load_model(cfg, spec.weights or str(folder / FINAL))
    judge = Judge(spec, cfg)
    test = judge.on_test(model)
    memory = peak_memory(cfg.MODEL.DEVICE)
    training = judge.on_training(model)
    write_json(folder / PREDICTIONS, test.flat(), indent=None)
    threshold, images, metrics = judge.summarize(training, test)
    content: dict[str, Any] = {
        "meta_architecture": cfg.MODEL.META_ARCHITECTURE,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "flops_per_image": judge.mean_flops(model),
        "seconds_per_image": timing_row(Timing.of(test.seconds)),
        "inference_memory": memory,
        "threshold": threshold,
        "metrics": metrics,
        "images": [
            {
                "image_id": image.image_id,
                "file_name": image.file_name,
                **vars(image.scores),
                "best_iou": image.best_iou.tolist(),
                "seconds": seconds,
            }
            for image, seconds in zip(images, test.seconds, strict=True)
        ],
    }
    write_json(folder / RESULTS, content)


PARTS = {"pace": measure_pace, "train": train, "evaluate": evaluate}


def main(part: str, folder: str) -> None:
    """Do one part; a ComparisonError becomes one line."""
    setup_logger()
    setup_logger(name="rec_attend_d2")
    try:
        spec = ModelSpec.of(read_json(Path(folder, MODEL)))
        Effort(repeats=1, warmup=0, threads=spec.threads).use_threads()
        PARTS[part](spec, Path(folder))
    except ComparisonError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(*sys.argv[1:])
