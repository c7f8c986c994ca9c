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
from rec_attend_d2.prediction.published import published_models

WEIGHTS = Path(__file__).resolve().parents[1] / "weights"
IMAGES = 12


def test_every_file_has_its_checksum():
    lines = (WEIGHTS / "SHA256SUMS").read_text().splitlines()
    sums = {name: digest for digest, name in (line.split() for line in lines)}
    assert set(sums) == {path.name for path in WEIGHTS.iterdir()} - {"SHA256SUMS"}
    for name, digest in sums.items():
        assert hashlib.sha256((WEIGHTS / name).read_bytes()).hexdigest() == digest, name


def test_the_package_knows_the_files_that_counting_needs():
    sums = dict(reversed(line.split()) for line in (WEIGHTS / "SHA256SUMS").read_text().splitlines())
    models = published_models()
    assert {path.stem for path in WEIGHTS.glob("*.pth")} <= models.keys()
    for name, files in models.items():
        assert files.keys() == {f"{name}.pth", f"{name}.yaml"}
        # Large ones are in a release alone.
        assert {file: sums[file] for file in files if file in sums} in ({}, files), name


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


def pictures_without_objects() -> dict[str, np.ndarray]:
    """Noise, gradients, one value, hot pixels; of 8 and 16 bits."""
    random = np.random.default_rng(5)
    y, x = np.mgrid[:256, :256]
    hot = np.zeros((256, 256), np.uint8)
    hot[random.integers(0, 256, 20), random.integers(0, 256, 20)] = 255
    return {
        "uniform noise": random.integers(0, 256, (256, 256), dtype=np.uint8),
        "noise": random.normal(100, 20, (256, 256)).clip(0, 255).astype(np.uint8),
        "dim noise": random.normal(5, 1, (256, 256)).clip(0, 255).round().astype(np.uint8),
        "shot noise": random.poisson(3, (256, 256)).astype(np.uint8),
        "noise of 16 bits": random.normal(1000, 30, (300, 200)).astype(np.uint16),
        "gradient": x.astype(np.uint8),
        "gradient with noise": (x / 4 + 20 + random.normal(0, 3, x.shape)).astype(np.uint8),
        "vignette": (120 * np.exp(-((x - 128) ** 2 + (y - 128) ** 2) / 16200)).astype(np.uint8),
        "one value": np.full((256, 256), 7, np.uint8),
        "hot pixels": hot,
        "one row": random.integers(0, 20, (1, 300), dtype=np.uint8),
    }


def test_pictures_without_nuclei_count_0():
    predictor = Predictor(WEIGHTS / "nuclei.yaml")
    found = {name: predictor(picture).count for name, picture in pictures_without_objects().items()}
    assert found == dict.fromkeys(found, 0)


@pytest.mark.parametrize(("side", "objects"), [(256, 196), (1024, 500)])
def test_nuclei_are_counted_without_limit(side: int, objects: int):
    picture, cells = np.zeros((side, side), np.float32), int(np.ceil(np.sqrt(objects)))
    random = np.random.default_rng(0)
    for number in range(objects):
        y, x = ((np.array(divmod(number, cells)) + 0.5) * side / cells).astype(int)
        cv2.circle(picture, (int(x), int(y)), 6, float(random.uniform(80, 160)), -1)
    picture = cv2.GaussianBlur(picture, (0, 0), 1) + 20 + random.normal(0, 3, picture.shape)
    found = Predictor(WEIGHTS / "nuclei.yaml")(picture.clip(0, 255).astype(np.uint8))
    assert abs(found.count - objects) <= 0.005 * objects
    assert found.labels.dtype == np.uint16 and found.labels.max() == found.count


def test_objects_of_another_magnification_are_found_by_their_size():
    picture = cv2.resize(discs_apart(), None, fx=4, fy=4, interpolation=cv2.INTER_LINEAR)
    assert Predictor(WEIGHTS / "nuclei.yaml", object_size=48.0)(picture).count == 16
