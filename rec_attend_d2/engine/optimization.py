"""Optimizers, gradient clipping and learning rate schedules, chosen by SOLVER."""

import math
from collections.abc import Callable

import torch
from detectron2.config import CfgNode
from detectron2.layers.batch_norm import CycleBatchNormList, LayerNorm
from detectron2.solver import build_lr_scheduler as build_detectron2_lr_scheduler
from detectron2.solver.build import reduce_param_groups
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, StepLR

from ..layers.step_norm import STEP_NORMS
from ..modeling.image_model import backbone_of
from ..registry import look_up

# Added to the denominator of Adam and AdamW; the original's, of TensorFlow's Adam.
_EPSILON = 1e-7
# Norm layers of PyTorch (batch, instance, group, layer and, where it has it, RMS) and Detectron2's that are none of
# these. Those of this project are the entries of STEP_NORMS.
_NORMS: tuple[type[nn.Module], ...] = (_NormBase, nn.GroupNorm, nn.LayerNorm, LayerNorm, CycleBatchNormList)
_NORMS += (nn.RMSNorm,) if hasattr(nn, "RMSNorm") else ()


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


def _sgd(groups: list[dict], cfg: CfgNode) -> Optimizer:
    return torch.optim.SGD(groups, lr=cfg.SOLVER.BASE_LR, momentum=cfg.SOLVER.MOMENTUM, nesterov=cfg.SOLVER.NESTEROV)


# By SOLVER.OPTIMIZER.
OPTIMIZERS: dict[str, Callable[[list[dict], CfgNode], Optimizer]] = {
    "Adam": lambda groups, cfg: EpsilonHatAdam(groups, lr=cfg.SOLVER.BASE_LR, eps=_EPSILON),
    "AdamW": lambda groups, cfg: torch.optim.AdamW(groups, lr=cfg.SOLVER.BASE_LR, eps=_EPSILON),
    "SGD": _sgd,
}


def _clip_norms(parameters: list[nn.Parameter], largest: float, order: float) -> None:
    for parameter in parameters:
        nn.utils.clip_grad_norm_(parameter, largest, order)


# By SOLVER.CLIP_GRADIENTS.CLIP_TYPE; of parameters with a gradient, a largest value and the order of the norm: each
# element on its own (as in the original), the norm of each parameter's gradient, or the norm of all gradients together.
CLIPPINGS: dict[str, Callable[[list[nn.Parameter], float, float], object]] = {
    "value": lambda parameters, largest, order: nn.utils.clip_grad_value_(parameters, largest),
    "norm": _clip_norms,
    "full_model": nn.utils.clip_grad_norm_,
}


def _with_clipping(cfg: CfgNode, optimizer_class: type[Optimizer]) -> type[Optimizer]:
    """Subclass that clips before every step, as Detectron2's.

    Detectron2's own fails where a parameter has no gradient, and knows no norm over all parameters.
    """
    node = cfg.SOLVER.CLIP_GRADIENTS
    clip: Callable = look_up(CLIPPINGS, node.CLIP_TYPE, "SOLVER.CLIP_GRADIENTS.CLIP_TYPE")
    largest, order = node.CLIP_VALUE, node.NORM_TYPE
    if not largest > 0:
        raise ValueError(
            f"SOLVER.CLIP_GRADIENTS.CLIP_VALUE is {largest}, which stops all learning: give more than 0, or set "
            "SOLVER.CLIP_GRADIENTS.ENABLED to False."
        )

    class ClippingOptimizer(optimizer_class):  # type: ignore[misc, valid-type]
        def step(self, closure=None):
            """Clip, then one optimizer step."""
            parameters = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
            if parameters:
                clip(parameters, largest, order)
            return super().step(closure)

    return ClippingOptimizer


def _is_bias(name: str) -> bool:
    # PyTorch's recurrent layers and attention have bias_ih_l0 and in_proj_bias.
    return name == "bias" or name.startswith("bias_") or name.endswith("_bias")


def parameter_groups(cfg: CfgNode, model: nn.Module) -> list[dict]:
    """Parameters by learning rate and weight decay, in the model's order; those without gradient are left out.

    Weight decay is SOLVER.WEIGHT_DECAY_BIAS for biases, also those of norm layers, SOLVER.WEIGHT_DECAY_NORM for the
    other parameters of norm layers, else SOLVER.WEIGHT_DECAY. As in Detectron2, except that WEIGHT_DECAY_BIAS None is
    0 and that every norm layer counts as one. SOLVER.BIAS_LR_FACTOR multiplies the learning rate of biases, and
    SOLVER.BACKBONE_MULTIPLIER that of the image encoder.

    Raises:
        ValueError: SOLVER.BACKBONE_MULTIPLIER is negative.
    """
    solver = cfg.SOLVER
    if not solver.BACKBONE_MULTIPLIER >= 0:
        raise ValueError(f"SOLVER.BACKBONE_MULTIPLIER is {solver.BACKBONE_MULTIPLIER}; give 0 or more.")
    backbone = backbone_of(model)
    of_backbone = set() if backbone is None else set(backbone.parameters())
    norms = (*_NORMS, *STEP_NORMS.values())
    groups, seen = [], set()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or parameter in seen:
                continue
            seen.add(parameter)
            group = {"params": [parameter], "lr": solver.BASE_LR, "weight_decay": solver.WEIGHT_DECAY}
            if parameter in of_backbone:
                group["lr"] *= solver.BACKBONE_MULTIPLIER
            if _is_bias(name):
                group["lr"] *= solver.BIAS_LR_FACTOR
                group["weight_decay"] = solver.WEIGHT_DECAY_BIAS or 0.0
            elif isinstance(module, norms):
                group["weight_decay"] = solver.WEIGHT_DECAY_NORM
            groups.append(group)
    return reduce_param_groups(groups)


def build_optimizer(cfg: CfgNode, model: nn.Module) -> Optimizer:
    """The optimizer SOLVER.OPTIMIZER, with the groups of :func:`parameter_groups` and SOLVER.CLIP_GRADIENTS.

    Raises:
        ValueError: unknown optimizer or way of clipping, or a largest value that is not above 0.
    """
    optimizer = look_up(OPTIMIZERS, cfg.SOLVER.OPTIMIZER, "SOLVER.OPTIMIZER")(parameter_groups(cfg, model), cfg)
    if cfg.SOLVER.CLIP_GRADIENTS.ENABLED:
        optimizer.__class__ = _with_clipping(cfg, type(optimizer))
    return optimizer


def build_lr_scheduler(cfg: CfgNode, optimizer: Optimizer) -> LRScheduler:
    """The schedule SOLVER.LR_SCHEDULER_NAME: StaircaseExponentialLR, the original's, or one of Detectron2's.

    Raises:
        ValueError: StaircaseExponentialLR with a warmup.
    """
    if cfg.SOLVER.LR_SCHEDULER_NAME != "StaircaseExponentialLR":
        return build_detectron2_lr_scheduler(cfg, optimizer)
    if cfg.SOLVER.WARMUP_ITERS > 0:
        raise ValueError("StaircaseExponentialLR has no warmup: set SOLVER.WARMUP_ITERS to 0.")
    return StepLR(optimizer, step_size=cfg.SOLVER.DECAY_PERIOD, gamma=cfg.SOLVER.GAMMA)
