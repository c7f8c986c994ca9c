"""MODEL_ZOO.md shows what docs/results/ holds, and the tool that adds a training reads it from its folder."""

import importlib.util
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def tool():
    """tools/update_model_zoo.py as a module."""
    spec = importlib.util.spec_from_file_location("update_model_zoo", ROOT / "tools" / "update_model_zoo.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date(tool):
    page = (ROOT / "MODEL_ZOO.md").read_text()
    assert f"{tool.BEGIN}\n{tool.render()}\n{tool.END}" in page


def test_the_comparisons_are_up_to_date(tool):
    page = (ROOT / "MODEL_ZOO.md").read_text()
    assert f"{tool.COMPARISON_BEGIN}\n{tool.render_comparisons()}\n{tool.COMPARISON_END}" in page


def test_every_row_names_a_config_that_exists():
    results = sorted((ROOT / "docs" / "results").glob("*.json"))
    assert results
    for path in results:
        words = json.loads(path.read_text())["command"].split()
        assert (ROOT / words[words.index("--config-file") + 1]).is_file(), path.name


def test_a_training_is_described_by_its_folder(tool, tmp_path):
    settings = {"SOLVER": {"MAX_ITER": 40, "IMS_PER_BATCH": 5}, "INPUT": {"IMAGE_SIZE": [32, 48]}}
    (tmp_path / "config.yaml").write_text(json.dumps(settings))
    lines = [{"iteration": 19, "time": 3.0, "max_mem_mb": 900.4}, {"iteration": 39, "time": 3.0, "max_mem_mb": 950.4}]
    (tmp_path / "metrics.json").write_text("\n".join(map(json.dumps, lines)))
    (tmp_path / "metrics_final.json").write_text(json.dumps({"counting": {"SBD": 0.5}}))
    entry = tool.describe(tmp_path, "the command", "a note")
    assert (entry["iterations"], entry["batch"], entry["input"]) == (40, 5, "32 x 48")
    assert entry["training_minutes"] == pytest.approx(39 * 3 / 60, abs=0.06)
    assert entry["peak_memory_mb"] == 950
    assert entry["metrics"] == {"counting": {"SBD": 0.5}}


def test_seeds_of_one_recipe_are_summed_up(tool):
    def entry(command: str, sbd: float) -> dict:
        counting = {"SBD": sbd, "abs_DiC": 0.25, "count_accuracy": 0.5, "FBD": 0.75}
        return {"command": command, "metrics": {"counting": counting}}

    others = {"alone": entry("train.py A SEED 1", 0.1), "no seed": entry("train.py B", 0.2)}
    assert tool.render_seeds(others) == ""
    text = tool.render_seeds({**others, "x": entry("train.py B SEED 1", 0.8), "y": entry("train.py B SEED 12", 0.9)})
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    assert rows[2:] == [["`train.py B`", "2", "0.850 ± 0.071", "0.250 ± 0.000", "0.500 ± 0.000", "0.750 ± 0.000"]]
