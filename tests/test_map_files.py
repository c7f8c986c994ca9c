"""tools/train_net.py with maps from files: those a frozen preprocessor left, and classes from a segmentation."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from miniature.kitti import write_kitti
from rec_attend_d2.data.datasets.cityscapes import LABEL_IDS

QUICK = "tests/configs"
NODE = "MODEL.REC_ATTEND"
Train = Callable[..., dict]


@pytest.fixture(scope="module")
def train(run_tool) -> Train:
    """A function that trains a quick schedule, or evaluates ``weights``, and returns the results."""

    def run(config: str, folder: Path, options: list[str], weights: Path | None = None) -> dict:
        arguments = ["--config-file", f"{QUICK}/{config}", *(["--eval-only"] if weights else [])]
        process = run_tool("train_net", *arguments, *options, "OUTPUT_DIR", folder, "MODEL.WEIGHTS", weights or "")
        assert process.returncode == 0, process.stderr[-3000:]
        return json.loads((folder / "metrics_final.json").read_text())

    return run


# ---------------------------------------------------------------- the cache


def states(folder: Path) -> dict[Path, tuple[int, int]]:
    """Which files there are, and by what a file that was written again differs."""
    return {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def test_a_second_run_reads_the_maps_that_the_first_one_computed(train, datasets_root, tmp_path):
    write_kitti(datasets_root, {"train": 2, "valid_man": 2, "test_man": 0})
    options = ["SOLVER.MAX_ITER", "2", f"{NODE}.PREPROCESSOR.CACHE_DIR", str(tmp_path / "cache")]
    first = train("KITTI/stage_c.yaml", tmp_path / "first", options)
    written = states(tmp_path / "cache")
    assert len(written) > 2  # two images of the evaluation, and some of the training
    assert first["counting"]["MWCov"] > 0

    weights = tmp_path / "first" / "model_final.pth"
    second = train("KITTI/stage_c.yaml", tmp_path / "second", options, weights)
    # Maps that are computed are also written.
    assert states(tmp_path / "cache") == written
    assert second == first

    # Without foreground there are no cars, if the maps come from the files.
    for path in written:
        torch.save(torch.zeros_like(torch.load(path, weights_only=True)), path)
    third = train("KITTI/stage_c.yaml", tmp_path / "third", options, weights)
    assert third["counting"]["MWCov"] == 0


# ---------------------------------------------------------------- classes


STEMS = {"frankfurt_000000_000019": "car", "munster_000000_000019": "person"}
SIZE = (64, 128)


def write_city(root: Path) -> None:
    """Cityscapes with two images, each of one object that fills it."""
    for stem, name in STEMS.items():
        city = stem.partition("_")[0]
        for split in ("train", "val"):
            for kind, ending, pixels in (
                ("leftImg8bit", "leftImg8bit", np.full((*SIZE, 3), 90, np.uint8)),
                ("gtFine", "gtFine_instanceIds", np.full(SIZE, 1000 * LABEL_IDS[name], np.uint16)),
            ):
                folder = root / "cityscapes" / kind / split / city
                folder.mkdir(parents=True)
                cv2.imwrite(str(folder / f"{stem}_{ending}.png"), pixels)


def test_classes_follow_the_files(train, datasets_root, tmp_path):
    write_city(datasets_root)
    semantics = tmp_path / "semantics"
    options = ["SOLVER.MAX_ITER", "1", f"{NODE}.TEST.SEM_SEG_DIR", str(semantics)]
    options += [f"{NODE}.TEST.SEM_SEG_VALUES", str(list(LABEL_IDS.values()))]
    weights, precision = None, []
    for name in ("person", "rider"):  # what the person is called; the car is called car
        for stem, called in zip(STEMS, ("car", name), strict=True):
            (semantics / "val").mkdir(parents=True, exist_ok=True)
            labels = np.full(SIZE, LABEL_IDS[called], np.uint8)
            cv2.imwrite(str(semantics / "val" / f"{stem}_labelIds.png"), labels)
        results = train("Cityscapes/stage_c.yaml", tmp_path / name, options, weights)["cityscapes"]
        precision.append({name: results[f"AP50_{name}"] for name in STEMS.values()})
        weights = tmp_path / "person" / "model_final.pth"
    assert precision == [{"car": 100, "person": 100}, {"car": 100, "person": 0}]
