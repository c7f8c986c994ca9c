"""Figures of any method's COCO results, as a user has them scored."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog
from pycocotools import mask as mask_util

from rec_attend_d2.data.datasets import register_coco_files
from rec_attend_d2.evaluation.counting_evaluator import true_masks

NAME = "squares_results"


@pytest.fixture
def folder(squares, tmp_path) -> Path:
    """Folder with predictions.json: the truth with scores of 0.8, and in each image a square of nothing with 0.3."""
    register_coco_files([[NAME, str(squares / "squares.json"), str(squares)]])
    found = []
    for record in DatasetCatalog.get(NAME):
        nothing = np.zeros((1, 64, 64), bool)
        nothing[:, 50:60, 2:12] = True
        for mask in (*true_masks(record, iscrowd=0), *nothing):
            rle = mask_util.encode(np.asfortranarray(mask, dtype=np.uint8))
            score, box = 0.3 if mask[55, 5] else 0.8, mask_util.toBbox(rle).tolist()
            rle["counts"] = rle["counts"].decode()
            found.append(dict(image_id=record["image_id"], category_id=1, score=score, segmentation=rle, bbox=box))
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "predictions.json").write_text(json.dumps(found))
    return tmp_path / "method"


@pytest.fixture
def run(script, monkeypatch, capsys):
    """Runs the script and returns what it printed."""
    tool = script("score_results")

    def call(*arguments: object, dataset: str = NAME) -> str:
        monkeypatch.setattr(sys, "argv", ["score_results.py", *map(str, arguments), "--dataset", dataset])
        tool.main()
        return capsys.readouterr().out

    return call


def test_figures_at_a_threshold_and_without(folder, run):
    path = folder / "predictions.json"
    printed = run(f"strict={path}@0.5", f"all={path}", "--output", folder / "docs")
    strict, every = (json.loads((folder / "docs" / f"{name}.json").read_text()) for name in ("strict", "all"))
    assert (strict["threshold"], strict["objects"], strict["true_objects"], every["objects"]) == (0.5, 6, 6, 10)
    assert strict["metrics"]["SBD"] == strict["metrics"]["F1"] == 1
    assert every["metrics"]["relative_count_error"] == pytest.approx(4 / 6) and every["metrics"]["F1"] == 0.75
    # AP does not know the threshold.
    assert strict["metrics"]["AP"] == every["metrics"]["AP"] == 100
    assert [group["label"] for group in strict["groups"]["by_count"]] == ["0", "1", "2", "3"]
    assert strict["groups"]["objects_by_area"][0]["recall50"] == 1
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines() if "strict" in line]
    assert rows[0][:5] == ["strict", "1.000", "0.000", "0.000", "1.000"]


def test_what_stands_beside_is_kept(folder, run):
    results = {"threshold": 0.4, "metrics": {"SBD": 9}, "images": [1], "seconds_per_image": {"median": 0.1}}
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "training.json").write_text(json.dumps({"seconds": 60, "curve": [1]}))
    (folder.parent / "comparison.json").write_text(json.dumps({"command": "python tools/benchmark.py", "models": []}))
    run(f"method={folder / 'predictions.json'}", "--output", folder / "docs")
    content = json.loads((folder / "docs" / "method.json").read_text())
    assert content["threshold"] == 0.4 and content["objects"] == 6
    assert content["run"] == {
        "command": "python tools/benchmark.py",
        "seconds_per_image": {"median": 0.1},
        "training": {"seconds": 60},
    }


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("predictions.json", "is no NAME=FILE"),
        ("a=nowhere.json", "a: nowhere.json does not exist"),
        ("a={folder}/predictions.json@much", "'much' is no number"),
        ("a={folder}/other.json", "other.json holds no COCO results with masks for 'squares_results'.*image_id 99"),
    ],
)
def test_what_is_wrong_is_said(folder, run, source: str, message: str):
    (folder / "other.json").write_text('[{"image_id": 99}]')
    with pytest.raises(SystemExit, match=message):
        run(source.format(folder=folder))


def test_an_unknown_data_set(folder, run):
    with pytest.raises(SystemExit, match="--dataset is squares, which is not registered"):
        run(f"a={folder / 'predictions.json'}", dataset="squares")
