"""Trainings on pictures of our own, small enough to run many times in one process."""

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog

from rec_attend_d2.config import load_config
from rec_attend_d2.data import register_datasets
from rec_attend_d2.engine import Trainer

QUICK = Path(__file__).resolve().parents[2] / "tests" / "configs"
NAME = "engine_pictures"


def write_pictures(folder: Path) -> tuple[Path, Path]:
    """A COCO data set of five pictures with one or two bright rectangles."""
    images = folder / "images"
    images.mkdir()
    entries, annotations = [], []
    for number in range(5):
        picture = np.full((32, 48, 3), 30 + number, np.uint8)
        entries.append({"id": number, "file_name": f"{number}.png", "height": 32, "width": 48})
        for left in (4, 26)[: 1 + number % 2]:
            top, width, height = 2 + 3 * number, 14, 12
            picture[top : top + height, left : left + width] = 180
            corners = [left, top, left + width, top, left + width, top + height, left, top + height]
            annotation = {"id": len(annotations) + 1, "image_id": number, "category_id": 1, "iscrowd": 0}
            box = {"bbox": [left, top, width, height], "area": width * height, "segmentation": [corners]}
            annotations.append({**annotation, **box})
        cv2.imwrite(str(images / f"{number}.png"), picture)
    content = {"images": entries, "annotations": annotations, "categories": [{"id": 1, "name": "thing"}]}
    (folder / "data.json").write_text(json.dumps(content))
    return folder / "data.json", images


@pytest.fixture(scope="session")
def picture_files(tmp_path_factory) -> tuple[Path, Path]:
    """Annotation file and image folder of :func:`write_pictures`."""
    return write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture
def make_cfg(picture_files, tmp_path) -> Iterator[Callable[..., CfgNode]]:
    """A function from the name of a quick config and options to a config that trains and tests on the pictures."""

    def make(recipe: str, *options: object) -> CfgNode:
        cfg = load_config(str(QUICK / f"{recipe}.yaml"), ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", ""])
        cfg.DATASETS.COCO_FILES = [[NAME, *map(str, picture_files)]]
        cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = (NAME,)
        cfg.OUTPUT_DIR = str(tmp_path / "output")
        cfg.TEST.EVAL_PERIOD = 0
        cfg.merge_from_list(list(options))
        register_datasets(cfg)
        return cfg

    # Otherwise Detectron2's trainer changes the loggers for all tests that follow.
    logger = logging.getLogger("detectron2")
    level = logger.level
    logger.setLevel(logging.INFO)
    yield make
    logger.setLevel(level)
    DatasetCatalog.pop(NAME, None)
    MetadataCatalog.pop(NAME, None)


class LossTrainer(Trainer):
    """Keeps the losses of every iteration; evaluates nothing."""

    def __init__(self, cfg: CfgNode):
        self.losses: list[dict[str, float]] = []
        super().__init__(cfg)

    def run_step(self) -> None:
        """One iteration."""
        super().run_step()
        latest = self.storage.latest()
        self.losses.append({name: value for name, (value, _) in latest.items() if name.endswith("loss")})
        self.losses[-1].update({name: value for name, (value, _) in latest.items() if name.startswith("loss_")})

    @classmethod
    def test(cls, cfg, model, evaluators=None) -> dict:
        """Nothing."""
        return {}


@pytest.fixture
def run_training() -> Callable[..., list[dict[str, float]]]:
    """A function from a config to the losses of every iteration of its training, from a checkpoint if there is one."""

    def run(cfg: CfgNode, seed_globally: int = 0) -> list[dict[str, float]]:
        from detectron2.utils.env import seed_all_rng

        seed_all_rng(seed_globally)  # of the initial weights, as default_setup does
        trainer = LossTrainer(cfg)
        trainer.resume_or_load(resume=True)
        trainer.train()
        return trainer.losses

    return run
