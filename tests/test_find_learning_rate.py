"""The learning-rate range test: what it makes of losses, and the tool."""

import json
import math

import cv2
import numpy as np
import pytest
from find_learning_rate import RangeTest, draw_range_test, has_exploded

RATES = np.geomspace(1e-6, 1.0, 200).tolist()


def losses_of(steepest: float, explosion: float) -> list[float]:
    """A fall from 3 to 1 that is fastest at one rate, and an explosion from another on."""
    logs = np.log(RATES)
    fall = 3 - 2 / (1 + np.exp(-(logs - math.log(steepest))))
    return (fall + 5 * np.maximum(0, logs - math.log(explosion)) ** 2).tolist()


def cut(losses: list[float]) -> RangeTest:
    """The test as it ends, where the loss explodes."""
    for count in range(1, len(losses) + 1):
        result = RangeTest(RATES[:count], losses[:count])
        if has_exploded(result.smoothed):
            break
    return result


def test_smoothing_is_a_weighted_mean():
    losses = [2.0, 1.0, 4.0]
    expected = [
        sum(0.9 ** (n - i) * losses[i] for i in range(n + 1)) / sum(0.9**i for i in range(n + 1)) for n in range(3)
    ]
    assert RangeTest(RATES[:3], losses).smoothed == pytest.approx(expected)


@pytest.mark.parametrize("steepest", [1e-4, 1e-3])
def test_the_suggestion_is_where_the_loss_falls_fastest(steepest):
    result = cut(losses_of(steepest, 0.1))
    # Smoothing shows a fall up to ten iterations, of 7 % each, later.
    assert steepest <= result.steepest() <= 2.5 * steepest
    assert len(result.rates) < len(RATES) and 0.05 < result.exploded_at() < 0.3
    assert result.suggestion() == min(result.steepest(), result.exploded_at() / 10)


def test_the_suggestion_keeps_away_from_the_explosion():
    result = cut(losses_of(1e-2, 3e-2))
    assert result.suggestion() == pytest.approx(result.exploded_at() / 10) and result.suggestion() < result.steepest()


def test_without_an_explosion_the_steepest_counts():
    result = cut(losses_of(1e-3, 1e9))
    assert len(result.rates) == len(RATES) and result.exploded_at() is None
    assert result.suggestion() == result.steepest()


def test_an_infinite_loss_is_an_explosion():
    losses = losses_of(1e-4, 1e9)[:150] + [math.inf]
    result = cut(losses)
    assert len(result.rates) == 151 and result.exploded_at() < RATES[150]
    assert draw_range_test(result).axes[0].lines


def test_a_loss_that_never_falls_is_refused():
    with pytest.raises(ValueError, match="did not fall .* smaller --lowest, or more --iterations"):
        RangeTest(RATES, np.linspace(1, 3, 200).tolist()).suggestion()


def test_the_tool(run_tool, tmp_path):
    quick = ["--config-file", "tests/configs/fast.yaml", "--iterations", "60", "--lowest", "1e-4"]
    process = run_tool("find_learning_rate", *quick, "--output", tmp_path)
    assert process.returncode == 0, process.stderr[-3000:]
    content = json.loads((tmp_path / "learning_rate.json").read_text())
    assert len(content["rates"]) == len(content["losses"]) <= 60
    growth = np.diff(np.log(content["rates"]))
    assert content["rates"][0] == pytest.approx(1e-4) and growth == pytest.approx(
        np.full(len(growth), np.log(1e4) / 59)
    )
    assert f"Suggestion: SOLVER.BASE_LR {content['suggestion']:.2g}" in process.stdout
    assert cv2.imread(str(tmp_path / "learning_rate.png")).shape == (400, 700, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["learning_rate.json", "learning_rate.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config-file", "nowhere.yaml"], "config file 'nowhere.yaml' does not exist"),
        (["--config-file", "configs/Base-RecAttend.yaml", "--lowest", "2"], "give 0 < lowest < highest"),
        (["--config-file", "configs/Base-RecAttend.yaml", "--iterations", "5"], "give at least 20"),
    ],
)
def test_bad_input_is_named(run_tool, tmp_path, arguments, message):
    process = run_tool("find_learning_rate", *arguments, "--output", tmp_path)
    assert process.returncode != 0 and message in process.stderr and "Traceback" not in process.stderr
