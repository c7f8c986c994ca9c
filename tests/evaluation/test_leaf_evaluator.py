"""The challenge's metrics per subset, by hand and against the evaluator of all images."""

import json

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode, Instances

from rec_attend_d2.evaluation.counting_evaluator import CountingEvaluator, LeafEvaluator

NAME = "tiny_leaves"
SIZE = (4, 10)
# Subset of each image, and where its true and its predicted leaves begin and end (columns).
IMAGES = {
    0: ("A1", [(0, 4), (4, 8)], [(0, 4), (4, 8)]),
    1: ("A1", [(0, 4), (5, 9)], [(0, 4)]),
    2: ("A5", [(0, 10)], [(0, 5), (5, 10)]),
}


def masks(ends: list[tuple[int, int]]) -> np.ndarray:
    masks = np.zeros((len(ends), *SIZE), dtype=bool)
    for mask, (start, stop) in zip(masks, ends, strict=True):
        mask[:, start:stop] = True
    return masks


def annotation(mask: np.ndarray) -> dict:
    rle = mask_util.encode(np.asfortranarray(mask, dtype=np.uint8))
    box = {"bbox": [0, 0, 1, 1], "bbox_mode": BoxMode.XYXY_ABS, "category_id": 0, "iscrowd": 0}
    return {**box, "segmentation": rle}


@pytest.fixture
def records():
    records = [
        {
            "file_name": f"{image_id}.png",
            "image_id": image_id,
            "height": SIZE[0],
            "width": SIZE[1],
            "subset": subset,
            "annotations": [annotation(mask) for mask in masks(truth)],
        }
        for image_id, (subset, truth, _) in IMAGES.items()
    ]
    DatasetCatalog.register(NAME, lambda: records)
    yield records
    DatasetCatalog.remove(NAME)
    MetadataCatalog.pop(NAME, None)


def evaluate(evaluator: CountingEvaluator, image_ids: tuple[int, ...] = tuple(IMAGES)) -> dict[str, dict[str, float]]:
    evaluator.reset()
    for image_id in image_ids:
        predicted = masks(IMAGES[image_id][2])
        instances = Instances(SIZE, pred_masks=torch.from_numpy(predicted), scores=torch.ones(len(predicted)))
        evaluator.process([{"image_id": image_id}], [{"instances": instances}])
    return evaluator.evaluate()


def test_by_hand(records):
    results = evaluate(LeafEvaluator(NAME))["lsc"]
    half = np.sqrt(0.5)  # N-1 standard deviation of two values that differ by 1
    expected = {
        # SBD of image 1: its second leaf is missed. FBD: 4 of 8 columns.
        "A1": {"SBD": ([1, 1 / 2], 0.5 * half), "DiC": ([0, -1], half), "abs_DiC": ([0, 1], half)},
        "A5": {"SBD": ([2 / 3], 0), "DiC": ([1], 0), "abs_DiC": ([1], 0), "FBD": ([1], 0)},
        "all": {"SBD": ([1, 1 / 2, 2 / 3], None), "DiC": ([0, -1, 1], 1), "abs_DiC": ([0, 1, 1], None)},
    }
    expected["A1"]["FBD"] = ([1, 2 / 3], half / 3)
    expected["all"]["FBD"] = ([1, 2 / 3, 1], None)
    names = set()
    for subset, metrics in expected.items():
        assert results[f"{subset}_num_images"] == len(metrics["SBD"][0])
        names.add(f"{subset}_num_images")
        for metric, (values, std) in metrics.items():
            name = f"{subset}_{metric}"
            assert results[name] == pytest.approx(np.mean(values)), name
            std = np.std(values, ddof=1) if std is None else std
            assert results[f"{name}_std"] == pytest.approx(std), name
            names |= {name, f"{name}_std"}
    assert set(results) == names
    assert not any("-" in name for name in results)


def test_all_agrees_with_the_counting_evaluator(records):
    results = evaluate(LeafEvaluator(NAME))
    assert list(results) == ["counting", "lsc"]
    leaves, counting = results["lsc"], evaluate(CountingEvaluator(NAME))["counting"]
    assert results["counting"] == counting
    for metric in ("SBD", "SBD_std", "FBD", "FBD_std", "DiC", "DiC_std", "abs_DiC", "abs_DiC_std", "num_images"):
        assert leaves[f"all_{metric}"] == counting[metric]


def test_order_of_the_images_does_not_matter(records):
    assert evaluate(LeafEvaluator(NAME), (2, 0, 1)) == evaluate(LeafEvaluator(NAME))


def test_files_name_the_subset(records, tmp_path):
    results = evaluate(LeafEvaluator(NAME, str(tmp_path)))
    header, *rows = (tmp_path / "counting_per_image.csv").read_text().splitlines()
    assert header.endswith(",subset")
    assert [row.rsplit(",", 1)[1] for row in rows] == ["A1", "A1", "A5"]
    for task in ("counting", "lsc"):
        content = json.loads((tmp_path / f"{task}_results.json").read_text())
        assert content == {"dataset": NAME, task: results[task]}


def test_images_need_a_subset(records):
    del records[1]["subset"]
    with pytest.raises(ValueError, match=r"'1\.png' has no 'subset' .*'tiny_leaves'.* CountingEvaluator"):
        evaluate(LeafEvaluator(NAME))
