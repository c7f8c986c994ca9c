"""Checkpoints: the original's weights, running statistics, and loading with a report."""

from .loading import LoadReport, load_weights
from .original_weights import convert_original_weights, has_running_statistics, to_original_names
from .statistics import estimate_running_statistics

__all__ = [
    "LoadReport",
    "convert_original_weights",
    "estimate_running_statistics",
    "has_running_statistics",
    "load_weights",
    "to_original_names",
]
