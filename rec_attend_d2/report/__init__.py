"""What a finished model finds in annotated pictures, and pages about it that need no network."""

from .measure import Measured, PictureResult, measure
from .thresholds import Chosen, choose_threshold
from .training_report import write_report

__all__ = ["Chosen", "Measured", "PictureResult", "choose_threshold", "measure", "write_report"]
