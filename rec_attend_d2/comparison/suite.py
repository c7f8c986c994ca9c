"""Runs the parts of a comparison that are not done yet, and gathers its results."""

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..benchmark.processes import environment
from ..whole_files import write_json
from .files import ComparisonError, read_json
from .models import ModelSpec
from .worker import MODEL, PACE, RESULTS, TRAINING

# Where a model is computed says nothing about what it is.
_PLACE = frozenset({"device"})


def check_same(spec: ModelSpec, folder: Path) -> None:
    """Write the spec of a model into its folder.

    Raises:
        ComparisonError: the folder holds another one.
    """
    content, old = spec.content(), read_json(folder / MODEL)
    if old is not None:
        different = sorted(key for key in content if key not in _PLACE and old.get(key) != content[key])
        if different:
            raise ComparisonError(
                f"{folder} holds a model with another {', '.join(different)}. Choose another --output, or remove it."
            )
    write_json(folder / MODEL, content)


def _run(part: str, folder: Path, threads: int) -> None:
    log = folder / f"{part}.log"
    with log.open("a") as file:
        command = [sys.executable, "-W", "ignore", "-m", f"{__package__}.worker", part, str(folder)]
        code = subprocess.run(command, env=environment(threads), stdout=file, stderr=subprocess.STDOUT).returncode
    if code != 0:
        lines = log.read_text().splitlines() or ["it is empty"]
        raise ComparisonError(f"{folder.name}: {part} failed with exit code {code}, see {log}: {lines[-1]}")


def parts_of(spec: ModelSpec) -> list[tuple[str, str]]:
    """Parts of a model's comparison in order, and the file that says that each is done."""
    if spec.weights:
        return [("evaluate", RESULTS)]
    pace = [("pace", PACE)] if spec.training_budget().minutes else []
    return [*pace, ("train", TRAINING), ("evaluate", RESULTS)]


def run_model(spec: ModelSpec, folder: Path, tell: Callable[[str], None]) -> None:
    """Train and evaluate a model as far as that is not done.

    Raises:
        ComparisonError: a part failed; what it printed is in FOLDER/PART.log.
    """
    for part, done in parts_of(spec):
        if (folder / done).is_file():
            tell(f"{spec.name}: {part} is done")
            continue
        tell(f"{spec.name}: {part} ...")
        _run(part, folder, spec.threads)


def gather(specs: Sequence[ModelSpec], output: Path) -> list[dict[str, Any]]:
    """Everything that is known of the models, in their order.

    Each has ``name``, ``spec``, ``results`` and ``training``, which is None with finished weights.
    """
    return [
        {
            "name": spec.name,
            "spec": spec.content(),
            "training": read_json(output / spec.name / TRAINING),
            "results": read_json(output / spec.name / RESULTS),
        }
        for spec in specs
    ]
