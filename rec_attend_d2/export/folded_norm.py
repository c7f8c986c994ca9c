"""Batch norm as an exported graph needs it: two tables of numbers, whose row may be chosen inside the graph.

Shapes: `B` images, `C` channels, `R` rows: time steps, or 1 where all steps share their statistics.
"""

import torch
from torch import Tensor, nn

from ..layers.step_norm import PerStepBatchNorm


class FoldedNorm(PerStepBatchNorm):
    """A batch norm in evaluation; the time step may be a tensor, as it is in a loop inside a graph."""

    def __init__(self, norm: PerStepBatchNorm):
        """
        Args:
            norm: what to copy, in evaluation mode.
        """
        nn.Module.__init__(self)  # without the weights and statistics, of which the tables are made
        rows = [norm.scale_and_shift(row) for row in range(len(norm.weight))]
        self.scale: Tensor
        self.shift: Tensor
        self.register_buffer("scale", torch.stack([scale for scale, _ in rows]).detach())
        self.register_buffer("shift", torch.stack([shift for _, shift in rows]).detach())
        self.eval()

    def slot(self, step: int | Tensor) -> int | Tensor:  # type: ignore[override]
        """Row of time step ``step``, which may be an int64 tensor []."""
        return 0 if len(self.scale) == 1 else step

    def scale_and_shift(self, rows: int | slice | Tensor) -> tuple[Tensor, Tensor]:
        """As :meth:`.PerStepBatchNorm.scale_and_shift`, [..., C] each; a row may be an int64 tensor []."""
        if isinstance(rows, Tensor):
            # Plain indexing would take the number out of the tensor, which a graph cannot.
            row = rows.reshape(1)
            return self.scale.index_select(0, row)[0], self.shift.index_select(0, row)[0]
        return self.scale[rows], self.shift[rows]

    def forward(self, x: Tensor, step: int | Tensor) -> Tensor:
        """Normalise ``x`` [B, C, H, W]."""
        scale, shift = self.scale_and_shift(self.slot(step))
        return x * scale[:, None, None] + shift[:, None, None]


def fold_norms(module: nn.Module) -> None:
    """Put a :class:`FoldedNorm` in the place of every batch norm below ``module``, which is in evaluation mode."""
    for name, child in module.named_children():
        if isinstance(child, PerStepBatchNorm):
            setattr(module, name, FoldedNorm(child))
        else:
            fold_norms(child)
