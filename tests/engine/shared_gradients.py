"""Losses and gradients of one batch, by one process or shared by several.

As a script, of two processes: python shared_gradients.py ANNOTATIONS IMAGES OUTPUT RECIPE...
"""

import sys
from pathlib import Path
from unittest import mock

import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog
from detectron2.engine import launch
from detectron2.utils import comm
from torch import Tensor

from rec_attend_d2.config import load_config
from rec_attend_d2.data import build_mapper, register_datasets
from rec_attend_d2.engine import Trainer
from rec_attend_d2.engine.processes import distributed
from rec_attend_d2.modeling.fast import place_proposer, training

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
RECIPES = ("fast", "KITTI/stage_a", "stage_c")
# Images of the data set in the batch, of 2, 2, 1 and 1 objects: the first process gets twice as many as the second.
BATCH = (1, 3, 0, 2)
# What is drawn at random: empty memories, and true boxes as they are.
FIXED = {"EMPTY_SHARE": 2.0, "BOX_NOISE": 0.0, "TRUE_PATCHES": 100}


def config(recipe: str, annotations: str, images: str) -> CfgNode:
    """The quick config of a recipe on a COCO data set, without what is drawn at random."""
    cfg = load_config(str(CONFIGS / f"{recipe}.yaml"), ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", ""])
    cfg.DATASETS.COCO_FILES = [["shared", annotations, images]]
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = ("shared",)
    if cfg.MODEL.META_ARCHITECTURE != "FastRecAttend":
        cfg.MODEL.REC_ATTEND.SCHEDULED_SAMPLING.ENABLED = False
        cfg.MODEL.REC_ATTEND.LOSS.FOREGROUND = "iou"
    return cfg


def gradients(cfg: CfgNode) -> dict[str, Tensor]:
    """Losses (means over the processes) and gradients by name, with fixed statistics in all norm layers."""
    register_datasets(cfg)
    share = len(BATCH) // comm.get_world_size()
    own = BATCH[comm.get_rank() * share :][:share]
    mapper, entries = build_mapper(cfg, augment=False), DatasetCatalog.get("shared")
    torch.manual_seed(0)
    model = Trainer.build_model(cfg).train()
    for module in model.modules():
        module.train(not hasattr(module, "running_mean"))
    wrapped = distributed(model)
    with mock.patch.multiple(training, **FIXED), mock.patch.object(place_proposer, "TRAINED_CANDIDATES", 10**6):
        losses = wrapped([mapper(entries[number]) for number in own])
    sum(losses.values()).backward()
    values = {name: torch.tensor(comm.all_gather(loss.item())).mean() for name, loss in losses.items()}
    return values | {name: value.grad for name, value in model.named_parameters() if value.grad is not None}


def main(annotations: str, images: str, output: str, recipes: list[str]) -> None:
    """One of the processes."""
    found = {recipe: gradients(config(recipe, annotations, images)) for recipe in recipes}
    if comm.is_main_process():
        torch.save(found, output)


if __name__ == "__main__":
    launch(main, 2, dist_url="auto", args=(*sys.argv[1:4], sys.argv[4:]))
