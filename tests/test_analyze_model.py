"""tools/analyze_model.py: what it prints and writes, for our models and Detectron2's, and what it refuses."""

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
QUICK = "tests/configs"
# Detectron2's Mask R-CNN, with narrow layers.
MASK_RCNN = "COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x.yaml"
NARROW = ["MODEL.RESNETS.DEPTH", "18", "MODEL.RESNETS.RES2_OUT_CHANNELS", "64", "MODEL.FPN.OUT_CHANNELS", "16"]
NARROW += ["MODEL.ROI_MASK_HEAD.NUM_CONV", "1", "MODEL.ROI_MASK_HEAD.CONV_DIM", "16", "MODEL.ROI_BOX_HEAD.FC_DIM", "16"]
NARROW += ["INPUT.IMAGE_SIZE", "[64, 64]", "TEST.DETECTIONS_PER_IMAGE", "3", "MODEL.ROI_HEADS.SCORE_THRESH_TEST", "0.0"]


@pytest.fixture
def run(monkeypatch, capsys) -> Callable[..., str]:
    """Runs the tool in this process and returns what it printed."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    monkeypatch.chdir(ROOT)
    tool = importlib.import_module("analyze_model")

    def call(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["analyze_model.py", *map(str, arguments)])
        tool.main()
        return capsys.readouterr().out

    return call


def test_the_tool_as_a_user_calls_it(run_tool, tmp_path):
    path = tmp_path / "new" / "report.json"
    options = ["--steps", "4", "--tasks", "parameters,flops", "--json", path, "INPUT.IMAGE_SIZE", "[64, 96]"]
    process = run_tool("analyze_model", "--config-file", f"{QUICK}/fast.yaml", *options)
    assert process.returncode == 0, process.stderr[-3000:]
    report = json.loads(path.read_text())
    assert (report["model"], report["image_size"], report["steps"]) == ("RecAttend", [64, 96], 4)
    assert "activations" not in report and str(tmp_path) not in path.read_text()
    for words in ("each further step", "segmentation_head", "of which trained", "Operations not counted: "):
        assert words in process.stdout


@pytest.mark.parametrize("name", ["stage_b", "stage_c", "Cityscapes/stage_a", "Cityscapes/stage_c", "COCO/fast"])
def test_every_kind_of_config(run, tmp_path, name):
    printed = run("--config-file", f"{QUICK}/{name}.yaml", "--json", tmp_path / "a.json", "MODEL.WEIGHTS", "")
    report = json.loads((tmp_path / "a.json").read_text())
    assert (report["steps"] is None) == ("each further step" not in printed) == (name == "Cityscapes/stage_a")
    for what in ("flops", "activations"):
        parts = report[what]["parts"]
        shares = [row["total"] for part, row in parts.items() if "." not in part and part != "all"]
        assert parts["all"]["total"] == sum(shares) > 0


def test_mask_rcnn(run, tmp_path):
    printed = run("--config-file", MASK_RCNN, "--json", tmp_path / "a.json", *NARROW)
    report = json.loads((tmp_path / "a.json").read_text())
    assert report["config_file"] == MASK_RCNN and report["steps"] is None
    assert {"backbone", "proposal_generator", "roi_heads", "roi_heads.mask_head"} <= report["flops"]["parts"].keys()
    assert "roi_heads" in printed and "Operations not counted: aten::" in printed


def test_structure_alone(run):
    printed = run("--config-file", f"{QUICK}/stage_c.yaml", "--tasks", "structure")
    assert "(stop_scorer)" in printed and "MFLOP" not in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config-file", "nowhere.yaml"], "analyze_model: The config file 'nowhere.yaml' does not exist"),
        (["--tasks", "flops,speed"], "'speed' is no task; choose from parameters,flops,activations,structure"),
        (["--steps", "0"], "--steps is 0; give at least 1"),
        (["--depth", "0"], "--depth is 0; give at least 1"),
        (["SOLVER.NOTHING", "1"], "SOLVER.NOTHING"),
        (["MODEL.REC_ATTEND.TIME_STEPS", "1"], "TIME_STEPS is 1; give at least 2"),
        (["MODEL.REC_ATTEND.PREPROCESSOR.CACHE_DIR", "maps"], "PREPROCESSOR.CACHE_DIR is 'maps'"),
    ],
)
def test_wrong_calls_end_in_one_line(run, tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as error:
        run("--config-file", f"{QUICK}/stage_c.yaml", "--json", tmp_path / "a.json", *arguments)
    assert message in f"{error.value}{capsys.readouterr().err}"
    assert not (tmp_path / "a.json").exists()
