"""The weights in weights/: unchanged, and as good as their model cards say."""

import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from rec_attend_d2.config import load_config
from rec_attend_d2.data.datasets.rosettes import ensure_rosettes
from rec_attend_d2.evaluation.metrics import pairwise_iou
from rec_attend_d2.prediction import Predictor

WEIGHTS = Path(__file__).resolve().parents[1] / "weights"
IMAGES = 12


def test_every_file_has_its_checksum():
    lines = (WEIGHTS / "SHA256SUMS").read_text().splitlines()
    sums = {name: digest for digest, name in (line.split() for line in lines)}
    assert set(sums) == {path.name for path in WEIGHTS.iterdir()} - {"SHA256SUMS"}
    for name, digest in sums.items():
        assert hashlib.sha256((WEIGHTS / name).read_bytes()).hexdigest() == digest, name


@pytest.fixture
def few_plants(datasets_root, tmp_path) -> list[str]:
    """Config overrides that evaluate on the first held-out plants alone."""
    folder = ensure_rosettes(datasets_root)
    content = json.loads((folder / "val.json").read_text())
    content["images"] = content["images"][:IMAGES]
    kept = {image["id"] for image in content["images"]}
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in kept]
    (tmp_path / "few.json").write_text(json.dumps(content))
    files = [["few_plants", str(tmp_path / "few.json"), str(folder / "val")]]
    return ["DATASETS.COCO_FILES", str(files), "DATASETS.TEST", "('few_plants',)"]


@pytest.mark.parametrize("precision", ["", "bfloat16"])
def test_rosettes(run_tool, few_plants, tmp_path, precision: str):
    path = WEIGHTS / "rosettes.pth"
    done = run_tool(
        *("train_net", "--config-file", WEIGHTS / "rosettes.yaml", "--eval-only"),
        *("MODEL.WEIGHTS", path, "OUTPUT_DIR", tmp_path / "out", *few_plants),
        *("MODEL.REC_ATTEND.TEST.AUTOCAST", precision),
    )
    assert done.returncode == 0, done.stderr
    counting = json.loads((tmp_path / "out" / "metrics_final.json").read_text())["counting"]
    assert counting["num_images"] == IMAGES
    assert counting["SBD"] > 0.88 and counting["abs_DiC"] <= 0.5


def discs_apart() -> np.ndarray:
    """A dark picture [256, 256] with 16 blurred discs, none of which is near another."""
    picture = np.zeros((256, 256), np.uint8)
    places = np.random.default_rng(0)
    for y in range(32, 256, 64):
        for x in range(32, 256, 64):
            center = (x + int(places.integers(-12, 13)), y + int(places.integers(-12, 13)))
            cv2.circle(picture, center, int(places.integers(5, 8)), int(places.integers(90, 160)), -1)
    return cv2.GaussianBlur(picture, (0, 0), 1.0)


def test_one_by_one_finds_the_same_objects_as_glances_where_they_stand_apart():
    traces = []
    for objects in (0, 1):
        options = [
            "MODEL.WEIGHTS",
            str(WEIGHTS / "nuclei.pth"),
            "MODEL.REC_ATTEND.FAST.OBJECTS_PER_GLANCE",
            objects,
        ]
        predictor = Predictor(load_config(str(WEIGHTS / "nuclei.yaml"), options))
        traces.append(predictor.trace(predictor.prepare(discs_apart())))
    glances, one_by_one = traces
    assert len(glances.steps) <= 3 and len(one_by_one.steps) == 17
    iou = pairwise_iou(*(trace.found[-1].pred_masks for trace in traces))
    assert iou.shape == (16, 16)
    assert (iou.max(axis=1) > 0.9).all() and (iou.max(axis=0) > 0.9).all()
