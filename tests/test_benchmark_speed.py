"""tools/benchmark_speed.py: what it prints and writes, what it compares, and what it refuses."""

import importlib
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from rec_attend_d2.benchmark import speed
from rec_attend_d2.benchmark.speed_report import KEYS
from rec_attend_d2.config import load_config
from rec_attend_d2.prediction.predictor import Predictor

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
        monkeypatch.setattr(
            speed, "training_memory", lambda *_: {"peak": 3_000_000, "idle": 1_000_000, "increase": 2_000_000}
        )
        monkeypatch.setattr(tool, "matmul_peak", lambda device: {"512": 1e12})
        monkeypatch.setenv("OMP_NUM_THREADS", "1")  # chooses the number of threads, which is not tried then
        monkeypatch.chdir(ROOT)
        tool.main()
        return capsys.readouterr().out

    return call


def check_schema(report: dict, root: Path) -> None:
    assert report.keys() >= KEYS
    assert str(root) not in json.dumps(report)
    assert report["environment"].keys() == {"device", "device_name", "cpu_name", "threads", "torch", "python"}
    for row in report["rows"]:
        assert {"run", "batch", "seconds", "images_per_second", "flops"} <= row.keys()
        assert row["seconds"].keys() == {"median", "q1", "q3", "repeats"}
        assert row["seconds"]["q1"] <= row["seconds"]["median"] <= row["seconds"]["q3"]


@pytest.mark.parametrize(
    ("name", "stopping", "words"),
    [
        ("stage_c", "inference, 1 object, then stop", ["networks only"]),
        ("fast", "inference, 1 object apart, then stop", []),
    ],
)
def test_the_tool_as_a_user_calls_it(run_tool, tmp_path, name, stopping, words):
    process = run_tool("benchmark_speed", "--config-file", f"{QUICK}/{name}.yaml", *BRIEF, "--output", tmp_path)
    assert process.returncode == 0, process.stderr[-3000:]
    report = json.loads((tmp_path / f"configs_{name}.json").read_text())
    check_schema(report, tmp_path.parent)
    rows = {row["run"]: row for row in report["rows"]}
    memory = rows["training step"]["memory"]
    assert 100e6 < memory["idle"] < memory["peak"] < 4e9 and memory["increase"] == memory["peak"] - memory["idle"]
    assert rows[stopping]["steps"] == 2
    assert (len(rows) == 2) == (name == "fast")
    for word in ("GFLOP/s", "of the machine's peak", "training step", "Written to", *words):
        assert word in process.stdout


def test_mask_rcnn(run, tmp_path):
    printed = run("--config-file", MASK_RCNN, *BRIEF, "--device", "cpu", "--output", tmp_path / "a.json", *NARROW)
    report = json.loads((tmp_path / "a.json").read_text())
    check_schema(report, tmp_path)
    assert report["config_file"] == MASK_RCNN and MASK_RCNN in report["command"]
    assert [row["run"] for row in report["rows"]] == ["training step", "inference"]
    assert "inference, batch 1, GFLOP" in printed


def test_a_comparison_with_an_older_run(run, tmp_path):
    arguments = ["--config-file", f"{QUICK}/stage_c.yaml", *BRIEF, "--output", tmp_path / "new.json"]
    assert "new / old" not in run(*arguments)
    old = json.loads((tmp_path / "new.json").read_text())
    old["rows"][0]["memory"] = {"peak": 6_000_000, "idle": 1_000_000, "increase": 5_000_000}
    old["config"]["MODEL"]["A_KEY_THAT_IS_GONE"] = {"NOW": True}
    (tmp_path / "old.json").write_text(json.dumps(old))
    printed = run(*arguments, "--compare", tmp_path / "old.json")
    assert re.search(r"training step, batch 1, peak MB +6\.00 +3\.00 +0\.50\n", printed)
    assert re.search(r"inference, all steps, batch 1, GFLOP +(\S+) +\1 +1\.00\n", printed)


def test_another_config_or_machine_is_not_compared(run, tool, tmp_path, monkeypatch):
    path = tmp_path / "old.json"
    arguments = ["--config-file", f"{QUICK}/stage_c.yaml", *BRIEF, "--compare", path, "--output", tmp_path / "b.json"]
    run(*arguments[:-4], "--output", path)
    monkeypatch.setattr(tool.speed, "all_rows", lambda *_: pytest.fail("measured before the comparison was checked"))
    with pytest.raises(SystemExit, match=r"can't be compared .* another SOLVER.BASE_LR, TEST.EVAL_PERIOD\."):
        run(*arguments, "SOLVER.BASE_LR", "0.5", "TEST.EVAL_PERIOD", "7")
    old = json.loads(path.read_text())
    old["environment"] |= {"threads": 99, "device_name": "Abacus"}
    path.write_text(json.dumps(old))
    with pytest.raises(SystemExit, match=r"another device_name \(Abacus then, .* now\), threads \(99 then, \d+ now\)"):
        run(*arguments)
    assert not (tmp_path / "b.json").exists()


def test_what_is_asked_for_besides(run, tool, tmp_path, monkeypatch):
    timing = {"median": 1.0, "q1": 0.5, "q3": 2.0, "repeats": 1}
    asked = []

    def growth(cfg, measure):
        asked.append(measure(cfg))
        rows = [{"size": 10, **asked[0]}]
        return {"pixels": {"rows": rows, "exponents": dict.fromkeys(asked[0], 1.25)}}

    monkeypatch.setattr(tool, "import_times", lambda *_: {"import rec_attend_d2": timing})
    monkeypatch.setattr(tool, "training_times", lambda *_: {"its end": timing})
    monkeypatch.setattr(tool, "measure_growth", growth)
    monkeypatch.setattr(tool.speed, "postprocessing_time", lambda *_: (timing, 20))
    parts = ["--startup", "--growth", "--postprocessing"]
    printed = run("--config-file", f"{QUICK}/stage_c.yaml", *BRIEF, *parts, "--output", tmp_path / "a.json")
    report = json.loads((tmp_path / "a.json").read_text())
    assert report["startup"].keys() == {"import rec_attend_d2", "its end"}
    assert list(report["postprocessing"]) == ["1024 x 2048, 20 instances (20 left)"]
    assert asked[0]["training memory"] == 2_000_000
    assert "1.25" in printed and re.search(r"1000\.00 +500\.0 to 2000\.0", printed)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config-file", "nowhere.yaml"], "config file 'nowhere.yaml' does not exist"),
        (["--config-file", f"{QUICK}/stage_c.yaml", "SOLVER.NOTHING", "1"], "SOLVER.NOTHING"),
        (
            ["--config-file", f"{QUICK}/stage_c.yaml", "SOLVER.MAX_ITER"],
            "Override list has odd length",
        ),
        (
            ["--config-file", f"{QUICK}/stage_c.yaml", "--compare", "nowhere.json"],
            "nowhere.json' can't be read as json",
        ),
        (["--config-file", f"{QUICK}/stage_b.yaml", "--postprocessing"], "no post-processing of whole masks"),
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


# --- pictures ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def trained(tmp_path) -> list[str]:
    """Arguments for the quick fast config, and its weights in a file, with which boxes are objects as they are."""
    cfg = load_config(str(ROOT / QUICK / "fast.yaml"), ["MODEL.DEVICE", "cpu"])
    model = speed.build_random_model(cfg)
    torch.nn.init.constant_(model.segmentation_head.mask.bias, 9.0)
    torch.save({"model": model.state_dict()}, tmp_path / "model.pth")
    return ["--config-file", f"{QUICK}/fast.yaml", "--repeats", "2", "--warmup", "0", "--output", f"{tmp_path}/a.json"]


def test_pictures_with_trained_weights(run, trained, squares, tmp_path, monkeypatch):
    monkeypatch.setattr("rec_attend_d2.modeling.fast.place_proposer.PLACE_PROBABILITY", 1e-9)
    picture = squares / "squares_1.png"
    options = ["INPUT.OBJECT_SIZE", "16.0", "MODEL.WEIGHTS", tmp_path / "model.pth"]
    run(*trained, "--pictures", picture, squares / "squares_3.png", *options)
    report = json.loads((tmp_path / "a.json").read_text())
    check_schema(report, tmp_path.parent)
    (row,) = report["rows"]
    assert row["run"] == "pictures, objects of 12 pixels (16 in the file)" and row["seconds"]["repeats"] == 2
    assert row["seconds_with_postprocessing"]["repeats"] == 2 and len(report["settings"]["pictures"]) == 2
    cfg = load_config(str(ROOT / QUICK / "fast.yaml"), ["MODEL.DEVICE", "cpu", *map(str, options)])
    predictor = Predictor(cfg)
    images = [predictor.read(squares / f"squares_{count}.png") for count in (1, 3)]
    assert row["objects"] == sum(found.count for found in predictor.predict(images)) / 2 > 0
    assert row["steps"] == sum(len(predictor.trace(image).steps) for image in images) / 2
    again = run(*trained, "--compare", tmp_path / "a.json", "--pictures", picture, squares / "squares_3.png", *options)
    assert re.search(r"pictures, objects of 12 pixels \(16 in the file\), batch 1, objects +(\S+) +\1 +1\.00\n", again)
    assert re.search(r"pictures, objects of 12 pixels \(16 in the file\), batch 1, with post-processing, ms +\S", again)
    with pytest.raises(SystemExit, match="can't be compared .* another --pictures"):
        run(*trained, "--compare", tmp_path / "a.json", "--pictures", picture, *options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["SQUARES", "MODEL.WEIGHTS", ""], "no weights: set MODEL.WEIGHTS"),
        (["SQUARES", "MODEL.WEIGHTS", "nowhere.pth"], "nowhere.pth"),
        (["no/*.png", "MODEL.WEIGHTS", "WEIGHTS"], r"No file matches the pattern 'no/\*.png'"),
        (["nothing.png", "MODEL.WEIGHTS", "WEIGHTS"], "nothing.png does not exist"),
    ],
)
def test_pictures_that_can_not_be_measured(run, trained, squares, tmp_path, arguments, message):
    known = {"SQUARES": squares, "WEIGHTS": tmp_path / "model.pth"}
    with pytest.raises(SystemExit, match=message) as error:
        run(*trained, "--pictures", *[known.get(word, word) for word in arguments])
    assert "\n" not in str(error.value) and not (tmp_path / "a.json").exists()


def test_pictures_without_a_file(run, trained, capsys):
    with pytest.raises(SystemExit):
        run(*trained, "--pictures", "MODEL.WEIGHTS", "model.pth")
    assert "--pictures names no image" in capsys.readouterr().err


# --- growth and starts ------------------------------------------------------------------------------------------------


@pytest.fixture
def load() -> Callable:
    return lambda name, *options: load_config(str(ROOT / QUICK / f"{name}.yaml"), ["MODEL.DEVICE", "cpu", *options])


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0, 2.0])
def test_the_exponent_of_a_power_law(tool, exponent):
    sizes = [5, 10, 20, 40]
    assert tool.fit_exponent(sizes, [3 * size**exponent for size in sizes]) == pytest.approx(exponent)


def work(cfg) -> dict[str, float]:
    """A model whose time is linear in steps and pixels, and whose memory grows with the root of the pixels."""
    height, width = cfg.INPUT.IMAGE_SIZE
    node = cfg.MODEL.REC_ATTEND
    return {"time": 2e-6 * node.TIME_STEPS * height * width, "memory": (height * width) ** 0.5}


def test_both_series_of_growth(tool, load, monkeypatch):
    monkeypatch.setattr(tool, "SIDES", (32, 64, 128))
    growth = tool.measure_growth(load("stage_c"), work)
    assert growth["time steps"]["exponents"] == {"time": pytest.approx(1), "memory": pytest.approx(0)}
    assert growth["pixels"]["exponents"] == {"time": pytest.approx(1), "memory": pytest.approx(0.5)}
    assert [row["size"] for row in growth["pixels"]["rows"]] == [1024, 4096, 16384]
    # Neither has a number of time steps that could grow.
    for name in ("fast", "Cityscapes/stage_a"):
        assert list(tool.measure_growth(load(name), work)) == ["pixels"]


@pytest.mark.parametrize(
    ("name", "inference"), [("stage_c", "inference, all steps"), ("fast", "inference, 16 objects apart, then stop")]
)
def test_growth_values(tool, load, monkeypatch, name, inference):
    monkeypatch.setattr(speed, "training_memory", lambda *arguments: {"increase": 6})
    values = tool.growth_values(load(name), 1, speed.Effort(repeats=1, warmup=0))
    assert values.keys() == {"training step", inference, "training memory"}
    assert values["training memory"] == 6 and min(values.values()) > 0


def test_the_start_of_a_training(tool, load, tmp_path):
    script = tmp_path / "train_net.py"
    script.write_text(
        "import sys, time\n"
        "assert open(sys.argv[2]).read() and 'SOLVER.MAX_ITER' in sys.argv\n"
        "print('Starting training from iteration 0'); time.sleep(0.2); print('iter: 0  total_loss: 1')\n"
    )
    before, after = tool.training_times(load("stage_c"), script, repeats=2, threads=1).values()
    assert before["repeats"] == after["repeats"] == 2
    assert 0 < before["median"] < after["median"] and after["q1"] >= 0.2
    script.write_text("raise SystemExit('no data')")
    with pytest.raises(RuntimeError, match="train_net.py failed with exit code 1: no data"):
        tool.training_times(load("stage_c"), script, 1, 1)
    with pytest.raises(ValueError, match="does not train .*'GeneralizedRCNN'.*--startup"):
        tool.training_times(load("stage_c", "MODEL.META_ARCHITECTURE", "GeneralizedRCNN"), script, 1, 1)


def test_imports_are_timed_apart(tool, monkeypatch, tmp_path):
    (tmp_path / "detectron2").mkdir()
    (tmp_path / "detectron2" / "__init__.py").write_text("import time; time.sleep(1)")
    (tmp_path / "rec_attend_d2.py").write_text("import detectron2, time; time.sleep(0.1)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    times = tool.import_times(repeats=1, threads=1)
    assert times["import detectron2"]["median"] >= 1 > times["import rec_attend_d2"]["median"] >= 0.1
