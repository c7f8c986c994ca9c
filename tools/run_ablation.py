#!/usr/bin/env python
"""Train variants of a config, one change at a time with the same budget, and collect their results.

    python tools/run_ablation.py [--config-file configs/Nuclei/ablation.yaml] [--output FOLDER] [--only NAME ...]
        [--jobs N] [--results docs/results/ablation_nuclei.json]

The file names a config (``base``), KEY VALUE overrides of all trainings (``common``) and ``variants``, each with
``name``, ``change`` (words for the table) and ``options`` (its own KEY VALUE overrides). The variant named "base" has
none; the others are compared with it. Relative paths are relative to this project's folder.

Every variant is trained by tools/train_net.py into FOLDER/NAME; what it prints goes to FOLDER/NAME.log. One whose
metrics_final.json is there is not trained again, so that an interrupted run goes on. tools/update_model_zoo.py makes a
table of the results.
"""

import argparse
import json
import os
import re
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode
from update_model_zoo import BASE_VARIANT, describe

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
    options: tuple[str, ...]

    def command(self, folder: str) -> list[str]:
        """What trains it into ``folder``, without the interpreter."""
        return ["tools/train_net.py", "--config-file", self.base, *self.options, "OUTPUT_DIR", folder]

    def config(self) -> CfgNode:
        """Its config, except for OUTPUT_DIR."""
        return load_config(str(ROOT / self.base), list(self.options))


def _check_keys(node: Any, keys: set[str], what: str) -> None:
    if not isinstance(node, dict) or set(node) != keys:
        raise AblationError(f"{what} must have exactly the keys {', '.join(sorted(keys))}.")


def _overrides(options: Any, what: str) -> tuple[str, ...]:
    if not isinstance(options, list) or len(options) % 2:
        raise AblationError(f"{what} must be a list [KEY, VALUE, ...].")
    return tuple(map(str, options))


def read_variants(path: Path) -> list[Variant]:
    """The variants of a file, checked.

    Raises:
        AblationError: the file is missing or wrong; the message says where.
    """
    if not path.is_file():
        raise AblationError(f"--config-file names '{path}', which does not exist.")
    content = yaml.safe_load(path.read_text())
    _check_keys(content, {"base", "common", "variants"}, str(path))
    if not isinstance(content["variants"], list):
        raise AblationError(f"'variants' in {path} must be a list.")
    common = _overrides(content["common"], f"'common' in {path}")
    variants = []
    for number, node in enumerate(content["variants"], start=1):
        _check_keys(node, {"name", "change", "options"}, f"Variant {number} in {path}")
        name, change = str(node["name"]), str(node["change"])
        if not re.fullmatch(r"[\w-]+", name):
            raise AblationError(f"Variant {number} in {path}: '{name}' can't name a folder. Use letters and _.")
        options = _overrides(node["options"], f"'options' of variant '{name}' in {path}")
        variants.append(Variant(name, change, str(content["base"]), common + options))
    names = [variant.name for variant in variants]
    if len(set(names)) < len(names):
        raise AblationError(f"{path} has two variants of the same name: {', '.join(names)}.")
    if [variant.options for variant in variants if variant.name == BASE_VARIANT] != [common]:
        raise AblationError(
            f"{path} needs a variant named '{BASE_VARIANT}' with options [], to compare the others with."
        )
    for variant in variants:
        try:
            variant.config()
        except (OSError, ValueError) as error:
            raise AblationError(f"Variant '{variant.name}' in {path}: {error}") from error
    return variants


def train(variant: Variant, folder: Path) -> None:
    """Train a variant into ``folder`` unless that is done.

    Raises:
        AblationError: the training failed, or another one stands in the folder.
    """
    if (folder / "metrics_final.json").is_file():
        different = different_settings(variant.config(), folder / "config.yaml")
        if different:
            raise AblationError(f"{folder} holds a training with other {', '.join(different)}. Remove it or rename it.")
        return
    # Detectron2 would add to an interrupted training's file, and the time would be that of both.
    (folder / "metrics.json").unlink(missing_ok=True)
    log = folder.with_name(f"{folder.name}.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as file:
        # Networks as small as ours only lose time to threads that wait for each other.
        environment = {"OMP_NUM_THREADS": "1", **os.environ}
        command = [sys.executable, *variant.command(str(folder))]
        code = subprocess.run(command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT).returncode
    if code != 0:
        lines = log.read_text().splitlines()
        raise AblationError(f"exit code {code}, see {log}: {lines[-1] if lines else 'it is empty'}")


def _shell_word(word: str) -> str:
    """A word as a shell reads it, in double quotes where that is easier to read."""
    return f'"{word}"' if "'" in word and not set(word) & set('"$`\\!') else shlex.quote(word)


def result(variant: Variant, folder: Path, default_output: str) -> dict[str, Any]:
    """Row of a finished training; its command names the default folder, whichever it was trained in.

    Raises:
        AblationError: it was not scored as instances on one data set.
    """
    command = ["python", *variant.command(f"{default_output}/{variant.name}")]
    entry = describe(folder, " ".join(map(_shell_word, command)), "")
    counting = entry["metrics"].get("counting")
    if counting is None:
        raise AblationError(f"{folder / 'metrics_final.json'} has no 'counting': name one data set in DATASETS.TEST.")
    kept = {key: entry[key] for key in ("command", "iterations", "batch", "training_minutes", "machine")}
    metrics = {name: counting[name] for name in METRICS}
    return {"name": variant.name, "change": variant.change, **kept, "metrics": metrics}


def train_all(
    variants: list[Variant], output: Path, jobs: int, default_output: str
) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """Train variants, ``jobs`` at a time. Returns rows by name, and the names of those that failed."""

    def run(variant: Variant) -> dict[str, Any]:
        train(variant, output / variant.name)
        return result(variant, output / variant.name, default_output)

    rows, failed = {}, []
    pool = ThreadPoolExecutor(jobs)
    try:
        futures = {pool.submit(run, variant): variant.name for variant in variants}
        for number, future in enumerate(as_completed(futures), start=1):
            name = futures[future]
            try:
                rows[name] = future.result()
                outcome = f"SBD {rows[name]['metrics']['SBD']}, {rows[name]['training_minutes']} min"
            except (AblationError, KeyError, OSError, ValueError) as error:
                failed.append(name)
                outcome = f"failed: {error}"
            print(f"[{number}/{len(variants)}] {name}: {outcome}", flush=True)
    finally:
        pool.shutdown(cancel_futures=True)
    return rows, failed


def read_results(path: Path) -> dict[str, dict[str, Any]]:
    """Rows by name of an earlier run; none where there is no such file.

    Raises:
        AblationError: the file is another one.
    """
    content = json.loads(path.read_text()) if path.is_file() else {"variants": []}
    if "variants" not in content:
        raise AblationError(f"--results names '{path}', which holds other results. Name another file.")
    return {row["name"]: row for row in content["variants"]}


def write_results(path: Path, variants: list[Variant], rows: dict[str, dict[str, Any]], command: str) -> None:
    """Write rows to ``path``, in the order of the variants; rows there of variants that are not in ``rows`` stay."""
    merged = read_results(path) | rows
    names = [variant.name for variant in variants if variant.name in merged]
    names += [name for name in merged if name not in names]
    content = {"command": command, "base": variants[0].base, "variants": [merged[name] for name in names]}
    write_json(path, content)


def parse_arguments() -> argparse.Namespace:
    """Command line arguments, with paths made absolute."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", type=Path, default=Path("configs/Nuclei/ablation.yaml"), help="the variants")
    parser.add_argument("--output", type=Path, help="folder of the trainings; default output/NAME OF THE RESULTS")
    parser.add_argument("--results", type=Path, default=Path("docs/results/ablation_nuclei.json"), help="json to write")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="run these variants")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at the same time, one thread each (default 1)")
    arguments = parser.parse_args()
    if arguments.jobs < 1:
        parser.error(f"--jobs is {arguments.jobs}; give at least 1.")
    arguments.config_file = ROOT / arguments.config_file
    arguments.results = ROOT / arguments.results
    return arguments


def main() -> None:
    """Train what is missing, and write the results."""
    arguments = parse_arguments()
    default_output = f"output/{arguments.results.stem}"
    try:
        variants = read_variants(arguments.config_file)
        read_results(arguments.results)  # before hours of training
        unknown = sorted(set(arguments.only or ()) - {variant.name for variant in variants})
        if unknown:
            known = ", ".join(variant.name for variant in variants)
            raise AblationError(f"--only names {', '.join(unknown)}. Choose from: {known}.")
    except AblationError as error:
        raise SystemExit(f"{error}") from error
    chosen = [variant for variant in variants if not arguments.only or variant.name in arguments.only]
    output = ROOT / (arguments.output or default_output)
    rows, failed = train_all(chosen, output, arguments.jobs, default_output)
    if rows:
        config_file = os.path.relpath(arguments.config_file, ROOT)
        write_results(
            arguments.results, variants, rows, f"python tools/run_ablation.py --config-file {shlex.quote(config_file)}"
        )
    if failed:
        raise SystemExit(f"Failed: {', '.join(sorted(failed))}. What they printed is in {output}/NAME.log.")


if __name__ == "__main__":
    main()
