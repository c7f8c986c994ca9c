"""The paper's model, number for number: stage A (preprocessor), stage B (box proposer) and stage C (all of it)."""

from . import (  # noqa: F401 (they register parts)
    backbone_fcn,
    box_proposer,
    foreground_fcn,
    segmentation_head,
    stop_scorer,
)
from .box_proposer_stage import RecAttendBoxProposer
from .model import RecAttend
from .preprocessor_stage import RecAttendPreprocessor

__all__ = ["RecAttend", "RecAttendBoxProposer", "RecAttendPreprocessor"]
