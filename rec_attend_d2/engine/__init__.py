"""Training and evaluation on Detectron2's trainer."""

from .setup import setup, write_results
from .trainer import Trainer, evaluate

__all__ = ["Trainer", "evaluate", "setup", "write_results"]
