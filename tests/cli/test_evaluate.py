"""rec-attend evaluate: a report about a model on pictures of one's own, and what is refused."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from rec_attend_d2 import cli


@pytest.fixture(scope="module")
def model(random_model) -> Path:
    return random_model(16.0)


@pytest.fixture
def labels(squares, tmp_path) -> Path:
    """Label images of the squares, but of the one without squares."""
    content = json.loads((squares / "squares.json").read_text())
    folder = tmp_path / "labels"
    folder.mkdir()
    for image in content["images"]:
        label = np.zeros((64, 64), np.uint8)
        for value, item in enumerate((a for a in content["annotations"] if a["image_id"] == image["id"]), start=1):
            x, y, width, height = item["bbox"]
            label[y : y + height, x : x + width] = value
        cv2.imwrite(str(folder / image["file_name"]), label)
    return folder


@pytest.fixture(autouse=True)
def forget():
    """A command registers its pictures; the next one is another process."""
    before = set(DatasetCatalog.list())
    yield
    for name in set(DatasetCatalog.list()) - before:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def evaluate(model: Path, output: Path, *words: object) -> dict:
    """Summary of what the command measured."""
    cli.main(["evaluate", "--model", str(model), "--output", str(output), *map(str, words)])
    return json.loads((output / "evaluation.json").read_text())


def test_label_images_and_coco_files_give_the_same(model, squares, labels, tmp_path, capsys):
    by_labels = evaluate(model, tmp_path / "a", "--images", squares, "--labels", labels)
    printed = capsys.readouterr().out
    assert "4 pictures" in printed and "people outlined 6" in printed and str(tmp_path / "a" / "report.html") in printed
    forget_names()
    by_coco = evaluate(model, tmp_path / "b", "--images", squares, "--coco", squares / "squares.json")
    assert by_labels["summary"]["true_count"] == by_coco["summary"]["true_count"] == 6
    assert by_labels["summary"]["predicted_count"] == by_coco["summary"]["predicted_count"] > 0
    assert (tmp_path / "a" / "report.html").is_file() and (tmp_path / "a" / "evaluation.csv").is_file()


def forget_names() -> None:
    for name in [name for name in DatasetCatalog.list() if name == "evaluated_pictures"]:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def test_threshold_object_size_and_options_count(model, squares, tmp_path):
    data = ["--images", squares, "--coco", squares / "squares.json"]
    measured = evaluate(model, tmp_path, *data, "--threshold", 1, "--object-size", 20, "--opts", "SEED", 3)
    assert measured["threshold"] == 1 and measured["summary"]["predicted_count"] == 0
    assert "20 pixels wide" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "Name the annotated pictures in one way"),
        (["--images", "a", "--labels", "b", "--coco", "c"], "Name the annotated pictures in one way"),
        (["--dataset", "nuclei_val", "--images", "a"], "Name the annotated pictures in one way"),
        (["--dataset", "none_val"], "There is no data set 'none_val'"),
        (["--dataset", "nuclei_val", "--threshold", "2"], "--threshold is 2.0; give a score from 0 to 1"),
        (["--images", "none", "--coco", "none.json"], "none.json does not exist"),
        (["--dataset", "nuclei_val", "--opts", "NONE", "1"], "NONE"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(model, tmp_path, words, message):
    with pytest.raises(SystemExit, match=message) as raised:
        evaluate(model, tmp_path / "out", *words)
    assert str(raised.value).startswith("rec-attend evaluate: ")
    assert not (tmp_path / "out").exists()


def test_an_unknown_model_is_named(tmp_path):
    with pytest.raises(SystemExit, match="no_such_model"):
        evaluate(Path("no_such_model"), tmp_path, "--dataset", "nuclei_val")
