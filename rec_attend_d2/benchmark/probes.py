"""All that the benchmarks know of this project's models: what must be adapted when these change.

Time, work and memory of Detectron2's own models are measured too; of them nothing is known but that they are called.
"""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from types import SimpleNamespace
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn

from ..data.state_pool import ImageState
from ..data.training import trains_on_a_pool
from ..modeling import RecAttend
from ..modeling.paper.postprocessing import StrongestInstance
from ..modeling.paper.sequence_model import SequenceModel
from ..modeling.steps import Feeder

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
    if not is_of_this_project(cfg):
        return cfg.MODEL.ROI_HEADS.NUM_CLASSES
    node = cfg.MODEL.REC_ATTEND
    return max(1, node.NUM_CLASSES, node.PREPROCESSOR.FOREGROUND_CLASSES - 1)


def without_files(cfg: CfgNode) -> CfgNode:
    """The config without files of its images, which synthetic ones do not have."""
    cfg = cfg.clone()
    cfg.MODEL.REC_ATTEND.TEST.SEM_SEG_DIR = cfg.MODEL.REC_ATTEND.PREPROCESSOR.CACHE_DIR = ""
    return cfg


def with_time_steps(cfg: CfgNode, steps: int) -> CfgNode:
    """The config with T = ``steps``, in training and at inference."""
    cfg = cfg.clone()
    cfg.MODEL.REC_ATTEND.TIME_STEPS = steps
    return cfg


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


# --- of a training batch ----------------------------------------------------------------------------------------------


def batches_in_training(cfg: CfgNode, batch: list[dict]) -> Iterator[list[dict]]:
    """Endlessly the same batch, as the training loader of this config would give it.

    In a pool of unfinished images an image is usually on its way: after the first batch of new images all have the
    memory of its step.
    """
    if not trains_on_a_pool(cfg):
        while True:
            yield batch
    states = [ImageState() for _ in batch]
    yield [{**entry, "state": state} for entry, state in zip(batch, states, strict=True)]
    while True:
        yield [{**entry, "state": copy.copy(state)} for entry, state in zip(batch, states, strict=True)]


# --- of a model at inference ------------------------------------------------------------------------------------------


def all_steps(model: nn.Module) -> int:
    """Time steps of an image that is never finished; 0 of a model without a fixed number of time steps."""
    return model.time_steps if isinstance(model, SequenceModel) else 0


def decides_to_stop(model: nn.Module) -> bool:
    """Whether a low score ends inference."""
    return isinstance(model, RecAttend)


class NetworksOnly(nn.Module):
    """A recurrent model without post-processing: all tensors of all T time steps, so that tracing drops nothing."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model: Any = model

    def forward(self, batched_inputs: list[dict]) -> list[Tensor]:
        """Tensors of the steps of images without truth."""
        return list(_tensors(self.model.sequence(self.model.first_inputs(batched_inputs), Feeder())))


def _tensors(value: Any) -> Iterator[Tensor]:
    """A tensor, or those of a dataclass and of what it holds."""
    if isinstance(value, Tensor):
        yield value
    elif is_dataclass(value):
        for field in fields(value):
            yield from _tensors(getattr(value, field.name))


@contextmanager
def known_scores(model: nn.Module, objects: int, stop: bool) -> Iterator[SimpleNamespace]:
    """Let every image have ``objects`` objects: the first so many scores become 1, the others 0.

    The scorer computes as ever, only its result is replaced. Yields an object whose ``steps`` is the number of time
    steps in the last call of the model.

    Args:
        model: a recurrent model.
        objects: number of objects.
        stop: end inference at the first score of 0, instead of taking all steps, whatever the config says.
    """
    counter = SimpleNamespace(steps=0)
    scorer: Any = model.stop_scorer if isinstance(model, RecAttend) else model.box_scorer
    changed = {"stop_early": stop, "stop_threshold": 0.5} if isinstance(model, RecAttend) else {}
    before = {name: getattr(model, name) for name in changed}

    def restart(module: nn.Module, arguments: Any) -> None:
        counter.steps = 0

    def replace(module: nn.Module, arguments: Any, output: Any) -> Any:
        counter.steps += 1
        score, *rest = output if isinstance(output, tuple) else (output,)
        known = torch.full_like(score, float(counter.steps <= objects))
        return (known, *rest) if rest else known

    handles = [model.register_forward_pre_hook(restart), scorer.register_forward_hook(replace)]
    try:
        for name, value in changed.items():
            setattr(model, name, value)
        yield counter
    finally:
        for name, value in before.items():
            setattr(model, name, value)
        for handle in handles:
            handle.remove()
