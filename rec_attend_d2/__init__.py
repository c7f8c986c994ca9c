"""Recurrent-attention instance segmentation for Detectron2 (Ren & Zemel, CVPR 2017).

Importing the package registers the model, its parts and the data sets; it changes no global configuration.
"""

from typing import TYPE_CHECKING, Any

from . import data, modeling
from .config import add_rec_attend_config
from .version import __version__

if TYPE_CHECKING:
    from .prediction import Predictor

__all__ = ["Predictor", "__version__", "add_rec_attend_config", "data", "modeling"]


def __getattr__(name: str) -> Any:
    # Predictor brings the trainer's and the evaluators' libraries, for which `import rec_attend_d2` should not wait.
    if name == "Predictor":
        from .prediction import Predictor

        return Predictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
