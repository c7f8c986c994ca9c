"""Trainings that end when evaluations no longer get better."""

import json
from pathlib import Path

import pytest
import torch

from rec_attend_d2.engine import Trainer

METRIC = "counting/SBD"


class ScriptedTrainer(Trainer):
    """Has the results of ``script``, one evaluation after another."""

    script: list[float] = []
    evaluated: list[int] = []

    @classmethod
    def test(cls, cfg, model, evaluators=None) -> dict:
        return {"counting": {"SBD": cls.script.pop(0)}}

    def _test(self) -> dict:
        self.evaluated.append(self.iter)
        return super()._test()


@pytest.fixture
def run(make_cfg):
    """A function from results and options to the finished trainer and its results; resumes."""

    def train(script: list[float], *options) -> tuple[ScriptedTrainer, dict]:
        base = ["SOLVER.EARLY_STOPPING", 2, "TEST.EVAL_PERIOD", 2, "SOLVER.MAX_ITER", 20, "SOLVER.CHECKPOINT_PERIOD", 2]
        ScriptedTrainer.script, ScriptedTrainer.evaluated = list(script), []
        trainer = ScriptedTrainer(make_cfg("stage_c", *base, *options))
        trainer.resume_or_load(resume=True)
        return trainer, trainer.train()

    return train


def test_training_stops_after_so_many_evaluations_without_a_better_one(run):
    trainer, results = run([0.1, 0.3, 0.2, 0.3])  # equal is not better
    assert trainer.evaluated == [1, 3, 5, 7] and not trainer.script
    assert results == {"counting": {"SBD": 0.3}}
    folder = Path(trainer.cfg.OUTPUT_DIR)
    final, best = (torch.load(folder / f"model_{name}.pth", weights_only=True) for name in ("final", "best"))
    assert (final["iteration"], best["iteration"]) == (7, 3)
    assert final["trainer"]["hooks"]["EarlyStopping"] == {"best": 0.3, "best_after": 4}
    last = json.loads((folder / "metrics.json").read_text().splitlines()[-1])
    assert (last["iteration"], last[METRIC]) == (7, 0.3)


def test_a_better_one_gives_it_time_again(run):
    trainer, _ = run([0.1, 0.0, 0.2, 0.0, 0.3, float("nan"), 0.3])
    assert trainer.evaluated[-1] == 13


def test_a_training_that_gets_better_runs_to_its_end(run):
    trainer, _ = run([0.1, 0.2, 0.3], "SOLVER.MAX_ITER", 6)
    assert trainer.evaluated == [1, 3, 6]
    assert torch.load(Path(trainer.cfg.OUTPUT_DIR) / "model_final.pth", weights_only=True)["iteration"] == 5


@pytest.mark.parametrize("killed_after", [1, 3, 5])
def test_an_interruption_makes_no_difference(run, killed_after):
    script = [0.1, 0.3, 0.2, 0.25]
    trainer, _ = run(script)
    folder = Path(trainer.cfg.OUTPUT_DIR)
    final = torch.load(folder / "model_final.pth", weights_only=True)["model"]
    # The checkpoint is written before the evaluation, which the interruption cut off.
    (folder / "last_checkpoint").write_text(f"model_{killed_after:07}.pth")
    (folder / "model_best.pth").unlink()
    trainer, _ = run(script[killed_after // 2 :])
    assert trainer.evaluated == list(range(killed_after, 8, 2))
    resumed = torch.load(folder / "model_final.pth", weights_only=True)
    assert resumed["iteration"] == 7 and all(
        torch.equal(final[name], value) for name, value in resumed["model"].items()
    )
    assert (folder / "model_best.pth").is_file() == (killed_after <= 3)


def test_a_stopped_training_stays_stopped_unless_it_gets_more_time(run):
    run([0.3, 0.2, 0.2])
    trainer, results = run([0.2])
    assert trainer.evaluated == [5] and results == {"counting": {"SBD": 0.2}}
    trainer, _ = run([0.2, 0.2, 0.2], "SOLVER.EARLY_STOPPING", 4)
    assert trainer.evaluated == [5, 7, 9]


def test_an_unknown_metric_is_named_at_the_first_evaluation(run):
    with pytest.raises(ValueError, match="TEST.BEST_METRIC 'counting/SDB' is no result .* There are: counting/SBD"):
        run([0.1], "TEST.BEST_METRIC", "counting/SDB")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["SOLVER.EARLY_STOPPING", -1], "SOLVER.EARLY_STOPPING is -1; give 0"),
        (["SOLVER.EARLY_STOPPING", 1, "TEST.EVAL_PERIOD", 0], "without TEST.BEST_METRIC, TEST.EVAL_PERIOD and"),
        (["SOLVER.EARLY_STOPPING", 1, "TEST.EVAL_PERIOD", 2, "TEST.BEST_METRIC", ""], "there are none to judge by"),
        (["SOLVER.EARLY_STOPPING", 1, "TEST.EVAL_PERIOD", 2, "DATASETS.TEST", ()], "there are none to judge by"),
    ],
)
def test_bad_settings_are_named(make_cfg, options, message):
    with pytest.raises(ValueError, match=message):
        Trainer(make_cfg("stage_c", *options))
