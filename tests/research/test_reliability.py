"""docs/reliability.md shows what the scripts found, and that is good."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs" / "results" / "reliability"


@pytest.fixture
def tool(script):
    return script("update_reliability")


def test_the_page_is_up_to_date(tool):
    page = (ROOT / "docs" / "reliability.md").read_text()
    for name, table in tool.render().items():
        assert f"{tool.BEGIN.format(name)}\n{table}\n\n{tool.END.format(name)}" in page, name


def test_nothing_was_lost_or_wrong_in_silence():
    trainings = json.loads((RESULTS / "trainings.json").read_text())
    kills = trainings["interruptions"]
    assert kills["kills"] >= 40
    assert not any(kills[name] for name in ("broken checkpoints", "entries that differ", "losses that differ"))
    assert trainings["damage"]["wrong in silence"] == 0
    inputs = json.loads((RESULTS / "bad_inputs.json").read_text())["inputs"]
    assert len(inputs) >= 100 and {row["verdict"] for row in inputs} == {"said", "right"}
