"""Budgets: what fits into them, what counts, and the learning rate under them."""

import time
from types import SimpleNamespace

import pytest
import torch
from detectron2.solver import build_lr_scheduler

from rec_attend_d2.comparison.budget import Budget, BudgetLRScheduler, Spent, Stopwatch, fit_schedule
from rec_attend_d2.config import load_config


@pytest.mark.parametrize("limits", [{}, {"minutes": 0}, {"iterations": -1}, {"minutes": 1, "iterations": 2}])
def test_a_budget_is_one_positive_limit(limits):
    with pytest.raises(ValueError, match="either --minutes or --iterations"):
        Budget(**limits)


def test_share_and_words():
    assert Budget(minutes=2).share(30, 999) == 0.25
    assert Budget(minutes=2).share(500, 0) == 1
    assert Budget(iterations=8).share(999, 2) == 0.25
    assert Budget(minutes=2).expected_iterations(0.5) == 240
    assert Budget(minutes=2).expected_iterations(1000) == 1
    assert Budget(minutes=1.5).describe() == "1.5 minutes of training iterations"
    assert Budget(minutes=1.5, clock="cpu").describe() == "1.5 CPU minutes of training iterations"
    assert Budget(iterations=7).describe() == "7 iterations"


def test_an_unknown_clock_is_refused():
    with pytest.raises(ValueError, match="wall, cpu"):
        Budget(minutes=1, clock="sun")


def test_steps_and_warm_up_fit_the_budget():
    cfg = load_config("", ["SOLVER.MAX_ITER", 1000, "SOLVER.STEPS", (500, 900), "SOLVER.WARMUP_ITERS", 80])
    fit_schedule(cfg, 200)
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS, cfg.SOLVER.WARMUP_ITERS) == (200, (100, 180), 20)
    fit_schedule(cfg, 4000)
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.STEPS, cfg.SOLVER.WARMUP_ITERS) == (4000, (2000, 3600), 20)


def rates(cfg, at: list[int]) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=cfg.SOLVER.BASE_LR)
    scheduler = build_lr_scheduler(cfg, optimizer)
    found = []
    for iteration in at:
        optimizer.step()
        scheduler.last_epoch = iteration - 1
        scheduler.step()
        found.append(optimizer.param_groups[0]["lr"])
    return found


def test_the_staircase_keeps_its_number_of_steps():
    staircase = ["SOLVER.LR_SCHEDULER_NAME", "StaircaseExponentialLR", "SOLVER.DECAY_PERIOD", 300, "SOLVER.GAMMA", 0.5]
    cfg = load_config("", [*staircase, "SOLVER.MAX_ITER", 900, "SOLVER.WARMUP_ITERS", 0, "SOLVER.BASE_LR", 8.0])
    fit_schedule(cfg, 90)
    assert rates(cfg, [0, 29, 31, 59, 61, 89]) == pytest.approx([8, 8, 4, 4, 2, 2])


def test_the_learning_rate_follows_the_time_that_is_used():
    cosine = ["SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR", "SOLVER.WARMUP_ITERS", 0, "SOLVER.BASE_LR", 1.0]
    cfg = load_config("", [*cosine, "SOLVER.MAX_ITER", 1000])
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    spent = Spent(Budget(minutes=1))
    hook = BudgetLRScheduler(spent)
    hook.trainer = SimpleNamespace(
        optimizer=optimizer,
        scheduler=build_lr_scheduler(cfg, optimizer),
        max_iter=1000,
        iter=0,
        storage=SimpleNamespace(put_scalar=lambda *_, **__: None),
    )
    hook.before_train()
    found = []
    for seconds in (15, 30, 45, 60):  # four slow iterations use a schedule that was planned for a thousand
        spent.seconds = seconds
        optimizer.step()
        hook.after_step()
        found.append(optimizer.param_groups[0]["lr"])
    assert found == pytest.approx([0.853553, 0.5, 0.146447, 0.0], abs=1e-5)


def test_an_iteration_during_which_the_machine_slept_counts_as_the_median():
    watch = Stopwatch()
    assert [watch.without_stall(seconds) for seconds in (1.0, 50.0, 1.0, 2.0, 1.0, 300.0, 9.0)] == [
        *(1.0, 50.0, 1.0, 2.0, 1.0),  # too few are known to judge by
        1.0,
        9.0,
    ]
    assert watch.stalls == 299


def test_the_stopwatch_tells_waiting_from_computing():
    watch = Stopwatch()
    watch.start()
    time.sleep(0.2)
    wall, cpu = watch.stop()
    assert 0.2 <= wall < 5 and cpu < 0.15


def test_what_is_spent_survives_a_checkpoint():
    spent, resumed = Spent(Budget(iterations=10)), Spent(Budget(iterations=10))
    spent.seconds, spent.cpu_seconds, spent.stalls, spent.iterations, spent.peak_memory = 3.0, 2.0, 1.0, 5, 7
    resumed.load_state_dict(spent.state_dict())
    assert vars(resumed) == vars(spent) and resumed.share == 0.5
