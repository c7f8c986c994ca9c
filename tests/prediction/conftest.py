"""Fixtures of the prediction tests: small models with random weights, and images to run them on."""

import json
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.modeling import build_model

from rec_attend_d2.config import load_config
from rec_attend_d2.prediction import Predictor

QUICK = Path(__file__).resolve().parents[2] / "tests" / "configs"


@pytest.fixture
def quick_cfg(tmp_path) -> CfgNode:
    """The quick fast recipe with random weights in a file of its own."""
    cfg = load_config(str(QUICK / "fast.yaml"), ["MODEL.DEVICE", "cpu"])
    cfg.INPUT.OBJECT_SIZE = 12.0  # the network sees images at their own size
    cfg.MODEL.WEIGHTS = str(tmp_path / "random.pth")
    torch.manual_seed(0)
    model = build_model(cfg)
    # It finds something, though untrained.
    torch.nn.init.constant_(model.segmentation_head.mask.bias, 3.0)
    torch.nn.init.zeros_(model.box_proposer.place.bias)
    torch.save({"model": model.state_dict()}, cfg.MODEL.WEIGHTS)
    return cfg


@pytest.fixture
def predictor(quick_cfg) -> Predictor:
    return Predictor(quick_cfg, batch_size=2)


@pytest.fixture
def images() -> list[np.ndarray]:
    """Three smooth BGR images of different sizes."""
    noise = np.random.default_rng(0)
    small = [noise.integers(0, 256, (4, 5, 3), dtype=np.uint8) for _ in range(3)]
    return [cv2.resize(image, size) for image, size in zip(small, [(64, 32), (50, 70), (31, 33)], strict=True)]


@pytest.fixture
def coco_folder(tmp_path, images) -> Iterator[list[str]]:
    """An entry of DATASETS.COCO_FILES: images in colour, grey, with an alpha channel and of 16 bit."""
    folder = tmp_path / "images"
    folder.mkdir()
    first, second, third = images
    alpha = np.dstack([third, third[..., :1]])
    files = {"color.png": first, "grey.png": second[..., 0], "alpha.png": alpha, "deep.png": first.astype("u2") * 200}
    for name, image in files.items():
        cv2.imwrite(str(folder / name), image)
    content = {
        "images": [
            {"id": number, "file_name": name, "height": image.shape[0], "width": image.shape[1]}
            for number, (name, image) in enumerate(files.items())
        ],
        "annotations": [],
        "categories": [{"id": 1, "name": "thing"}],
    }
    (tmp_path / "predicted.json").write_text(json.dumps(content))
    yield ["predicted", str(tmp_path / "predicted.json"), str(folder)]
    DatasetCatalog.remove("predicted")
    MetadataCatalog.remove("predicted")
