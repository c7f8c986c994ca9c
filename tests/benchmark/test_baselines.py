"""The Mask R-CNN configs: plain Detectron2 ones, and on the data of this project's own configs."""

from pathlib import Path

import pytest
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import GeneralizedRCNN, build_model

from rec_attend_d2.config import load_config
from rec_attend_d2.data import register_datasets

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
# Data sets for which this project has no recipe of its own.
ALONE = {"Fields", "Cells"} - {path.parent.name for path in CONFIGS.glob("*/fast.yaml")}
BASELINES = sorted(CONFIGS.glob("baselines/**/mask_rcnn_R_50_FPN.yaml"))
PATHS = [*BASELINES, CONFIGS.parent / "tests" / "configs" / "mask_rcnn.yaml"]


def load(path: Path) -> CfgNode:
    """The config as Detectron2 alone reads it."""
    cfg = get_cfg()
    cfg.merge_from_file(str(path))
    cfg.MODEL.DEVICE = "cpu"
    return cfg


def name(path: Path) -> str:
    return str(path.relative_to(CONFIGS.parent).parent)


def test_every_data_set_has_one():
    ours = {path.parent.relative_to(CONFIGS) for path in CONFIGS.rglob("fast.yaml")}
    assert {path.parent.relative_to(CONFIGS / "baselines") for path in BASELINES} == ours | {*map(Path, ALONE)}


@pytest.mark.parametrize("path", [path for path in BASELINES if path.parent.name not in ALONE], ids=name)
def test_it_has_the_data_of_our_recipe(path: Path):
    cfg = load_config(str(path), [])
    ours = load_config(str(CONFIGS / path.parent.relative_to(CONFIGS / "baselines") / "fast.yaml"), [])
    assert (cfg.DATASETS.TRAIN, cfg.DATASETS.TEST) == (ours.DATASETS.TRAIN, ours.DATASETS.TEST)
    register_datasets(cfg)
    assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == max(1, ours.MODEL.REC_ATTEND.PREPROCESSOR.FOREGROUND_CLASSES - 1) or (
        path.parent.name == "Cityscapes" and cfg.MODEL.ROI_HEADS.NUM_CLASSES == 8
    )


@pytest.mark.parametrize("path", PATHS, ids=name)
def test_detectron2_alone_builds_it(path: Path):
    cfg = load(path)
    assert cfg.MODEL.WEIGHTS == "" and cfg.MODEL.BACKBONE.FREEZE_AT == 0
    model = build_model(cfg)
    assert isinstance(model, GeneralizedRCNN)
    assert all(parameter.requires_grad for parameter in model.parameters())
    millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
    assert (43 < millions < 46) == (path in BASELINES)
