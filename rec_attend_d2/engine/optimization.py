"""Optimizers and learning rate schedules of the paper's recipes."""

import math
from collections.abc import Callable

import torch
from detectron2.config import CfgNode
from detectron2.solver import build_lr_scheduler as build_detectron2_lr_scheduler
from detectron2.solver.build import get_default_optimizer_params, maybe_add_gradient_clipping
from fvcore.common.registry import Registry
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, StepLR

from ..registry import look_up, register_as

OPTIMIZER_REGISTRY = Registry("OPTIMIZER")
OPTIMIZER_REGISTRY.__doc__ = """Functions (cfg, parameter groups) -> optimizer."""
LR_SCHEDULER_REGISTRY = Registry("LR_SCHEDULER")
LR_SCHEDULER_REGISTRY.__doc__ = """Functions (cfg, optimizer) -> learning rate schedule, besides Detectron2's own."""


class EpsilonHatAdam(torch.optim.Adam):
    """Adam whose epsilon is added before the second moment's bias is corrected, as TensorFlow's and the original's.

    With PyTorch's placement an epsilon of 1e-7 acts 1 / sqrt(1 - beta2^t) times weaker (30 times in the first step),
    which shows where gradients are tiny.
    """

    def step(self, closure=None):
        """One optimizer step."""
        for group in self.param_groups:
            group.setdefault("epsilon_hat", group["eps"])
            group["steps_taken"] = group.get("steps_taken", 0) + 1
            group["eps"] = group["epsilon_hat"] / math.sqrt(1 - group["betas"][1] ** group["steps_taken"])
        return super().step(closure)


@register_as(OPTIMIZER_REGISTRY, "Adam")
def _adam(cfg: CfgNode, groups: list[dict]) -> Optimizer:
    return EpsilonHatAdam(groups, lr=cfg.SOLVER.BASE_LR, eps=cfg.SOLVER.ADAM_EPS)


@register_as(OPTIMIZER_REGISTRY, "SGD")
def _sgd(cfg: CfgNode, groups: list[dict]) -> Optimizer:
    return torch.optim.SGD(groups, lr=cfg.SOLVER.BASE_LR, momentum=cfg.SOLVER.MOMENTUM, nesterov=cfg.SOLVER.NESTEROV)


@register_as(LR_SCHEDULER_REGISTRY, "StaircaseExponentialLR")
def _staircase(cfg: CfgNode, optimizer: Optimizer) -> LRScheduler:
    if cfg.SOLVER.WARMUP_ITERS > 0:
        raise ValueError("StaircaseExponentialLR has no warmup: set SOLVER.WARMUP_ITERS to 0.")
    return StepLR(optimizer, step_size=cfg.SOLVER.DECAY_PERIOD, gamma=cfg.SOLVER.GAMMA)


def build_optimizer(cfg: CfgNode, model: nn.Module) -> Optimizer:
    """The optimizer SOLVER.OPTIMIZER, with Detectron2's parameter groups and gradient clipping.

    With SOLVER.CLIP_GRADIENTS of type "value" each gradient element is clipped, as in the original.

    Raises:
        ValueError: unknown optimizer.
    """
    groups = get_default_optimizer_params(model, base_lr=cfg.SOLVER.BASE_LR, weight_decay=cfg.SOLVER.WEIGHT_DECAY)
    make: Callable = look_up(OPTIMIZER_REGISTRY, cfg.SOLVER.OPTIMIZER, "SOLVER.OPTIMIZER")
    # Detectron2 clips by making a subclass of the optimizer's class.
    optimizer = make(cfg, groups)
    optimizer.__class__ = maybe_add_gradient_clipping(cfg, type(optimizer))
    return optimizer


def build_lr_scheduler(cfg: CfgNode, optimizer: Optimizer) -> LRScheduler:
    """The schedule SOLVER.LR_SCHEDULER_NAME: one of ours, or else one of Detectron2's."""
    if cfg.SOLVER.LR_SCHEDULER_NAME in LR_SCHEDULER_REGISTRY:
        return LR_SCHEDULER_REGISTRY.get(cfg.SOLVER.LR_SCHEDULER_NAME)(cfg, optimizer)
    return build_detectron2_lr_scheduler(cfg, optimizer)
