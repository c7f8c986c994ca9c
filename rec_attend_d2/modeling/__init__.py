"""The model: meta-architectures and their registered parts."""

from . import (  # noqa: F401 (they register parts)
    backbone_fcn,
    control_cnn,
    foreground_fcn,
    fast,
)
from .box_proposer_stage import RecAttendBoxProposer
from .preprocessor_stage import RecAttendPreprocessor
from .rec_attend import RecAttend
from .recurrent_model import RecurrentModel
from .registries import (
    ATTENTION_REGISTRY,
    BOX_LOSS_REGISTRY,
    BOX_OVERLAP_REGISTRY,
    BOX_PROPOSER_REGISTRY,
    CONTROL_CNN_REGISTRY,
    FILTER_VARIANCE_REGISTRY,
    FIRST_GLIMPSE_REGISTRY,
    FOREGROUND_LOSS_REGISTRY,
    MASK_LOSS_REGISTRY,
    MATCHER_REGISTRY,
    MEMORY_REGISTRY,
    POSTPROCESSOR_REGISTRY,
    PREPROCESSOR_REGISTRY,
    SAMPLING_REGISTRY,
    SCORE_TRUTH_REGISTRY,
    SEGMENTATION_HEAD_REGISTRY,
    STEP_MASK_LOSS_REGISTRY,
    STOP_SCORER_REGISTRY,
    TRAINING_MODE_REGISTRY,
    TRUTH_CHOICE_REGISTRY,
)
from .step_types import BoxSequence, ExtraMaps, MaskSequence
from .targets import Targets
from .trunk import RecurrentAttention

__all__ = [
    "ATTENTION_REGISTRY",
    "CONTROL_CNN_REGISTRY",
    "FIRST_GLIMPSE_REGISTRY",
    "SAMPLING_REGISTRY",
    "SCORE_TRUTH_REGISTRY",
    "STEP_MASK_LOSS_REGISTRY",
    "TRAINING_MODE_REGISTRY",
    "BOX_LOSS_REGISTRY",
    "BOX_OVERLAP_REGISTRY",
    "BOX_PROPOSER_REGISTRY",
    "BoxSequence",
    "ExtraMaps",
    "FILTER_VARIANCE_REGISTRY",
    "FOREGROUND_LOSS_REGISTRY",
    "MASK_LOSS_REGISTRY",
    "MATCHER_REGISTRY",
    "MEMORY_REGISTRY",
    "MaskSequence",
    "POSTPROCESSOR_REGISTRY",
    "PREPROCESSOR_REGISTRY",
    "RecAttend",
    "RecAttendBoxProposer",
    "RecAttendPreprocessor",
    "RecurrentAttention",
    "RecurrentModel",
    "SEGMENTATION_HEAD_REGISTRY",
    "STOP_SCORER_REGISTRY",
    "TRUTH_CHOICE_REGISTRY",
    "Targets",
]
