"""The table of docs/speed.md is the one that docs/speed/ holds."""

import json
from pathlib import Path

import pytest

from rec_attend_d2.benchmark.speed_report import read_report

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def tool(script):
    return script("update_speed_table")


@pytest.fixture
def content() -> dict:
    """A report of round figures."""

    def row(run: str, batch: int, seconds: float, **more) -> dict:
        return {"run": run, "batch": batch, "seconds": {"median": seconds}, "flops": 50e9 * seconds, **more}

    return {
        "command": "the command",
        "environment": {"cpu_name": "a CPU", "threads": 2, "torch": "9"},
        "peak": {"512": 80e9, "1024": 100e9},
        "rows": [
            row("training step", 5, 3.02, memory={"peak": 3.35e9, "increase": 2.5e9}),
            row("inference, all steps", 1, 0.43),
            row("inference, 5 objects, then stop", 1, 0.1),
        ],
        "startup": {
            "import rec_attend_d2": {"median": 2.0},
            "train_net.py to the first step": {"median": 12.5},
            "its end": {"median": 16.0},
        },
        "postprocessing": {"large": {"median": 0.25}},
    }


@pytest.fixture
def recomputed() -> dict:
    """The same of a training that keeps no activations."""
    memory = {"peak": 1.34e9, "increase": 0.5e9}
    row = {"batch": 5, "flops": 10e9, "seconds": {"median": 7.55}}
    rows = [{"run": "training step", **row, "memory": memory}, {"run": "other", **row}]
    return {"command": "the third", "rows": rows}


def test_own_figures_stand_beside_the_originals(tool, content: dict, recomputed: dict):
    text = tool.render(content, recomputed)
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    assert cells[2:] == [
        ["training step, batch 5", "15.1 s", "3.02 s", "5.0", "50 %"],
        ["its peak memory", "6.7 GB", "3.35 GB", "2.0", ""],
        ["... over the idle process", "", "2.5 GB", "", ""],
        ["inference, all steps, batch 1", "0.86 s", "0.43 s", "2.0", "50 %"],
        ["inference, 5 objects, then stop, batch 1", "", "0.1 s", "", "50 %"],
        ["training step, batch 5, RECOMPUTE", "15.1 s", "7.55 s", "2.0", ""],
        ["its peak memory", "6.7 GB", "1.34 GB", "5.0", ""],
        ["... over the idle process", "", "0.5 GB", "", ""],
        ["import rec_attend_d2", "", "2 s", "", ""],
        ["train_net.py to the first step", "100 s", "12.5 s", "8.0", ""],
        ["... and to that step's end", "", "16 s", "", ""],
        ["post-processing, large", "", "0.25 s", "", ""],
    ]
    assert text.startswith("a CPU, 2 threads, 100 GFLOP/s")
    assert text.endswith("\n\n    the command\n    the third\n")


def test_the_page_is_up_to_date(tool):
    page = (ROOT / "docs" / "speed.md").read_text()
    text = tool.render(*map(read_report, (tool.REPORT, tool.RECOMPUTED)))
    assert f"{tool.BEGIN}\n{text}\n{tool.render_growth(read_report(tool.GROWTH))}\n{tool.END}" in page


def test_exponents_stand_beside_each_other(tool):
    def series(first: int, last: int, exponent: float) -> dict:
        return {"rows": [{"size": first}, {"size": last}], "exponents": {"training step": exponent}}

    growth = {"time steps": series(5, 40, 0.98), "pixels": series(100, 900, 0.4)}
    text = tool.render_growth({"command": "the command", "rows": [{"batch": 2}], "growth": growth})
    assert text.startswith("Growth, fitted to time steps from 5 to 40; pixels from 100 to 900 (1 is linear):\n")
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    assert cells[0] == ["exponent, batch 2", "with time steps", "with pixels"]
    assert cells[2] == ["training step", "0.98", "0.40"]


def test_the_trials_are_those_of_the_report(script):
    tool = script("update_speed_table")
    page = (ROOT / "docs" / "speed.md").read_text()
    trials = tool.render_trials(json.loads(tool.TRIALS.read_text()))
    assert f"{tool.TRIALS_BEGIN}\n{trials}{tool.TRIALS_END}" in page


def test_every_variant_of_a_training_step_can_be_measured(script, monkeypatch):
    tool = script("try_paper_speed")
    monkeypatch.setattr(tool.step_norm, "batch_norm", tool.step_norm.batch_norm)  # which a variant replaces
    config = str(ROOT / "tests" / "configs" / "stage_c.yaml")
    for variant in tool.VARIANTS:
        row = tool.measure(config, variant, batch=2, repeats=1)
        assert row["seconds"] > 0 and row["peak_memory"] > 0
    assert tool.measure_head(config, batch=2, repeats=1)["as_one_batch"] > 0
