"""Fixtures of the model tests: a tiny config, batches for it, and proposals and sequences made by hand."""

from collections.abc import Callable, Sequence

import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Instances
from torch import Tensor

from rec_attend_d2 import add_rec_attend_config
from rec_attend_d2.layers.boxes import CenterBoxes
from rec_attend_d2.modeling import RecAttend
from rec_attend_d2.modeling.paper.sequence import BoxProposal, GlimpseScan, StepSequence
from rec_attend_d2.modeling.paper.sequence_model import SequenceModel
from rec_attend_d2.modeling.paper.targets import Targets
from rec_attend_d2.modeling.steps import Cut, Feeder, Step, Where

HEIGHT, WIDTH = 32, 48
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
def run_steps() -> Callable[..., StepSequence]:
    """A function from a model and a batch to all steps of it, fed with the truth or with their own predictions."""

    def run(model: SequenceModel, batch: list[dict], truth: bool = False) -> StepSequence:
        feeder = model.feeder(model.extract_targets(batch)) if truth else Feeder()
        return model.sequence(model.first_inputs(batch), feeder)

    return run


@pytest.fixture
def make_proposal() -> Callable[..., BoxProposal]:
    """A function from boxes, [..., 2] pixels each, to a proposal; what it is not told is 0."""

    def make(center: Tensor, size: Tensor, **fields: Tensor) -> BoxProposal:
        sides = center.new_tensor([HEIGHT, WIDTH])
        rows = torch.arange(len(center)).view(-1, *[1] * (center.ndim - 2))
        defaults = {
            "image": rows.expand(center.shape[:-1]),
            "boxes": CenterBoxes(center, size),
            "hidden": center.new_zeros(*center.shape[:-1], 8),
            "center_normalized": center / sides * 2 - 1,
            "log_size": torch.log(size / sides),
            "learned_log_variance": torch.zeros_like(center),
            "learned_patch_log_gain": center.new_zeros(center.shape[:-1]),
            "learned_mask_log_gain": center.new_zeros(center.shape[:-1]),
            "box_map_log_gain": center.new_zeros(center.shape[:-1]),
        }
        return BoxProposal(**{**defaults, **fields})

    return make


@pytest.fixture
def make_sequence(make_proposal) -> Callable[..., StepSequence]:
    """A function from masks [B, T, H, W] and scores [B, T] to a sequence.

    Boxes [B, T, 2] are in the middle of the image and box maps equal the masks, unless they are given.
    """

    def make(
        masks: Tensor, scores: Tensor, boxes: CenterBoxes | None = None, box_maps: Tensor | None = None
    ) -> StepSequence:
        middle = torch.tensor([HEIGHT / 2, WIDTH / 2]).expand(*scores.shape, 2)
        boxes = boxes or CenterBoxes(middle, middle)
        proposal = make_proposal(boxes.center, boxes.size)
        scan, where = GlimpseScan(masks.new_zeros(*scores.shape, 5, 4, 6)), Where(proposal.image, boxes)
        steps = Step(torch.zeros_like(masks), scan, proposal, where, Cut(masks), scores)
        return StepSequence(steps, masks if box_maps is None else box_maps)

    return make
