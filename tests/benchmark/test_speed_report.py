"""The report's tables, its comparison with another one, and what is refused."""

import copy
import json

import pytest

from rec_attend_d2.benchmark.speed_report import comparison_table, different_environment, read_report, tables
from rec_attend_d2.whole_files import write_json


def timing(median: float) -> dict:
    return {"median": median, "q1": 0.9 * median, "q3": 1.2 * median, "repeats": 5}


@pytest.fixture
def old() -> dict:
    """A report with figures made by hand."""
    training = {
        "run": "training step",
        "batch": 5,
        "seconds": timing(2.0),
        "images_per_second": 2.5,
        "flops": 40_000_000_000,
        "memory": {"peak": 900_000_000, "idle": 300_000_000, "increase": 600_000_000},
    }
    inference = {
        "run": "inference, all steps",
        "batch": 5,
        "steps": 21,
        "instances": 16.0,
        "seconds": timing(0.5),
        "images_per_second": 10.0,
        "flops": 10_000_000_000,
    }
    return {
        "schema": 1,
        "command": "python tools/benchmark_speed.py --config-file a.yaml",
        "config_file": "a.yaml",
        "config": {"SEED": 1},
        "environment": {"device": "cpu", "device_name": "Fast CPU", "cpu_name": "Fast CPU", "threads": 2, "torch": "2"},
        "settings": {"repeats": 5, "warmup": 1, "batch_sizes": [5]},
        "peak": {"512": 50e9, "1024": 80e9},
        "rows": [training, inference],
    }


def line_with(text: str, *words: str) -> list[str]:
    """The cells of the one line that begins with ``words``."""
    lines = [line for line in text.splitlines() if line.startswith(" ".join(words) + "  ")]
    assert len(lines) == 1, text
    return lines[0].removeprefix(" ".join(words)).split()


def test_the_table_of_a_report(old):
    text = tables(old)
    assert "80.0 GFLOP/s" in text and "median of 5 runs after 1" in text
    assert line_with(text, "training step, batch 5, ms") == "2000.00 1800.0 to 2400.0".split()
    # 40 GFLOP in 2 s are 20 GFLOP/s, a quarter of the peak.
    assert line_with(text, "training step, batch 5, GFLOP")[:3] == ["40.00", "25.0", "%"]
    assert line_with(text, "training step, batch 5, over idle MB") == ["600.00"]


def test_growth_and_starts_are_shown(old):
    rows = [{"size": 5, "training step": 0.5}, {"size": 40, "training step": 5.0}]
    old["growth"] = {"time steps": {"rows": rows, "exponents": {"training step": 1.02}}}
    old["startup"] = {"import rec_attend_d2": timing(1.0)}
    text = tables(old)
    assert line_with(text, "training step, exponent with time steps") == ["1.02", "5", "to", "40"]
    assert line_with(text, "import rec_attend_d2, ms") == ["1000.00", "900.0", "to", "1200.0"]


def test_the_comparison(old):
    new = copy.deepcopy(old)
    new["rows"][0]["seconds"] = timing(1.0)
    new["rows"][0]["memory"]["peak"] = 450_000_000
    new["startup"] = {"import": timing(1.0)}
    old["postprocessing"] = {"large": timing(2.0)}
    text = comparison_table(old, new)
    assert line_with(text, "training step, batch 5, ms") == ["2000.00", "1000.00", "0.50"]
    assert line_with(text, "training step, batch 5, peak MB") == ["900.00", "450.00", "0.50"]
    assert line_with(text, "inference, all steps, batch 5, ms") == ["500.00", "500.00", "1.00"]
    # What only one of them has stands alone.
    assert line_with(text, "import, ms") == ["1000.00"]
    assert line_with(text, "post-processing, large, ms") == ["2000.00"]


def test_other_devices_and_threads_are_named(old):
    environment = old["environment"]
    assert different_environment(environment, {**environment, "torch": "3"}) == []
    other = {**environment, "threads": 4, "device_name": "Slow CPU"}
    assert different_environment(environment, other) == [
        "device_name (Fast CPU then, Slow CPU now)",
        "threads (2 then, 4 now)",
    ]


def test_a_report_is_read_as_it_was_written(old, tmp_path):
    write_json(tmp_path / "folder" / "old.json", old)
    assert read_report(tmp_path / "folder" / "old.json") == old


def test_files_that_are_no_reports(old, tmp_path):
    path = tmp_path / "old.json"
    with pytest.raises(ValueError, match="old.json' can't be read as json: .*No such file"):
        read_report(path)
    path.write_text("{")
    with pytest.raises(ValueError, match="can't be read as json"):
        read_report(path)
    for content in ([], {"variants": []}, {**old, "schema": 0}):
        path.write_text(json.dumps(content))
        with pytest.raises(ValueError, match="is no report of tools/benchmark_speed.py"):
            read_report(path)
