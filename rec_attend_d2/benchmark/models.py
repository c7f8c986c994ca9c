"""The models that are compared, and what makes their trainings equal: data, pictures, augmentation, budget."""

import json
import os
import pickle
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data import transforms as T
from detectron2.modeling import build_model
from numpy.typing import NDArray
from torch import nn

from ..checkpoint import load_weights
from ..config import load_config
from ..data import RecAttendDatasetMapper, WindowMapper, build_mapper, register_datasets
from ..data.augmentation import AUGMENTATIONS, augmentations_around
from ..engine.checkpointer import SafeCheckpointer
from .probes import finds_masks, is_of_this_project

# How a training image is made, taken over from this project's config for all models.
RECIPE_KEYS = ("AUGMENTATIONS", "MAX_SHIFT", "WARP", "CONTRAST_PERCENTILES")
LOADER_KEYS = ("FILTER_EMPTY_ANNOTATIONS", "NUM_WORKERS")
# Evaluations per training where nothing else is said.
POINTS = 8


class ComparisonError(Exception):
    """A comparison is wrong, or one of its models could not be trained or evaluated; the message says what to do."""


def read_json(path: Path) -> Any:
    """Content of a json file, None where there is none."""
    return json.loads(path.read_text()) if path.is_file() else None


@dataclass(frozen=True)
class ModelSpec:
    """One model of a comparison; json can hold it.

    Attributes:
        name: of its folder and in the report.
        config_file: path of its config.
        options: KEY VALUE overrides.
        train, test: names of the data sets.
        minutes: of training iterations, without evaluations and checkpoints; None = the budget are iterations.
        iterations: of the optimizer; None = the budget are minutes.
        clock: of the minutes: "wall", or "cpu" (of all threads of the training process together), which other work on
            the machine does not change.
        weights: finished weights, for which it is not trained; empty = it is trained.
        recipe: config of this project that says how all models' training images are made; empty = flips alone.
            Windows are those of a Detectron2 model's own config, where it has INPUT.CROP.ENABLED.
        threads: of the CPU.
        device: "cpu" or "cuda".
        seed: of the training.
        threshold_images: training images on which the score threshold is chosen, at most.
        points: evaluations per training, at equal shares of the budget.
    """

    name: str
    config_file: str
    options: list[str]
    train: str
    test: str
    minutes: float | None
    iterations: int | None
    clock: str
    weights: str
    recipe: str
    threads: int
    device: str
    seed: int
    threshold_images: int
    points: int = POINTS

    def share(self, seconds: float, iterations: int) -> float:
        """Share of the budget, in [0, 1], that so much training uses."""
        used = seconds / (60 * self.minutes) if self.minutes else iterations / (self.iterations or 1)
        return min(1.0, used)

    def budget(self) -> str:
        """In words."""
        if self.weights:
            return "finished weights, not trained"
        if self.minutes is not None:
            return f"{self.minutes:g} {'CPU ' if self.clock == 'cpu' else ''}minutes of training iterations"
        return f"{self.iterations} iterations"

    def config(self, folder: Path | None = None) -> CfgNode:
        """Its config on the comparison's data, with ``folder`` as OUTPUT_DIR.

        Raises:
            ComparisonError: the config is wrong, or there is no such data set or device.
        """
        try:
            cfg = load_config(self.config_file, self.options)
            cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (self.train,), (self.test,)
            register_datasets(cfg)
        except (AssertionError, KeyError, OSError, ValueError) as error:
            raise ComparisonError(f"{self.config_file}: {error}") from error
        if not finds_masks(cfg):
            raise ComparisonError(
                f"{self.config_file}: its {cfg.MODEL.META_ARCHITECTURE} finds no instance masks, which are compared."
            )
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ComparisonError("--device is cuda, but PyTorch finds no CUDA device here. Give cpu.")
        cfg.MODEL.DEVICE, cfg.SEED = self.device, self.seed
        if folder is not None:
            cfg.OUTPUT_DIR = str(folder)
        if not is_of_this_project(cfg):
            _fit_to_data(cfg, self.train)
            _take_recipe(cfg, self.recipe)
        return cfg


def _fit_to_data(cfg: CfgNode, dataset_name: str) -> None:
    """Let a Detectron2 model have the data set's classes, in place."""
    DatasetCatalog.get(dataset_name)  # some data sets know their classes only once they are read
    classes = len(MetadataCatalog.get(dataset_name).thing_classes)
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = cfg.MODEL.RETINANET.NUM_CLASSES = classes
    cfg.INPUT.MASK_FORMAT = "bitmask"
    if cfg.INPUT.FORMAT != "BGR":
        raise ComparisonError(f"INPUT.FORMAT is {cfg.INPUT.FORMAT!r}; only models of BGR images can be compared.")


def _take_recipe(cfg: CfgNode, recipe: str) -> None:
    """Make the training images of a Detectron2 model as those of this project's config ``recipe``, in place."""
    if not recipe:
        cfg.INPUT.AUGMENTATIONS = ["RandomHorizontalFlip"]  # Detectron2's default
        return
    ours = load_config(recipe, [])
    for key in RECIPE_KEYS:
        cfg.INPUT[key] = ours.INPUT[key]
    for key in LOADER_KEYS:
        cfg.DATALOADER[key] = ours.DATALOADER[key]
    # Pictures without objects are drawn for the fast model alone.
    cfg.INPUT.AUGMENTATIONS = [name for name in ours.INPUT.AUGMENTATIONS if name in AUGMENTATIONS]


class OwnCrop(T.Augmentation):
    """The window of a Detectron2 config, of the whole side where an image is smaller."""

    def __init__(self, cfg: CfgNode):
        """
        Raises:
            ComparisonError: INPUT.CROP is no window in pixels.
        """
        super().__init__()
        node = cfg.INPUT.CROP
        if node.TYPE != "absolute" or len(node.SIZE) != 2 or min(node.SIZE) < 1:
            raise ComparisonError(
                f"INPUT.CROP is {node.TYPE} {list(node.SIZE)}; a comparison needs TYPE 'absolute' and as SIZE "
                "[height, width] in pixels."
            )
        self.size = tuple(node.SIZE)

    def get_transform(self, image: NDArray) -> T.Transform:
        """A window of ``image`` [H, W, C] drawn at random."""
        height, width = map(min, self.size, image.shape[:2])
        return T.RandomCrop("absolute", (height, width)).get_transform(image)


class DetectorMapper(RecAttendDatasetMapper):
    """This project's mapper with the sizes of a Detectron2 config.

    Images keep their aspect; INPUT.MIN_SIZE_TRAIN and the like say how large they are.
    """

    @classmethod
    def from_config(cls, cfg: CfgNode, is_train: bool = True) -> dict:
        arguments = super().from_config(cfg, is_train)
        if is_train:
            resize = T.ResizeShortestEdge(
                cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN, cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING
            )
            arguments["augmentations"] = augmentations_around(resize, cfg)
            if cfg.INPUT.CROP.ENABLED:
                arguments["augmentations"].append(OwnCrop(cfg))
        else:
            sizes = cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST
            arguments["augmentations"] = [T.ResizeShortestEdge(*sizes, "choice")]
        return {**arguments, "time_steps": sys.maxsize, "map_targets": None}


def inference_mapper(cfg: CfgNode) -> RecAttendDatasetMapper | WindowMapper:
    """Mapper of images that are only looked at."""
    return build_mapper(cfg, is_train=False) if is_of_this_project(cfg) else DetectorMapper(cfg, is_train=False)


def check_plain(weights: str) -> None:
    """Raise a ComparisonError unless a weights file holds tensors and plain values alone: a pickle can run any code.

    Args:
        weights: path of a file, or an address, which only its ending is known of; "" = none.
    """
    advice = "If you trust where it comes from, add --trust-weights."
    if weights.lower().endswith((".pkl", ".pickle")):
        raise ComparisonError(f"The weights '{weights}' are a pickle, which can run any code. {advice}")
    if not os.path.isfile(weights) or weights.lower().endswith((".npz", ".h5", ".safetensors")):
        return
    try:
        torch.load(weights, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        first = str(error).splitlines()[0]
        raise ComparisonError(f"The weights '{weights}' hold more than tensors ({first}). {advice}") from error


def load_model(cfg: CfgNode, weights: str) -> nn.Module:
    """The model of a config with finished weights, in evaluation mode."""
    model = build_model(cfg)
    if is_of_this_project(cfg):
        load_weights(model, os.path.expanduser(weights), complete=True)
    else:
        SafeCheckpointer(model).load(weights)
    return model.eval()
