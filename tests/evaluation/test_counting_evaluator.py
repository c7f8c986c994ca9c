"""The counting evaluator on a small generated data set, in one process and in two."""

import csv
import json
import os
import subprocess
import sys

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode, Instances

from rec_attend_d2.evaluation import CountingEvaluator

HEIGHT, WIDTH = 24, 32
# Rectangles (top, left, height, width) of each image; no two overlap.
RECTANGLES = {
    10: [(0, 0, 8, 8), (0, 16, 8, 8), (12, 4, 6, 20)],
    11: [(2, 2, 10, 10)],
    12: [],
    13: [(0, 0, 4, 4), (10, 10, 12, 12)],
}


def rectangle(top: int, left: int, height: int, width: int) -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[top : top + height, left : left + width] = True
    return mask


def polygon_annotation(top: int, left: int, height: int, width: int) -> dict:
    bottom, right = top + height, left + width
    return {
        "bbox": [left, top, right, bottom],
        "bbox_mode": BoxMode.XYXY_ABS,
        "category_id": 0,
        "segmentation": [[left, top, right, top, right, bottom, left, bottom]],
    }


def rle_annotation(top: int, left: int, height: int, width: int, iscrowd: int = 0) -> dict:
    rle = mask_util.encode(np.asfortranarray(rectangle(top, left, height, width), dtype=np.uint8))
    return {**polygon_annotation(top, left, height, width), "segmentation": rle, "iscrowd": iscrowd}


def make_records() -> list[dict]:
    """Polygons in even images, run lengths in odd ones."""
    return [
        {
            "file_name": f"image_{image_id}.png",
            "image_id": image_id,
            "height": HEIGHT,
            "width": WIDTH,
            "annotations": [(rle_annotation if image_id % 2 else polygon_annotation)(*r) for r in rectangles],
        }
        for image_id, rectangles in RECTANGLES.items()
    ]


def output(rectangles: list[tuple[int, int, int, int]], size: tuple[int, int] = (HEIGHT, WIDTH)) -> dict:
    masks = [rectangle(*r) for r in rectangles]
    instances = Instances(size)
    instances.pred_masks = torch.from_numpy(np.array(masks, dtype=bool).reshape(-1, *size))
    instances.scores = torch.ones(len(masks))
    return {"instances": instances}


def process(evaluator: CountingEvaluator, predictions: dict[int, list]) -> None:
    for image_id, rectangles in predictions.items():
        evaluator.process([{"image_id": image_id, "file_name": f"image_{image_id}.png"}], [output(rectangles)])


def evaluate(name: str, predictions: dict[int, list], output_dir: str | None = None) -> dict[str, float]:
    evaluator = CountingEvaluator(name, output_dir)
    evaluator.reset()
    process(evaluator, predictions)
    results = evaluator.evaluate()
    assert list(results) == ["counting"]
    return results["counting"]


@pytest.fixture
def register():
    names = []

    def _register(records: list[dict], name: str = "tiny_counting") -> str:
        DatasetCatalog.register(name, lambda: records)
        names.append(name)
        return name

    yield _register
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.pop(name, None)


# One missed, one split in two halves, one invented, one exact; image 12 stays empty.
IMPERFECT = {
    10: [(0, 0, 8, 8), (12, 4, 6, 10), (12, 14, 6, 10)],
    11: [(2, 2, 10, 10), (20, 20, 2, 2)],
    12: [],
    13: [(10, 10, 12, 12)],
}


def test_truth_as_prediction_is_perfect(register):
    results = evaluate(register(make_records()), RECTANGLES)
    assert results["SBD"] == results["FBD"] == results["MUCov"] == results["MWCov"] == 1
    assert results["precision50"] == results["recall50"] == results["count_accuracy"] == 1
    assert results["DiC"] == results["abs_DiC"] == results["AvgFP"] == results["AvgFN"] == 0
    assert results["num_images"] == 4


def test_imperfect_predictions_by_hand(register):
    results = evaluate(register(make_records()), IMPERFECT)
    # Image 10: Dice of a half with its whole is 2*60 / (60+120) = 2/3; the second object is missed.
    sbd = [min((1 + 2 / 3 + 2 / 3) / 3, (1 + 0 + 2 / 3) / 3), min((1 + 0) / 2, 1), 1, min(1, (0 + 1) / 2)]
    assert results["SBD"] == pytest.approx(np.mean(sbd))
    assert results["SBD_std"] == pytest.approx(np.std(sbd, ddof=1))
    assert results["DiC"] == pytest.approx((0 + 1 + 0 - 1) / 4)
    assert results["abs_DiC"] == pytest.approx((0 + 1 + 0 + 1) / 4)
    assert results["count_accuracy"] == 0.5
    assert results["AvgFP"] == pytest.approx(1 / 4)
    assert results["AvgFN"] == pytest.approx(2 / 4)
    # Over the three images with objects; areas 64, 64, 120 and 16, 144.
    assert results["MUCov"] == pytest.approx(((1 + 0 + 0.5) / 3 + 1 + 1 / 2) / 3)
    assert results["MWCov"] == pytest.approx(((64 + 60) / 248 + 1 + 144 / 160) / 3)
    # Halves have IoU exactly 0.5; only one of them can be matched.
    assert results["precision50"] == pytest.approx(4 / 6)
    assert results["recall50"] == pytest.approx(4 / 6)


@pytest.mark.parametrize(("extra", "difference"), [([(20, 0, 3, 3)], 1), ([], 0), ([(0, 0, 0, 0)], 0)])
def test_count_is_of_masks_with_pixels(register, extra, difference):
    predictions = {**RECTANGLES, 11: RECTANGLES[11] + extra}
    results = evaluate(register(make_records()), predictions)
    assert results["DiC"] == difference / 4
    assert results["count_accuracy"] == 1 - difference / 4


def test_metric_names_are_shown_by_detectron2(register):
    results = evaluate(register(make_records()), RECTANGLES)
    assert not [name for name in results if "-" in name]
    assert {"SBD", "SBD_std", "FBD", "DiC", "abs_DiC", "count_accuracy", "count_MSE", "MUCov", "MWCov"} <= set(results)
    assert {"AvgFP", "AvgFN", "precision50", "recall50", "pixel_precision", "pixel_recall"} <= set(results)


def test_crowd_region_is_neither_object_nor_error(register):
    records = make_records()
    records[1]["annotations"].append(rle_annotation(14, 14, 10, 18, iscrowd=1))
    name = register(records)
    clean = evaluate(name, RECTANGLES)
    assert clean["count_accuracy"] == clean["SBD"] == clean["recall50"] == 1

    inside = evaluate(name, {**RECTANGLES, 11: [*RECTANGLES[11], (15, 15, 4, 4), (16, 24, 3, 3)]})
    assert inside == clean

    # Of its 12 rows only 5 are in the region.
    outside = evaluate(name, {**RECTANGLES, 11: [*RECTANGLES[11], (7, 16, 12, 4)]})
    assert outside["DiC"] == 1 / 4
    assert outside["AvgFP"] == 1 / 4


def test_files(register, tmp_path):
    results = evaluate(register(make_records()), IMPERFECT, str(tmp_path / "out"))
    written = json.loads((tmp_path / "out" / "counting_results.json").read_text())
    assert written == {"dataset": "tiny_counting", "counting": results}

    rows = list(csv.DictReader((tmp_path / "out" / "counting_per_image.csv").open()))
    assert [(r["image_id"], r["file_name"], r["gt_count"], r["pred_count"]) for r in rows] == [
        ("10", "image_10.png", "3", "3"),
        ("11", "image_11.png", "1", "2"),
        ("12", "image_12.png", "0", "0"),
        ("13", "image_13.png", "2", "1"),
    ]
    assert np.mean([float(r["sbd"]) for r in rows]) == pytest.approx(results["SBD"])
    assert sum(int(r["false_negatives"]) for r in rows) / 4 == results["AvgFN"]
    assert rows[2]["mean_coverage"] == "nan"


def test_reset_forgets(register):
    evaluator = CountingEvaluator(register(make_records()))
    evaluator.reset()
    process(evaluator, RECTANGLES)
    evaluator.reset()
    # Without a new run of the model there is nothing left to evaluate.
    with pytest.raises(ValueError, match="4 of 4 images"):
        evaluator.evaluate()


def test_image_seen_twice_counts_once(register):
    name = register(make_records())
    evaluator = CountingEvaluator(name)
    evaluator.reset()
    process(evaluator, IMPERFECT)
    process(evaluator, {11: IMPERFECT[11]})
    assert evaluator.evaluate()["counting"] == evaluate(name, IMPERFECT)


class TestBadInput:
    def test_image_never_processed(self, register):
        name = register(make_records())
        with pytest.raises(ValueError, match=r"2 of 4 images .*'tiny_counting'.*image_11\.png.*image_13\.png"):
            evaluate(name, {10: [], 12: []})

    def test_image_of_another_data_set(self, register):
        with pytest.raises(ValueError, match=r"image_77\.png.*not in data set 'tiny_counting'"):
            evaluate(register(make_records()), {77: []})

    def test_prediction_at_network_size(self, register):
        evaluator = CountingEvaluator(register(make_records()))
        with pytest.raises(ValueError, match=r"image_12\.png.*\(12, 16\).*\(24, 32\)"):
            evaluator.process([{"image_id": 12}], [output([], size=(12, 16))])

    def test_output_without_masks(self, register):
        evaluator = CountingEvaluator(register(make_records()))
        with pytest.raises(ValueError, match=r"image_12\.png.*pred_masks"):
            evaluator.process([{"image_id": 12}], [{"instances": Instances((HEIGHT, WIDTH), scores=torch.ones(0))}])
        with pytest.raises(ValueError, match=r"image_12\.png.*'sem_seg'"):
            evaluator.process([{"image_id": 12}], [{"sem_seg": torch.zeros(1)}])

    def test_same_id_twice(self, register):
        records = make_records()
        records[3]["image_id"] = 10
        with pytest.raises(ValueError, match=r"image_10\.png.*image_13\.png"):
            CountingEvaluator(register(records))

    def test_one_image_without_annotations(self, register):
        records = make_records()
        del records[2]["annotations"]
        with pytest.raises(ValueError, match=r"image_12\.png.*'annotations'"):
            CountingEvaluator(register(records))

    def test_no_annotations_at_all_is_said_and_gives_no_numbers(self, register, caplog):
        records = make_records()
        for record in records:
            del record["annotations"]
        name = register(records)
        with caplog.at_level("WARNING"):
            evaluator = CountingEvaluator(name)
        assert "'tiny_counting' has no annotations" in caplog.text
        evaluator.reset()
        process(evaluator, RECTANGLES)
        assert evaluator.evaluate() == {}


def evaluate_share(rank: int, directory: str) -> None:
    """What each process of the distributed test runs."""
    init_method = f"file://{directory}/rendezvous"
    torch.distributed.init_process_group("gloo", init_method, world_size=2, rank=rank)
    DatasetCatalog.register("tiny_counting", make_records)
    # Padded shares of equal length, as DistributedSampler makes them: both processes see image 10.
    shares = [[10, 12, 13], [11, 10, 13]]
    evaluator = CountingEvaluator("tiny_counting", os.path.join(directory, f"rank{rank}"))
    evaluator.reset()
    process(evaluator, {image_id: IMPERFECT[image_id] for image_id in shares[rank]})
    with open(os.path.join(directory, f"returned{rank}.json"), "w") as file:
        json.dump(evaluator.evaluate(), file)
    # Without it the process that leaves first can tear the group down under the other one.
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def test_two_processes_give_the_result_of_one(register, tmp_path):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen([sys.executable, __file__, str(rank), str(tmp_path)], env=environment) for rank in range(2)
    ]
    try:
        assert [process_.wait(timeout=120) for process_ in processes] == [0, 0]
    finally:
        for process_ in processes:
            process_.kill()

    single = evaluate(register(make_records()), IMPERFECT, str(tmp_path / "single"))
    assert json.loads((tmp_path / "returned0.json").read_text()) == {"counting": single}
    assert json.loads((tmp_path / "returned1.json").read_text()) == {}
    assert not (tmp_path / "rank1").exists()
    per_image = (tmp_path / "rank0" / "counting_per_image.csv").read_text()
    assert per_image == (tmp_path / "single" / "counting_per_image.csv").read_text()


if __name__ == "__main__":
    evaluate_share(int(sys.argv[1]), sys.argv[2])
