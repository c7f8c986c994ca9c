"""The check of a device, on the CPU: what it passes, what it finds, and what it leaves out."""

import importlib
import json
import sys
from pathlib import Path

import pytest

from rec_attend_d2.data.datasets import register_builtin_datasets

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    tool = importlib.import_module("check_device")
    monkeypatch.setattr(tool, "PROBLEMS", ("full_leaf", "not_here"))
    monkeypatch.setattr(tool, "REFERENCE", ROOT / "tests" / "reference")
    yield tool
    register_builtin_datasets()


def test_parity(tool):
    rows = tool.check_parity("cpu")["problems"]
    assert rows["full_leaf"]["ok"] and 0 < rows["full_leaf"]["pixels"] < 1e-4
    assert "not_here.npz is not here" in rows["not_here"]["left_out"]


def test_a_device_that_computes_otherwise_is_found(tool, monkeypatch: pytest.MonkeyPatch):
    right = tool.load_problem

    def wrong(name: str, device: str) -> tuple:
        data, cfg, model = right(name, device)
        model.segmentation_head.register_forward_hook(lambda head, given, output: (output[0] * 1.001, output[1]))
        return data, cfg, model

    monkeypatch.setattr(tool, "load_problem", wrong)
    assert not tool.check_parity("cpu")["problems"]["full_leaf"]["ok"]


def test_what_fails_and_what_is_left_out_is_named(tool, monkeypatch: pytest.MonkeyPatch, tmp_path, capsys):
    def broken(device: str) -> dict:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(tool, "check_parity", broken)
    monkeypatch.setattr(tool, "matmul_peak", lambda device: {"8": 1.0})
    path = tmp_path / "device.json"
    arguments = ["check_device.py", "--device", "cpu", "--minutes", "0.6", "--output", str(path)]
    monkeypatch.setattr(sys, "argv", arguments)
    monkeypatch.setattr(tool, "check_counts", lambda device: {"ok": True})
    monkeypatch.setattr(tool, "RECIPES", ("Rosettes/fast",))
    monkeypatch.setattr(tool, "check_training", lambda *arguments: {"ok": True})
    monkeypatch.setattr(tool, "check_recompute", lambda device: {"ok": True})
    assert tool.main() == 1
    result = json.loads(path.read_text())
    assert result["parity"] == {"error": "RuntimeError: no such kernel", "ok": False}
    assert result["failed"] == ["parity", "checkpoint"]  # nothing was trained
    assert result["left_out"] == ["processes", "compile"]
    assert "failed: ['parity', 'checkpoint']; left out: ['processes', 'compile']" in capsys.readouterr().out
    table = path.with_suffix(".md").read_text()
    assert "| parity" in table and "RuntimeError: no such kernel" in table and "Left out: processes, compile" in table


def test_two_processes_agree(tool, tmp_path):
    result = tool.check_processes("cpu", tmp_path)
    assert result["ok"] and result["gradients"] > 1e6 and result["difference"] < 1e-6


@pytest.mark.parametrize("name", ["h200_1", "h200_2"])
def test_the_tables_of_the_checks_are_those_of_their_figures(tool, name):
    path = ROOT / "docs" / "results" / "device" / f"{name}.json"
    assert path.with_suffix(".md").read_text() == tool.table(json.loads(path.read_text()))
