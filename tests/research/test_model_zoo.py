"""MODEL_ZOO.md shows what docs/results and docs/comparison hold, and docs/ablation.md what its results say."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs" / "results"


@pytest.fixture
def tool(script):
    return script("update_model_zoo")


def test_the_page_is_up_to_date_and_short(tool):
    page = (ROOT / "MODEL_ZOO.md").read_text()
    assert f"{tool.BEGIN}\n{tool.render_trainings()}\n\n{tool.END}" in page
    assert f"{tool.COMPARISON_BEGIN}\n{tool.render_comparisons()}\n\n{tool.COMPARISON_END}" in page
    assert f"{tool.SPEED_BEGIN}\n{tool.render_speeds()}\n\n{tool.SPEED_END}" in page
    assert f"{tool.OTHERS_BEGIN}\n{tool.render_others()}\n\n{tool.OTHERS_END}" in page
    assert f"{tool.ONE_COMMAND_BEGIN}\n{tool.render_one_command()}\n\n{tool.ONE_COMMAND_END}" in page
    assert len(page.splitlines()) <= 120


def test_every_row_has_its_command():
    paths = sorted(RESULTS.glob("*.json"))
    assert paths
    for path in paths:
        words = json.loads(path.read_text())["command"].split()
        assert (ROOT / words[words.index("--config-file") + 1]).is_file(), path.name


def test_the_results_of_what_is_gone_are_cited():
    text = (ROOT / "docs" / "ablation.md").read_text()
    for path in (RESULTS / "ablation").glob("*.json"):
        assert re.sub(r"_seed\d+$", "", path.stem) in text, path.name


def test_the_ablation_shows_its_results():
    text = (ROOT / "docs" / "ablation.md").read_text()
    rows = json.loads((RESULTS / "ablation" / "ablation_nuclei.json").read_text())["variants"]
    for row in rows:
        metrics = row["metrics"]
        figures = f"| {metrics['SBD']:.3f} | {metrics['abs_DiC']:.2f} | {metrics['count_accuracy']:.2f} |"
        assert figures in text, row["name"]


def test_a_training_is_described_by_its_folder(tool, tmp_path):
    settings = {"SOLVER": {"MAX_ITER": 40, "IMS_PER_BATCH": 5}, "INPUT": {"IMAGE_SIZE": [32, 48]}}
    settings["MODEL"] = {"META_ARCHITECTURE": "RecAttend"}
    (tmp_path / "config.yaml").write_text(json.dumps(settings))
    lines = [{"iteration": 19, "time": 3.0, "max_mem_mb": 900.4}, {"iteration": 39, "time": 3.0, "max_mem_mb": 950.4}]
    (tmp_path / "metrics.json").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "metrics_final.json").write_text(json.dumps({"counting": {"SBD": 0.5}}))
    entry = tool.describe(tmp_path, "the command", "a note")
    assert (entry["iterations"], entry["batch"], entry["input"]) == (40, 5, "32 x 48")
    assert entry["training_minutes"] == pytest.approx(39 * 3 / 60, abs=0.06)
    assert entry["peak_memory_mb"] == 950
    assert entry["metrics"] == {"counting": {"SBD": 0.5}}


def test_seeds_of_one_recipe_share_a_row(tool, tmp_path, monkeypatch):
    def write(name: str, command: str, sbd: float) -> None:
        entry = {"command": command, "input": "8 x 8", "iterations": 9, "batch": 2, "training_minutes": 3.0}
        metrics = {"counting": {"SBD": sbd, "abs_DiC": 0.25, "count_accuracy": 0.5}}
        (tmp_path / f"{name}.json").write_text(json.dumps({**entry, "metrics": metrics}))

    write("b", "train.py B SEED 1", 0.8)
    write("b_seed2", "train.py B SEED 12", 0.9)
    write("other", "train.py C SEED 1", 0.1)
    monkeypatch.setattr(tool, "RESULTS", tmp_path)
    lines = tool.render_trainings().splitlines()
    rows = [[cell.strip() for cell in line.split(" | ")] for line in lines[2:]]
    assert rows[0][0] == "| b [1](docs/results/b.json) [2](docs/results/b_seed2.json)"
    assert rows[0][1:8] == ["8 x 8", "9 x 2", "3", "", "0.850 ± 0.071", "0.25 ± 0.00", "0.50 ± 0.00"]
    assert rows[1][0].startswith("| other [1]") and rows[1][5] == "0.100" and len(rows) == 2
