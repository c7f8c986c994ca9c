"""The parts of a comparison, each in a process of its own:

    python -m rec_attend_d2.benchmark.worker {train,evaluate} FOLDER

FOLDER/model.json holds a :class:`.models.ModelSpec`. ``train`` leaves weights and training.json, ``evaluate``
predictions.json and results.json, each only once it is done.
"""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.utils.logger import setup_logger
from torch import nn

from ..evaluation.coco_evaluator import load_truth
from ..process_memory import peak_memory
from ..report.selection import evenly_spaced
from ..whole_files import write_json
from .measuring import count_flops, timing, use_threads
from .models import ComparisonError, ModelSpec, inference_mapper, load_model, read_json
from .scoring import Found, choose_threshold, predict, score_all
from .training import FINAL, train_under_budget

MODEL, TRAINING, RESULTS = "model.json", "training.json", "results.json"
PREDICTIONS = "predictions.json"
# Images on which FLOPs are counted.
FLOP_IMAGES = 5


def annotated(dataset_name: str) -> list[dict]:
    """The images of a data set. Raises a ComparisonError unless all have annotations."""
    records = DatasetCatalog.get(dataset_name)
    if not records or any("annotations" not in record for record in records):
        raise ComparisonError(f"Data set '{dataset_name}' has images without annotations: name one with truth.")
    return records


class Judge:
    """Predicts and scores on the data sets of a comparison: always the same images, and the same rule.

    Attributes:
        mapper: makes the model's input of an image.
        records: test images.
    """

    def __init__(self, spec: ModelSpec, cfg: CfgNode):
        self.mapper = inference_mapper(cfg)
        self.records = annotated(spec.test)
        self._device = cfg.MODEL.DEVICE
        self._truth, self._training_truth = load_truth(spec.test), load_truth(spec.train)
        self._training_records = evenly_spaced(annotated(spec.train), spec.threshold_images)

    def predict(self, model: nn.Module) -> tuple[Found, list[float]]:
        """Predictions for the test images, and their seconds."""
        return predict(model, self.records, self.mapper, self._truth, self._device)

    def judge(self, model: nn.Module, found: Found) -> dict[str, Any]:
        """Threshold, metrics and scored images of a model with these predictions for the test images."""
        training = predict(model, self._training_records, self.mapper, self._training_truth, self._device)[0]
        threshold = choose_threshold(self._training_records, training)
        return score_all(self._truth, self.records, found, threshold)

    def curve_point(self, model: nn.Module) -> dict[str, float]:
        """What the learning curve keeps of a model in training."""
        judged = self.judge(model, self.predict(model)[0])
        return {"threshold": judged["threshold"], **judged["metrics"]}


def train(spec: ModelSpec, folder: Path) -> None:
    """Train, or go on with an interrupted training."""
    cfg = spec.config(folder)
    spent = train_under_budget(spec, cfg, Judge(spec, cfg).curve_point)
    content = {
        **spent.state_dict(),
        "initial_weights": cfg.MODEL.WEIGHTS,
        "images_per_iteration": cfg.SOLVER.IMS_PER_BATCH,
    }
    write_json(folder / TRAINING, content)


def evaluate(spec: ModelSpec, folder: Path) -> None:
    """Predict once, and compute every figure from that."""
    cfg = spec.config(folder)
    model = load_model(cfg, spec.weights or str(folder / f"{FINAL}.pth"))
    judge = Judge(spec, cfg)
    found, seconds = judge.predict(model)
    memory = peak_memory(cfg.MODEL.DEVICE)
    write_json(folder / PREDICTIONS, [detection for entry in found.values() for detection in entry], indent=None)
    few = evenly_spaced(judge.records, FLOP_IMAGES)
    flops = [count_flops(partial(model.forward, [judge.mapper(record)])) for record in few]
    content = {
        "meta_architecture": cfg.MODEL.META_ARCHITECTURE,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "flops_per_image": sum(flops) / len(flops),
        "seconds_per_image": timing(seconds),
        "inference_memory": memory,
        **judge.judge(model, found),
    }
    write_json(folder / RESULTS, content)


PARTS: dict[str, tuple[Callable[[ModelSpec, Path], None], str]] = {
    "train": (train, TRAINING),
    "evaluate": (evaluate, RESULTS),
}
"""What each part does, and the file that says that it is done."""


def main(part: str, folder: str) -> None:
    """Do one part; a ComparisonError becomes one line."""
    setup_logger()
    setup_logger(name="rec_attend_d2")
    try:
        spec = ModelSpec(**read_json(Path(folder, MODEL)))
        use_threads(spec.threads)
        PARTS[part][0](spec, Path(folder))
    except ComparisonError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main(*sys.argv[1:])
