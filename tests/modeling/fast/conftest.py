"""A small fast model, and objects that are drawn by hand."""

from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes, Instances

from rec_attend_d2.config import load_config
from rec_attend_d2.modeling.fast.targets import ObjectTargets

ROOT = Path(__file__).resolve().parents[3]
SIZE = (64, 96)


@pytest.fixture
def cfg() -> CfgNode:
    options = {
        "INPUT.IMAGE_SIZE": list(SIZE),
        "MODEL.DEVICE": "cpu",
        "MODEL.REC_ATTEND.BOX_PROPOSER.INITIAL_SIZE": 0.25,
        "MODEL.REC_ATTEND.ATTENTION.PATCH_SIZE": [16, 16],
        "MODEL.REC_ATTEND.LOSS.BOX_PADDING_PIXELS": 2.0,
        "MODEL.REC_ATTEND.FAST.ENCODER_CHANNELS": [4, 8, 8, 8, 8],
        "MODEL.REC_ATTEND.FAST.FEATURE_CHANNELS": [8, 8],
        "MODEL.REC_ATTEND.FAST.CONTROL_CHANNELS": 16,
        "MODEL.REC_ATTEND.FAST.HEAD_CHANNELS": [8, 8],
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


def instances_of(masks: list[torch.Tensor], classes: list[int] | None = None) -> Instances:
    """Instances as the mapper makes them."""
    stacked = torch.stack(masks) if masks else torch.zeros(0, *SIZE, dtype=torch.bool)
    bit_masks = BitMasks(stacked)
    boxes = bit_masks.get_bounding_boxes() if masks else Boxes(torch.zeros(0, 4))
    return Instances(
        SIZE,
        gt_masks=bit_masks,
        gt_boxes=boxes,
        gt_classes=torch.tensor(classes or [0] * len(masks), dtype=torch.int64),
    )


@pytest.fixture
def targets() -> ObjectTargets:
    """Two images: a large object with a small one on top of it and a third; and none."""
    masks = [rectangle(8, 8, 24, 32), rectangle(40, 60, 12, 12), rectangle(16, 16, 4, 4)]
    return ObjectTargets.from_instances([instances_of(masks), instances_of([])], 0.25, 2.0, torch.device("cpu"))
