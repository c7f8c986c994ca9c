"""tools/analyze_model.py: fvcore's table of our models and Detectron2's, and what it refuses."""

import importlib
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rec_attend_d2.benchmark.measuring import count_flops
from rec_attend_d2.benchmark.probes import NetworksOnly, known_objects, usual_objects
from rec_attend_d2.benchmark.speed import build_random_model, inference_batch
from rec_attend_d2.config import load_config

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


@pytest.mark.parametrize("name", ["stage_c", "fast"])
def test_operations_are_those_of_all_steps_or_of_one_glance(run, name):
    path = f"{QUICK}/{name}.yaml"
    printed = run("--config-file", path)
    assert "box_proposer" in printed and "#activations" in printed
    cfg = load_config(str(ROOT / path), ["MODEL.DEVICE", "cpu"])
    model, batch = build_random_model(cfg).eval(), inference_batch(cfg, 1)
    value, unit = re.findall(r"\| (?:model\.)?model +\| \S+ +\| (\S+)([KM])", printed)[0]
    counted = float(value) * {"K": 1e3, "M": 1e6}[unit]
    # Both count matrix products and convolutions, the other one a multiplication and an addition as two.
    with known_objects(model, usual_objects(cfg), stop=True):
        assert counted == pytest.approx(count_flops(lambda: NetworksOnly(model)(batch)) / 2, rel=0.35)


def test_every_kind_of_model(run):
    assert "box_proposer" in run("--config-file", f"{QUICK}/stage_b.yaml")
    assert "preprocessor" in run("--config-file", f"{QUICK}/Cityscapes/stage_a.yaml")
    printed = run("--config-file", MASK_RCNN, *NARROW)
    assert "backbone" in printed and "roi_heads" in printed


def test_wrong_calls_end_in_one_line(run):
    with pytest.raises(SystemExit, match="analyze_model: .*nowhere.yaml' does not exist"):
        run("--config-file", "nowhere.yaml")
    with pytest.raises(SystemExit, match="analyze_model: .*SOLVER.NOTHING"):
        run("--config-file", f"{QUICK}/stage_c.yaml", "SOLVER.NOTHING", "1")
