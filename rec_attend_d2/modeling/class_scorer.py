"""Class scorer: what kind of object a step has cut out.

The paper takes the class from the preprocessor's semantic maps; this part serves recipes without such maps.

Shapes: `n` patches, `V` channels of the head's deepest features of size `f_h, f_w`.
"""

import torch
from detectron2.config import CfgNode, configurable
from torch import Tensor, nn

# Hidden units of the MLP.
_HIDDEN = 64


class ClassScorer(nn.Module):
    """Softmax of a small MLP on the mean and maximum of the segmentation head's features."""

    @configurable
    def __init__(self, *, classes: int, feature_channels: int):
        """
        Args:
            classes: number of classes, at least 2.
            feature_channels: V.
        """
        super().__init__()
        self.classes = classes
        self.mlp = nn.Sequential(nn.Linear(2 * feature_channels, _HIDDEN), nn.ReLU(), nn.Linear(_HIDDEN, classes))

    @classmethod
    def from_config(cls, cfg: CfgNode, feature_shape: tuple[int, int, int]) -> dict:
        return {"classes": cfg.MODEL.REC_ATTEND.NUM_CLASSES, "feature_channels": feature_shape[0]}

    def forward(self, features: Tensor) -> Tensor:
        """Probabilities [n, classes] for ``features`` [n, V, f_h, f_w]."""
        pooled = torch.cat([features.mean((2, 3)), features.amax((2, 3))], dim=1)
        return torch.softmax(self.mlp(pooled), dim=1)


def build_class_scorer(cfg: CfgNode, feature_shape: tuple[int, int, int]) -> ClassScorer | None:
    """The scorer of MODEL.REC_ATTEND.NUM_CLASSES classes; None if that is 0.

    Raises:
        ValueError: a number of classes that makes no sense, or classes come from semantic maps already.
    """
    node = cfg.MODEL.REC_ATTEND
    if node.NUM_CLASSES == 0:
        return None
    if node.NUM_CLASSES < 2:
        raise ValueError(
            f"MODEL.REC_ATTEND.NUM_CLASSES is {node.NUM_CLASSES}. Give 0 for objects of one kind, or else their number."
        )
    if node.PREPROCESSOR.FOREGROUND_CLASSES > 1:
        raise ValueError(
            "MODEL.REC_ATTEND.NUM_CLASSES and PREPROCESSOR.FOREGROUND_CLASSES both give instances their class. Set "
            "NUM_CLASSES to 0 to take it from the semantic maps, or FOREGROUND_CLASSES to 0 or 1."
        )
    return ClassScorer(cfg, feature_shape)
