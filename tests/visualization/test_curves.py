"""Curves of trainings: what is read from metrics.json, and the tool that draws them."""

import json

import cv2
import pytest

from rec_attend_d2.visualization.curves import draw_curves, read_curves

ENTRIES = [
    {"iteration": 19, "time": 2.0, "loss_box": -0.1, "lr": 0.001},
    {"iteration": 39, "time": 4.0, "loss_box": -0.2, "counting/SBD": 0.5},
]


@pytest.fixture
def training(tmp_path):
    folder = tmp_path / "stage_x"
    folder.mkdir()
    (folder / "metrics.json").write_text("\n".join(json.dumps(entry) for entry in ENTRIES))
    return folder


def test_time_adds_up_over_iterations(training):
    curves = read_curves(training / "metrics.json")
    assert set(curves) == {"loss_box", "counting/SBD"}
    assert curves["loss_box"][0] == pytest.approx([38 / 3600, (38 + 80) / 3600])
    assert curves["loss_box"][1] == [-0.1, -0.2]
    assert curves["counting/SBD"][1] == [0.5]


def test_a_plot_for_every_curve_and_a_line_for_every_training(training):
    curves = read_curves(training / "metrics.json")
    figure = draw_curves({"one": curves, "two": {"loss_box": curves["loss_box"]}})
    assert [axes.get_title() for axes in figure.axes] == ["loss_box", "counting/SBD"]
    assert [len(axes.lines) for axes in figure.axes] == [2, 1]


def test_validation_losses_are_dashed_lines_beside_those_of_training(tmp_path):
    entries = [{"iteration": 9, "total_loss": 3.0, "loss_mask": 1.0, "val_loss": 4.0, "val_loss_mask": 2.0}]
    (tmp_path / "metrics.json").write_text(json.dumps(entries[0]))
    figure = draw_curves({"run": read_curves(tmp_path / "metrics.json")})
    assert [axes.get_title() for axes in figure.axes] == ["total_loss", "loss_mask"]
    for axes, values in zip(figure.axes, ([3.0, 4.0], [1.0, 2.0]), strict=True):
        assert [line.get_ydata()[0] for line in axes.lines] == values
        assert [line.get_linestyle() for line in axes.lines] == ["-", "--"]
        assert [line.get_label() for line in axes.lines] == ["run", "run, validation"]


def test_a_line_that_was_cut_off_is_passed_over(training):
    whole = read_curves(training / "metrics.json")
    lines = [json.dumps(ENTRIES[0]), '{"iteration": 25, "ti', json.dumps(ENTRIES[1])]
    (training / "metrics.json").write_text("\n".join(lines))
    assert read_curves(training / "metrics.json") == whole


def test_the_tool_writes_a_picture(run_tool, training, tmp_path):
    process = run_tool("plot_curves", "--output", tmp_path / "new" / "curves.png", training)
    assert process.returncode == 0, process.stderr
    assert cv2.imread(str(tmp_path / "new" / "curves.png")).shape[1] == 800


def test_bad_input_is_named(run_tool, tmp_path):
    process = run_tool("plot_curves", "--output", tmp_path / "curves.png", tmp_path / "nowhere")
    assert process.returncode != 0 and "nowhere/metrics.json' does not exist" in process.stderr
    (tmp_path / "metrics.json").write_text("")
    with pytest.raises(ValueError, match="holds no iterations"):
        read_curves(tmp_path / "metrics.json")
