"""The folder of a model that ``rec-attend train`` makes, in which nothing of the user's may be lost."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from ..data.datasets.annotated import Annotated
from ..engine.output_folder import LOCK_NAME
from ..planning import Plan

# What a model's folder holds; the report is written last. All that is not for the user lies in TRAINING.
PLAN, CONFIG, WEIGHTS, CARD, REPORT = "plan.yaml", "config.yaml", "model.pth", "README.md", "report.html"
TRAINING = "training"
DATA = f"{TRAINING}/data"
_FILES = (PLAN, CONFIG, WEIGHTS, CARD, REPORT, "evaluation.csv", "evaluation.json")


def is_finished(output: Path) -> bool:
    """Whether a training ended there."""
    return all((output / name).is_file() for name in (PLAN, CONFIG, WEIGHTS, REPORT))


def check_free(output: Path, wished: Plan, plan_file: Path | None) -> None:
    """Raise a ValueError where the training would write over something that no training of this folder wrote.

    Args:
        output: the folder; before it is locked for the first time.
        wished: names the pictures.
        plan_file: of ``--plan``.
    """
    inside = (output / TRAINING).resolve()
    inputs = [plan_file, *_paths(wished.data)]
    inputs += _paths(wished.validation) if isinstance(wished.validation, Annotated) else []
    for path in inputs:
        if path is not None and (path.resolve() == (output / PLAN).resolve() or path.resolve().is_relative_to(inside)):
            raise ValueError(
                f"{path} lies where the training writes its own files: name another --output than {output}."
            )
    if (output / LOCK_NAME).exists():  # a training has been here
        return
    foreign = [name for name in (*_FILES, TRAINING) if (output / name).exists()]
    if foreign:
        raise ValueError(
            f"{output} has {', '.join(foreign)}, which no rec-attend train wrote and it would write over: name a new "
            "--output."
        )


def _paths(pictures: Annotated) -> list[Path | None]:
    return [pictures.images, pictures.labels, pictures.coco]


def clear(output: Path, names: Iterable[str] = _FILES) -> None:
    """Remove what an earlier training left in the folder, and nothing else."""
    for name in names:
        (output / name).unlink(missing_ok=True)
    if (output / TRAINING).exists():
        shutil.rmtree(output / TRAINING)


def check_same(plan: Plan, wished: Plan, output: Path) -> None:
    """Raise a ValueError where the folder has a training of something else than what is wished."""
    different = []
    if plan.data.absolute() != wished.data.absolute():
        different.append("pictures, or another way to read them")
    if wished.validation and _absolute(plan) != _absolute(wished):
        different.append("pictures for validation")
    if not wished.validation and isinstance(plan.validation, Annotated):
        different.append("pictures for validation")
    if plan.minutes != wished.minutes:
        different.append("minutes")
    if any(plan.settings.get(key) != item for key, item in wished.settings.items()):
        different.append("settings")
    if different:
        raise ValueError(
            f"{output} has a training with other {' and '.join(different)} (see {output / PLAN}). Name another "
            "--output, or begin anew by --overwrite."
        )


def _absolute(plan: Plan) -> list[str] | Annotated:
    return plan.validation.absolute() if isinstance(plan.validation, Annotated) else plan.validation
