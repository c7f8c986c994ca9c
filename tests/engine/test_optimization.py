"""Optimizers, parameter groups, gradient clipping and learning rate schedules."""

import math
from pathlib import Path

import detectron2.layers
import pytest
import torch
from detectron2.config import get_cfg
from torch import nn

from rec_attend_d2 import add_rec_attend_config
from rec_attend_d2.engine import optimization
from rec_attend_d2.engine.optimization import build_lr_scheduler, build_optimizer, parameter_groups
from rec_attend_d2.layers.step_norm import PerStepBatchNorm, SharedBatchNorm


@pytest.fixture
def cfg():
    cfg = get_cfg()
    add_rec_attend_config(cfg)
    cfg.merge_from_file(str(Path(__file__).resolve().parents[2] / "configs" / "Base-RecAttend.yaml"))
    return cfg


def test_adam_clips_and_places_epsilon_as_the_original(cfg, monkeypatch):
    monkeypatch.setattr(optimization, "_EPSILON", 1e-2)
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


def test_warmup_and_cosine_with_adamw(cfg):
    cfg.SOLVER.OPTIMIZER, cfg.SOLVER.LR_SCHEDULER_NAME, cfg.SOLVER.WEIGHT_DECAY = "AdamW", "WarmupCosineLR", 0.1
    cfg.SOLVER.WARMUP_ITERS, cfg.SOLVER.WARMUP_FACTOR, cfg.SOLVER.MAX_ITER = 2, 0.5, 8
    model = nn.Linear(1, 1)
    optimizer = build_optimizer(cfg, model)
    scheduler = build_lr_scheduler(cfg, optimizer)
    rates = []
    for _ in range(8):
        rates.append({group["lr"] for group in optimizer.param_groups})
        model(torch.ones(1, 1)).sum().backward()
        optimizer.step()
        scheduler.step()
    assert [len(rate) for rate in rates] == [1] * 8  # all groups alike
    cosine = [0.5e-3 * (1 + math.cos(math.pi * n / 8)) for n in range(8)]
    # Linear from half the first rate to the cosine at the warmup's end.
    expected = [0.5e-3, (0.5e-3 + cosine[2]) / 2, *cosine[2:]]
    assert [rate.pop() for rate in rates] == pytest.approx(expected)


class Mixed(nn.Module):
    """Layers of every kind that the parameter groups tell apart."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 1)
        self.per_step = PerStepBatchNorm(3, 4)
        self.shared = SharedBatchNorm(3, 4)
        self.group = nn.GroupNorm(1, 3)
        self.detectron2 = detectron2.layers.get_norm("LN", 3)
        self.lstm = nn.LSTM(3, 2)
        self.frozen = nn.Linear(2, 2).requires_grad_(False)
        self.tied = self.conv


def names_by_decay(groups: list[dict], model: nn.Module) -> dict[float, set[str]]:
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {group["weight_decay"]: {names[parameter] for parameter in group["params"]} for group in groups}


MATRICES = {"conv.weight", "lstm.weight_ih_l0", "lstm.weight_hh_l0"}
NORM_GAINS = {"per_step.weight", "shared.weight", "group.weight", "detectron2.weight"}
BIASES = {f"{layer}.bias" for layer in ("conv", "per_step", "shared", "group", "detectron2")}
BIASES |= {"lstm.bias_ih_l0", "lstm.bias_hh_l0"}


def test_biases_and_norms_are_not_decayed(cfg):
    cfg.SOLVER.OPTIMIZER, cfg.SOLVER.WEIGHT_DECAY = "AdamW", 0.1
    model = Mixed()
    groups = build_optimizer(cfg, model).param_groups
    assert names_by_decay(groups, model) == {0.1: MATRICES, 0.0: NORM_GAINS | BIASES}
    assert {group["lr"] for group in groups} == {1e-3}


def test_detectron2s_keys_for_norms_and_biases(cfg):
    cfg.SOLVER.WEIGHT_DECAY, cfg.SOLVER.WEIGHT_DECAY_NORM, cfg.SOLVER.WEIGHT_DECAY_BIAS = 0.1, 0.2, 0.3
    cfg.SOLVER.BIAS_LR_FACTOR = 2.0
    model = Mixed()
    groups = parameter_groups(cfg, model)
    assert names_by_decay(groups, model) == {0.1: MATRICES, 0.2: NORM_GAINS, 0.3: BIASES}
    assert {group["weight_decay"]: group["lr"] for group in groups} == {0.1: 1e-3, 0.2: 1e-3, 0.3: 2e-3}


def test_without_weight_decay_there_is_one_group_in_the_models_order(cfg):
    model = Mixed()
    (group,) = parameter_groups(cfg, model)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert [id(parameter) for parameter in group["params"]] == [id(parameter) for parameter in trained]
    assert (group["lr"], group["weight_decay"]) == (1e-3, 0)


def test_the_image_encoder_has_its_own_learning_rate(cfg):
    cfg.SOLVER.BACKBONE_MULTIPLIER, cfg.SOLVER.BIAS_LR_FACTOR = 0.25, 2.0
    model = nn.ModuleDict({"preprocessor": nn.ModuleDict({"backbone": nn.Linear(2, 2)}), "head": nn.Linear(2, 2)})
    groups = build_optimizer(cfg, model).param_groups
    names = {parameter: name for name, parameter in model.named_parameters()}
    rates = {names[parameter]: group["lr"] for group in groups for parameter in group["params"]}
    assert rates == {
        "preprocessor.backbone.weight": 0.25e-3,
        "preprocessor.backbone.bias": 0.5e-3,
        "head.weight": 1e-3,
        "head.bias": 2e-3,
    }
    cfg.SOLVER.BACKBONE_MULTIPLIER = -1.0
    with pytest.raises(ValueError, match="BACKBONE_MULTIPLIER is -1"):
        build_optimizer(cfg, model)


def test_adamw_decays_apart_from_the_gradient(cfg):
    cfg.SOLVER.OPTIMIZER, cfg.SOLVER.WEIGHT_DECAY, cfg.SOLVER.BASE_LR = "AdamW", 0.5, 0.1
    model = nn.Linear(1, 1)
    with torch.no_grad():
        model.weight.fill_(2.0)
        model.bias.fill_(2.0)
    model.weight.grad, model.bias.grad = torch.full((1, 1), 3e-2), torch.full((1,), 3e-2)
    build_optimizer(cfg, model).step()
    # The first step of Adam is the learning rate, whatever the gradient; only then comes epsilon, 1e-7.
    assert model.weight.item() == pytest.approx(2 * (1 - 0.1 * 0.5) - 0.1, abs=1e-5)
    assert model.bias.item() == pytest.approx(2 - 0.1, abs=1e-5)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("value", [[2.0, 2.0], [1.0]]),
        ("norm", [[2 * 0.6, 2 * 0.8], [1.0]]),
        # The norm of 6, 8 and 1 is sqrt(101).
        ("full_model", [[12 / math.sqrt(101), 16 / math.sqrt(101)], [2 / math.sqrt(101)]]),
    ],
)
def test_clipping_leaves_out_what_has_no_gradient(cfg, kind, expected):
    cfg.SOLVER.OPTIMIZER, cfg.SOLVER.BASE_LR, cfg.SOLVER.MOMENTUM = "SGD", 1.0, 0.0
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE, cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = kind, 2.0
    first, unused, second = (nn.Parameter(torch.zeros(size)) for size in (2, 3, 1))
    optimizer = build_optimizer(cfg, nn.ParameterList([first, unused, second]))
    optimizer.step()  # nothing has a gradient
    first.grad, second.grad = torch.tensor([6.0, 8.0]), torch.tensor([1.0])
    optimizer.step()
    torch.testing.assert_close([-first.detach(), -second.detach()], [torch.tensor(e) for e in expected])
    assert torch.equal(unused, torch.zeros(3))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("CLIP_TYPE", "fullmodel", "SOLVER.CLIP_GRADIENTS.CLIP_TYPE is 'fullmodel'.*full_model, norm, value"),
        ("CLIP_VALUE", 0.0, "SOLVER.CLIP_GRADIENTS.CLIP_VALUE is 0.0"),
    ],
)
def test_bad_clipping_is_named(cfg, key, value, message):
    cfg.SOLVER.CLIP_GRADIENTS[key] = value
    with pytest.raises(ValueError, match=message):
        build_optimizer(cfg, nn.Linear(1, 1))
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = False
    build_optimizer(cfg, nn.Linear(1, 1))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [("OPTIMIZER", "Adamm", "SOLVER.OPTIMIZER is 'Adamm'.*Adam"), ("WARMUP_ITERS", 10, "SOLVER.WARMUP_ITERS to 0")],
)
def test_bad_settings_are_named(cfg, key, value, message):
    cfg.SOLVER[key] = value
    with pytest.raises(ValueError, match=message):
        build_lr_scheduler(cfg, build_optimizer(cfg, nn.Linear(1, 1)))
