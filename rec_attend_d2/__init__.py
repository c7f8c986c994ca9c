"""Recurrent-attention instance segmentation for Detectron2 (Ren & Zemel, CVPR 2017).

Importing the package registers the model, its parts and the data sets; it changes no global configuration.
"""

from . import data, modeling
from .config import add_rec_attend_config
from .version import __version__

__all__ = ["__version__", "add_rec_attend_config", "data", "modeling"]
