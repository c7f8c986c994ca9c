"""The predictor: arrays of all kinds in, and out what the evaluation predicts."""

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.modeling import build_model
from detectron2.structures import Instances

import rec_attend_d2
from rec_attend_d2.checkpoint import load_weights
from rec_attend_d2.config import load_config
from rec_attend_d2.data import build_test_loader, register_datasets
from rec_attend_d2.prediction import Predictor, find_weights

ROOT = Path(__file__).resolve().parents[2]


def assert_equal(first: Instances, second: Instances, tolerance: float = 0.0) -> None:
    """Same objects; masks may differ by rounding at the threshold if there is a tolerance of the scores."""
    assert first.image_size == second.image_size and len(first) == len(second)
    torch.testing.assert_close(first.scores, second.scores, rtol=0, atol=tolerance)
    assert torch.equal(first.pred_classes, second.pred_classes)
    different = (first.pred_masks.numpy() != second.pred_masks.numpy()).mean() if len(first) else 0.0
    assert different <= (0.001 if tolerance else 0.0)


@pytest.mark.parametrize("options", [[], ["INPUT.CONTRAST_PERCENTILES", "[5.0, 90.0]"]], ids=["plain", "stretched"])
def test_predictions_are_those_of_the_evaluation(quick_cfg, coco_folder, options):
    cfg = quick_cfg.clone()
    cfg.merge_from_list([*options, "DATASETS.COCO_FILES", str([coco_folder]), "DATASETS.TEST", "('predicted',)"])
    register_datasets(cfg)
    model = build_model(cfg).eval()
    load_weights(model, cfg.MODEL.WEIGHTS, complete=True)
    with torch.no_grad():
        expected = [model(batch)[0]["instances"] for batch in build_test_loader(cfg, "predicted")]
    assert min(map(len, expected)) > 0

    arrays = [cv2.imread(r["file_name"], cv2.IMREAD_UNCHANGED) for r in DatasetCatalog.get("predicted")]
    assert {array.dtype for array in arrays} == {np.dtype(np.uint8), np.dtype(np.uint16)}
    for found, instances in zip(Predictor(cfg, batch_size=1)(arrays), expected, strict=True):
        assert_equal(found.instances, instances)
        assert found.count == len(instances)
    for found, instances in zip(Predictor(cfg, batch_size=2)(arrays), expected, strict=True):
        assert_equal(found.instances, instances, tolerance=1e-5)


def test_a_single_image_and_its_kinds(predictor, images):
    grey = images[1][..., 0]
    one = predictor(np.repeat(grey[..., None], 3, axis=2))
    assert one.count == len(one.instances) > 0 and one.instances.image_size == (70, 50)
    assert one.instances.pred_masks.shape == (one.count, 70, 50) and not one.instances.scores.requires_grad
    with_alpha = np.dstack([grey, grey, grey, np.arange(70 * 50).reshape(70, 50) % 256]).astype(np.uint8)
    for same in (grey, grey[..., None], with_alpha, grey.astype(np.uint16) * 257):
        assert_equal(predictor(same).instances, one.instances)


def test_batches_of_one_size_and_of_several(predictor, images):
    same_size = np.stack([cv2.resize(image, (40, 30)) for image in images])
    for given in (images, same_size, list(same_size)):
        found = predictor(given)
        assert [one.instances.image_size for one in found] == [image.shape[:2] for image in given]
        for one, image in zip(found, given, strict=True):
            assert_equal(one.instances, predictor(image).instances, tolerance=1e-5)
    assert predictor([]) == []


def test_no_more_than_a_batch_goes_through_the_model(predictor, images, monkeypatch):
    sizes = []
    forward = predictor.model.forward
    monkeypatch.setattr(predictor.model, "forward", lambda batch: sizes.append(len(batch)) or forward(batch))
    predictor(images * 2 + images[:1])
    assert sizes == [2, 2, 2, 1]


def test_weights_of_a_config_file_lie_beside_it(quick_cfg, images, tmp_path):
    expected = Predictor(quick_cfg)(images[0])
    path = tmp_path / "config.yaml"
    named_beside = quick_cfg.clone()
    named_beside.MODEL.WEIGHTS = "random.pth"
    path.write_text(named_beside.dump())
    assert_equal(Predictor(path)(images[0]).instances, expected.instances)
    assert find_weights(named_beside, path) == str(tmp_path / "random.pth")
    assert find_weights(named_beside) == "random.pth"
    # Weights that are given win.
    assert_equal(Predictor(str(path), quick_cfg.MODEL.WEIGHTS)(images[0]).instances, expected.instances)
    with pytest.raises(FileNotFoundError, match=r"other\.pth"):
        Predictor(path, tmp_path / "other.pth")


def test_the_callers_config_stays_and_the_device_is_there(quick_cfg, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    quick_cfg.MODEL.DEVICE = "cuda"
    quick_cfg.freeze()
    predictor = Predictor(quick_cfg)
    assert quick_cfg.MODEL.DEVICE == "cuda" and predictor.cfg.MODEL.DEVICE == "cpu"
    assert predictor.model.device.type == "cpu" and not predictor.model.training


def test_a_trace_is_of_the_steps_that_gave_the_instances(predictor, images):
    trace = predictor.trace(predictor.prepare(images[1]))
    assert trace.image.shape == (70, 50, 3) and trace.image.dtype == np.uint8
    assert len(trace.found) == len(trace.steps) and trace.name == "glance"
    found = predictor(images[1]).instances
    scores = [score for step in trace.steps for score in step.score.tolist()]
    assert set(found.scores.tolist()) <= set(scores)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["MODEL.WEIGHTS", ""], "There are no weights: set MODEL.WEIGHTS"),
        (["MODEL.META_ARCHITECTURE", "RecAttendPreprocessor"], "'ImageEncoder' is a part of FastRecAttend"),
        (["MODEL.REC_ATTEND.PREPROCESSOR.NAME", "GivenMaps"], "'GivenMaps' makes its maps of annotations"),
        (["INPUT.CONTRAST_PERCENTILES", "[90.0, 5.0]"], "INPUT.CONTRAST_PERCENTILES"),
    ],
)
def test_what_cannot_predict_is_refused(quick_cfg, options, message):
    quick_cfg.merge_from_list(options)
    with pytest.raises(ValueError, match=message):
        Predictor(quick_cfg)


def test_stage_a_predicts_no_instances():
    cfg = load_config(str(ROOT / "tests/configs/Cityscapes/stage_a.yaml"), ["MODEL.WEIGHTS", "a.pth"])
    with pytest.raises(ValueError, match="'RecAttendPreprocessor' predicts no instances"):
        Predictor(cfg)


def test_wrong_arguments(quick_cfg, predictor, tmp_path):
    with pytest.raises(ValueError, match="batch size is 0"):
        Predictor(quick_cfg, batch_size=0)
    with pytest.raises(FileNotFoundError, match="'nowhere.yaml' does not exist"):
        Predictor("nowhere.yaml")
    with pytest.raises(TypeError, match="Image 1 is of type str, not a NumPy array. Predictor.read"):
        predictor([np.zeros((5, 5), np.uint8), "plant.png"])
    with pytest.raises(ValueError, match=r"Image 0 has float64 pixels.*CONTRAST_PERCENTILES"):
        predictor([np.zeros((5, 5))])
    with pytest.raises(ValueError, match=r"The image has the shape \[5, 5, 2\]"):
        predictor(np.zeros((5, 5, 2), np.uint8))


def test_it_is_imported_on_demand():
    assert rec_attend_d2.Predictor is Predictor
    with pytest.raises(AttributeError, match="'rec_attend_d2' has no attribute 'Predicter'"):
        rec_attend_d2.Predicter  # noqa: B018
    program = (
        "import sys, rec_attend_d2\n"
        "assert 'rec_attend_d2.engine' not in sys.modules and 'rec_attend_d2.evaluation' not in sys.modules\n"
        "from rec_attend_d2 import Predictor\n"
        "assert Predictor.__module__ == 'rec_attend_d2.prediction.predictor'\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_another_score_threshold_needs_no_other_model(predictor, images):
    assert predictor.score_threshold == predictor.cfg.MODEL.REC_ATTEND.TEST.SCORE_THRESHOLD == 0
    assert predictor(images[0]).count > 0
    predictor.score_threshold = 1.0
    assert predictor(images[0]).count == 0


def test_a_score_threshold_reaches_the_papers_postprocessing(images, tmp_path):
    weights = str(tmp_path / "c.pth")
    cfg = load_config(str(ROOT / "tests/configs/stage_c.yaml"), ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", weights])
    torch.save({"model": build_model(cfg).state_dict()}, weights)
    paper = Predictor(cfg)
    paper.score_threshold = 1.0
    assert paper.score_threshold == paper.model.postprocessor.score_threshold == 1 and paper(images[0]).count == 0


def test_a_tiff_of_several_pages_is_no_picture(predictor, tmp_path):
    path = str(tmp_path / "stack.tif")
    cv2.imwritemulti(path, [np.zeros((20, 30), np.uint8)] * 3)
    with pytest.raises(ValueError, match="stack.tif has 3 pages. Of these rec-attend count takes"):
        predictor.read(path)
