"""Fixtures of the data tests: small COCO data sets on disk."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pycocotools.mask as mask_util
import pytest
from detectron2.config import CfgNode, get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog

from rec_attend_d2 import add_rec_attend_config


@pytest.fixture
def cfg() -> CfgNode:
    """The project's config with a small network input of two different sides."""
    config = get_cfg()
    add_rec_attend_config(config)
    config.INPUT.IMAGE_SIZE = [32, 48]
    config.INPUT.MAX_SHIFT = 4
    config.MODEL.REC_ATTEND.TIME_STEPS = 5
    config.DATALOADER.NUM_WORKERS = 0
    config.DATALOADER.FILTER_EMPTY_ANNOTATIONS = False
    config.SOLVER.IMS_PER_BATCH = 2
    return config


@pytest.fixture
def rle() -> Callable[[np.ndarray], dict]:
    """A function from a mask [H, W] to a compressed COCO RLE."""

    def encode(mask: np.ndarray) -> dict:
        encoded = mask_util.encode(np.asfortranarray(mask, dtype=np.uint8))
        return {"size": encoded["size"], "counts": encoded["counts"].decode("ascii")}

    return encode


@pytest.fixture
def coco_content() -> dict:
    """COCO annotations of two images of 20 x 30: one with a polygon, an RLE and a crowd, one without objects."""
    shared = {"image_id": 7, "category_id": 4, "area": 12, "bbox": [2, 3, 4, 3]}
    return {
        "images": [
            {"id": 9, "file_name": "empty.png", "height": 20, "width": 30},
            {"id": 7, "file_name": "full.png", "height": 20, "width": 30},
        ],
        "annotations": [
            {**shared, "id": 1, "iscrowd": 0, "segmentation": [[2, 3, 6, 3, 6, 6, 2, 6]]},
            {**shared, "id": 2, "iscrowd": 0, "segmentation": {"size": [20, 30], "counts": [45, 10, 545]}},
            {**shared, "id": 3, "iscrowd": 1, "category_id": 2, "segmentation": {"size": [20, 30], "counts": [0, 600]}},
        ],
        "categories": [{"id": 4, "name": "cell"}, {"id": 2, "name": "debris"}],
    }


@pytest.fixture
def write_coco(tmp_path: Path) -> Callable[[dict], tuple[str, str]]:
    """A function that writes annotations and black images; returns json file and image folder."""

    def write(content: dict) -> tuple[str, str]:
        folder = tmp_path / "images"
        folder.mkdir(exist_ok=True)
        for image in content.get("images", []):
            cv2.imwrite(str(folder / image["file_name"]), np.zeros((20, 30, 3), dtype=np.uint8))
        (tmp_path / "annotations.json").write_text(json.dumps(content))
        return str(tmp_path / "annotations.json"), str(folder)

    return write


@pytest.fixture
def clean_catalog():
    """Removes the data sets a test registers."""
    before = set(DatasetCatalog.list())
    yield
    for name in set(DatasetCatalog.list()) - before:
        DatasetCatalog.remove(name)
        MetadataCatalog.pop(name, None)
