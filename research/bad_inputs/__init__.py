"""A hundred bad inputs, each with the command that gets it and what that is expected to say."""

from . import labels, others, trainings  # which add theirs to the list
from .base import CASES, Case, Scratch

__all__ = ["CASES", "Case", "Scratch", "labels", "others", "trainings"]
