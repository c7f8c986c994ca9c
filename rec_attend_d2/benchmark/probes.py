"""All that the benchmarks know of this project's models: what must be adapted when these change.

Time, work and memory of Detectron2's own models are measured too; of them nothing is known but that they are called.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from types import SimpleNamespace
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn

from .. import config
from ..layers.boxes import CenterBoxes
from ..modeling import FastRecAttend, RecAttend, RecurrentAttention
from ..modeling.paper.postprocessing import StrongestInstance
from ..modeling.paper.sequence_model import SequenceModel
from ..modeling.steps import Feeder, select
from .disks import RADIUS, grid_shape

# Meta-architectures that find no instance masks, and those that do where MODEL.MASK_ON says so.
WITHOUT_MASKS = frozenset({"RecAttendBoxProposer", "RecAttendPreprocessor"})
MASKS_WITH_MASK_ON = frozenset(
    {"GeneralizedRCNN", "PanopticFPN", "RetinaNet", "FCOS", "SemanticSegmentor", "ProposalNetwork"}
)
# COCO's mean number of objects per image, for models that have no time steps.
COCO_OBJECTS = 7
# Share of the time steps that an image of a recurrent model has objects for; CVPPP's plants have 16 leaves, T is 21.
OBJECTS_PER_STEP = 0.75
# Scores and values inside masks with which post-processing keeps everything.
SCORE, INSIDE = 0.9, 0.95
# Logit of masks that are known to fill their boxes.
FILLED = 5.0


# --- of a config ------------------------------------------------------------------------------------------------------


def is_of_this_project(cfg: CfgNode) -> bool:
    """Whether the config's meta-architecture is one of this project's, rather than Detectron2's own."""
    return cfg.MODEL.META_ARCHITECTURE == "FastRecAttend" or cfg.MODEL.META_ARCHITECTURE.startswith("RecAttend")


def has_time_steps(cfg: CfgNode) -> bool:
    """Whether the config's model goes through a fixed number of time steps."""
    return cfg.MODEL.META_ARCHITECTURE in ("RecAttend", "RecAttendBoxProposer")


def finds_masks(cfg: CfgNode) -> bool:
    """Whether the config's model finds instance masks; of one that is neither this project's nor Detectron2's: true."""
    architecture = cfg.MODEL.META_ARCHITECTURE
    return architecture not in WITHOUT_MASKS and (cfg.MODEL.MASK_ON or architecture not in MASKS_WITH_MASK_ON)


def usual_objects(cfg: CfgNode) -> int:
    """Number of objects that a synthetic image of this config has."""
    if not is_of_this_project(cfg):
        return COCO_OBJECTS
    return max(1, round(OBJECTS_PER_STEP * cfg.MODEL.REC_ATTEND.TIME_STEPS))


def number_of_classes(cfg: CfgNode) -> int:
    """How many classes the objects have."""
    return config.number_of_classes(cfg) if is_of_this_project(cfg) else cfg.MODEL.ROI_HEADS.NUM_CLASSES


def postprocessing_of(cfg: CfgNode, masks: Tensor, image_size: tuple[int, int]) -> Callable[[], Any]:
    """A function that post-processes soft masks [n, H, W] in [0, 1] to instances of an image of ``image_size``.

    Raises:
        ValueError: models of this kind have no postprocessor.
    """
    if cfg.MODEL.META_ARCHITECTURE != "RecAttend":
        raise ValueError(
            f"MODEL.META_ARCHITECTURE '{cfg.MODEL.META_ARCHITECTURE}' has no post-processing of whole masks "
            "to time: leave --postprocessing out."
        )
    node, (objects, *size) = cfg.MODEL.REC_ATTEND, masks.shape
    postprocessor = StrongestInstance(cfg)
    scores = torch.full((objects,), SCORE, device=masks.device)
    foreground = None
    if kinds := node.PREPROCESSOR.FOREGROUND_CLASSES:
        foreground = torch.full((kinds, *size), SCORE, device=masks.device)
        if kinds > 1:
            foreground[0] = 0  # the background is unlikely everywhere, so that no instance is removed
    masks = INSIDE * masks
    return lambda: postprocessor(masks, scores, foreground, image_size)


# --- of a model at inference ------------------------------------------------------------------------------------------


def decides_to_stop(model: nn.Module) -> bool:
    """Whether a low score ends inference."""
    return isinstance(model, RecAttend | FastRecAttend)


class NetworksOnly(nn.Module):
    """All tensors of all T time steps, or of one glance, without post-processing, so that tracing drops nothing."""

    def __init__(self, model: RecurrentAttention):
        super().__init__()
        self.model = model

    def forward(self, batched_inputs: list[dict]) -> list[Tensor]:
        """Tensors of the steps of images without truth."""
        model, inputs, feeder = self.model, self.model.first_inputs(batched_inputs), Feeder()
        found = model.sequence(inputs, feeder) if isinstance(model, SequenceModel) else model.step(inputs, feeder)
        return list(_tensors(found))


def _tensors(value: Any) -> Iterator[Tensor]:
    """A tensor, or those of a dataclass and of what it holds."""
    if isinstance(value, Tensor):
        yield value
    elif is_dataclass(value):
        for field in fields(value):
            yield from _tensors(getattr(value, field.name))


@contextmanager
def known_objects(model: RecurrentAttention, objects: int, stop: bool) -> Iterator[SimpleNamespace]:
    """Let every image have ``objects`` objects, and no more: their scores become 1, all others 0.

    The paper's model finds one in each of its first steps. The fast one finds them side by side in its first glance
    (where it looks, and that masks fill their boxes, is replaced too), and looks at one box in later ones. All networks
    compute as ever, only their results are replaced. Yields an object whose ``steps`` is the number of steps or glances
    in the last call of the model.

    Args:
        model: at inference.
        objects: in every image.
        stop: let images end with their first step that claims nothing, as the fast model's always do.
    """
    counter = SimpleNamespace(steps=0)

    def restart(module: nn.Module, arguments: Any) -> None:
        counter.steps = 0

    def score(module: nn.Module, arguments: Any, output: Any) -> Any:
        counter.steps += 1
        found, *rest = output if isinstance(output, tuple) else (output,)
        left = objects > 0 and counter.steps == 1 if isinstance(model, FastRecAttend) else counter.steps <= objects
        known = torch.full_like(found, float(left))
        return (known, *rest) if rest else known

    scorer: Any = model.stop_scorer if decides_to_stop(model) else model.box_scorer
    handles = [model.preprocessor.register_forward_pre_hook(restart), scorer.register_forward_hook(score)]
    if isinstance(model, FastRecAttend):
        handles += _known_places(model, objects, counter)
    before = model.stop_early, model.stop_threshold
    model.stop_early, model.stop_threshold = stop or isinstance(model, FastRecAttend), 0.5
    try:
        yield counter
    finally:
        model.stop_early, model.stop_threshold = before
        for handle in handles:
            handle.remove()


def boxes_of_disks(size: tuple[int, int], objects: int, like: Tensor) -> CenterBoxes:
    """Tight boxes [N, 2] of :func:`grid_of_disks`, of the type and on the device of ``like``."""
    rows, columns = grid_shape(size, objects)
    number = torch.arange(objects, device=like.device)
    cell = like.new_tensor([size[0] / rows, size[1] / columns])
    place = torch.stack([number // columns, number % columns], dim=1) + 0.5
    return CenterBoxes(place * cell - 0.5, (2 * RADIUS * cell - 1).expand(objects, 2))


def _known_places(model: FastRecAttend, objects: int, counter: SimpleNamespace) -> list[Any]:
    """Hooks by which a glance looks at the boxes of disks, in the first one at all of them, and finds filled boxes."""

    def place(module: nn.Module, arguments: Any, output: Any) -> Any:
        found, scan = output
        height, width = (places * scan.stride for places in scan.logits.shape[1:])
        tight = boxes_of_disks((height, width), max(objects, 1), found.boxes.center)
        images, count = len(scan.logits), len(tight.center) if counter.steps == 0 else 1
        # An image's best place stands for all of its boxes: the scorer and the masks are computed for each.
        best = torch.searchsorted(found.image, torch.arange(images, device=found.image.device))
        boxes = CenterBoxes(tight.center[:count].repeat(images, 1), tight.size[:count].repeat(images, 1))
        return replace(select(found, best.repeat_interleave(count)), boxes=boxes), scan

    def fill(module: nn.Module, arguments: Any, output: Any) -> Any:
        logits, features = output
        return torch.full_like(logits, FILLED), features

    return [model.box_proposer.register_forward_hook(place), model.segmentation_head.register_forward_hook(fill)]
