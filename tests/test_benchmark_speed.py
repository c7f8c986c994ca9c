"""tools/benchmark_speed.py: what it prints and writes, what it compares, and what it refuses."""

import importlib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rec_attend_d2.benchmark import suite
from rec_attend_d2.benchmark.report import KEYS
from rec_attend_d2.benchmark.training_memory import TrainingMemory

ROOT = Path(__file__).resolve().parents[1]
QUICK = "tests/configs"
BRIEF = ["--repeats", "1", "--warmup", "0", "--batch-sizes", "1", "--objects", "1"]
# Detectron2's Mask R-CNN, with narrow layers.
MASK_RCNN = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"
NARROW = ["MODEL.RESNETS.DEPTH", "18", "MODEL.RESNETS.RES2_OUT_CHANNELS", "64", "MODEL.FPN.OUT_CHANNELS", "16"]
NARROW += ["MODEL.ROI_MASK_HEAD.NUM_CONV", "1", "MODEL.ROI_MASK_HEAD.CONV_DIM", "16", "MODEL.ROI_BOX_HEAD.FC_DIM", "16"]
NARROW += ["INPUT.IMAGE_SIZE", "[64, 64]", "TEST.DETECTIONS_PER_IMAGE", "3", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0"]


@pytest.fixture
def tool(monkeypatch):
    """tools/benchmark_speed.py as a module."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    return importlib.import_module("benchmark_speed")


@pytest.fixture
def run(tool, monkeypatch, capsys) -> Callable[..., str]:
    """Runs the tool in this process, without processes of its own, and returns what it printed."""

    def call(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["benchmark_speed.py", *map(str, arguments)])
        monkeypatch.setattr(suite, "training_memory", lambda *_: TrainingMemory(3_000_000, 1_000_000))
        monkeypatch.setattr(tool, "matmul_peak", lambda device: {"512": 1e12})
        monkeypatch.chdir(ROOT)
        tool.main()
        return capsys.readouterr().out

    return call


def check_schema(report: dict, root: Path) -> None:
    assert report.keys() >= KEYS
    assert str(root) not in json.dumps(report)
    assert report["environment"].keys() == {"device", "device_name", "cpu_name", "threads", "torch", "python"}
    for row in report["rows"]:
        assert {"run", "batch", "seconds", "images_per_second", "flops", "phases"} <= row.keys()
        assert row["seconds"].keys() == {"median", "q1", "q3", "repeats"}
        assert row["seconds"]["q1"] <= row["seconds"]["median"] <= row["seconds"]["q3"]
        assert min(row["phases"].values()) >= 0


@pytest.mark.parametrize("name", ["stage_c", "fast"])
def test_the_tool_as_a_user_calls_it(run_tool, tmp_path, name):
    process = run_tool("benchmark_speed", "--config-file", f"{QUICK}/{name}.yaml", *BRIEF, "--output", tmp_path)
    assert process.returncode == 0, process.stderr[-3000:]
    report = json.loads((tmp_path / f"configs_{name}.json").read_text())
    check_schema(report, tmp_path.parent)
    rows = {row["run"]: row for row in report["rows"]}
    memory = rows["training step"]["memory"]
    assert 100e6 < memory["idle"] < memory["peak"] < 4e9 and memory["increase"] == memory["peak"] - memory["idle"]
    assert rows["inference, 1 object, then stop"]["steps"] == 2
    assert "optimizer" in rows["training step"]["phases"] and "attention" in rows["inference, all steps"]["phases"]
    for words in ("GFLOP/s", "of peak", "segmentation head", "training step", "Written to"):
        assert words in process.stdout


def test_mask_rcnn(run, tmp_path):
    printed = run("--config-file", MASK_RCNN, *BRIEF, "--device", "cpu", "--output", tmp_path / "a.json", *NARROW)
    report = json.loads((tmp_path / "a.json").read_text())
    check_schema(report, tmp_path)
    assert report["config_file"] == MASK_RCNN and MASK_RCNN in report["command"]
    training, inference = report["rows"]
    assert {"backbone", "RPN", "box head", "mask head", "matching", "losses", "backward"} <= training["phases"].keys()
    assert {"backbone", "mask head", "post-processing"} <= inference["phases"].keys()
    assert inference["instances"] == 3
    assert "backbone" in printed


def test_a_comparison_with_an_older_run(run, tmp_path):
    arguments = ["--config-file", f"{QUICK}/stage_c.yaml", *BRIEF, "--output", tmp_path / "new.json"]
    assert "new / old" not in run(*arguments)
    old = json.loads((tmp_path / "new.json").read_text())
    old["rows"][0]["memory"] = {"peak": 6_000_000, "idle": 1_000_000, "increase": 5_000_000}
    (tmp_path / "old.json").write_text(json.dumps(old))
    printed = run(*arguments, "--compare", tmp_path / "old.json")
    assert re.search(r"training step, batch 1, peak MB +6\.00 +3\.00 +0\.50\n", printed)
    assert re.search(r"inference, all steps, batch 1, GFLOP +(\S+) +\1 +1\.00\n", printed)


def test_another_config_or_machine_is_not_compared(run, tool, tmp_path, monkeypatch):
    path = tmp_path / "old.json"
    arguments = ["--config-file", f"{QUICK}/stage_c.yaml", *BRIEF, "--compare", path, "--output", tmp_path / "b.json"]
    run(*arguments[:-4], "--output", path)
    monkeypatch.setattr(tool, "all_rows", lambda *_: pytest.fail("measured before the comparison was checked"))
    with pytest.raises(SystemExit, match=r"can't be compared .* another SOLVER.BASE_LR, TEST.EVAL_PERIOD\."):
        run(*arguments, "SOLVER.BASE_LR", "0.5", "TEST.EVAL_PERIOD", "7")
    old = json.loads(path.read_text())
    old["environment"] |= {"threads": 99, "device_name": "Abacus"}
    path.write_text(json.dumps(old))
    with pytest.raises(SystemExit, match=r"another device_name \(Abacus then, .* now\), threads \(99 then, \d+ now\)"):
        run(*arguments)
    assert not (tmp_path / "b.json").exists()


def test_what_is_asked_for_besides(run, tool, tmp_path, monkeypatch):
    timing = tool.postprocessing_time.__globals__["Timing"](1.0, 0.5, 2.0, 1)
    asked = []

    def growth(cfg, measure):
        asked.append(measure(cfg))
        rows = [{"size": 10, **asked[0]}]
        return {"pixels": {"rows": rows, "exponents": dict.fromkeys(asked[0], 1.25)}}

    monkeypatch.setattr(tool, "import_times", lambda *_: {"import rec_attend_d2": timing})
    monkeypatch.setattr(tool, "training_times", lambda *_: {"its end": timing})
    monkeypatch.setattr(tool.growth, "measure_growth", growth)
    monkeypatch.setattr(tool, "postprocessing_time", lambda *_: (timing, 20))
    parts = ["--startup", "--growth", "--postprocessing"]
    printed = run("--config-file", f"{QUICK}/stage_c.yaml", *BRIEF, *parts, "--output", tmp_path / "a.json")
    report = json.loads((tmp_path / "a.json").read_text())
    assert report["startup"].keys() == {"import rec_attend_d2", "its end"}
    assert list(report["postprocessing"]) == ["1024 x 2048, 20 instances (20 left)"]
    assert asked[0]["training memory"] == 2_000_000
    assert "1.25" in printed and "1000.0 (500.0 to 2000.0)" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config-file", "nowhere.yaml"], "config file 'nowhere.yaml' does not exist"),
        (["--config-file", f"{QUICK}/stage_c.yaml", "SOLVER.NOTHING", "1"], "SOLVER.NOTHING"),
        (
            ["--config-file", f"{QUICK}/stage_c.yaml", "SOLVER.MAX_ITER"],
            "with SOLVER.MAX_ITER: Override list has odd length",
        ),
        (
            ["--config-file", f"{QUICK}/stage_c.yaml", "--compare", "nowhere.json"],
            "'nowhere.json', which does not exist",
        ),
        (["--config-file", f"{QUICK}/stage_b.yaml", "--postprocessing"], "no TEST.POSTPROCESSOR"),
        (["--config-file", f"{QUICK}/stage_c.yaml", "MODEL.REC_ATTEND.NORM", "x"], "MODEL.REC_ATTEND.NORM"),
    ],
)
def test_bad_configs(run, tmp_path, arguments, message):
    with pytest.raises(SystemExit, match=message):
        run(*arguments[:2], "--output", tmp_path, *arguments[2:])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--repeats", "0"], "--repeats is 0; give at least 1"),
        (["--batch-sizes", "5,x"], "'5,x' is no list of whole numbers"),
        (["--batch-sizes", "0,5"], "--batch-sizes holds a number below 1"),
        (["--threads", "0"], "--threads is 0"),
    ],
)
def test_bad_numbers(run, capsys, arguments, message):
    with pytest.raises(SystemExit):
        run("--config-file", f"{QUICK}/stage_c.yaml", *arguments)
    assert message in capsys.readouterr().err


def test_cuda_is_refused_where_there_is_none(run, tool, monkeypatch):
    monkeypatch.setattr(tool.torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="--device is cuda, but PyTorch finds no CUDA device"):
        run("--config-file", f"{QUICK}/stage_c.yaml", "--device", "cuda")
