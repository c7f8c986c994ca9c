"""The folder of a training: one training at a time, never over another one, and resumed only as what it was."""

import os
from pathlib import Path
from pickle import UnpicklingError
from typing import IO

from detectron2.config import CfgNode

from ..config import changed_settings
from ..whole_files import Held, hold
from .checkpointer import LAST_NAME, read_trainer_state

# Says which process trains in a folder. It stays when the process ends, without meaning anything.
LOCK_NAME = ".training_lock"
# Results of the evaluation after the last iteration.
RESULTS_NAME = "metrics_final.json"
# Entry of a trainer's state with the config as text.
CONFIG_KEY = "config"
# Settings, or beginnings of them, without which what was learned or what the optimizer knows means something else, ...
_FIXED = (
    *("MODEL.", "DATASETS.TRAIN", "SOLVER.OPTIMIZER", "SOLVER.AMP.ENABLED", "INPUT.FORMAT", "INPUT.IMAGE_SIZE"),
    *("INPUT.OBJECT_", "INPUT.WINDOW_SIZE", "INPUT.CONTRAST_PERCENTILES"),
)
# ... except for these.
_FREE = (
    *("MODEL.WEIGHTS", "MODEL.DEVICE", "MODEL.REC_ATTEND.TEST.", "MODEL.REC_ATTEND.TRAINING."),
    "MODEL.REC_ATTEND.CLASS_NAMES",
)
_held: list[IO[str]] = []


class Refused(ValueError):
    """Something that is not done, for a reason that the message gives in one sentence, with what to do instead."""


def hold_folder(folder: Path, option: str = "OUTPUT_DIR") -> None:
    """Let no other process train in a folder until this one ends, however it ends.

    Args:
        folder: made where there is none.
        option: what the user names it by, for errors.

    Raises:
        Refused: another process trains in it; the message says which.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _held.append(hold(folder / LOCK_NAME))
    except OSError as error:
        raise Refused(f"'{folder}' cannot be written to ({error.strerror}): give another {option}.") from error
    except Held as holder:
        raise Refused(
            f"'{folder}' is being trained in by {holder}: wait for its end, end it, or give another {option}."
        ) from None


def check_unused(folder: Path) -> None:
    """Raise :class:`Refused` where a folder holds a training, which a new one would write over."""
    checkpoints = [*folder.glob("model_*.pth"), *folder.glob(LAST_NAME)]
    if checkpoints:
        raise Refused(
            f"'{folder}' holds a training ({checkpoints[0].name}), which another one would write over: add --resume to "
            "go on with it, give another OUTPUT_DIR, or remove the folder to begin anew."
        )


def check_resumable(cfg: CfgNode, checkpoint: str) -> list[str]:
    """Compare a config with that of a checkpoint, from which a training is to go on.

    Checkpoints of older versions do not say what they were trained with.

    Returns:
        Settings that differ and may, such as the number of iterations.

    Raises:
        Refused: settings differ that may not, such as the network or the data.
    """
    try:
        text = read_trainer_state(checkpoint).get(CONFIG_KEY)
    except (AttributeError, OSError, RuntimeError, UnpicklingError):
        return []  # reading all of it says what is wrong
    if text is None:
        return []
    changed = changed_settings(cfg, text)
    fixed = {key: pair for key, pair in changed.items() if key.startswith(_FIXED) and not key.startswith(_FREE)}
    if fixed:
        first = sorted(fixed.items(), key=lambda item: item[0] != "MODEL.META_ARCHITECTURE")[:3]
        shown = ", ".join(f"{key} is {new!r} and was {old!r}" for key, (old, new) in first)
        more = f", and {len(fixed) - 3} more" if len(fixed) > 3 else ""
        raise Refused(
            f"'{os.path.dirname(checkpoint)}' holds a training of something else: {shown}{more}. Resume it with its "
            f"own settings, or give another OUTPUT_DIR (and MODEL.WEIGHTS {checkpoint}, to start from what it learned)."
        )
    return sorted(changed)
