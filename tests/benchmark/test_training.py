"""Trainings under a budget: they end in time, go on after an interruption, and all see the same images."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog

from rec_attend_d2.benchmark import training, worker
from rec_attend_d2.benchmark.models import ComparisonError, DetectorMapper, ModelSpec, inference_mapper, read_json
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
            options=["DATASETS.COCO_FILES", str(files)],
            train=NAME,
            test=NAME,
            minutes=None,
            iterations=16,
            clock="wall",
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
def rates(monkeypatch) -> dict[int, float]:
    """Learning rate of every iteration that is taken, by its number."""
    taken: dict[int, float] = {}
    before_step = training.BudgetHook.before_step

    def note(hook):
        taken[hook.trainer.iter] = hook.trainer.optimizer.param_groups[0]["lr"]
        before_step(hook)

    monkeypatch.setattr(training.BudgetHook, "before_step", note)
    return taken


@pytest.mark.parametrize("kind", CONFIG_FILES)
def test_an_interrupted_training_goes_on_where_it_was(kind, make_spec, rates, tmp_path, monkeypatch):
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
    # The third evaluation is due after 6 iterations; the last checkpoint is that of the 5th.
    assert list(rates) == list(range(6))
    assert not (tmp_path / worker.TRAINING).exists()

    rates.clear()
    worker.train(spec, tmp_path)
    assert list(rates) == list(range(5, 16))
    result = read_json(tmp_path / worker.TRAINING)
    assert [point["iterations"] for point in result["curve"]] == [2, 4, 6, 8, 10, 12, 14, 16]
    assert result["iterations"] == 16 and result["images_per_iteration"] == 2
    times = [point["seconds"] for point in result["curve"]]
    assert times == sorted(times) and times[0] > 0 and times[-1] == result["seconds"]
    assert 1e8 < result["peak_memory"] < 1e10
    assert sorted(path.name for path in tmp_path.glob("*.pth")) == [f"{training.FINAL}.pth"]

    worker.evaluate(spec, tmp_path)
    results = read_json(tmp_path / worker.RESULTS)
    # The same weights, images and rule as at the end of the training.
    last = result["curve"][-1]["metrics"]
    assert {"threshold": results["threshold"], **results["metrics"]} == last
    assert [len(image["best_iou"]) for image in results["images"]] == [0, 1, 2, 3]
    assert results["parameters"] > 1000 and results["flops_per_image"] > 1e5


def test_minutes_end_a_training_and_its_schedule_follows(make_spec, rates, tmp_path, monkeypatch):
    monkeypatch.setattr(training.BudgetHook, "_since_start", lambda hook: (1.0, 0.5))
    schedule = ["SOLVER.LR_SCHEDULER_NAME", "WarmupCosineLR", "SOLVER.WARMUP_ITERS", "0", "SOLVER.MAX_ITER", "1000"]
    spec = make_spec("ours", iterations=None, minutes=0.1)
    spec.options.extend([*schedule, "SOLVER.BASE_LR", "1e-5"])
    worker.train(spec, tmp_path)
    result = read_json(tmp_path / worker.TRAINING)
    assert result["iterations"] == 6 and result["seconds"] == 6
    # Six slow iterations use a schedule of a thousand.
    expected = [0.5e-5 * (1 + np.cos(np.pi * iteration / 6)) for iteration in range(6)]
    assert list(rates.values()) == pytest.approx(expected, rel=0.01)


def test_the_staircase_is_squeezed_too(make_spec, rates, tmp_path):
    staircase = ["SOLVER.LR_SCHEDULER_NAME", "StaircaseExponentialLR", "SOLVER.DECAY_PERIOD", "300"]
    spec = make_spec("ours", iterations=9)
    spec.options.extend([*staircase, "SOLVER.GAMMA", "0.5", "SOLVER.MAX_ITER", "900", "SOLVER.BASE_LR", "8e-6"])
    spec.options.extend(["SOLVER.WARMUP_ITERS", "0"])
    worker.train(spec, tmp_path)
    assert list(rates.values()) == pytest.approx([8e-6] * 3 + [4e-6] * 3 + [2e-6] * 3)


def test_a_detector_sees_the_images_of_our_recipe(make_spec):
    ours, rcnn = make_spec("ours").config(), make_spec("rcnn").config()
    assert rcnn.INPUT.AUGMENTATIONS == ours.INPUT.AUGMENTATIONS and rcnn.INPUT.WARP == ours.INPUT.WARP
    assert rcnn.DATALOADER.NUM_WORKERS == ours.DATALOADER.NUM_WORKERS
    assert make_spec("rcnn", recipe="").config().INPUT.AUGMENTATIONS == ["RandomHorizontalFlip"]
    assert rcnn.MODEL.ROI_HEADS.NUM_CLASSES == rcnn.MODEL.RETINANET.NUM_CLASSES == 1
    assert rcnn.DATASETS.TEST == (NAME,)

    record = DatasetCatalog.get(NAME)[3]
    rcnn.INPUT.MIN_SIZE_TEST = rcnn.INPUT.MAX_SIZE_TEST = 96
    entry = inference_mapper(rcnn)(record)
    assert entry["image"].shape == (3, 96, 96) and (entry["height"], entry["width"]) == (64, 64)
    assert type(inference_mapper(ours)) is not DetectorMapper

    np.random.seed(0)
    rcnn.INPUT.MIN_SIZE_TRAIN, rcnn.INPUT.MAX_SIZE_TRAIN = (48,), 48
    instances = DetectorMapper(rcnn, is_train=True)(record)["instances"]
    assert instances.image_size == (48, 48) and instances.gt_masks.tensor.shape == (3, 48, 48)


def test_a_detector_has_windows_of_its_own(make_spec):
    spec = make_spec("rcnn")
    options = ["INPUT.CROP.ENABLED", "True", "INPUT.CROP.TYPE", "absolute", "INPUT.CROP.SIZE", "[32, 100]"]
    own = ["INPUT.MIN_SIZE_TRAIN", "(0,)", "INPUT.MIN_SIZE_TEST", "0"]
    cfg = dataclasses.replace(spec, options=[*spec.options, *options, *own]).config()
    assert cfg.INPUT.AUGMENTATIONS == make_spec("ours").config().INPUT.AUGMENTATIONS
    record = DatasetCatalog.get(NAME)[3]
    # A side that is smaller than the window stays whole; images that are looked at have their own size.
    assert DetectorMapper(cfg, is_train=True)(record)["image"].shape == (3, 32, 64)
    assert inference_mapper(cfg)(record)["image"].shape == (3, 64, 64)
    cfg.INPUT.CROP.TYPE = "relative"
    with pytest.raises(ComparisonError, match=r"INPUT.CROP is relative \[32, 100\]; .*TYPE 'absolute'"):
        DetectorMapper(cfg, is_train=True)


def test_evaluations_may_be_few(make_spec, tmp_path):
    worker.train(make_spec("rcnn", iterations=4, points=2), tmp_path)
    assert [point["iterations"] for point in read_json(tmp_path / worker.TRAINING)["curve"]] == [2, 4]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": "squares_trainin"}, "squares_trainin.*not registered.*squares_training"),
        ({"device": "cuda"}, "--device is cuda"),
        ({"options": ("MODEL.NO_SUCH_KEY", "1")}, "NO_SUCH_KEY"),
        ({"options": ("INPUT.FORMAT", "RGB")}, "INPUT.FORMAT is 'RGB'"),
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
    changes = {**changes, "options": [*first.options, *changes.get("options", ())]}
    with pytest.raises(ComparisonError, match=message):
        make_spec("rcnn", **changes).config()


def test_a_worker_reports_in_one_line(make_spec, tmp_path, monkeypatch):
    write_json(tmp_path / worker.MODEL, dataclasses.asdict(make_spec("ours", test="nowhere")))
    monkeypatch.setattr(worker, "setup_logger", lambda **_: None)
    with pytest.raises(SystemExit, match="'nowhere', which is not registered"):
        worker.main("train", str(tmp_path))


@pytest.mark.parametrize("clock", ["wall", "cpu"])
def test_the_budgets_clock_counts(make_spec, tmp_path, monkeypatch, clock: str):
    monkeypatch.setattr(training.BudgetHook, "_since_start", lambda hook: (0.5, 2.0))
    spec = make_spec("ours", iterations=None, minutes=0.1, clock=clock)
    worker.train(spec, tmp_path)
    spent = read_json(tmp_path / worker.TRAINING)
    assert spent["iterations"] == {"wall": 12, "cpu": 3}[clock]
    assert spent["seconds"] == 6 and spent["cpu_seconds"] == 2.0 * spent["iterations"]


def test_budgets_in_words(make_spec):
    assert (
        make_spec("ours", iterations=None, minutes=1.5, clock="cpu").budget()
        == "1.5 CPU minutes of training iterations"
    )
    assert make_spec("ours").budget() == "16 iterations"
    assert make_spec("ours", weights="a.pth").budget() == "finished weights, not trained"
