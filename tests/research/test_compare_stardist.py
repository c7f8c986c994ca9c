"""The parts of research/compare_stardist.py that need no StarDist, which is not installed here."""

import json
import sys

import numpy as np
import pytest
from pycocotools import mask as mask_util


@pytest.fixture
def tool(script):
    return script("compare_stardist")


def square(top: int, left: int, side: int, **more) -> dict:
    """An annotation of a square, as polygon."""
    bottom, right = top + side, left + side
    return {"image_id": 1, "segmentation": [[left, top, right, top, right, bottom, left, bottom]], **more}


def test_later_objects_do_not_cover_earlier_ones(tool):
    labels = tool.label_image([square(2, 2, 6), square(0, 0, 3, iscrowd=1), square(4, 4, 8)], (16, 20))
    assert labels.shape == (16, 20) and labels.dtype == np.int32
    assert (labels == 1).sum() == 36 and (labels == 2).sum() == 64 - 16
    assert labels[0, 0] == 0 and labels[5, 5] == 1


def test_all_forms_of_masks_are_read(tool):
    mask = np.zeros((6, 8), np.uint8)
    mask[1:4, 2:7] = 1
    rle = mask_util.encode(np.asfortranarray(mask))
    counts = [13, 3, 3, 3, 3, 3, 3, 3, 3, 3, 8]
    for segmentation in (rle, {"size": [6, 8], "counts": rle["counts"].decode()}, {"size": [6, 8], "counts": counts}):
        assert (tool.annotation_mask({"segmentation": segmentation}, (6, 8)) == mask).all()


def test_label_images_follow_the_images(tool):
    images = [{"id": 2, "height": 8, "width": 8}, {"id": 1, "height": 16, "width": 16}]
    empty, full = tool.label_images({"images": images, "annotations": [square(2, 2, 4)]})
    assert empty.shape == (8, 8) and not empty.any() and (full == 1).sum() == 16


def test_results_are_those_of_the_labels(tool):
    labels = np.zeros((10, 10), int)
    labels[1:3, 1:5], labels[6:9, 6:9] = 1, 3
    first, second = tool.to_coco(7, 1, labels, [0.9, 0.8, 0.4])
    assert (first["score"], second["score"]) == (0.9, 0.4) and first["bbox"] == [1, 1, 4, 2]
    assert (mask_util.decode(second["segmentation"]) == (labels == 3)).all()
    assert json.loads(json.dumps(first)) == first and first["image_id"] == 7


def test_percentiles_become_0_and_1(tool):
    image = tool.normalize(np.arange(1001).reshape(7, 143).astype(np.uint16))
    assert image.dtype == np.float32 and image.flat[10] == 0 and image.flat[998] == 1
    assert (tool.normalize(np.full((4, 4), 9)) == 0).all()


def test_augmentation_keeps_image_and_labels_together(tool):
    np.random.seed(0)
    labels = np.arange(1, 17).reshape(4, 4)
    places = set()
    for _ in range(60):
        image, turned = tool.augment(labels.astype(np.float32), labels)
        # Values change by a factor and an offset alone.
        assert np.corrcoef(image.ravel(), turned.ravel())[0, 1] == pytest.approx(1)
        places.add(tuple(turned.ravel()))
    assert len(places) == 8


@pytest.mark.parametrize("count", [1, 2, 9, 127])
def test_held_out_images_are_no_training_images(tool, count: int):
    training, held_out = tool.split(count)
    assert training and held_out and sorted({*training, *held_out}) == list(range(count))
    assert count == 1 or not set(training) & set(held_out)


def test_thresholds_are_chosen_on_images_of_all_places(tool):
    assert tool.spread(range(10), 3) == [0, 4, 9] and tool.spread("ab", 3) == ["a", "b"]


def test_evaluations_cost_no_budget(tool):
    now = [100.0]
    budget = tool.Budget(1, clock=lambda: now[0])
    now[0] += 30
    assert budget.spent == 30 and budget.learning_rate() == pytest.approx(tool.LEARNING_RATE / 2)
    budget.pause()
    now[0] += 500
    assert budget.spent == 30
    budget.resume()
    budget.resume()
    now[0] += 30
    assert budget.spent == budget.limit and budget.learning_rate() == 0


@pytest.mark.parametrize(
    ("content", "message"),
    [("[", "truth.json is no COCO json"), ('{"images": []}', "truth.json has no annotations, categories")],
)
def test_no_coco_json(tool, tmp_path, content: str, message: str):
    (tmp_path / "truth.json").write_text(content)
    with pytest.raises(SystemExit, match=message):
        tool.read_truth(tmp_path / "truth.json")


@pytest.mark.parametrize(("minutes", "images", "message"), [("0", ".", "--minutes is 0"), ("1", "x", "is no folder")])
def test_bad_arguments(tool, monkeypatch, capsys, minutes: str, images: str, message: str):
    paths = ["--train", "a.json", "--test", "b.json", "--output", "out", "--images", images]
    monkeypatch.setattr(sys, "argv", ["compare_stardist.py", *paths, "--minutes", minutes])
    with pytest.raises(SystemExit):
        tool.parse_arguments()
    assert message in capsys.readouterr().err
