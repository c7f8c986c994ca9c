"""From arguments to a config, and results to a file."""

import argparse
import json
import math
import sys
from pathlib import Path

import pytest
import torch
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog

from rec_attend_d2.engine import setup as run_setup
from rec_attend_d2.engine import write_results

from .conftest import NAME

QUICK = Path(__file__).resolve().parents[1] / "configs"


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def test_undefined_figures_are_null(tmp_path):
    path = write_results({"segm": {"AP": 12.5, "APl": math.nan}, "counting": {"num_images": 3}}, str(tmp_path))
    with open(path) as file:
        assert json.load(file, parse_constant=refuse) == {
            "segm": {"AP": 12.5, "APl": None},
            "counting": {"num_images": 3},
        }


@pytest.fixture
def configured(monkeypatch, picture_files, tmp_path):
    """A function from a recipe and options to INPUT.OBJECT_SIZE of the config that is used and saved.

    Objects of the pictures have 14 x 12 pixels.
    """
    module = sys.modules[run_setup.__module__]

    def save(cfg, arguments) -> None:
        (tmp_path / "config.yaml").write_text(cfg.dump())

    # Which would change the loggers for all tests that follow.
    monkeypatch.setattr(module, "setup_logger", lambda *arguments, **options: None)
    monkeypatch.setattr(module, "default_setup", save)

    def run(recipe: str, *options: object, eval_only: bool = False) -> float:
        files = str([[NAME, *map(str, picture_files)]])
        given = ["DATASETS.COCO_FILES", files, "DATASETS.TRAIN", f"('{NAME}',)", "OUTPUT_DIR", str(tmp_path), *options]
        arguments = argparse.Namespace(
            config_file=str(QUICK / f"{recipe}.yaml"), opts=given, eval_only=eval_only, resume=True
        )
        cfg = run_setup(arguments)
        assert cfg.is_frozen()
        assert yaml.safe_load((tmp_path / "config.yaml").read_text())["INPUT"]["OBJECT_SIZE"] == cfg.INPUT.OBJECT_SIZE
        return cfg.INPUT.OBJECT_SIZE

    yield run
    DatasetCatalog.pop(NAME, None)
    MetadataCatalog.pop(NAME, None)


@pytest.fixture
def weights(tmp_path) -> str:
    """A checkpoint that was trained on objects of 17.5 pixels."""
    torch.save({"model": {"object_size": torch.tensor(17.5)}}, tmp_path / "weights.pth")
    return str(tmp_path / "weights.pth")


def test_the_width_of_objects_is_measured_unless_it_is_given(configured, weights):
    measured = pytest.approx(math.sqrt(14 * 12), abs=0.01)
    assert configured("fast", "INPUT.OBJECT_SIZE", 0.0) == measured
    assert configured("fast", "INPUT.OBJECT_SIZE", 0.0, "MODEL.WEIGHTS", weights) == measured
    assert configured("fast") == 24.0


def test_evaluation_takes_the_width_of_objects_from_the_weights(configured, weights, tmp_path):
    options = ["INPUT.OBJECT_SIZE", 0.0, "MODEL.WEIGHTS", weights]
    assert configured("fast", *options, eval_only=True) == 17.5
    assert configured("fast", "MODEL.WEIGHTS", weights, eval_only=True) == 24.0
    # Weights that do not say.
    torch.save({"model": {}}, weights)
    assert configured("fast", *options, eval_only=True) == pytest.approx(math.sqrt(14 * 12), abs=0.01)


def test_the_papers_models_keep_the_width_of_objects_of_their_training(configured, monkeypatch):
    assert configured("stage_b") > 0
    monkeypatch.setattr(DatasetCatalog, "get", lambda name: pytest.fail("the data need not be read"))
    assert configured("stage_b", "INPUT.OBJECT_SIZE", "7.5", eval_only=True) == 7.5
    assert configured("stage_c", eval_only=True) == 0.0
