"""Fixtures of the model tests: a tiny config, batches for it, and proposals and sequences made by hand."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Instances
from torch import Tensor

from rec_attend_d2 import add_rec_attend_config
from rec_attend_d2.layers.boxes import CenterBoxes
from rec_attend_d2.modeling import BoxSequence, MaskSequence, RecAttend, Targets
from rec_attend_d2.modeling.step_types import Proposal

ROOT = Path(__file__).resolve().parents[2]
HEIGHT, WIDTH = 32, 48
# The image encoder needs multiples of 32.
FAST_HEIGHT, FAST_WIDTH = 32, 64
TIME_STEPS = 3
PADDING_RATIO, PADDING_PIXELS = 0.2, 3.0
# Disjoint rectangles (first row, first column, last row, last column), largest first: 260, 238 and 108 pixels.
RECTANGLES = ((17, 25, 29, 44), (2, 3, 15, 19), (3, 28, 11, 39))


@pytest.fixture(autouse=True)
def seed() -> None:
    """Weights and noise are the same in every run."""
    torch.manual_seed(0)


@pytest.fixture
def tiny_cfg() -> Callable[..., CfgNode]:
    """A function from overrides, by key below MODEL.REC_ATTEND, to a tiny config of the full model on the CPU."""

    def make(overrides: dict | None = None) -> CfgNode:
        cfg = get_cfg()
        add_rec_attend_config(cfg)
        cfg.MODEL.META_ARCHITECTURE = "RecAttend"
        cfg.MODEL.DEVICE = "cpu"
        cfg.MODEL.PIXEL_MEAN = [0.0, 0.0, 0.0]
        cfg.MODEL.PIXEL_STD = [255.0, 255.0, 255.0]
        cfg.INPUT.IMAGE_SIZE = [HEIGHT, WIDTH]
        node = cfg.MODEL.REC_ATTEND
        node.TIME_STEPS = TIME_STEPS
        node.BOX_PROPOSER.CONV_CHANNELS = [4, 4, 6, 6]
        node.BOX_PROPOSER.CONV_POOLS = [2, 2, 1, 2]
        node.BOX_PROPOSER.HIDDEN_DIM = 8
        node.BOX_PROPOSER.INITIAL_SIZE = 0.5
        node.ATTENTION.PATCH_SIZE = [16, 24]
        node.SEGMENTATION_HEAD.CONV_CHANNELS = [4, 4, 6]
        node.SEGMENTATION_HEAD.CONV_POOLS = [2, 1, 2]
        node.SEGMENTATION_HEAD.DECONV_CHANNELS = [6, 4, 4, 1]
        node.SEGMENTATION_HEAD.DECONV_STRIDES = [2, 1, 2, 1]
        node.LOSS.BOX_PADDING_RATIO = PADDING_RATIO
        node.LOSS.BOX_PADDING_PIXELS = PADDING_PIXELS
        for key, value in (overrides or {}).items():
            node.merge_from_list([key, value])
        return cfg

    return make


@pytest.fixture
def fast_cfg() -> Callable[..., CfgNode]:
    """A function from overrides, by key below MODEL.REC_ATTEND, to a tiny config of the fast recipe on the CPU."""

    def make(overrides: dict | None = None) -> CfgNode:
        cfg = get_cfg()
        add_rec_attend_config(cfg)
        cfg.merge_from_file(str(ROOT / "configs" / "Fast-RecAttend.yaml"))
        cfg.MODEL.DEVICE = "cpu"
        cfg.INPUT.IMAGE_SIZE = [FAST_HEIGHT, FAST_WIDTH]
        node = cfg.MODEL.REC_ATTEND
        node.TIME_STEPS = TIME_STEPS
        node.PREPROCESSOR.ENCODER_CHANNELS = [4, 4, 6, 6, 8]
        node.PREPROCESSOR.FEATURE_CHANNELS = [4, 6]
        node.BOX_PROPOSER.CONTROL_CHANNELS = 8
        node.BOX_PROPOSER.INITIAL_SIZE = 0.5
        node.ATTENTION.PATCH_SIZE = [12, 16]
        node.SEGMENTATION_HEAD.CONV_CHANNELS = [4, 6, 8]
        node.STOP_SCORER.MLP_DIM = 8
        node.LOSS.BOX_PADDING_RATIO = PADDING_RATIO
        node.LOSS.BOX_PADDING_PIXELS = PADDING_PIXELS
        for key, value in (overrides or {}).items():
            node.merge_from_list([key, value])
        return cfg

    return make


@pytest.fixture
def make_model(tiny_cfg) -> Callable[..., RecAttend]:
    """A function from config overrides to the full model."""

    def make(overrides: dict | None = None) -> RecAttend:
        return build_model(tiny_cfg(overrides))

    return make


@pytest.fixture
def rectangle_masks() -> Callable[[Sequence[int]], Tensor]:
    """A function from the number of objects of every image to masks [B, TIME_STEPS, HEIGHT, WIDTH]."""

    def make(counts: Sequence[int]) -> Tensor:
        masks = torch.zeros(len(counts), TIME_STEPS, HEIGHT, WIDTH)
        for index, count in enumerate(counts):
            for n, (y0, x0, y1, x1) in enumerate(RECTANGLES[:count]):
                masks[index, n, y0 + index % 2 : y1 + 1, x0 : x1 + 1] = 1
        return masks

    return make


@pytest.fixture
def make_targets(rectangle_masks) -> Callable[[Sequence[int]], Targets]:
    """A function from the number of objects of every image to targets."""

    def make(counts: Sequence[int]) -> Targets:
        return Targets.from_masks(rectangle_masks(counts), PADDING_RATIO, PADDING_PIXELS)

    return make


@pytest.fixture
def make_batch(rectangle_masks) -> Callable[..., list[dict]]:
    """A function from the number of objects of every image to dataset dicts as RecAttendDatasetMapper makes them."""

    def make(
        counts: Sequence[int], original: tuple[int, int] = (65, 97), angle_bins: int = 0, foreground_classes: int = 0
    ) -> list[dict]:
        masks = rectangle_masks(counts).bool()
        generator = torch.Generator().manual_seed(len(counts))
        batch = []
        for index, count in enumerate(counts):
            image = torch.randint(0, 80, (3, HEIGHT, WIDTH), dtype=torch.uint8, generator=generator)
            image += (masks[index].any(0) * 150).to(torch.uint8)
            instances = Instances((HEIGHT, WIDTH))
            instances.gt_masks = BitMasks(masks[index, :count])
            instances.gt_classes = torch.zeros(count, dtype=torch.int64)
            entry = {"image": image, "height": original[0], "width": original[1], "instances": instances}
            entry["file_name"] = f"image{index}.png"
            if angle_bins:
                entry["angle_map"] = torch.rand(angle_bins, HEIGHT, WIDTH, generator=generator)
            if foreground_classes:
                entry["foreground"] = torch.rand(foreground_classes, HEIGHT, WIDTH, generator=generator)
            batch.append(entry)
        return batch

    return make


@pytest.fixture
def make_proposal() -> Callable[..., Proposal]:
    """A function from boxes, [..., 2] pixels each, to a proposal; what it is not told is 0."""

    def make(center: Tensor, size: Tensor, **fields: Tensor) -> Proposal:
        sides = center.new_tensor([HEIGHT, WIDTH])
        defaults = {
            "boxes": CenterBoxes(center, size),
            "center_normalized": center / sides * 2 - 1,
            "log_size": torch.log(size / sides),
            "learned_log_variance": torch.zeros_like(center),
            "learned_patch_log_gain": center.new_zeros(center.shape[:-1]),
            "learned_mask_log_gain": center.new_zeros(center.shape[:-1]),
            "box_map_log_gain": center.new_zeros(center.shape[:-1]),
            "hidden": center.new_zeros(*center.shape[:-1], 8),
            "glimpse_maps": center.new_zeros(*center.shape[:-1], 5, 4, 6),
        }
        return Proposal(**{**defaults, **fields})

    return make


@pytest.fixture
def make_sequence(make_proposal) -> Callable[..., MaskSequence]:
    """A function from masks [B, T, H, W] and scores [B, T] to a sequence.

    Boxes [B, T, 2] are in the middle of the image and box maps equal the masks, unless they are given.
    """

    def make(
        masks: Tensor, scores: Tensor, boxes: CenterBoxes | None = None, box_maps: Tensor | None = None
    ) -> MaskSequence:
        middle = torch.tensor([HEIGHT / 2, WIDTH / 2]).expand(*scores.shape, 2)
        boxes = boxes or CenterBoxes(middle, middle)
        return MaskSequence(
            proposals=make_proposal(boxes.center, boxes.size),
            scores=scores,
            class_probabilities=None,
            memories=torch.zeros_like(masks),
            box_maps=masks if box_maps is None else box_maps,
            masks=masks,
            patches=masks.new_zeros(*scores.shape, 4, 16, 24),
            patch_masks=masks.new_zeros(*scores.shape, 16, 24),
            used_boxes=boxes,
        )

    return make


@pytest.fixture
def make_box_sequence(make_sequence) -> Callable[..., BoxSequence]:
    """Like ``make_sequence``, of stage B: no masks."""

    def make(box_maps: Tensor, scores: Tensor, boxes: CenterBoxes | None = None) -> BoxSequence:
        full = make_sequence(box_maps, scores, boxes)
        return BoxSequence(full.proposals, full.scores, None, full.memories, full.box_maps)

    return make
