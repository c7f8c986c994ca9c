"""The models: what all share (:mod:`.rec_attend`), the paper's (:mod:`.paper`) and the fast one (:mod:`.fast`)."""

from .fast import FastRecAttend
from .paper import RecAttend, RecAttendBoxProposer, RecAttendPreprocessor
from .rec_attend import RecurrentAttention
from .registries import (
    BOX_PROPOSER_REGISTRY,
    PREPROCESSOR_REGISTRY,
    SEGMENTATION_HEAD_REGISTRY,
    STOP_SCORER_REGISTRY,
)

__all__ = [
    "BOX_PROPOSER_REGISTRY",
    "FastRecAttend",
    "PREPROCESSOR_REGISTRY",
    "RecAttend",
    "RecAttendBoxProposer",
    "RecAttendPreprocessor",
    "RecurrentAttention",
    "SEGMENTATION_HEAD_REGISTRY",
    "STOP_SCORER_REGISTRY",
]
