"""Reports: undefined figures, curves and bars, which images are shown, and models that were not trained."""

import dataclasses

from rec_attend_d2.benchmark.content import make_sections, number
from rec_attend_d2.benchmark.figures import group_bars, learning_curves
from rec_attend_d2.benchmark.models import ModelSpec
from rec_attend_d2.benchmark.report import by_mean_sbd

PNG = b"\x89PNG\r\n\x1a\n"


def test_undefined_figures_are_dashes():
    assert (number(None), number(0.12345), number(7.0, "{:.0f}")) == ("–", "0.123", "7")


def test_figures_are_png_files_and_the_same_each_time():
    metrics = {"SBD": 0.5, "abs_DiC": 1.0, "AP": None, "count_accuracy": 0.1}
    curve = [{"seconds": 60.0 * n, "metrics": metrics} for n in (1, 2)]
    groups = [{"label": "0 to 3", "size": 2, "models": {"a": {"SBD": 0.5}, "b": {"SBD": 0.25}}}]
    for draw in (
        lambda: learning_curves({"a": curve, "b": curve[:1]}),
        lambda: group_bars(groups, {"SBD": "SBD"}, "objects"),
    ):
        first = draw()
        assert first.startswith(PNG) and len(first) > 3000
        assert draw() == first


def test_images_are_ranked_by_the_mean_of_all_models():
    images = {"a": [{"sbd": 0.0}, {"sbd": 1.0}], "b": [{"sbd": 1.0}, {"sbd": 0.5}]}
    assert by_mean_sbd(images) == {"best": [1, 0], "median": [], "worst": []}


def test_a_model_with_finished_weights_has_no_training():
    names = ("AP", "AP50", "SBD", "abs_DiC", "count_accuracy", "MWCov", "MUCov", "AvgFP", "AvgFN")
    metrics = dict.fromkeys((*names, "relative_count_error", "F1"), 0.5)
    image = {"gt_count": 2, "pred_count": 3, "sbd": 0.5, "best_iou": [0.5, 0.5]}
    results = {
        "metrics": {**metrics, "AP": None},
        "threshold": 0.3,
        "seconds_per_image": {"median": 0.25},
        "inference_memory": 2e9,
        "parameters": 1_500_000,
        "flops_per_image": 3e9,
        "images": [image],
    }
    training = {"seconds": 90.0, "cpu_seconds": 60.0, "iterations": 8, "images_per_iteration": 4}
    training |= {"peak_memory": 3e9, "initial_weights": "", "curve": [{"seconds": 90.0, "metrics": metrics}]}
    spec = dict.fromkeys(field.name for field in dataclasses.fields(ModelSpec))
    spec |= {"weights": "", "minutes": 1.5, "clock": "wall", "threshold_images": 30}
    trained = {"name": "a", "spec": spec, "training": training, "results": results}
    given = {"name": "b", "spec": {**spec, "weights": "b.pth", "minutes": None}, "training": None, "results": results}
    content = {
        "models": [trained, given],
        "command": "python tools/benchmark.py",
        "environment": {"device_name": "Abacus", "threads": 2, "torch": "2"},
        "train": "some_train",
        "test": "some_val",
        "groups": {"by_count": [], "by_contact": [], "objects_by_contact": [], "objects_by_area": []},
    }
    sections = {section.title: section for section in make_sections(content, [])}
    quality, cost = sections["Results"].tables
    assert quality.rows[0][:4] == ["a", "–", "0.5", "0.500"]
    assert cost.rows == [
        ["a", "0.250", "2000", "3000", "1.50", "3.00", "1.5", "1.0", "8", "4"],
        ["b", "0.250", "2000", "–", "1.50", "3.00", "–", "–", "–", "–"],
    ]
    (curves,) = sections["Learning curves"].pictures
    assert "a ends at SBD 0.500 after 1.5 minutes" in curves.alt
    assert "b ends" not in curves.alt
    words = " ".join(sections["How it was measured"].paragraphs)
    assert "a: 1.5 minutes of training iterations from random weights; b: finished weights, not trained" in words
    content["models"] = [given]
    assert make_sections(content, [])[1].pictures == []
