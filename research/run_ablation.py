#!/usr/bin/env python
"""Train variants of a config, one change at a time with the same budget, and collect their results.

    python research/run_ablation.py [--config-file research/ablation.yaml] [--results docs/results/ablation/NAME.json]

The file names a config (``base``), KEY VALUE overrides of all trainings (``common``) and ``variants``, each with
``name``, ``change`` (in words) and ``options`` (its own KEY VALUE overrides); the variant named "base" has none.
Relative paths are relative to this project's folder.

Every variant is trained by tools/train_net.py into output/STEM_OF_RESULTS/NAME; what it prints goes to NAME.log beside.
One whose metrics_final.json is there is not trained again, so that an interrupted run goes on.
"""

import argparse
import os
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from tabulate import tabulate
from update_model_zoo import describe

from rec_attend_d2.config import different_settings, load_config
from rec_attend_d2.whole_files import write_json

ROOT = Path(__file__).resolve().parents[1]
METRICS = ("SBD", "abs_DiC", "count_accuracy", "FBD")


class AblationError(Exception):
    """The file is wrong, or a variant could not be trained."""


@dataclass(frozen=True)
class Variant:
    """One training.

    Attributes:
        name: also of its folder.
        change: what differs from the base, in words.
        base: config file, relative to the project's folder.
        options: KEY VALUE overrides as on the command line, those of all variants first.
    """

    name: str
    change: str
    base: str
    options: list[str]

    def command(self, folder: str) -> list[str]:
        """What trains it into ``folder``, without the interpreter."""
        return ["tools/train_net.py", "--config-file", self.base, *self.options, "OUTPUT_DIR", folder]


def read_variants(path: Path) -> list[Variant]:
    """The variants of a file, checked.

    Raises:
        AblationError: the file is wrong; the message says where.
    """
    try:
        content = yaml.safe_load(path.read_text())
        common = list(map(str, content["common"]))
        variants = [
            Variant(node["name"], node["change"], content["base"], [*common, *map(str, node["options"])])
            for node in content["variants"]
        ]
    except (OSError, KeyError, TypeError, yaml.YAMLError) as error:
        raise AblationError(f"{path} is no list of variants: {error!r}") from error
    names = [variant.name for variant in variants]
    if len(set(names)) < len(names):
        raise AblationError(f"{path} has two variants of the same name: {', '.join(names)}.")
    for variant in variants:
        try:
            load_config(ROOT / variant.base, variant.options)
        except (OSError, ValueError) as error:
            raise AblationError(f"Variant '{variant.name}' in {path}: {error}") from error
    return variants


def train(variant: Variant, folder: Path) -> None:
    """Train a variant into ``folder`` unless that is done.

    Raises:
        AblationError: the training failed, or another one stands in the folder.
    """
    if (folder / "metrics_final.json").is_file():
        different = different_settings(load_config(ROOT / variant.base, variant.options), folder / "config.yaml")
        if different:
            raise AblationError(f"{folder} holds a training with other {', '.join(different)}. Remove it or rename it.")
        return
    log = folder.with_name(f"{folder.name}.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file:
        # Networks as small as ours only lose time to threads that wait for each other.
        environment = {"OMP_NUM_THREADS": "1", **os.environ}
        script, *options = variant.command(str(folder))
        command = [sys.executable, script, "--resume", *options]
        code = subprocess.run(command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT).returncode
    if code != 0:
        lines = log.read_text().splitlines() or ["it is empty"]
        raise AblationError(f"{variant.name} failed with exit code {code}, see {log}: {lines[-1]}")


def result(variant: Variant, folder: Path) -> dict[str, Any]:
    """Row of a finished training, with its command relative to the project's folder.

    Raises:
        AblationError: it was not scored as instances on one data set.
    """
    command = shlex.join(["python", *variant.command(os.path.relpath(folder, ROOT))])
    entry = describe(folder, command, "")
    counting = entry["metrics"].get("counting")
    if counting is None:
        raise AblationError(f"{folder / 'metrics_final.json'} has no 'counting': name one data set in DATASETS.TEST.")
    kept = {key: entry[key] for key in ("command", "iterations", "batch", "training_minutes", "machine")}
    metrics = {name: counting[name] for name in METRICS}
    return {"name": variant.name, "change": variant.change, **kept, "metrics": metrics}


def main() -> None:
    """Train what is missing, and write and print the results so far after each training."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", type=Path, default=Path("research/ablation.yaml"), help="the variants")
    parser.add_argument("--results", type=Path, default=Path("docs/results/ablation/data.json"), help="json to write")
    arguments = parser.parse_args()
    config_file, results = ROOT / arguments.config_file, ROOT / arguments.results
    try:
        variants = read_variants(config_file)
        rows = []
        for variant in variants:
            folder = ROOT / "output" / results.stem / variant.name
            train(variant, folder)
            rows.append(result(variant, folder))
            command = f"python research/run_ablation.py --config-file {os.path.relpath(config_file, ROOT)}"
            write_json(results, {"command": command, "base": variant.base, "variants": rows})
            figures = {"variant": variant.name, **rows[-1]["metrics"], "minutes": rows[-1]["training_minutes"]}
            print(tabulate([figures], headers="keys", floatfmt=".3f"), flush=True)
    except AblationError as error:
        raise SystemExit(f"{error}") from error


if __name__ == "__main__":
    main()
