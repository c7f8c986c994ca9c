"""The phases of each kind of model: what has to be wrapped to see them."""

from typing import Any

from detectron2.modeling import GeneralizedRCNN
from torch import nn

from ..modeling import RecAttend, RecAttendPreprocessor
from ..modeling.image_model import ImageModel
from ..modeling.paper.scheduled_sampling import SampledTruth
from ..modeling.paper.sequence_model import SequenceModel
from .phases import Probe
from .runs import TrainingStep

INPUT = "input"
PREPROCESSOR = "preprocessor"
CONTROL_CNN = "control CNN"
GLIMPSES = "glimpses"
ATTENTION = "attention"
SEGMENTATION_HEAD = "segmentation head"
STOP_SCORER = "stop scorer"
MEMORY = "memory"
TARGETS = "targets"
SAMPLING = "scheduled sampling"
MATCHING = "matching"
LOSSES = "losses"
BACKWARD = "backward"
OPTIMIZER = "optimizer"
POSTPROCESSING = "post-processing"


def _methods(phase: str, owner: Any, *names: str) -> list[Probe]:
    return [Probe(phase, owner, name) for name in names]


def _recurrent_probes(model: SequenceModel) -> list[Probe]:
    return [
        *_methods(PREPROCESSOR, model.preprocessor, "forward"),
        # What the proposer does besides: the glimpses of the LSTM, or the scores and boxes of all places.
        *_methods(GLIMPSES, model.box_proposer, "forward"),
        *_methods(CONTROL_CNN, model.box_proposer.control_cnn, "forward"),
        *_methods(ATTENTION, model.attention, "window", "cut", "paste", "box_maps"),
        *_methods(MEMORY, model, "remember"),
        *_methods(TARGETS, model, "extract_targets"),
        *_methods(SAMPLING, model.scheduled_sampling, "start"),
        *_methods(SAMPLING, SampledTruth, "where", "claimed"),
        *_methods(LOSSES, model, "compute_losses"),
        *_methods(POSTPROCESSING, model, "instances"),
    ]


def _full_model_probes(model: RecAttend) -> list[Probe]:
    return [
        *_methods(SEGMENTATION_HEAD, model.segmentation_head, "forward"),
        *_methods(STOP_SCORER, model.stop_scorer, "forward"),
        *_methods(MATCHING, model.criterion, "matcher"),
    ]


def _map_probes(model: RecAttendPreprocessor) -> list[Probe]:
    return [
        *_methods(PREPROCESSOR, model.preprocessor, "forward"),
        *_methods(TARGETS, model, "extract_targets"),
        *_methods(LOSSES, model, "compute_losses"),
    ]


def _rcnn_probes(model: GeneralizedRCNN) -> list[Probe]:
    proposals, heads = model.proposal_generator, model.roi_heads
    probes = [
        *_methods(INPUT, model, "preprocess_image"),
        *_methods("backbone", model.backbone, "forward"),
        *_methods("ROI heads", heads, "forward"),
        *_methods(POSTPROCESSING, GeneralizedRCNN, "_postprocess"),
    ]
    optional = [
        ("RPN", proposals, "forward"),
        ("proposals", proposals, "predict_proposals"),
        (MATCHING, proposals, "label_and_sample_anchors"),
        (LOSSES, proposals, "losses"),
        (MATCHING, heads, "label_and_sample_proposals"),
        ("ROI pooling", getattr(heads, "box_pooler", None), "forward"),
        ("ROI pooling", getattr(heads, "mask_pooler", None), "forward"),
        ("box head", getattr(heads, "box_head", None), "forward"),
        (LOSSES, getattr(heads, "box_predictor", None), "losses"),
        ("detections", getattr(heads, "box_predictor", None), "inference"),
        ("mask head", getattr(heads, "mask_head", None), "forward"),
    ]
    return probes + [Probe(*entry) for entry in optional if hasattr(entry[1], entry[2])]


def model_probes(model: nn.Module) -> list[Probe]:
    """Probes of a model's forward pass; of a kind that is not known here each of its children is a phase."""
    probes: list[Probe] = []
    if isinstance(model, GeneralizedRCNN):
        return _rcnn_probes(model)
    if isinstance(model, ImageModel):
        probes += _methods(INPUT, model, "preprocess_image")
    if isinstance(model, RecAttendPreprocessor):
        return probes + _map_probes(model)
    if isinstance(model, RecAttend):
        return probes + _recurrent_probes(model) + _full_model_probes(model)
    if isinstance(model, SequenceModel):
        scorer = _methods(STOP_SCORER, model.box_scorer, "forward")
        return probes + _recurrent_probes(model) + scorer + _methods(MATCHING, model.criterion, "matcher")
    return [Probe(name, child, "forward") for name, child in model.named_children()]


def training_probes(step: TrainingStep) -> list[Probe]:
    """Probes of a training step."""
    return [*model_probes(step.model), Probe(BACKWARD, step, "backward"), Probe(OPTIMIZER, step, "optimize")]
