"""COCO's results file: what is written, what a check finds, and that its score is the evaluator's."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances

from miniature.coco import write_coco
from rec_attend_d2.data.datasets.builtin import register_coco_subsets
from rec_attend_d2.data.datasets.coco_files import register_coco
from rec_attend_d2.evaluation import AveragePrecisionEvaluator, submission_coco
from rec_attend_d2.evaluation.coco_evaluator import load_truth

NAME = "coco_2017_val_person"


@pytest.fixture(scope="module")
def miniature(tmp_path_factory) -> Path:
    return write_coco(tmp_path_factory.mktemp("mini"), images=6)


@pytest.fixture(autouse=True)
def _registered(miniature) -> Iterator[None]:
    before = set(DatasetCatalog.list())
    register_coco_subsets(miniature.parent)
    register_coco("mini_all", str(miniature / "annotations" / "instances_val2017.json"), str(miniature / "val2017"))
    yield
    for name in set(DatasetCatalog.list()) - before:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


def predictions_of(name: str) -> dict[int, Instances]:
    """Three shifted copies of each true mask, so that the AP is neither 0 nor 100."""
    rng = np.random.default_rng(0)
    truth = load_truth(name)
    predictions = {}
    for image_id, image in truth.coco.imgs.items():
        annotations = [a for a in truth.coco.imgToAnns[image_id] for _ in range(3)]
        shape = (image["height"], image["width"])
        masks = np.array([np.roll(truth.coco.annToMask(a), int(rng.integers(0, 3)), axis=1) for a in annotations])
        predictions[image_id] = Instances(
            shape,
            pred_masks=torch.from_numpy(masks.reshape(-1, *shape).astype(bool)),
            # Not read from the file, in which COCO's server would take them for the masks' area.
            pred_boxes=Boxes(torch.zeros(len(masks), 4)),
            pred_classes=torch.tensor([truth.class_ids.index(a["category_id"]) for a in annotations]).long(),
            scores=torch.tensor(rng.random(len(masks)), dtype=torch.float32),
        )
    return predictions


@pytest.fixture
def packed(tmp_path) -> Path:
    """A valid results file."""
    path = tmp_path / "results" / "person.json"
    submission_coco.pack(path, NAME, predictions_of(NAME).items())
    return path


@pytest.mark.parametrize("name", [NAME, "mini_all"])
def test_score_is_the_evaluators(name, tmp_path):
    predictions = predictions_of(name)
    evaluator = AveragePrecisionEvaluator(name)
    evaluator.reset()
    for image_id, instances in predictions.items():
        evaluator.process([{"image_id": image_id}], [{"instances": instances}])
    expected = evaluator.evaluate()["segm"]
    submission_coco.pack(tmp_path / "results.json", name, reversed(predictions.items()))
    assert submission_coco.check(tmp_path / "results.json", name) == []
    results = submission_coco.score(tmp_path / "results.json", name)
    assert results == pytest.approx(expected, rel=0, abs=0, nan_ok=True)
    assert 5 < results["AP"] < 95
    fewer = submission_coco.score(tmp_path / "results.json", name, max_detections=1)
    assert fewer["AP"] < results["AP"]


def test_entries_are_the_masks(packed):
    predictions = predictions_of(NAME)
    entries = json.loads(packed.read_text())
    assert len(entries) == sum(map(len, predictions.values()))
    position = dict.fromkeys(predictions, 0)
    for entry in entries:
        assert set(entry) == {"image_id", "category_id", "segmentation", "score"}
        instances, index = predictions[entry["image_id"]], position[entry["image_id"]]
        np.testing.assert_array_equal(mask_util.decode(entry["segmentation"]), instances.pred_masks[index].numpy())
        assert entry["score"] == instances.scores[index].item()
        assert entry["category_id"] == 1
        position[entry["image_id"]] += 1


def test_no_predictions_at_all(tmp_path):
    empty = {image_id: instances[:0] for image_id, instances in predictions_of(NAME).items()}
    submission_coco.pack(tmp_path / "empty.json", NAME, empty.items())
    assert json.loads((tmp_path / "empty.json").read_text()) == []
    assert submission_coco.check(tmp_path / "empty.json", NAME) == []
    assert submission_coco.score(tmp_path / "empty.json", NAME)["AP"] == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: list(p.items())[1:], r"1 of 3 images have no prediction, first '.*000000\d+\.jpg'"),
        (lambda p: [*p.items(), *list(p.items())[:1]], r"image_id \d+ is given twice"),
        (lambda p: [*p.items(), (3, p[100001])], "image_id 3 is not an image of the data set"),
        (lambda p: [(100001, Instances((96, 128), scores=torch.ones(1)))], r"no pred_masks, only \['scores'\]"),
        (lambda p: [(100001, p[100002])], r"000000100001\.jpg' are for an image of \(height, width\) \(128, 96\)"),
    ],
    ids=["missing", "twice", "unknown", "no masks", "size"],
)
def test_wrong_predictions_write_nothing(tmp_path, change, message):
    path = tmp_path / "results.json"
    path.write_text("old")
    with pytest.raises(ValueError, match=message):
        submission_coco.pack(path, NAME, change(predictions_of(NAME)))
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"] and path.read_text() == "old"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"image_id": 100003}, "has image_id 100003, which is no image of the data set."),
        ({"image_id": [1]}, "has image_id [1], which is no image of the data set."),
        ({"category_id": 24}, "has category_id 24; the data set's are 1 person."),
        ({"category_id": None}, "has category_id None; the data set's are 1 person."),
        ({"score": 1.5}, "has score 1.5, which is no number from 0 to 1."),
        ({"score": -0.1}, "has score -0.1, which is no number from 0 to 1."),
        ({"score": "0.5"}, "has score '0.5', which is no number from 0 to 1."),
        (
            {"segmentation": [[0, 0, 5, 0, 5, 5]]},
            "has no compressed RLE: 'segmentation' needs 'size' and 'counts', a text.",
        ),
        (
            {"segmentation": {"size": [96, 128], "counts": [0, 12288]}},
            "has no compressed RLE: 'segmentation' needs 'size' and 'counts', a text.",
        ),
    ],
)
def test_wrong_entry(packed, change, problem):
    entries = json.loads(packed.read_text())
    entries[1].update(change)
    packed.write_text(json.dumps(entries))
    assert submission_coco.check(packed, NAME) == [f"Entry 1 {problem}"]
    with pytest.raises(ValueError, match=r"person\.json is no valid submission; 1 problem\(s\):\s+Entry 1 has"):
        submission_coco.score(packed, NAME)


def test_mask_of_another_image(packed):
    entries = json.loads(packed.read_text())
    index = next(i for i, e in enumerate(entries) if e["image_id"] == 100001)
    other = next(e for e in entries if e["image_id"] == 100002)
    entries[index]["segmentation"] = other["segmentation"]
    packed.write_text(json.dumps(entries))
    assert submission_coco.check(packed, NAME) == [
        f"Entry {index} has a mask of size [128, 96], but '000000100001.jpg' is [96, 128] (height, width)."
    ]


def test_damaged_mask(packed):
    entries = json.loads(packed.read_text())
    entries[0]["segmentation"]["counts"] = entries[0]["segmentation"]["counts"][:-1]
    packed.write_text(json.dumps(entries))
    (problem,) = submission_coco.check(packed, NAME)
    assert problem.startswith("Entry 0 has a wrong mask: Its segmentation has no valid RLE")


@pytest.mark.parametrize("key", ["image_id", "category_id", "segmentation", "score"])
def test_missing_key(packed, key):
    entries = json.loads(packed.read_text())
    del entries[2][key]
    packed.write_text(json.dumps(entries))
    assert submission_coco.check(packed, NAME) == [f"Entry 2 has no '{key}'."]


def test_all_problems_are_listed_up_to_a_limit(packed):
    entries = json.loads(packed.read_text())
    entries[0]["score"], entries[2] = 2, 3
    packed.write_text(json.dumps(entries))
    problems = submission_coco.check(packed, NAME)
    assert [p.split(" has")[0] for p in problems] == ["Entry 0", "Entry 2"]
    packed.write_text(json.dumps([{}] * 50))
    problems = submission_coco.check(packed, NAME)
    assert len(problems) == 21 and problems[-1] == "There may be more."


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[{]", "It is not valid JSON"),
        ('[{"score": NaN}]', "It is not valid JSON (NaN is no number of JSON)"),
        ('[{"score": Infinity}]', "It is not valid JSON (Infinity is no number of JSON)"),
        ('{"images": []}', "It holds a dict, but has to hold a list of results."),
    ],
)
def test_no_list_of_json(packed, text, problem):
    packed.write_text(text)
    (found,) = submission_coco.check(packed, NAME)
    assert found.startswith(problem)


def test_binary_file(packed):
    packed.write_bytes(b"\xff\xfe\x00")
    (found,) = submission_coco.check(packed, NAME)
    assert found.startswith("It is not valid JSON")


def test_missing_file(tmp_path):
    assert submission_coco.check(tmp_path / "nothing.json", NAME) == [f"{tmp_path / 'nothing.json'} does not exist."]


def test_score_without_annotations(packed, miniature, tmp_path):
    content = json.loads((miniature / "annotations" / "instances_val2017.json").read_text())
    del content["annotations"]
    (tmp_path / "image_info.json").write_text(json.dumps(content))
    register_coco("mini_test", str(tmp_path / "image_info.json"), str(miniature / "val2017"))
    assert submission_coco.check(packed, "mini_test") == []
    with pytest.raises(ValueError, match="'mini_test' has no annotations: only its test server can score"):
        submission_coco.score(packed, "mini_test")
