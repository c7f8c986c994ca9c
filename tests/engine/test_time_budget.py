"""Trainings that end when their time is over."""

import time

import pytest
import torch
from detectron2.engine import HookBase

from rec_attend_d2.engine.early_stopping import TrainingStopped
from rec_attend_d2.engine.time_budget import TimeBudgetHook, move_schedule


class Trainer:
    """What the hook needs of a trainer."""

    def __init__(self):
        parameter = torch.nn.Parameter(torch.zeros(1))
        self.optimizer = torch.optim.SGD([parameter], lr=1.0)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, lambda step: 1 - step / 1000)
        self.cfg = type("Cfg", (), {"SOLVER": type("Solver", (), {"MAX_ITER": 1000, "WARMUP_ITERS": 2})})
        self.iter = 0
        self.saved = []
        self.storage = type("Storage", (), {"latest": lambda self: {"total_loss": (2.0, 0)}})()
        self.checkpointer = type(
            "Checkpointer", (), {"save": lambda _, name, **more: self.saved.append((name, more))}
        )()

    @property
    def rate(self):
        return self.optimizer.param_groups[0]["lr"]


def hook_with(budget, **more) -> TimeBudgetHook:
    hook = TimeBudgetHook(budget, **more)
    hook.trainer = Trainer()
    return hook


def test_the_schedule_stands_at_the_share_of_the_time(monkeypatch):
    clock = iter([100.0, 103.0, 105.0, 110.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    told = []
    hook = hook_with(10.0, tell=lambda share, latest: told.append((share, latest["total_loss"])))
    assert isinstance(hook, HookBase)
    hook.before_train()
    hook.after_step()
    assert hook.trainer.rate == pytest.approx(1.0, abs=2e-3)  # still warming up
    hook.after_step()
    assert told == [(0.3, 2.0), (0.5, 2.0)] and hook.iterations == 2
    assert hook.trainer.rate == pytest.approx(0.5, abs=2e-3)
    with pytest.raises(TrainingStopped):
        hook.after_step()
    assert hook.trainer.saved == [("model_final", {"iteration": 0})]


def test_a_resumed_training_has_the_time_that_is_left(monkeypatch):
    hook = hook_with(10.0)
    hook.load_state_dict({"seconds": 9.0, "iterations": 7})
    clock = iter([0.0, 0.5, 1.5])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    hook.before_train()
    assert hook.trainer.rate == pytest.approx(0.1, abs=2e-3)
    hook.after_step()
    assert hook.state_dict() == {"seconds": 9.5, "iterations": 8}
    with pytest.raises(TrainingStopped):
        hook.after_step()


def test_the_schedule_never_leaves_its_length():
    trainer = Trainer()
    move_schedule(trainer, 1.0)
    assert trainer.rate == pytest.approx(0.001)
