"""Checkpoints that survive an interruption while they are written."""

import os
import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer

from ..whole_files import written_at_once

# Files of PeriodicCheckpointer, by iteration.
_PERIODIC = re.compile(r"model_(\d+)\.pth")
# File of the best checkpoint, without ending. It is for use, not for going on: Detectron2 writes it in the middle of
# the evaluation's bookkeeping.
BEST_NAME = "model_best"


class SafeCheckpointer(DetectionCheckpointer):
    """Detectron2's checkpointer; files appear whole or not at all, and resuming passes over a broken one."""

    def save(self, name: str, **kwargs: Any) -> None:
        """Write ``name``.pth with the model, what was added to this checkpointer, and ``kwargs``."""
        if not self.save_dir or not self.save_to_disk:
            return
        data = {"model": self.model.state_dict()}
        data.update((key, value.state_dict()) for key, value in self.checkpointables.items())
        data.update(kwargs)
        path = Path(self.save_dir, f"{name}.pth")
        self.logger.info("Saving checkpoint to %s", path)
        with written_at_once(path) as partial:
            torch.save(data, partial)
        if name != BEST_NAME:
            self.tag_last_checkpoint(f"{name}.pth")

    def tag_last_checkpoint(self, last_filename_basename: str) -> None:
        """Note which file a resumed training takes."""
        path = Path(self.save_dir, "last_checkpoint")
        with written_at_once(path) as partial:
            partial.write_text(last_filename_basename)

    def has_checkpoint(self) -> bool:
        """Whether there is a checkpoint that a training can go on from."""
        return self.get_checkpoint_file() != ""

    def get_checkpoint_file(self) -> str:
        """The checkpoint to go on from: the last one, or the latest before it that is whole; "" if there is none."""
        tagged = super().get_checkpoint_file() if super().has_checkpoint() else ""
        if os.path.isfile(tagged) and zipfile.is_zipfile(tagged):
            return tagged
        names = os.listdir(self.save_dir) if os.path.isdir(self.save_dir) else []
        numbers = {name: int(match[1]) for name in names if (match := _PERIODIC.fullmatch(name))}
        paths = [os.path.join(self.save_dir, name) for name in sorted(numbers, key=lambda name: -numbers[name])]
        whole = next((path for path in paths if zipfile.is_zipfile(path)), "")
        if tagged or whole:
            problem = f"'{tagged}' (named by last_checkpoint) is missing or broken" if tagged else "No last_checkpoint"
            remedy = f"going on from '{whole}'" if whole else "there is no checkpoint to go on from"
            self.logger.warning("%s, perhaps because writing was interrupted: %s.", problem, remedy)
        return whole
