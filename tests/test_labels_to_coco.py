"""tools/labels_to_coco.py as a user runs it, up to training on what it wrote."""

import importlib
import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
SIZE = (40, 60)


@pytest.fixture
def run(monkeypatch) -> Callable[..., None]:
    """Runs the tool in this process."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    tool = importlib.import_module("labels_to_coco")

    def call(*arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", ["labels_to_coco.py", *map(str, arguments)])
        tool.main()

    return call


def draw(folder: Path, count: int) -> list[np.ndarray]:
    """Write ``count`` images and 16-bit label images of discs on a grid; returns the label images."""
    drawn = []
    for number in range(count):
        labels = np.zeros(SIZE, np.uint16)
        for index in range(2 + number % 3):
            cv2.circle(labels, (12 + 18 * index, 20), 7, 300 + 2 * index, thickness=-1)
        for name, pixels in (("images", (labels > 0).astype(np.uint8) * 200), ("labels", labels)):
            (folder / name).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
        drawn.append(labels)
    return drawn


def paths(folder: Path) -> list[object]:
    """Arguments for the files of :func:`draw`."""
    return ["--images", folder / "images", "--labels", folder / "labels", "--output", folder / "train.json"]


def test_what_it_writes_trains_by_the_options_it_prints(run_tool, tmp_path):
    drawn = draw(tmp_path, 5)
    validation = ["--val-fraction", "0.4", "--val-output", tmp_path / "val.json"]
    process = run_tool("labels_to_coco", *paths(tmp_path), *validation)
    assert process.returncode == 0, process.stderr
    counts = [len(json.loads((tmp_path / f"{name}.json").read_text())["images"]) for name in ("train", "val")]
    assert counts == [3, 2]
    objects = [json.loads((tmp_path / f"{name}.json").read_text())["annotations"] for name in ("train", "val")]
    assert sum(map(len, objects)) == sum(len(np.unique(labels)) - 1 for labels in drawn)

    options = shlex.split(process.stdout.splitlines()[-1])
    short = ["SOLVER.MAX_ITER", "2", "TEST.EVAL_PERIOD", "0", "OUTPUT_DIR", tmp_path / "output"]
    config = "tests/configs/fast.yaml"
    process = run_tool("train_net", "--config-file", config, *options, *short)
    assert process.returncode == 0, process.stderr[-3000:]
    results = json.loads((tmp_path / "output" / "metrics_final.json").read_text())
    assert results["counting"]["num_images"] == 2


def test_the_layout_of_the_data_science_bowl(run, tmp_path):
    (labels,) = draw(tmp_path, 1)
    for part in ("images", "masks"):
        (tmp_path / "bowl" / "x" / part).mkdir(parents=True)
    (tmp_path / "images" / "0.png").rename(tmp_path / "bowl" / "x" / "images" / "x.png")
    for value in (300, 302):
        Image.fromarray(labels == value).save(tmp_path / "bowl" / "x" / "masks" / f"{value}.png")
    run("--images", tmp_path / "bowl", "--output", tmp_path / "bowl.json")
    content = json.loads((tmp_path / "bowl.json").read_text())
    assert content["images"][0]["file_name"] == "x/images/x.png"
    assert [item["area"] for item in content["annotations"]] == [int((labels == value).sum()) for value in (300, 302)]


def test_what_is_left_out_and_what_training_needs_is_said(run, tmp_path, capsys):
    draw(tmp_path, 2)
    (tmp_path / "labels" / "1.png").unlink()
    Image.fromarray(np.zeros(SIZE, np.float32)).save(tmp_path / "images" / "0.tif")
    (tmp_path / "images" / "0.png").unlink()
    run(*paths(tmp_path), "--unlabeled", "skip", "--category", "disc")
    printed = capsys.readouterr().out
    assert f"Left out: {tmp_path / 'images' / '1.png'} (1)." in printed
    assert "1 images have float32 pixels, first 0.tif: training needs INPUT.CONTRAST_PERCENTILES" in printed
    assert json.loads((tmp_path / "train.json").read_text())["categories"][0]["name"] == "disc"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--unlabeled", "empty", "--label-suffix", "_x"], "labels_to_coco: There is no *_x{.png"),
        (["--background", "1,2"], "'1,2' is neither a value, such as 0, nor a colour"),
        (["--background", "255,255,255"], "has values instead of colours"),
        (["--val-fraction", "0.2"], "--val-fraction and --val-output belong together"),
        (["--val-fraction", "1", "--val-output", "val.json"], "--val-fraction is 1.0"),
        (["--split-components", "--keep-components"], "not allowed with argument"),
    ],
)
def test_wrong_calls_end_in_one_line(run, tmp_path, capsys, arguments, message):
    draw(tmp_path, 1)
    with pytest.raises(SystemExit) as error:
        run(*paths(tmp_path), *arguments)
    # argparse writes itself, and leaves its exit code alone.
    assert message in f"{error.value}{capsys.readouterr().err}"
    assert error.value.code != 0 and not (tmp_path / "train.json").exists()


def test_options_of_label_images_need_their_folder(run, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run("--images", tmp_path, "--output", tmp_path / "a.json", "--unlabeled", "skip")
    assert "--unlabeled is for label images" in capsys.readouterr().err
