"""Recurrent-attention instance segmentation for Detectron2 (Ren & Zemel, CVPR 2017).

Importing the package registers the model, its parts and the data sets; it changes no global configuration.
"""

from typing import TYPE_CHECKING, Any

try:
    from . import data, modeling
except ModuleNotFoundError as error:
    if error.name != "detectron2":
        raise
    raise ModuleNotFoundError(
        "rec_attend_d2 needs Detectron2, which pip does not install with it. Install it as its makers say, or by "
        "`python install_environment.py --detectron2`, a file of this project's releases and of its folder tools.",
        name=error.name,
    ) from error
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
