"""The fast model's stop scorer, and what kind of object a candidate is.

Shapes: `n` candidates, `S` numbers that the proposer gives of each, `V` channels of the head's deepest features.
"""

import torch
from detectron2.config import CfgNode, configurable
from torch import Tensor, nn

from ..registries import FAST, STOP_SCORER_REGISTRY

# Hidden units of both MLPs.
_HIDDEN = 64


def pooled(features: Tensor) -> Tensor:
    """Mean and maximum [n, 2 V] of features [n, V, f, f]."""
    return torch.cat([features.mean((2, 3)), features.amax((2, 3))], dim=1)


@STOP_SCORER_REGISTRY.register()
class PooledStopScorer(nn.Module):
    """Sigmoid of a small MLP on what the proposer gives of a candidate and on the head's features, pooled."""

    part_of = FAST

    @configurable
    def __init__(self, *, hidden_dim: int, feature_channels: int):
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(hidden_dim + 2 * feature_channels, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, 1)
        )

    @classmethod
    def from_config(cls, cfg: CfgNode, hidden_dim: int, feature_channels: int) -> dict:
        return {"hidden_dim": hidden_dim, "feature_channels": feature_channels}

    def forward(self, hidden: Tensor, features: Tensor) -> Tensor:
        """Scores [n] in (0, 1) of ``hidden`` [n, S] and ``features`` [n, V, f, f]."""
        return torch.sigmoid(self.mlp(torch.cat([hidden, pooled(features)], dim=1)))[:, 0]


class ClassScorer(nn.Module):
    """Softmax of a small MLP on the head's features, pooled. The paper takes classes from semantic maps instead."""

    def __init__(self, classes: int, feature_channels: int):
        super().__init__()
        self.classes = classes
        self.mlp = nn.Sequential(nn.Linear(2 * feature_channels, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, classes))

    def forward(self, features: Tensor) -> Tensor:
        """Probabilities [n, classes] for ``features`` [n, V, f, f]."""
        return torch.softmax(self.mlp(pooled(features)), dim=1)
