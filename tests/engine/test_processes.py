"""Trainings in several processes, on the CPU."""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.engine import default_argument_parser
from detectron2.utils import comm

from rec_attend_d2.engine import Trainer, processes
from rec_attend_d2.engine.output_folder import Refused

from . import shared_gradients

ROOT = Path(__file__).resolve().parents[2]
# Seconds, for machines that are busy with other things: usually less than one.
PATIENCE = 1200


@pytest.fixture(scope="module")
def train(picture_files, tmp_path_factory):
    """A function from arguments and options to a process of tools/train_net.py, started by ``launcher``."""
    annotations, images = picture_files
    files = ["DATASETS.COCO_FILES", f"[['p', '{annotations}', '{images}']]", "DATASETS.TRAIN", "('p',)"]

    def start(arguments: list, options: list, launcher: tuple = (sys.executable,)) -> subprocess.Popen:
        common = [*files, "DATASETS.TEST", "('p',)", "SOLVER.CHECKPOINT_PERIOD", 2, "TEST.EVAL_PERIOD", 2]
        command = [*launcher, ROOT / "tools/train_net.py", "--config-file", "tests/configs/fast.yaml", *arguments]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(
            list(map(str, [*command, *common, *options])),
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start


def finish(process: subprocess.Popen) -> str:
    """All that a process prints; it has to succeed."""
    printed, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, printed[-3000:]
    return printed


@pytest.fixture(scope="module")
def trained(train, tmp_path_factory) -> Path:
    """Folder of a training by two processes."""
    folder = tmp_path_factory.mktemp("two") / "output"
    finish(train(["--num-gpus", 2], ["OUTPUT_DIR", folder]))
    return folder


@pytest.fixture(scope="module")
def shared(picture_files, tmp_path_factory) -> dict:
    """Losses and gradients of all recipes by two processes."""
    output = tmp_path_factory.mktemp("shared") / "gradients.pth"
    command = [sys.executable, shared_gradients.__file__, *picture_files, output, *shared_gradients.RECIPES]
    subprocess.run(list(map(str, command)), cwd=ROOT, check=True, timeout=PATIENCE)
    return torch.load(output, weights_only=True)


@pytest.mark.parametrize("recipe", shared_gradients.RECIPES)
def test_two_processes_learn_what_one_does_from_the_whole_batch(shared, picture_files, recipe):
    try:
        whole = shared_gradients.gradients(shared_gradients.config(recipe, *map(str, picture_files)))
    finally:
        DatasetCatalog.pop("shared", None)
        MetadataCatalog.pop("shared", None)
    assert whole.keys() == shared[recipe].keys() and len(whole) > 10
    for name, value in whole.items():
        # The name comes with the values, where they differ.
        torch.testing.assert_close({name: shared[recipe][name]}, {name: value}, rtol=1e-5, atol=1e-5)
    assert any(value.abs().max() > 0.01 for value in whole.values())


def flat(content, prefix: str = "") -> dict:
    """Numbers, texts and tensors of nested dicts and lists, by path."""
    if isinstance(content, dict):
        pairs = content.items()
    elif isinstance(content, (list, tuple)):
        pairs = enumerate(content)
    else:
        return {prefix: content}
    return {path: leaf for key, value in pairs for path, leaf in flat(value, f"{prefix}/{key}").items()}


def test_an_interrupted_training_by_two_processes_ends_as_an_uninterrupted_one(train, trained, tmp_path):
    folder = tmp_path / "output"
    shutil.copytree(trained, folder)
    for name in ("model_final.pth", "model_0000003.pth", "model_best.pth", "metrics_final.json"):
        (folder / name).unlink()
    (folder / "last_checkpoint").write_text("model_0000001.pth")
    finish(train(["--num-gpus", 2, "--resume"], ["OUTPUT_DIR", folder]))
    whole, resumed = (flat(torch.load(path / "model_final.pth", weights_only=True)) for path in (trained, folder))
    assert whole.keys() == resumed.keys()
    differ = {
        name
        for name, value in whole.items()
        if not (torch.equal(value, resumed[name]) if isinstance(value, torch.Tensor) else value == resumed[name])
    }
    # Where it ran is said by the config.
    assert differ == {"/trainer/config"}
    rows = [json.loads(line)["iteration"] for line in (folder / "metrics.json").read_text().splitlines()]
    assert rows == sorted(set(rows))


def test_what_is_evaluated_during_training_is_what_is_saved(train, trained, tmp_path):
    rows = [json.loads(line) for line in (trained / "metrics.json").read_text().splitlines()]
    weights = ["MODEL.WEIGHTS", trained / "model_0000001.pth", "OUTPUT_DIR", tmp_path]
    finish(train(["--eval-only"], weights))
    again = json.loads((tmp_path / "metrics_final.json").read_text())["counting"]
    (row,) = (row for row in rows if row["iteration"] == 1)
    assert {name: row[f"counting/{name}"] for name in again} == pytest.approx(again, nan_ok=True)


def test_torchrun_starts_one_training(train, tmp_path):
    launcher = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2)
    options = ["OUTPUT_DIR", tmp_path, "SOLVER.MAX_ITER", 2, "DATASETS.TEST", "()"]
    finish(train([], options, launcher))
    state = torch.load(tmp_path / "model_final.pth", weights_only=True)["trainer"]
    assert state["processes"] == 2 and state["data"]["taken"] == 2
    again = train([], options, launcher)
    printed, _ = again.communicate(timeout=PATIENCE)
    refusals = [line for line in printed.splitlines() if "holds a training" in line]
    # A traceback there is, of torchrun alone.
    assert again.returncode != 0 and len(refusals) == 1 and "output_folder.py" not in printed


def children(process: int) -> list[int]:
    """Processes that a process has started."""
    found = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process)], capture_output=True, text=True)
    return list(map(int, found.stdout.split()))


def test_where_a_process_dies_all_end_also_on_other_machines(train, tmp_path):
    address = f"tcp://127.0.0.1:{20000 + os.getpid() % 20000}"
    machines = [
        train(
            ["--num-machines", 2, "--machine-rank", rank, "--dist-url", address],
            ["OUTPUT_DIR", tmp_path, "SOLVER.MAX_ITER", 10**6, "DATASETS.TEST", "()"],
        )
        for rank in (0, 1)
    ]
    deadline = time.monotonic() + PATIENCE
    while not (tmp_path / "model_0000001.pth").is_file():
        assert time.monotonic() < deadline and all(process.poll() is None for process in machines)
        time.sleep(0.2)
    os.kill(children(machines[1].pid)[-1], signal.SIGKILL)
    for process in machines:
        process.communicate(timeout=PATIENCE)
        assert process.returncode != 0


def command(*words: str) -> argparse.Namespace:
    return default_argument_parser().parse_args(list(words))


@pytest.mark.parametrize(
    ("words", "environment", "message"),
    [
        (["--num-gpus", "2"], {"RANK": "0", "WORLD_SIZE": "2"}, "torchrun starts all processes: leave out --num-gpus"),
        ([], {"RANK": "0", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "4"}, "torchrun starts 4 processes here, for 1 GPUs"),
        (["--num-gpus", "2"], {}, "--num-gpus is 2, but this machine has 1."),
    ],
)
def test_processes_that_cannot_be_are_refused_in_one_line(monkeypatch, words, environment, message):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    for name, value in ({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"} | environment).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SystemExit, match=f"^Error: {message}"):
        processes.run(lambda arguments: pytest.fail("it ran"), command(*words))


def test_a_batch_that_cannot_be_shared_is_refused(make_cfg, monkeypatch):
    monkeypatch.setattr(comm, "get_world_size", lambda: 3)
    with pytest.raises(Refused, match="SOLVER.IMS_PER_BATCH is 2, which 3 processes can't share"):
        Trainer(make_cfg("fast"))
