"""Stop scorers: is there (still) an object? (paper, section 3.1, D)

Shapes: `B` images, `S` LSTM size, `V` channels of the head's deepest features of size `f_h, f_w`.
"""

import math

import torch
from detectron2.config import CfgNode, configurable
from torch import Tensor, nn

from ...layers.initialization import initialize
from ..registries import PAPER, STOP_SCORER_REGISTRY


@STOP_SCORER_REGISTRY.register()
class LinearStopScorer(nn.Module):
    """Sigmoid of a linear layer on the proposer's last output and the head's deepest features."""

    part_of = PAPER

    @configurable
    def __init__(self, *, hidden_dim: int, feature_dim: int, initializer: str):
        super().__init__()
        self.linear = nn.Linear(hidden_dim + feature_dim, 1)
        initialize(self, initializer)

    @classmethod
    def from_config(cls, cfg: CfgNode, hidden_dim: int, feature_shape: tuple[int, int, int]) -> dict:
        return {
            "hidden_dim": hidden_dim,
            "feature_dim": math.prod(feature_shape),
            "initializer": cfg.MODEL.REC_ATTEND.INIT,
        }

    def forward(self, hidden: Tensor, features: Tensor) -> Tensor:
        """Scores [B] in (0, 1) of ``hidden`` [B, S] and ``features`` [B, V, f_h, f_w]."""
        # The original flattens in the order y, x, channel; its weights are converted as they are.
        flat = features.permute(0, 2, 3, 1).flatten(1)
        return torch.sigmoid(self.linear(torch.cat([hidden, flat], dim=1)))[:, 0]


class HiddenStateScorer(nn.Module):
    """Scorer of stage B, on the proposer's last output alone.

    With one class the score is a sigmoid; with several (class 0 is background) it is 1 - P(class 0) of a softmax.
    """

    @configurable
    def __init__(self, *, hidden_dim: int, classes: int, initializer: str):
        super().__init__()
        self.classes = classes
        self.linear = nn.Linear(hidden_dim, classes)
        initialize(self, initializer)

    @classmethod
    def from_config(cls, cfg: CfgNode, hidden_dim: int) -> dict:
        return {
            "hidden_dim": hidden_dim,
            "classes": max(1, cfg.MODEL.REC_ATTEND.PREPROCESSOR.FOREGROUND_CLASSES),
            "initializer": cfg.MODEL.REC_ATTEND.INIT,
        }

    def forward(self, hidden: Tensor) -> tuple[Tensor, Tensor | None]:
        """Scores [B] in (0, 1) of ``hidden`` [B, S], and class probabilities [B, classes] if there are classes."""
        logits = self.linear(hidden)
        if self.classes == 1:
            return torch.sigmoid(logits)[:, 0], None
        probabilities = torch.softmax(logits, dim=1)
        return 1 - probabilities[:, 0], probabilities
