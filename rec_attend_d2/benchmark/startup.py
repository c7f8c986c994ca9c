"""How long it takes until something happens: imports, and the first step of a training."""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from detectron2.config import CfgNode

from .batches import is_of_this_project
from .processes import environment, last_line
from .timing import Timing

# Lines that Detectron2 logs before the first step, and after it.
BEFORE_STEP, AFTER_STEP = "Starting training from iteration", "total_loss:"
# Detectron2's modules that this package imports, so that the rest of the time is this package's own.
_LIST_MODULES = """
import json, sys, rec_attend_d2
print(json.dumps(sorted(name for name in sys.modules if name.split(".")[0] == "detectron2")))
"""
_TIME_IMPORTS = """
import importlib, json, sys, time
start = time.perf_counter()
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
between = time.perf_counter()
import rec_attend_d2
print(json.dumps([between - start, time.perf_counter() - between]))
"""
# Any config of this project can be trained on these, which are drawn where there are none.
_DATA = ["DATASETS.TRAIN", "('rosettes_val',)", "DATASETS.TEST", "()", "TEST.EVAL_PERIOD", "0"]


def import_times(repeats: int, threads: int) -> dict[str, Timing]:
    """Seconds of importing the modules of Detectron2 that this package uses, and of importing this package then."""
    modules = last_line(["-c", _LIST_MODULES], threads)
    pairs = [json.loads(last_line(["-c", _TIME_IMPORTS, modules], threads)) for _ in range(repeats)]
    detectron2, own = zip(*pairs, strict=True)
    return {"import detectron2": Timing.of(list(detectron2)), "import rec_attend_d2": Timing.of(list(own))}


def _start_training(tool: Path, config: Path, folder: Path, threads: int) -> tuple[float, float]:
    options = [*_DATA, "SOLVER.MAX_ITER", "1", "MODEL.WEIGHTS", "", "OUTPUT_DIR", str(folder)]
    command = [sys.executable, str(tool), "--config-file", str(config), *options]
    times: dict[str, float] = {}
    lines: list[str] = []
    start = time.perf_counter()
    with subprocess.Popen(
        command, env=environment(threads), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            lines.append(line.strip())
            for words in (BEFORE_STEP, AFTER_STEP):
                if words in line:
                    times.setdefault(words, time.perf_counter() - start)
    if process.returncode != 0 or len(times) != 2:
        raise RuntimeError(f"{tool.name} failed with exit code {process.returncode}: {(lines or ['no output'])[-1]}")
    return times[BEFORE_STEP], times[AFTER_STEP]


def training_times(cfg: CfgNode, tool: Path, repeats: int, threads: int) -> dict[str, Timing]:
    """Seconds from starting tools/train_net.py to the start and to the end of its first step, on rosettes.

    A first run, which also draws the data where there are none, does not count.

    Args:
        cfg: of this project.
        tool: path of train_net.py.
        repeats: runs that count.
        threads: of each run.

    Raises:
        ValueError: the config is not one of this project's.
        RuntimeError: a training failed.
    """
    if not is_of_this_project(cfg):
        raise ValueError(
            f"tools/train_net.py does not train MODEL.META_ARCHITECTURE '{cfg.MODEL.META_ARCHITECTURE}', whose start "
            "can't be timed: leave --startup out."
        )
    pairs = []
    for number in range(1 + repeats):
        with tempfile.TemporaryDirectory() as folder:
            config = Path(folder, "config.yaml")
            config.write_text(cfg.dump())
            times = _start_training(tool, config, Path(folder, "output"), threads)
        if number > 0:
            pairs.append(times)
    before, after = zip(*pairs, strict=True)
    return {"train_net.py to the first step": Timing.of(list(before)), "its end": Timing.of(list(after))}
