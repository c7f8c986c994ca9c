"""Trained models as files that run without this package: see tools/export_model.py."""

from .comparison import Comparison, compare
from .formats import EXPORT_FORMATS, ExportFormat, trace
from .modules import ExportError, StopLoopModel, UnrolledModel

__all__ = [
    "Comparison",
    "EXPORT_FORMATS",
    "ExportError",
    "ExportFormat",
    "StopLoopModel",
    "UnrolledModel",
    "compare",
    "trace",
]
