"""Optimizer and learning rate schedule of the recipes."""

import math
from pathlib import Path

import pytest
import torch
from detectron2.config import get_cfg
from torch import nn

from rec_attend_d2 import add_rec_attend_config
from rec_attend_d2.engine.optimization import build_lr_scheduler, build_optimizer


@pytest.fixture
def cfg():
    cfg = get_cfg()
    add_rec_attend_config(cfg)
    cfg.merge_from_file(str(Path(__file__).resolve().parents[2] / "configs" / "Base-RecAttend.yaml"))
    return cfg


def test_adam_clips_and_places_epsilon_as_the_original(cfg):
    cfg.SOLVER.ADAM_EPS = 1e-2
    parameter = nn.Parameter(torch.tensor([1.0, -2.0, 0.5]))
    model = nn.ParameterList([parameter])
    optimizer = build_optimizer(cfg, model)
    expected, first, second = [1.0, -2.0, 0.5], [0.0] * 3, [0.0] * 3
    for step, gradient in enumerate([[5.0, -0.3, 0.01], [0.2, -7.0, 0.0]], start=1):
        parameter.grad = torch.tensor(gradient)
        optimizer.step()
        rate = 1e-3 * math.sqrt(1 - 0.999**step) / (1 - 0.9**step)
        for i, value in enumerate(gradient):
            clipped = max(-1.0, min(1.0, value))
            first[i] = 0.9 * first[i] + 0.1 * clipped
            second[i] = 0.999 * second[i] + 0.001 * clipped**2
            expected[i] -= rate * first[i] / (math.sqrt(second[i]) + 1e-2)
    torch.testing.assert_close(parameter.detach(), torch.tensor(expected))


def test_a_resumed_adam_goes_on_as_if_never_stopped(cfg):
    def steps(optimizer, parameter, gradients):
        for gradient in gradients:
            parameter.grad = torch.tensor([gradient])
            optimizer.step()

    gradients = [0.3, 1e-7, -2e-7, 0.1]
    whole = nn.Parameter(torch.ones(1))
    steps(build_optimizer(cfg, nn.ParameterList([whole])), whole, gradients)
    half = nn.Parameter(torch.ones(1))
    optimizer = build_optimizer(cfg, nn.ParameterList([half]))
    steps(optimizer, half, gradients[:2])
    resumed = build_optimizer(cfg, nn.ParameterList([half]))
    resumed.load_state_dict(optimizer.state_dict())
    steps(resumed, half, gradients[2:])
    assert torch.equal(whole, half)


def test_staircase(cfg):
    cfg.SOLVER.DECAY_PERIOD, cfg.SOLVER.GAMMA = 3, 0.5
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = False  # there are no gradients to clip
    optimizer = build_optimizer(cfg, nn.Linear(1, 1))
    scheduler = build_lr_scheduler(cfg, optimizer)
    rates = []
    for _ in range(8):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert rates == pytest.approx([1e-3] * 3 + [5e-4] * 3 + [2.5e-4] * 2)


def test_detectron2s_schedules_still_work(cfg):
    cfg.SOLVER.LR_SCHEDULER_NAME = "WarmupCosineLR"
    scheduler = build_lr_scheduler(cfg, build_optimizer(cfg, nn.Linear(1, 1)))
    assert scheduler.get_last_lr()[0] == pytest.approx(1e-3)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [("OPTIMIZER", "Adamm", "SOLVER.OPTIMIZER is 'Adamm'.*Adam"), ("WARMUP_ITERS", 10, "SOLVER.WARMUP_ITERS to 0")],
)
def test_bad_settings_are_named(cfg, key, value, message):
    cfg.SOLVER[key] = value
    with pytest.raises(ValueError, match=message):
        build_lr_scheduler(cfg, build_optimizer(cfg, nn.Linear(1, 1)))
