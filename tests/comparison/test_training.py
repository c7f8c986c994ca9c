"""Trainings under a budget: they end in time, go on after an interruption, and all see the same images."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog

from rec_attend_d2.comparison import training, worker
from rec_attend_d2.comparison.files import ComparisonError, read_json
from rec_attend_d2.comparison.models import DetectorMapper, ModelSpec, inference_mapper
from rec_attend_d2.whole_files import write_json

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
CONFIG_FILES = {"ours": "fast.yaml", "rcnn": "mask_rcnn.yaml"}
NAME = "squares_training"


@pytest.fixture
def make_spec(squares):
    """A function from "ours" or "rcnn" and changes to a model on the tiny data set."""

    def make(kind: str, **changes) -> ModelSpec:
        files = [[NAME, str(squares / "squares.json"), str(squares)]]
        spec = ModelSpec(
            name=kind,
            config_file=str(CONFIGS / CONFIG_FILES[kind]),
            options=("DATASETS.COCO_FILES", str(files)),
            train=NAME,
            test=NAME,
            budget={"iterations": 16},
            weights="",
            recipe=str(CONFIGS / CONFIG_FILES["ours"]),
            threads=1,
            device="cpu",
            seed=1,
            threshold_images=2,
        )
        return dataclasses.replace(spec, **changes)

    return make


@pytest.fixture
def iterations(monkeypatch) -> list[int]:
    """Numbers of the iterations that are taken."""
    taken: list[int] = []
    iterate = training._Budgeted._iterate

    def count(trainer):
        taken.append(trainer.iter)
        return iterate(trainer)

    monkeypatch.setattr(training._Budgeted, "_iterate", count)
    return taken


@pytest.mark.parametrize("kind", CONFIG_FILES)
def test_an_interrupted_training_goes_on_where_it_was(kind, make_spec, iterations, tmp_path, monkeypatch):
    spec = make_spec(kind)
    judge, calls = worker.Judge.curve_point, []

    def interrupted(self, model):
        calls.append(model)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return judge(self, model)

    with monkeypatch.context() as patch:
        patch.setattr(worker.Judge, "curve_point", interrupted)
        with pytest.raises(KeyboardInterrupt):
            worker.train(spec, tmp_path)
    before = read_json(tmp_path / training.CURVE)
    assert iterations == list(range(6)) and [point["iterations"] for point in before] == [2, 4]
    assert not (tmp_path / worker.TRAINING).exists()

    iterations.clear()
    worker.train(spec, tmp_path)
    assert iterations == list(range(6, 16))
    result = read_json(tmp_path / worker.TRAINING)
    assert [point["iterations"] for point in result["curve"]] == [2, 4, 6, 8, 10, 12, 14, 16]
    assert result["curve"][:2] == before
    assert result["iterations"] == result["planned_iterations"] == 16 and result["images_per_iteration"] == 2
    assert result["seconds"] == result["curve"][-1]["seconds"] > before[-1]["seconds"] > 0
    assert 1e8 < result["peak_memory"] < 1e10
    assert sorted(path.name for path in tmp_path.glob("*.pth")) == [training.FINAL]

    worker.evaluate(spec, tmp_path)
    results = read_json(tmp_path / worker.RESULTS)
    # The same weights, images and rule as at the end of the training.
    last = result["curve"][-1]["metrics"]
    assert results["threshold"] == last["threshold"]
    assert [results["metrics"][name] for name in worker.CURVE_METRICS] == [last[name] for name in worker.CURVE_METRICS]
    assert [len(image["best_iou"]) for image in results["images"]] == [0, 1, 2, 3]
    assert results["parameters"] > 1000 and results["flops_per_image"] > 1e5


def test_minutes_end_a_training(make_spec, iterations, tmp_path):
    spec = make_spec("ours", budget={"minutes": 0.05})
    worker.measure_pace(spec, tmp_path)
    pace = read_json(tmp_path / worker.PACE)["seconds_per_iteration"]
    assert 0 < pace < 3 and 3 <= len(iterations) <= training.PACE_WARMUP + training.PACE_ITERATIONS
    iterations.clear()
    worker.train(spec, tmp_path)
    result = read_json(tmp_path / worker.TRAINING)
    assert result["planned_iterations"] == max(1, round(3 / pace))
    times = [point["seconds"] for point in result["curve"]]
    assert times == sorted(times) and times[-1] == result["seconds"] >= 3
    assert len(iterations) == result["iterations"]
    # The budget was not spent one iteration earlier.
    assert result["seconds"] < 3 + 50 * result["seconds"] / result["iterations"]


def test_a_detector_sees_the_images_of_our_recipe(make_spec):
    ours, rcnn = make_spec("ours").config(), make_spec("rcnn").config()
    assert rcnn.INPUT.AUGMENTATIONS == ours.INPUT.AUGMENTATIONS and rcnn.INPUT.WARP == ours.INPUT.WARP
    assert rcnn.DATALOADER.NUM_WORKERS == ours.DATALOADER.NUM_WORKERS
    assert make_spec("rcnn", recipe="").config().INPUT.AUGMENTATIONS == ["RandomHorizontalFlip"]
    assert rcnn.MODEL.ROI_HEADS.NUM_CLASSES == rcnn.MODEL.RETINANET.NUM_CLASSES == 1
    assert rcnn.DATASETS.TEST == (NAME,) and rcnn.TEST.EVAL_PERIOD == 0

    record = DatasetCatalog.get(NAME)[3]
    rcnn.INPUT.MIN_SIZE_TEST = rcnn.INPUT.MAX_SIZE_TEST = 96
    entry = inference_mapper(rcnn)(record)
    assert entry["image"].shape == (3, 96, 96) and (entry["height"], entry["width"]) == (64, 64)
    rcnn.INPUT.FORMAT = "RGB"
    assert torch.equal(inference_mapper(rcnn)(record)["image"], entry["image"].flip(0))
    assert type(inference_mapper(ours)) is not DetectorMapper

    np.random.seed(0)
    rcnn.INPUT.MIN_SIZE_TRAIN, rcnn.INPUT.MAX_SIZE_TRAIN = (48,), 48
    instances = DetectorMapper(rcnn, is_train=True)(record)["instances"]
    assert instances.image_size == (48, 48) and instances.gt_masks.tensor.shape == (3, 48, 48)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": "squares_trainin"}, "squares_trainin.*not registered.*squares_training"),
        ({"device": "cuda"}, "--device is cuda"),
        ({"options": ("MODEL.NO_SUCH_KEY", "1")}, "NO_SUCH_KEY"),
        ({"options": ("INPUT.FORMAT", "L")}, "INPUT.FORMAT is 'L'"),
        ({"options": ("MODEL.MASK_ON", "False")}, "GeneralizedRCNN finds no instance masks"),
        (
            {"options": ("MODEL.META_ARCHITECTURE", "RecAttendBoxProposer")},
            "RecAttendBoxProposer finds no instance masks",
        ),
    ],
)
def test_what_is_wrong_is_said(changes, message, make_spec, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    first = make_spec("rcnn")
    changes = {**changes, "options": (*first.options, *changes.get("options", ()))}
    with pytest.raises(ComparisonError, match=message):
        make_spec("rcnn", **changes).config()


def test_a_worker_reports_in_one_line(make_spec, tmp_path, monkeypatch):
    write_json(tmp_path / worker.MODEL, make_spec("ours", test="nowhere").content())
    monkeypatch.setattr(worker, "setup_logger", lambda **_: None)
    with pytest.raises(SystemExit, match="'nowhere', which is not registered"):
        worker.main("train", str(tmp_path))


def test_json_files_are_read_back(tmp_path):
    path = tmp_path / "a.json"
    assert read_json(path) is None
    write_json(path, {"a": [1.5]})
    assert read_json(path) == {"a": [1.5]}
    path.write_text("{")
    with pytest.raises(ComparisonError, match=r"a\.json can't be read as json"):
        read_json(path)


@pytest.mark.parametrize("clock", ["wall", "cpu"])
def test_the_budgets_clock_counts(make_spec, tmp_path, monkeypatch, clock: str):
    monkeypatch.setattr(training.Stopwatch, "stop", lambda self: (0.5, 2.0))
    spec = make_spec("ours", budget={"minutes": 0.1, "clock": clock})
    write_json(tmp_path / worker.PACE, {"seconds_per_iteration": 1.0})
    worker.train(spec, tmp_path)
    spent = read_json(tmp_path / worker.TRAINING)
    assert spent["iterations"] == {"wall": 12, "cpu": 3}[clock]
    assert spent["seconds"] == 6 and spent["cpu_seconds"] == 2.0 * spent["iterations"]
