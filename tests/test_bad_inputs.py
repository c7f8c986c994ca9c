"""Bad inputs, each with the message or the result that the command has to give; see research/bad_inputs."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "research"))
from bad_inputs import CASES, Case, Scratch
from try_bad_inputs import attempt

# The others need published weights, or train.
FAST = ("train", "convert", "submit", "report", "compare")


@pytest.mark.parametrize(
    ("number", "case"),
    [(i, case) for i, case in enumerate(CASES) if case.command in FAST and not case.name.startswith("BASE_LR")],
    ids=lambda value: value.name if isinstance(value, Case) else "",
)
def test_nothing_goes_wrong_in_silence(tmp_path, monkeypatch, number, case):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    message, verdict = attempt(case, Scratch(tmp_path / "scratch", f"bad_input_{number}"))
    assert verdict in ("said", "right"), message


def test_there_are_a_hundred():
    assert len(CASES) >= 100
