"""Checkpoints that survive an interruption while they are written, and damage."""

import os
import re
from pathlib import Path
from typing import Any

import torch
from detectron2.checkpoint import DetectionCheckpointer

from ..checkpoint.integrity import is_whole
from ..checkpoint.loading import check_fit
from ..whole_files import written_at_once

# Files of PeriodicCheckpointer, by iteration.
_PERIODIC = re.compile(r"model_(\d+)\.pth")
# File of the best checkpoint, without ending. It is for use, not for going on: Detectron2 writes it in the middle of
# the evaluation's bookkeeping.
BEST_NAME = "model_best"
# Names the checkpoint to go on from.
LAST_NAME = "last_checkpoint"
# Entry of a training's checkpoints that holds the trainer's state.
TRAINER_KEY = "trainer"


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
        path = Path(self.save_dir, LAST_NAME)
        with written_at_once(path) as partial:
            partial.write_text(last_filename_basename)

    def has_checkpoint(self) -> bool:
        """Whether there is a checkpoint that a training can go on from."""
        return self.get_checkpoint_file() != ""

    def get_checkpoint_file(self) -> str:
        """The checkpoint to go on from: the last one, or the latest before it that is whole; "" if there is none.

        It reads the files that it looks at, to compare their checksums.
        """
        tagged = self._tagged()
        if tagged and is_whole(tagged):
            return tagged
        names = os.listdir(self.save_dir) if os.path.isdir(self.save_dir) else []
        numbers = {name: int(match[1]) for name in names if (match := _PERIODIC.fullmatch(name))}
        paths = [os.path.join(self.save_dir, name) for name in sorted(numbers, key=lambda name: -numbers[name])]
        whole = next((path for path in paths if path != tagged and is_whole(path)), "")
        if tagged or whole:
            problem = f"'{tagged}' (named by {LAST_NAME}) is missing or broken" if tagged else f"No usable {LAST_NAME}"
            remedy = f"going on from '{whole}'" if whole else "there is no checkpoint to go on from"
            self.logger.warning("%s, perhaps because writing was interrupted: %s.", problem, remedy)
        return whole

    def _tagged(self) -> str:
        """Path of the checkpoint that last_checkpoint names; "" where it names none."""
        try:
            name = Path(self.save_dir, LAST_NAME).read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError):
            return ""
        return os.path.join(self.save_dir, name) if name.isprintable() and name else ""

    def _torch_load(self, f: str) -> dict:
        return torch.load(f, map_location="cpu", weights_only=True)

    def _load_model(self, checkpoint: dict) -> Any:
        # A training goes on with the model that it had; weights to start from may be others, see Detectron2.
        if TRAINER_KEY in checkpoint:
            check_fit(checkpoint["model"], self.model.state_dict(), f"The checkpoint in '{self.save_dir}'", True)
        return super()._load_model(checkpoint)


def read_trainer_state(path: str) -> dict[str, Any]:
    """What a training's trainer has noted in a checkpoint file, without reading the tensors; {} where it has nothing.

    Raises:
        OSError, RuntimeError, pickle.UnpicklingError: it is no checkpoint.
    """
    content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    return content.get(TRAINER_KEY, {}) | {"iteration": content.get("iteration", -1)}
