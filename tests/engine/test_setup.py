"""From arguments to a config, and results to a file."""

import json
import math

import pytest
import torch

from rec_attend_d2.engine import load_config, write_results


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def test_undefined_figures_are_null(tmp_path):
    path = write_results({"segm": {"AP": 12.5, "APl": math.nan}, "counting": {"num_images": 3}}, str(tmp_path))
    with open(path) as file:
        assert json.load(file, parse_constant=refuse) == {
            "segm": {"AP": 12.5, "APl": None},
            "counting": {"num_images": 3},
        }


def test_without_cuda_the_device_is_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert load_config("", []).MODEL.DEVICE == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert load_config("", []).MODEL.DEVICE == "cuda"


def test_options_come_last():
    assert load_config("", ["MODEL.REC_ATTEND.TIME_STEPS", "4"]).MODEL.REC_ATTEND.TIME_STEPS == 4
    with pytest.raises(FileNotFoundError, match="nowhere.yaml"):
        load_config("nowhere.yaml", [])
