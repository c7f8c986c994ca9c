"""A finished model on arrays: images in, instances and their count out.

Shapes: `H, W` image in pixels.
"""

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar, overload

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.structures import Instances
from numpy.typing import NDArray
from PIL import Image

from ..checkpoint import load_weights
from ..checkpoint.loading import read_object_size
from ..config import load_config, use_available_device
from ..data import WindowMapper, build_mapper, sees_windows
from ..data.image_io import count_pages, pillow_pixels, read_image, to_bgr
from ..data.large_images import map_large_image
from ..modeling import FastRecAttend, RecAttend, RecurrentAttention
from ..modeling.fast.tiles import Progress
from ..structures import as_crops
from ..visualization import Trace, trace

PathLike = str | os.PathLike
Pixels = NDArray | Image.Image
Item = TypeVar("Item")


@dataclass(frozen=True)
class Prediction:
    """What was found in one image.

    Attributes:
        instances: on the CPU, at the image's size: ``pred_masks`` (of stage B there are none), of which ``.numpy()``
            gives bool [N, H, W], ``pred_boxes`` (XYXY, pixels), ``scores`` [N] in [0, 1] and ``pred_classes`` [N],
            from 0.
        notes: what a reader of the result has to know, such as "stopped at 21 steps": there may be more objects.
    """

    instances: Instances
    notes: tuple[str, ...] = ()

    @property
    def count(self) -> int:
        """Number of objects."""
        return len(self.instances)

    @property
    def labels(self) -> NDArray[np.integer]:
        """The objects as one image [H, W]: k + 1 where object k is, of overlapping ones the first; 0 elsewhere.

        It is drawn anew each time: uint16, or uint32 of more than 65,535 objects.

        Raises:
            ValueError: the model finds no masks.
        """
        if not self.instances.has("pred_masks"):
            raise ValueError("There are no masks to make labels of, only boxes: the model is that of stage B.")
        return as_crops(self.instances.pred_masks).label_image()


class Predictor:
    """Runs a model on images as ``tools/train_net.py --eval-only`` does: same contrast, resizing and post-processing.

    Attributes:
        cfg: the config, frozen.
        model: in evaluation mode, on MODEL.DEVICE.
        batch_size: so many images at most go through the model at a time.
    """

    def __init__(
        self,
        config: CfgNode | PathLike,
        weights: PathLike = "",
        batch_size: int = 8,
        *,
        object_size: float | None = None,
        tile: int = 0,
        overlapping_masks: bool = False,
        progress: Progress = iter,
    ):
        """
        Args:
            config: a config, or the path of a config file. Without CUDA the device becomes the CPU.
            weights: checkpoint file; "" is that of MODEL.WEIGHTS, see :func:`find_weights`.
            batch_size: at least 1. It changes the predictions by rounding only.
            object_size: typical width of the objects in the images at hand, in pixels of theirs: the square root of the
                median area. None = that of INPUT.OBJECT_SIZE, or of the training where it is 0. This and what follows
                are the fast model's.
            tile: side in network pixels of tiles that images of any size are cut into; 0 = only large ones are.
            overlapping_masks: a pixel may belong to several masks, instead of to the strongest.
            progress: goes over the tiles of a large image, such as ``tqdm``.

        Raises:
            FileNotFoundError: there is no such config or weights file.
            ValueError: there are no weights, they are of another configuration, the model predicts no instances, or it
                needs more than an image.
        """
        if batch_size < 1:
            raise ValueError(f"The batch size is {batch_size}; give at least 1.")
        self.cfg = _read_config(config)
        path = os.fspath(weights) or find_weights(self.cfg, "" if isinstance(config, CfgNode) else config)
        _check_needs(self.cfg)
        if object_size is not None or sees_windows(self.cfg):
            self.cfg = _with_object_size(self.cfg, path, object_size)
        self.batch_size = batch_size
        self.model = build_model(self.cfg)
        if not isinstance(self.model, RecurrentAttention):
            raise ValueError(
                f"MODEL.META_ARCHITECTURE '{self.cfg.MODEL.META_ARCHITECTURE}' predicts no instances. Give the config "
                "and weights of stage C or of the fast recipe."
            )
        load_weights(self.model, os.path.expanduser(path), complete=True)
        self.model.eval()
        if isinstance(self.model, FastRecAttend):
            self.model.tile, self.model.progress = _checked_tile(tile), progress
            self.model.overlapping_masks = overlapping_masks
        elif tile or overlapping_masks:
            raise ValueError("Tiles and overlapping masks are the fast model's; the paper's sees images of one size.")
        self._mapper = build_mapper(self.cfg, is_train=False)

    @property
    def score_threshold(self) -> float:
        """Score from which on something counts as an object; at first MODEL.REC_ATTEND.TEST.SCORE_THRESHOLD."""
        return self.model.stop_threshold

    @score_threshold.setter
    def score_threshold(self, value: float) -> None:
        self.model.stop_threshold = value
        if isinstance(self.model, RecAttend):  # which sorts its steps out once more at the end
            self.model.postprocessor.score_threshold = value

    @overload
    def __call__(self, images: Sequence[Pixels]) -> list[Prediction]: ...

    @overload
    def __call__(self, images: Pixels) -> Prediction | list[Prediction]: ...

    def __call__(self, images: Pixels | Sequence[Pixels]) -> Prediction | list[Prediction]:
        """Find the objects of one image or of several.

        Args:
            images: an image as :func:`.image_io.to_bgr` takes it (grey [H, W], BGR [H, W, 3] or BGRA [H, W, 4]; 8 or 16
                bit, or any type with INPUT.CONTRAST_PERCENTILES), a Pillow image, or a list or array [B, H, W, C] of
                images. Those of a list may be of different sizes.

        Returns:
            The prediction of a single image, or a list of one for each.

        Raises:
            TypeError, ValueError: something is no such image.
        """
        if isinstance(images, Image.Image) or (isinstance(images, np.ndarray) and images.ndim < 4):
            return self.predict([self.prepare(images)])[0]
        if isinstance(images, str | os.PathLike) or not isinstance(images, Iterable):
            raise TypeError(
                f"The images are of type {type(images).__name__}. Give an array, a Pillow image or a list of them; "
                "Predictor.read reads image files."
            )
        return self.predict(self.prepare(image, f"Image {number}") for number, image in enumerate(images))

    def read(self, path: PathLike) -> NDArray:
        """An image file as :meth:`predict` takes it. Raises FileNotFoundError or ValueError if it cannot be read.

        The pixels of a TIFF that is too large to be read (67 million and more, uncompressed) are mapped, for the fast
        model.
        """
        mapped = map_large_image(path) if isinstance(self._mapper, WindowMapper) else None
        if mapped is not None:
            return mapped
        pages = count_pages(path) if Path(path).suffix.lower() in (".tif", ".tiff") else 1
        if pages > 1:
            raise ValueError(
                f"Image {os.fspath(path)} has {pages} pages. Of these rec-attend count takes one (--page N) or each "
                "(--page all)."
            )
        return read_image(path, self.cfg.INPUT.CONTRAST_PERCENTILES)

    def prepare(self, image: Pixels, name: str = "The image") -> NDArray:
        """Pixels of any depth as :meth:`predict` takes them; ``name`` is for errors. Raises TypeError, ValueError.

        Those mapped from a file (``numpy.memmap``) stay there, for the fast model.
        """
        if isinstance(image, np.memmap) and isinstance(self._mapper, WindowMapper):
            return image
        if isinstance(image, Image.Image):
            image = pillow_pixels(image)
        if not isinstance(image, np.ndarray):
            raise TypeError(
                f"{name} is of type {type(image).__name__}, not a NumPy array. Predictor.read reads image files."
            )
        return to_bgr(image, self.cfg.INPUT.CONTRAST_PERCENTILES, name)

    @torch.no_grad()
    def predict(self, images: Iterable[NDArray]) -> list[Prediction]:
        """Predictions of images [H, W, 3] that :meth:`read` or :meth:`prepare` gave."""
        predictions = []
        for batch in batches(images, self.batch_size):
            outputs = self.model([self._entry(image) for image in batch])
            for output in outputs:
                predictions.append(Prediction(output["instances"].to("cpu"), tuple(output.get("notes", ()))))
        return predictions

    def trace(self, image: NDArray) -> Trace:
        """How the model goes through an image [H, W, 3] that :meth:`read` or :meth:`prepare` gave, step by step.

        Of an image that is cut into tiles only the upper left part is shown.
        """
        return trace(self.model, self._entry(image))

    def _entry(self, image: NDArray) -> dict:
        return self._mapper.map_image(image)[0]


def batches(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """Lists of at most ``size`` items, in order; an item is not asked for before its batch is."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def find_weights(cfg: CfgNode, config_file: PathLike = "") -> str:
    """Path of MODEL.WEIGHTS. A file that does not exist as named is looked for beside ``config_file``.

    Raises:
        ValueError: MODEL.WEIGHTS is empty.
    """
    weights = cfg.MODEL.WEIGHTS
    if not weights:
        raise ValueError("There are no weights: set MODEL.WEIGHTS to a checkpoint file that fits the config.")
    # The configs of published weights name the file that lies beside them.
    beside = os.path.join(os.path.dirname(config_file), weights)
    return beside if os.path.isfile(beside) and not os.path.isfile(weights) else weights


def _read_config(config: CfgNode | PathLike) -> CfgNode:
    if isinstance(config, CfgNode):
        cfg = config.clone()
        cfg.defrost()
        use_available_device(cfg)
    else:
        cfg = load_config(config, [])
    cfg.freeze()
    return cfg


def _with_object_size(cfg: CfgNode, weights: str, object_size: float | None) -> CfgNode:
    """The config with the object size that was asked for, or else its own, or else that of the training.

    Raises:
        ValueError: nothing says how large objects are, or it is no positive number, or the model is not the fast one.
    """
    if not sees_windows(cfg):
        raise ValueError("An object size is the fast model's; the paper's scales every image to INPUT.IMAGE_SIZE.")
    if object_size is not None and not (math.isfinite(object_size) and object_size > 0):
        raise ValueError(f"The object size is {object_size}; give the typical width of an object in pixels, above 0.")
    size = object_size or cfg.INPUT.OBJECT_SIZE or read_object_size(os.path.expanduser(weights))
    if not size:
        raise ValueError(
            f"Neither the config (INPUT.OBJECT_SIZE) nor the weights '{weights}' say how large objects are. Give the "
            "typical width of an object in pixels of the image: INPUT.OBJECT_SIZE, or --object-size of the demo."
        )
    cfg = cfg.clone()
    cfg.defrost()
    cfg.INPUT.OBJECT_SIZE = float(size)
    cfg.freeze()
    return cfg


def _checked_tile(tile: int) -> int:
    if tile < 0:
        raise ValueError(
            f"The side of tiles is {tile}; give a number of network pixels, or 0 to cut large images only."
        )
    return tile


def _check_needs(cfg: CfgNode) -> None:
    """Raise a ValueError where a model needs more than an image."""
    if cfg.MODEL.REC_ATTEND.PREPROCESSOR.NAME == "GivenMaps":
        raise ValueError(
            "MODEL.REC_ATTEND.PREPROCESSOR.NAME 'GivenMaps' makes its maps of annotations, which an image by itself "
            "does not have. Use a model whose preprocessor predicts its maps."
        )
