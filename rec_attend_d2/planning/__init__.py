"""What a data set is, and the settings that follow from it, each with its reason."""

from .groups import Split, choose_validation
from .plan import Plan, Setting, choose_settings
from .survey import PictureFacts, Survey, survey

__all__ = ["PictureFacts", "Plan", "Setting", "Split", "Survey", "choose_settings", "choose_validation", "survey"]
