"""Annotated pictures as a new user has them, and the command as it is called."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import torch
from detectron2.modeling import build_model

from rec_attend_d2.config import load_config

QUICK = Path(__file__).resolve().parents[1] / "configs" / "fast.yaml"


@pytest.fixture(scope="session")
def rec_attend() -> Callable[..., subprocess.CompletedProcess]:
    """Runs ``rec-attend ARGUMENTS`` and returns the finished process with its output as text."""

    def run(*words: object, cwd: Path | None = None, timeout: float = 600.0) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "rec_attend_d2.cli", *map(str, words)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout)

    return run


@pytest.fixture(scope="session")
def discs(tmp_path_factory) -> Path:
    """A folder with images and labels (TIFF): ten pictures of bright discs, 9 pixels wide, some of which touch."""
    folder = tmp_path_factory.mktemp("discs")
    (folder / "images").mkdir()
    (folder / "labels").mkdir()
    generator = np.random.default_rng(0)
    for number in range(10):
        labels = np.zeros((64, 80), np.uint16)
        for value in range(1, 7):
            y, x = generator.uniform(6, 58), generator.uniform(6, 74)
            rows, columns = np.mgrid[:64, :80]
            labels[((rows - y) ** 2 + (columns - x) ** 2 < 21) & (labels == 0)] = value
        image = generator.integers(5, 25, labels.shape) + 180 * (labels > 0)
        cv2.imwrite(str(folder / "images" / f"disc{chr(97 + number)}.png"), image.astype(np.uint8))
        tifffile.imwrite(folder / "labels" / f"disc{chr(97 + number)}.tif", labels)
    return folder


@pytest.fixture(scope="session")
def random_model(tmp_path_factory) -> Callable[[float], Path]:
    """Makes a folder with config.yaml and model.pth, as rec-attend train writes it, for objects of a width in pixels.

    The model is small and has random weights, but finds something.
    """

    def make(object_size: float) -> Path:
        folder = tmp_path_factory.mktemp("random") / "model"
        folder.mkdir()
        cfg = load_config(str(QUICK), ["MODEL.DEVICE", "cpu", "INPUT.OBJECT_SIZE", object_size])
        torch.manual_seed(0)
        network = build_model(cfg)
        torch.nn.init.constant_(network.segmentation_head.mask.bias, 3.0)
        torch.nn.init.zeros_(network.box_proposer.place.bias)
        torch.save({"model": network.state_dict()}, folder / "model.pth")
        (folder / "config.yaml").write_text(cfg.dump())
        return folder

    return make
