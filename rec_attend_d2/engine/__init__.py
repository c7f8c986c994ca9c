"""Training and evaluation on Detectron2's trainer."""

from .setup import load_config, setup, write_results
from .trainer import Trainer, evaluate

__all__ = ["Trainer", "evaluate", "load_config", "setup", "write_results"]
