#!/usr/bin/env python
"""Try hard to break trainings: kills at random moments, damaged files, memory that grows, two processes against one.

    python research/try_reliability.py [--kills 40] [--minutes 4] [--output FILE.json] [PART ...]

Everything is trained by tools/train_net.py with the quick schedule of tests/configs, on pictures that are drawn into a
scratch folder. Prints a table, and writes json; parts that are not named keep what the file says of them.
"""

import argparse
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from tabulate import tabulate

from rec_attend_d2.checkpoint.integrity import find_damage, is_whole
from rec_attend_d2.engine.metrics_file import read_rows
from rec_attend_d2.whole_files import write_json

ROOT = Path(__file__).resolve().parents[1]
CONFIG = "tests/configs/fast.yaml"
# Runs tools/train_net.py and notes iterations, losses and memory.
NOTED = ROOT / "research" / "noted_training.py"
PICTURES = 24
ITERATIONS = 120
CHECKPOINT_PERIOD, EVAL_PERIOD = 4, 10
FLIPS = 200


@dataclass(frozen=True)
class Setting:
    """What the parts share.

    Attributes:
        scratch: folder for all they write.
        data: options that name the drawn pictures.
        kills: how many.
        minutes: of looking at memory.
    """

    scratch: Path
    data: tuple[str, ...]
    kills: int
    minutes: float

    def command(self, folder: Path, *options: object, resume: bool = True, processes: int = 1) -> list[str]:
        """A training into ``folder`` that notes what it does in a file beside."""
        arguments = ["--config-file", CONFIG, *(["--resume"] if resume else []), "--num-gpus", processes, *self.data]
        arguments += ["SOLVER.CHECKPOINT_PERIOD", CHECKPOINT_PERIOD, "TEST.EVAL_PERIOD", EVAL_PERIOD]
        words = [sys.executable, NOTED, notes_of(folder), *arguments, *options, "OUTPUT_DIR", folder]
        return list(map(str, words))


def notes_of(folder: Path) -> Path:
    """Where the training in a folder notes its iterations."""
    return folder.with_name(f"{folder.name}.notes")


def start(command: list[str], log: Path) -> subprocess.Popen:
    """Start a command; what it prints is added to a file."""
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    with log.open("a") as file:
        return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=subprocess.STDOUT)


def run(command: list[str], log: Path) -> None:
    """Run a command, which has to succeed."""
    if start(command, log).wait() != 0:
        raise RuntimeError(f"{' '.join(command)} failed, see {log}.")


def read_notes(folder: Path) -> list[dict[str, Any]]:
    """What a training has noted, an entry per iteration, in the order of time; without a line that was cut off."""
    lines = notes_of(folder).read_text().split("\n")[:-1] if notes_of(folder).is_file() else []
    return [json.loads(line) for line in lines]


def draw_pictures(folder: Path) -> tuple[str, ...]:
    """Draw discs of random places and sizes, and return the options that train and test on them."""
    generator = np.random.default_rng(0)
    images: list[dict] = []
    annotations: list[dict] = []
    (folder / "images").mkdir(parents=True)
    for number in range(PICTURES):
        picture = generator.normal(40, 6, (96, 96, 3)).clip(0, 255).astype(np.uint8)
        for _ in range(int(generator.integers(0, 6))):
            x, y, radius = (int(value) for value in generator.integers((14, 14, 7), (82, 82, 13)))
            cv2.circle(picture, (x, y), radius, generator.integers(120, 240, 3).tolist(), -1)
            outline = cv2.ellipse2Poly((x, y), (radius, radius), 0, 0, 360, 20).flatten().tolist()
            box = [x - radius, y - radius, 2 * radius + 1, 2 * radius + 1]
            entry = {"id": len(annotations) + 1, "image_id": number, "category_id": 1, "iscrowd": 0, "bbox": box}
            annotations.append({**entry, "area": 3.14 * radius**2, "segmentation": [outline]})
        name = f"{number}.png"
        cv2.imwrite(str(folder / "images" / name), picture)
        images.append({"id": number, "file_name": name, "height": 96, "width": 96})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "disc"}]}
    write_json(folder / "discs.json", content)
    files = f"[['discs', '{folder / 'discs.json'}', '{folder / 'images'}']]"
    return "DATASETS.COCO_FILES", files, "DATASETS.TRAIN", "('discs',)", "DATASETS.TEST", "('discs',)"


def leaves(content: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Numbers, texts and tensors of nested dicts and lists, with where they are."""
    if isinstance(content, dict | list | tuple):
        for key, value in content.items() if isinstance(content, dict) else enumerate(content):
            yield from leaves(value, f"{path}/{key}")
    else:
        yield path, content


def differing(first: Path, second: Path) -> list[str]:
    """Entries in which two checkpoints differ in any bit, but for the config, which says where each was trained."""
    one, two = (dict(leaves(torch.load(path, weights_only=True))) for path in (first, second))

    def same(name: str) -> bool:
        a, b = one.get(name), two.get(name)
        return torch.equal(a, b) if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor) else a == b

    return [name for name in sorted(one.keys() | two.keys()) if name != "/trainer/config" and not same(name)]


def interruptions(setting: Setting) -> dict[str, Any]:
    """Trainings that are killed again and again, against one that is not."""
    log, whole = setting.scratch / "interruptions.log", setting.scratch / "whole"
    options = ["SOLVER.MAX_ITER", ITERATIONS]
    run(setting.command(whole, *options), log)
    losses = {note["iteration"]: note["loss"] for note in read_notes(whole)}
    figures = dict.fromkeys(
        ("kills", "while starting", "iterations lost", "most lost at once", "broken checkpoints"), 0
    )
    figures |= dict.fromkeys(("trainings finished", "entries that differ", "losses that differ", "doubled rows"), 0)
    chance, number = random.Random(0), 0
    while figures["kills"] < setting.kills:
        folder, number = setting.scratch / f"killed{number}", number + 1
        while True:
            killed = _kill_once(setting.command(folder, *options), folder, log, chance, figures, setting.kills)
            figures["broken checkpoints"] += sum(not is_whole(str(path)) for path in folder.glob("*.pth"))
            if not killed:
                break
        figures["trainings finished"] += 1
        figures["entries that differ"] += len(differing(whole / "model_final.pth", folder / "model_final.pth"))
        figures["losses that differ"] += sum(note["loss"] != losses[note["iteration"]] for note in read_notes(folder))
        rows = [row["iteration"] for row in read_rows(folder / "metrics.json")]
        figures["doubled rows"] += len(rows) - len(set(rows))
        if list(folder.rglob("*.partial")):
            raise RuntimeError(f"{folder} holds unfinished files.")
    return figures


def _kill_once(
    command: list[str], folder: Path, log: Path, chance: random.Random, figures: dict[str, int], kills: int
) -> bool:
    """Start or resume a training and kill it, mostly while it trains; whether it was killed before its end."""
    done = len(read_notes(folder))
    process = start(command, log)
    if figures["kills"] < kills:
        # One in eight at any moment of the start, the others between here and a third of the training.
        early = chance.random() < 1 / 8
        while not early and process.poll() is None and len(read_notes(folder)) == done:
            time.sleep(0.01)
        wait = chance.uniform(0, 6)
        while process.poll() is None and wait > 0:
            time.sleep(min(wait, 0.003))
            wait -= 0.003
        process.send_signal(signal.SIGKILL)
    code = process.wait()
    if code == 0:
        return False
    if code != -signal.SIGKILL:
        raise RuntimeError(f"A training failed with exit code {code}, see {log}.")
    figures["kills"] += 1
    notes = read_notes(folder)
    figures["while starting"] += len(notes) == done
    lost = max(0, notes[-1]["iteration"] - _checkpointed(folder)) if len(notes) > done else 0
    figures["iterations lost"] += lost
    figures["most lost at once"] = max(figures["most lost at once"], lost)
    return True


def _checkpointed(folder: Path) -> int:
    """The last iteration that a folder's checkpoint has; -1 = none."""
    name = folder / "last_checkpoint"
    path = folder / name.read_text() if name.is_file() else None
    return -1 if path is None else torch.load(path, weights_only=True)["iteration"]


def damage(setting: Setting) -> dict[str, Any]:
    """Bits flipped in a checkpoint: found, without any effect, or wrong in silence."""
    folder = setting.scratch / "damage"
    run(setting.command(folder, "SOLVER.MAX_ITER", 4, "DATASETS.TEST", "()"), setting.scratch / "damage.log")
    path, copy = folder / "model_final.pth", folder / "flipped.pth"
    content, chance = path.read_bytes(), random.Random(0)
    figures = dict.fromkeys(("flipped bits", "found", "without effect", "wrong in silence"), 0)
    for _ in range(FLIPS):
        place, changed = chance.randrange(8 * len(content)), bytearray(content)
        changed[place // 8] ^= 1 << place % 8
        copy.write_bytes(changed)
        figures["flipped bits"] += 1
        if find_damage(str(copy)) or not is_whole(str(copy)):
            figures["found"] += 1
        else:
            figures["wrong in silence" if differing(path, copy) else "without effect"] += 1
    return figures


def memory(setting: Setting) -> dict[str, Any]:
    """Bytes by which processes grow, of a long training and of many predictions."""
    log, folder = setting.scratch / "memory.log", setting.scratch / "memory"
    options = ["SOLVER.MAX_ITER", 10**6, "SOLVER.CHECKPOINT_PERIOD", 200, "TEST.EVAL_PERIOD", 100]
    process = start(setting.command(folder, *options), log)
    _end_after(process, 30 * setting.minutes, log)
    training = read_notes(folder)
    weights = ["MODEL.WEIGHTS", folder / "model_0000199.pth", "OUTPUT_DIR", folder]
    words = [sys.executable, NOTED, notes_of(setting.scratch / "predictions"), "--predict", "--config-file", CONFIG]
    process = start(list(map(str, [*words, *setting.data, *weights])), log)
    _end_after(process, 30 * setting.minutes, log)
    figures = {}
    for what, notes in (("iterations", training), ("pictures", read_notes(setting.scratch / "predictions"))):
        growth = growth_per_thousand([note["memory"] for note in notes])
        figures |= {
            what: len(notes),
            f"bytes per 1000 {what}": growth,
            f"bytes in the end, {what}": notes[-1]["memory"],
        }
    return figures


def _end_after(process: subprocess.Popen, seconds: float, log: Path) -> None:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    else:
        raise RuntimeError(f"A process that runs until it is ended has ended itself, see {log}.")


def growth_per_thousand(values: list[int]) -> int:
    """Slope of a line through the second half of memory sizes, after what starting takes, times 1000."""
    half = np.array(values[len(values) // 2 :], dtype=float)
    return round(1000 * np.polyfit(np.arange(len(half)), half, 1)[0])


def processes(setting: Setting) -> dict[str, Any]:
    """Two processes against one: losses and gradients of the same batch, and a training that is interrupted."""
    sys.path.insert(0, str(ROOT / "tests" / "engine"))
    import shared_gradients

    log, output = setting.scratch / "processes.log", setting.scratch / "shared.pth"
    data = [str(setting.scratch / "data" / "discs.json"), str(setting.scratch / "data" / "images")]
    run([sys.executable, shared_gradients.__file__, *data, str(output), *shared_gradients.RECIPES], log)
    figures: dict[str, Any] = {}
    for recipe, two in torch.load(output, weights_only=True).items():
        one = shared_gradients.gradients(shared_gradients.config(recipe, *data))
        figures[f"largest difference, {recipe}"] = max((one[name] - two[name]).abs().max().item() for name in one)
        figures[f"largest gradient, {recipe}"] = max(value.abs().max().item() for value in one.values())
    whole, cut = setting.scratch / "two", setting.scratch / "two_resumed"
    options = ["SOLVER.MAX_ITER", 2 * EVAL_PERIOD]
    run(setting.command(whole, *options, processes=2), log)
    cut.mkdir()
    name = f"model_{2 * CHECKPOINT_PERIOD - 1:07}.pth"
    shutil.copy(whole / name, cut / name)
    (cut / "last_checkpoint").write_text(name)
    run(setting.command(cut, *options, processes=2), log)
    different = differing(whole / "model_final.pth", cut / "model_final.pth")
    return figures | {"entries that differ after a resume": len(different)}


# What is tried. Bad inputs have a function of their own here.
PARTS: dict[str, Callable[[Setting], dict[str, Any]]] = {
    "interruptions": interruptions,
    "damage": damage,
    "memory": memory,
    "processes": processes,
}


def main() -> None:
    """Try what is asked for, and write and print all that is known."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--kills", type=int, default=40, help="number of SIGKILLs")
    parser.add_argument("--minutes", type=float, default=4.0, help="of looking at memory")
    parser.add_argument(
        "--output", type=Path, default=ROOT / "docs/results/reliability/trainings.json", help="json to write"
    )
    arguments = parser.parse_args()
    unknown = set(arguments.parts) - PARTS.keys()
    if unknown:
        parser.error(f"There is no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}.")
    known = json.loads(arguments.output.read_text()) if arguments.output.is_file() else {}
    with tempfile.TemporaryDirectory(prefix="reliability") as scratch:
        data = draw_pictures(Path(scratch, "data"))
        setting = Setting(Path(scratch), data, arguments.kills, arguments.minutes)
        for part in arguments.parts or PARTS:
            began = time.perf_counter()
            figures = PARTS[part](setting)
            known[part] = {**figures, "seconds": round(time.perf_counter() - began)}
            known["machine"] = f"{platform.machine()}, {os.cpu_count()} cores, PyTorch {torch.__version__}"
            write_json(arguments.output, known)
    rows = [(part, name, value) for part in PARTS for name, value in known.get(part, {}).items()]
    print(tabulate(rows, ["part", "figure", ""], floatfmt=".3g"))


if __name__ == "__main__":
    main()
