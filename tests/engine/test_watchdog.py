"""Warnings about trainings that learn nothing."""

import logging
from types import SimpleNamespace

import pytest
import torch
from detectron2.utils.events import EventStorage

from rec_attend_d2.engine import Trainer
from rec_attend_d2.engine.watchdog import READINGS, WatchdogHook, explain_infinite_loss, explaining_divergence
from rec_attend_d2.modeling.image_model import STATISTICS_PERIOD

FINE = {"box_iou": 0.4, "box_side": 9.0, "box_spread": 20.0, "score_spread": 0.5}
WORDS = {"box_iou": "no proposed box overlaps", "box_side": "smaller than a pixel", "box_spread": "boxes are equal"}
WORDS["score_spread"] = "all scores are equal"


@pytest.fixture
def watch(caplog):
    """A function from the statistics of each reading to the warnings."""

    def run(readings: list[dict], images: int = 2) -> list[str]:
        hook = WatchdogHook(images)
        caplog.clear()
        with caplog.at_level(logging.WARNING), EventStorage() as storage:
            for number, values in enumerate(readings):
                for iteration in (number * STATISTICS_PERIOD, number * STATISTICS_PERIOD + 1):
                    storage.iter = iteration
                    if iteration % STATISTICS_PERIOD == 0:
                        storage.put_scalars(**{f"train/{name}": value for name, value in values.items()})
                    hook.trainer = SimpleNamespace(iter=iteration, storage=storage)
                    hook.after_step()
        return [record.getMessage() for record in caplog.records]

    return run


@pytest.mark.parametrize("name", FINE)
def test_a_problem_that_lasts_is_warned_of_once_with_a_remedy(watch, name):
    bad = {**FINE, name: 0.0}
    assert watch([bad] * (READINGS - 1)) == []
    (warning,) = watch([bad] * READINGS + [FINE] * 3 + [bad] * 2 * READINGS)
    assert warning.startswith(f"For {READINGS * STATISTICS_PERIOD} iterations") and WORDS[name] in warning
    assert "SOLVER.BASE_LR" in warning


def test_no_warning_where_it_comes_and_goes_or_nothing_is_known(watch):
    bad = dict.fromkeys(FINE, 0.0)
    assert watch(([bad] * (READINGS - 1) + [FINE]) * 3) == []
    assert watch([{}] * 2 * READINGS) == []
    assert watch([{"box_side": float("nan")}] * 2 * READINGS) == []


def test_a_single_box_is_no_spread(watch):
    assert watch([{**FINE, "box_spread": 0.0, "score_spread": 0.0}] * READINGS, images=1) == []


@pytest.mark.parametrize("recipe", ["stage_b", "stage_c", "fast"])
def test_models_log_what_it_reads(make_cfg, recipe):
    trainer = Trainer(make_cfg(recipe, "SOLVER.MAX_ITER", 1, "DATASETS.TEST", ()))
    trainer.train()
    assert set(FINE) <= {name.removeprefix("train/") for name in trainer.storage.latest()}
    assert any(isinstance(hook, WatchdogHook) for hook in trainer._hooks)


def test_an_infinite_loss_is_named(make_cfg, monkeypatch):
    trainer = Trainer(make_cfg("stage_c", "DATASETS.TEST", (), "SOLVER.MAX_ITER", 2))
    model = type(trainer.model)
    compute = model.forward
    monkeypatch.setattr(model, "forward", lambda self, batch: _with_nan(compute(self, batch)))
    with pytest.raises(FloatingPointError, match=r"(?s)at iteration=0.*Not finite: loss_box, loss_score\. .*BASE_LR"):
        trainer.train()


def _with_nan(losses: dict) -> dict:
    return {**losses, "loss_box": losses["loss_box"] * float("nan"), "loss_score": losses["loss_score"] + float("inf")}


def test_an_infinite_sum_of_finite_losses():
    assert "Not finite: their sum." in str(explain_infinite_loss(FloatingPointError("loss_dict = {'loss_a': 1.0}")))


@pytest.mark.parametrize(
    ("weight", "error", "message"),
    [
        (float("nan"), ValueError("cannot convert float NaN to integer"), r"\(ValueError.*the weight weight\."),
        (1.0, AssertionError("bad box: x1 larger than x2"), r"diverged \(AssertionError: bad box.*Not finite: boxes\."),
        (1.0, FloatingPointError("{'loss_a': nan}"), r"Not finite: loss_a\."),
    ],
)
def test_what_fails_in_a_diverged_training_is_explained(weight, error, message):
    model = torch.nn.Linear(1, 1)
    torch.nn.init.constant_(model.weight, weight)
    expected = pytest.raises(FloatingPointError, match=rf"(?s){message}.*lower SOLVER\.BASE_LR")
    with expected, explaining_divergence(model):
        raise error


def test_other_errors_stay_as_they_are():
    with pytest.raises(ValueError, match="^a file is missing$"), explaining_divergence(torch.nn.Linear(1, 1)):
        raise ValueError("a file is missing")
