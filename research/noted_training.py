#!/usr/bin/env python
"""tools/train_net.py, and a note of every iteration: its number, its loss, the memory of the process.

    python research/noted_training.py NOTES ARGUMENTS OF train_net.py
    python research/noted_training.py NOTES --predict --config-file FILE KEY VALUE ...

The second predicts pictures of DATASETS.TEST, again and again until it is ended, with a note of each.
"""

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import cv2
from detectron2.data import DatasetCatalog
from detectron2.engine import HookBase, default_argument_parser
from detectron2.utils import comm

from rec_attend_d2.config import load_config
from rec_attend_d2.data import register_datasets
from rec_attend_d2.engine import Trainer
from rec_attend_d2.engine.processes import run
from rec_attend_d2.prediction import Predictor
from rec_attend_d2.process_memory import resident_bytes

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))
import train_net  # noqa: E402


def note(**values: Any) -> None:
    """Append a line to the notes."""
    with open(sys.argv[1], "a") as file:
        file.write(json.dumps({**values, "memory": resident_bytes()[0]}) + "\n")


class NotesHook(HookBase):
    """Notes every iteration."""

    def after_step(self) -> None:
        """Note it."""
        if comm.is_main_process():
            loss, iteration = self.trainer.storage.latest()["total_loss"]
            note(iteration=iteration, loss=loss)


class NotedTrainer(Trainer):
    """With the notes before everything that saves."""

    def build_hooks(self) -> list:
        """See :class:`Trainer`."""
        return [NotesHook(), *super().build_hooks()]


# Here, so that processes that are started for a training do it too.
train_net.Trainer = NotedTrainer


def predict(words: list[str]) -> None:
    """Predict until somebody ends this process."""
    arguments = default_argument_parser().parse_args(words)
    cfg = load_config(arguments.config_file, arguments.opts)
    register_datasets(cfg)
    predictor = Predictor(cfg, cfg.MODEL.WEIGHTS)
    pictures = [cv2.imread(entry["file_name"]) for entry in DatasetCatalog.get(cfg.DATASETS.TEST[0])]
    for picture in itertools.cycle(pictures):
        predictor(picture)
        note()


if __name__ == "__main__":
    if sys.argv[2] == "--predict":
        predict(sys.argv[3:])
    else:
        run(train_net.main, default_argument_parser().parse_args(sys.argv[2:]))
