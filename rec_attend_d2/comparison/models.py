"""The models that are compared, and what makes their trainings equal: data, pictures, augmentation, budget."""

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data import transforms as T

from ..benchmark.batches import is_of_this_project
from ..config import load_config
from ..data import RecAttendDatasetMapper, register_datasets
from ..data.augmentation import augmentations_around
from .budget import Budget
from .files import ComparisonError

# How a training image is made, taken over from this project's config for all models.
RECIPE_KEYS = ("AUGMENTATIONS", "MAX_SHIFT", "WARP", "CONTRAST_PERCENTILES", "CROP")
LOADER_KEYS = ("FILTER_EMPTY_ANNOTATIONS", "NUM_WORKERS")
# Meta-architectures that find no instance masks, and those that do where MODEL.MASK_ON says so.
WITHOUT_MASKS = frozenset(
    {"RecAttendBoxProposer", "RecAttendPreprocessor", "RetinaNet", "FCOS", "SemanticSegmentor", "ProposalNetwork"}
)
WITH_MASKS_ON = frozenset({"GeneralizedRCNN", "PanopticFPN"})


@dataclass(frozen=True)
class ModelSpec:
    """One model of a comparison; json can hold it.

    Attributes:
        name: of its folder and in the report.
        config_file: path of its config.
        options: KEY VALUE overrides.
        train, test: names of the data sets.
        budget: of its training, see :class:`.budget.Budget`.
        weights: finished weights, for which it is not trained; empty = it is trained.
        recipe: config of this project that says how all models' training images are made; empty = flips alone.
        threads: of the CPU.
        device: "cpu" or "cuda".
        seed: of the training.
        threshold_images: training images on which the score threshold is chosen, at most.
    """

    name: str
    config_file: str
    options: tuple[str, ...]
    train: str
    test: str
    budget: Mapping[str, Any]
    weights: str
    recipe: str
    threads: int
    device: str
    seed: int
    threshold_images: int

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> "ModelSpec":
        """Inverse of :meth:`content`."""
        return cls(**{**content, "options": tuple(content["options"])})

    def content(self) -> dict[str, Any]:
        """As json holds it."""
        return {**asdict(self), "options": list(self.options), "budget": dict(self.budget)}

    def training_budget(self) -> Budget:
        """The budget as an object."""
        return Budget(**self.budget)

    def config(self, folder: Path | None = None) -> CfgNode:
        """Its config on the comparison's data, with ``folder`` as OUTPUT_DIR. Nothing is evaluated by its own hooks.

        Raises:
            ComparisonError: the config is wrong, or there is no such data set or device.
        """
        try:
            cfg = load_config(self.config_file, list(self.options))
            cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (self.train,), (self.test,)
            register_datasets(cfg)
        except (AssertionError, KeyError, OSError, ValueError) as error:
            raise ComparisonError(f"{self.config_file}: {error}") from error
        architecture = cfg.MODEL.META_ARCHITECTURE
        if architecture in WITHOUT_MASKS or (architecture in WITH_MASKS_ON and not cfg.MODEL.MASK_ON):
            raise ComparisonError(
                f"{self.config_file}: its {architecture} finds no instance masks, which are compared."
            )
        if self.device == "cuda" and not torch.cuda.is_available():
            raise ComparisonError("--device is cuda, but PyTorch finds no CUDA device here. Give cpu.")
        cfg.MODEL.DEVICE, cfg.SEED = self.device, self.seed
        cfg.TEST.EVAL_PERIOD = 0
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
    if cfg.INPUT.FORMAT not in ("BGR", "RGB"):
        raise ComparisonError(f"INPUT.FORMAT is {cfg.INPUT.FORMAT!r}; only BGR and RGB can be compared.")


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


class DetectorMapper(RecAttendDatasetMapper):
    """This project's mapper with the sizes and the channel order of a Detectron2 config.

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
        else:
            sizes = cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST
            arguments["augmentations"] = [T.ResizeShortestEdge(*sizes, "choice")]
        return {**arguments, "time_steps": sys.maxsize, "map_targets": None, "rgb": cfg.INPUT.FORMAT == "RGB"}

    @configurable
    def __init__(self, *, rgb: bool = False, **arguments: Any):
        """
        Args:
            rgb: channel order; false = BGR.
            arguments: of :class:`.RecAttendDatasetMapper`.
        """
        super().__init__(**arguments)
        self._rgb = rgb

    def __call__(self, dataset_dict: dict) -> dict:
        output = super().__call__(dataset_dict)
        if self._rgb:
            output["image"] = output["image"].flip(0)
        return output


def inference_mapper(cfg: CfgNode) -> RecAttendDatasetMapper:
    """Mapper of images that are only looked at."""
    return (RecAttendDatasetMapper if is_of_this_project(cfg) else DetectorMapper)(cfg, is_train=False)
