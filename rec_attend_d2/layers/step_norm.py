"""Batch norm whose statistics and affine parameters belong to a time step.

Shapes: `B` images, `C` channels, `H, W` any.
"""

import torch
from torch import Tensor, nn

from .batch_norm import batch_norm
from .recomputation import is_recomputing

EPS = 1e-3
# Share of the new statistics in the running average.
MOMENTUM = 0.1


class PerStepBatchNorm(nn.Module):
    """Batch norm with its own beta, gamma and running statistics for every time step, as in the original code.

    The running variance is the biased one; eps is 1e-3.
    """

    def __init__(self, channels: int, time_steps: int):
        super().__init__()
        self.momentum = MOMENTUM
        self.weight = nn.Parameter(torch.ones(time_steps, channels))
        self.bias = nn.Parameter(torch.zeros(time_steps, channels))
        self.running_mean: Tensor
        self.running_var: Tensor
        self.register_buffer("running_mean", torch.zeros(time_steps, channels))
        self.register_buffer("running_var", torch.ones(time_steps, channels))

    def slot(self, step: int) -> int:
        """Which row of parameters and statistics time step ``step`` uses."""
        return step

    def scale_and_shift(self, rows: int | slice) -> tuple[Tensor, Tensor]:
        """What the norm does to each channel in evaluation: times the first [..., C], plus the second [..., C].

        Args:
            rows: of its parameters and statistics, see :meth:`slot`.
        """
        scale = self.weight[rows] * torch.rsqrt(self.running_var[rows] + EPS)
        return scale, torch.addcmul(self.bias[rows], self.running_mean[rows], scale, value=-1)

    def forward(self, x: Tensor, step: int) -> Tensor:
        """Normalise ``x`` [B, C, H, W] with the statistics of time step ``step``, counted from 0."""
        slot = self.slot(step)
        weight, bias = self.weight[slot], self.bias[slot]
        if not self.training:
            mean, var = self.running_mean[slot], self.running_var[slot]
            return nn.functional.batch_norm(x, mean, var, weight, bias, False, 0.0, EPS)
        out, mean, var = batch_norm(x, weight, bias, EPS)
        if not is_recomputing():
            self._update(slot, mean, var)
        return out

    @torch.no_grad()
    def _update(self, slot: int, mean: Tensor, var: Tensor) -> None:
        self.running_mean[slot].lerp_(mean, self.momentum)
        self.running_var[slot].lerp_(var, self.momentum)


class SharedBatchNorm(PerStepBatchNorm):
    """Batch norm with one set of parameters and running statistics for all time steps.

    An image passes here once per time step; the running average moves as far in T steps as a per-step one does in
    one, so that it is an average over all steps and not over the last ones.
    """

    def __init__(self, channels: int, time_steps: int):
        super().__init__(channels, 1)
        self.momentum = 1 - (1 - MOMENTUM) ** (1 / time_steps)

    def slot(self, step: int) -> int:
        """All steps share row 0."""
        return 0


class NoNorm(nn.Module):
    """No normalisation."""

    def __init__(self, channels: int, time_steps: int):
        del channels, time_steps  # part of the registry's signature
        super().__init__()

    def forward(self, x: Tensor, step: int) -> Tensor:
        """``x`` [B, C, H, W] as it is."""
        del step
        return x


# Norm layers called with the time step, built as ``norm(channels, time_steps)``.
STEP_NORMS: dict[str, type[nn.Module]] = {"per_step": PerStepBatchNorm, "shared": SharedBatchNorm, "none": NoNorm}
