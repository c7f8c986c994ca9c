#!/usr/bin/env python
"""Train the stages of a recipe one after another, each from the weights of the one before.

    python tools/run_stages.py --config-dir configs/Cityscapes [--output FOLDER] [--from STAGE] [--num-gpus N]
        [KEY VALUE ...]

Runs stage_a.yaml, stage_b.yaml and stage_c.yaml of the folder, those that are there, by tools/train_net.py. KEY VALUE
overrides hold for all of them. Interrupted, the same command goes on where it was: a finished stage (its
metrics_final.json is there) is not trained again, an unfinished one resumes from its last checkpoint. At the end it
prints the results of all stages.
"""

import argparse
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from detectron2.config import CfgNode
from tabulate import tabulate

from rec_attend_d2.config import different_settings, load_config
from rec_attend_d2.visualization.curves import read_entries

ROOT = Path(__file__).resolve().parents[1]
STAGES = ("stage_a", "stage_b", "stage_c")
FINISHED, WEIGHTS = "metrics_final.json", "model_final.pth"


class StagesError(Exception):
    """The stages cannot be run, or one of them failed."""


@dataclass(frozen=True)
class Stage:
    """One training.

    Attributes:
        name: of its config file, without ending.
        config_file: its config.
        options: KEY VALUE overrides.
        folder: what it writes.
    """

    name: str
    config_file: Path
    options: tuple[str, ...]
    folder: Path

    @property
    def finished(self) -> bool:
        """Whether it was trained and evaluated."""
        return (self.folder / FINISHED).is_file() and (self.folder / WEIGHTS).is_file()

    def config(self) -> CfgNode:
        """Its config."""
        return load_config(str(self.config_file), [*self.options, "OUTPUT_DIR", str(self.folder)])

    def command(self, num_gpus: int) -> list[str]:
        """What trains it, resuming where it was interrupted, without the interpreter."""
        gpus = ["--num-gpus", str(num_gpus)]
        arguments = ["tools/train_net.py", "--config-file", str(self.config_file), "--resume", *gpus]
        return [*arguments, *self.options, "OUTPUT_DIR", str(self.folder)]


def plan(config_dir: Path, output: Path | None, first: str | None, options: list[str]) -> list[Stage]:
    """The stages of a folder in order, each but the first with the weights of the one before.

    Args:
        config_dir: holds stage_*.yaml.
        output: each stage writes to its name in this folder; None = to the OUTPUT_DIR of its config.
        first: stages before this one are left out; it starts from the weights of its config.
        options: KEY VALUE overrides of all stages.

    Raises:
        StagesError: there is no stage, or none of that name, or a config is wrong.
    """
    names = [name for name in STAGES if (config_dir / f"{name}.yaml").is_file()]
    if not names:
        found = sorted(path.name for path in config_dir.glob("*.yaml")) if config_dir.is_dir() else []
        raise StagesError(f"--config-dir '{config_dir}' has none of {', '.join(STAGES)} (.yaml); found: {found}.")
    if first is not None and first not in names:
        raise StagesError(f"--from names '{first}', but '{config_dir}' has {', '.join(names)}.")
    stages: list[Stage] = []
    for name in names[names.index(first) if first else 0 :]:
        config_file = config_dir / f"{name}.yaml"
        try:
            cfg = load_config(str(config_file), options)
        except ValueError as error:
            raise StagesError(f"{config_file}: {error}") from error
        weights = ["MODEL.WEIGHTS", str(stages[-1].folder / WEIGHTS)] if stages else []
        folder = output / name if output else ROOT / cfg.OUTPUT_DIR
        stages.append(Stage(name, config_file, (*options, *weights), folder))
    return stages


def run(stage: Stage, num_gpus: int) -> None:
    """Train a stage, unless that is done.

    Raises:
        StagesError: its training failed, or its folder holds one with other settings.
    """
    if stage.finished:
        different = different_settings(stage.config(), stage.folder / "config.yaml")
        if different:
            raise StagesError(
                f"{stage.folder} holds a finished training with other {', '.join(different)}. Remove it, or give "
                "another --output."
            )
        print(f"\n{stage.name} is finished: {stage.folder}", flush=True)
        return
    command = stage.command(num_gpus)
    print(f"\n$ python {' '.join(command)}", flush=True)
    code = subprocess.run([sys.executable, *command], cwd=ROOT).returncode
    if code != 0:
        raise StagesError(f"{stage.name} failed with exit code {code}. The same command continues it.")


def summary(stages: list[Stage]) -> str:
    """Table of all figures of finished stages."""
    rows = []
    for stage in stages:
        results = json.loads((stage.folder / FINISHED).read_text())
        minutes = f"{60 * read_entries(stage.folder / 'metrics.json')[-1][0]:.1f}"
        for evaluator, figures in results.items():
            shown = [f"{name} {value:.4g}" for name, value in figures.items() if isinstance(value, (int, float))]
            lines = "\n".join(", ".join(shown[i : i + 4]) for i in range(0, len(shown), 4))
            rows.append((stage.name, minutes, evaluator, lines))
            minutes = ""
        rows.append((stage.name, minutes, "weights", str(stage.folder / WEIGHTS)))
    return tabulate(rows, headers=["stage", "minutes", "evaluator", "results"], tablefmt="simple_grid")


def main() -> None:
    """Run all stages and print their results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-dir", type=Path, required=True, help="folder of stage_a.yaml, stage_b.yaml, ...")
    parser.add_argument("--output", type=Path, help="folder for all stages; default: the OUTPUT_DIR of each config")
    parser.add_argument("--from", dest="first", choices=STAGES, help="leave out the stages before this one")
    parser.add_argument("--num-gpus", type=int, default=1, help="per machine")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE overrides of all stages")
    arguments = parser.parse_args()
    output = Path(os.path.abspath(arguments.output)) if arguments.output else None
    try:
        stages = plan(arguments.config_dir.resolve(), output, arguments.first, arguments.opts)
        for stage in stages:
            run(stage, arguments.num_gpus)
    except StagesError as error:
        sys.exit(f"run_stages: {error}")
    print(f"\n{summary(stages)}")


if __name__ == "__main__":
    main()
