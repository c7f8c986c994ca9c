"""A small fast model, and objects that are drawn by hand."""

from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model

from rec_attend_d2.config import load_config
from rec_attend_d2.modeling.fast.targets import ObjectTargets

ROOT = Path(__file__).resolve().parents[3]
SIZE = (64, 96)


@pytest.fixture
def cfg() -> CfgNode:
    options = {
        "INPUT.OBJECT_SIZE": 8.0,
        "INPUT.OBJECT_PIXELS": 8.0,
        "MODEL.DEVICE": "cpu",
        "MODEL.REC_ATTEND.FAST.WIDTH": 0.25,
    }
    pairs = [str(part) for pair in options.items() for part in pair]
    return load_config(str(ROOT / "configs" / "Fast-RecAttend.yaml"), pairs)


@pytest.fixture
def model(cfg):
    torch.manual_seed(0)
    return build_model(cfg).eval()


def rectangle(top: int, left: int, height: int, width: int) -> torch.Tensor:
    """A mask [H, W] bool."""
    mask = torch.zeros(SIZE, dtype=torch.bool)
    mask[top : top + height, left : left + width] = True
    return mask


def label_image(masks: list[torch.Tensor]) -> torch.Tensor:
    """Label image int32 [H, W] as the mapper makes it; later masks lie on top of earlier ones."""
    labels = torch.zeros(SIZE, dtype=torch.int32)
    for number, mask in enumerate(masks, start=1):
        labels[mask] = number
    return labels


@pytest.fixture
def targets() -> ObjectTargets:
    """Two images: a large object with a small one on top of it and a third; and none."""
    masks = [rectangle(8, 8, 24, 32), rectangle(40, 60, 12, 12), rectangle(16, 16, 4, 4)]
    classes = [torch.zeros(3, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)]
    return ObjectTargets.from_labels(torch.stack([label_image(masks), label_image([])]), classes, (0.25, 2.0))
