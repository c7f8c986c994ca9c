"""demo/demo.py as a user runs it, with the published rosettes model on plants that are drawn for the test."""

import csv
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pycocotools.mask as mask_util
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from rec_attend_d2.config import load_config
from rec_attend_d2.data.datasets.rosettes import SEED, render_plant
from rec_attend_d2.engine import evaluate

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "weights" / "rosettes.yaml"
FIRST_PLANT = 401  # held out


@pytest.fixture(scope="module")
def demo():
    """demo/demo.py as a module."""
    spec = importlib.util.spec_from_file_location("demo", ROOT / "demo" / "demo.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def run(demo, monkeypatch, capsys) -> Callable[..., tuple[object, str, str]]:
    """Runs the demo in this process; returns its exit status or message, and what it printed and reported."""

    def run_demo(*arguments: object) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["demo.py", "--config-file", str(CONFIG), *map(str, arguments)])
        status: object = 0
        try:
            demo.main()
        except SystemExit as error:
            status = error.code
        return status, *capsys.readouterr()

    return run_demo


@pytest.fixture
def plants(tmp_path) -> Path:
    """A folder with two plants, and a folder inside with one of the same name."""
    folder = tmp_path / "plants"
    (folder / "old").mkdir(parents=True)
    for number, name in enumerate(["a.png", "b.png", "old/a.png"]):
        cv2.imwrite(str(folder / name), render_plant(SEED, FIRST_PLANT + number)[0])
    return folder


def counts_of(path: Path) -> dict[str, int]:
    with open(path, newline="") as file:
        return {row["file"]: int(row["count"]) for row in csv.DictReader(file)}


def test_everything_at_once(run_script, plants, tmp_path):
    (plants / "broken.png").write_text("no image")
    done = run_script(
        *("demo/demo.py", "--config-file", CONFIG, "--input", plants, plants / "old" / "*.png", "missing.png"),
        *("--output", tmp_path / "pictures", "--csv", tmp_path / "counts.csv", "--json", tmp_path / "found.json"),
        *("--labels", tmp_path / "labels", "--steps", tmp_path / "steps", "--opts", "MODEL.DEVICE", "cpu"),
    )
    assert done.returncode == 1
    assert "5/5" in done.stderr  # the progress bar
    last = done.stderr.splitlines()[-3:]
    assert last[0] == "demo: 2 left out, which could not be read:"
    assert "broken.png cannot be decoded" in last[1] and "missing.png does not exist" in last[2]

    files = [str(plants / name) for name in ("a.png", "b.png", "old/a.png")]
    counts = counts_of(tmp_path / "counts.csv")
    assert list(counts) == files
    truth = [len(render_plant(SEED, FIRST_PLANT + number)[1]) for number in range(3)]
    assert np.abs(np.subtract(list(counts.values()), truth)).mean() <= 1
    assert done.stdout.splitlines()[-1] == f"3 images, {sum(counts.values())} objects."

    # Pictures of one name do not replace each other.
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == ["a.png", "b.png", "old_a.png"]
    assert Image.open(tmp_path / "pictures" / "a.png").size == (384, 384)
    for name, count in zip(("a", "b", "old_a"), counts.values(), strict=True):
        labels = np.asarray(Image.open(tmp_path / "labels" / f"{name}_labels.png"))
        assert labels.shape == (128, 128) and np.unique(labels).tolist() == list(range(count + 1))
    endings = ("_steps.gif", "_steps.png")
    steps = [name + ending for name in ("a", "b", "old_a") for ending in endings]
    assert sorted(path.name for path in (tmp_path / "steps").iterdir()) == steps
    for name, count in zip(("a", "b", "old_a"), counts.values(), strict=True):
        with Image.open(tmp_path / "steps" / f"{name}_steps.gif") as gif:
            assert 2 <= gif.n_frames <= count + 1  # several objects a glance, and the glance that claims nothing

    images = json.loads((tmp_path / "found_images.json").read_text())["images"]
    assert [image["file_name"] for image in images] == files
    results = json.loads((tmp_path / "found.json").read_text())
    assert [sum(entry["image_id"] == image["id"] for entry in results) for image in images] == list(counts.values())


@pytest.fixture
def plants_dataset(plants, tmp_path):
    """Config options that evaluate on the folder's two plants, whose image ids are those of the demo."""
    content = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "leaf"}]}
    for number, name in enumerate(["a.png", "b.png"]):
        content["images"].append({"id": number + 1, "file_name": name, "height": 128, "width": 128})
        for mask in render_plant(SEED, FIRST_PLANT + number)[1]:
            rle = mask_util.encode(np.asfortranarray(mask, dtype=np.uint8))
            segmentation = {"size": rle["size"], "counts": rle["counts"].decode()}
            entry = {"id": len(content["annotations"]) + 1, "image_id": number + 1, "category_id": 1, "iscrowd": 0}
            box = mask_util.toBbox(rle).tolist()
            content["annotations"].append({**entry, "segmentation": segmentation, "area": int(mask.sum()), "bbox": box})
    (tmp_path / "plants.json").write_text(json.dumps(content))
    files = [["demo_plants", str(tmp_path / "plants.json"), str(plants)]]
    yield ["DATASETS.COCO_FILES", str(files), "DATASETS.TEST", "('demo_plants',)", "OUTPUT_DIR", str(tmp_path / "out")]
    DatasetCatalog.remove("demo_plants")
    MetadataCatalog.remove("demo_plants")


def test_results_are_those_of_the_evaluation(run, plants, plants_dataset, tmp_path):
    options = [*plants_dataset, "MODEL.DEVICE", "cpu", "DATALOADER.NUM_WORKERS", "0"]
    evaluate(load_config(str(CONFIG), options), str(CONFIG.with_suffix(".pth")))
    (path,) = (tmp_path / "out").rglob("coco_instances_results.json")
    keys = ("image_id", "category_id", "segmentation", "score")
    expected = [{key: entry[key] for key in keys} for entry in json.loads(path.read_text())]
    assert len(expected) > 2
    status, _, _ = run("--input", plants, "--json", tmp_path / "found.json", "--batch-size", 1)
    assert status == 0
    assert json.loads((tmp_path / "found.json").read_text()) == expected


def test_counts_are_printed_where_nothing_is_written(run, plants):
    status, printed, _ = run("--input", plants)
    lines = printed.splitlines()
    assert status == 0 and len(lines) == 5
    assert lines[0].split() == ["file", "frame", "count", "mean_score", "seconds", "note"]
    assert [line.split()[0] for line in lines[2:4]] == [str(plants / "a.png"), str(plants / "b.png")]
    total = sum(int(line.split()[1]) for line in lines[2:4])
    assert lines[4] == f"2 images, {total} objects."


def test_options_change_the_config(run, plants, tmp_path):
    options = ["--opts", "MODEL.REC_ATTEND.TEST.SCORE_THRESHOLD", "1.1"]
    status, printed, _ = run("--input", plants / "a.png", "--output", tmp_path / "a.jpg", *options)
    assert status == 0 and printed == "1 images, 0 objects.\n"
    assert Image.open(tmp_path / "a.jpg").format == "JPEG"


def test_a_video(run, plants, tmp_path):
    video = tmp_path / "clip.avi"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter_fourcc(*"MJPG"), 5, (128, 128))
    for name in ("a.png", "a.png", "b.png"):
        writer.write(cv2.imread(str(plants / name)))
    writer.release()
    status, printed, _ = run("--video-input", video, "--output", tmp_path / "new", "--csv", tmp_path / "counts.csv")
    assert status == 0 and printed.startswith("3 frames, ")
    with open(tmp_path / "counts.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["file"], row["frame"]) for row in rows] == [(str(video), str(number)) for number in range(3)]
    assert rows[0]["count"] == rows[1]["count"] > "0"
    drawn = cv2.VideoCapture(str(tmp_path / "new" / "clip.mp4"))
    assert drawn.get(cv2.CAP_PROP_FRAME_COUNT) == 3 and drawn.get(cv2.CAP_PROP_FRAME_WIDTH) == 384


class Webcam:
    """Shows a plant; after two pictures the user presses Ctrl-C."""

    def __init__(self, image: np.ndarray):
        self._image = image
        self._pictures = 0
        self.released = False

    def get(self, key: int) -> float:
        return 0.0  # knows neither its rate nor its number of frames

    def read(self) -> tuple[bool, np.ndarray]:
        if self._pictures == 2:
            raise KeyboardInterrupt
        self._pictures += 1
        return True, self._image

    def release(self) -> None:
        self.released = True


def test_a_webcam_until_it_is_stopped(demo, run, plants, tmp_path, monkeypatch):
    webcam = Webcam(cv2.imread(str(plants / "a.png")))
    monkeypatch.setattr(demo, "open_webcam", lambda: webcam)
    status, printed, _ = run("--webcam", "--output", tmp_path / "seen.mp4")
    assert status == 0 and printed.startswith("2 frames, ") and webcam.released
    assert cv2.VideoCapture(str(tmp_path / "seen.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 2


def test_ctrl_c_before_the_end_is_no_success(demo, run, plants, tmp_path, monkeypatch):
    def read(predictor: object, path: str) -> np.ndarray:
        if path.endswith("b.png"):
            raise KeyboardInterrupt
        return cv2.imread(path)

    monkeypatch.setattr(demo.Predictor, "read", read)
    status, printed, reported = run("--input", plants, "--csv", tmp_path / "counts.csv", "--batch-size", 1)
    assert status == 130 and printed.startswith("1 images") and "Stopped before the end" in reported
    assert list(counts_of(tmp_path / "counts.csv")) == [str(plants / "a.png")]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--input", "a.png", "--opts", "MODEL.WEIGHTS", ""], "demo: There are no weights: set MODEL.WEIGHTS"),
        (["--input", "a.png", "--opts", "MODEL.WEIGHTS", "no.pth"], "demo: MODEL.WEIGHTS names 'no.pth', which does"),
        (["--input", "a.png", "--opts", "MODEL.WEIGTS", "a.pth"], "demo: The options"),
        (["--input", "a.png", "--opts", "MODEL.WEIGHTS"], "demo: The options MODEL.WEIGHTS are not valid: Override"),
        (["--input", "a.png", "--config-file", "no.yaml"], "demo: The config file 'no.yaml' does not exist"),
        (["--input", "a.png", "--batch-size", "0"], "demo: The batch size is 0"),
        (["--input", "*.nothing"], "demo: No file matches the pattern '*.nothing'"),
        (["--input", "a.png", "b.png", "--output", "c.png"], "demo: The output 'c.png' is one file, but there are 2"),
        (["--input", "c.png", "--output", "."], "demo: The output 'c.png' would replace the input"),
        (["--video-input", "no.mp4"], "demo: The video 'no.mp4' does not exist"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(run, arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, printed, _ = run(*arguments)
    assert isinstance(status, str) and status.startswith(message) and "\n" not in status
    assert printed == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "one of the arguments --input --video-input --webcam is required"),
        (["--webcam"], "--webcam needs --output FILE.mp4 (or --labels, --csv, --json): this is OpenCV's"),
        (["--webcam", "--input", "a.png"], "not allowed with argument"),
        (["--video-input", "clip.mp4", "--steps", "folder"], "--steps draws the steps of images"),
    ],
)
def test_arguments_that_do_not_fit(run, arguments, message):
    status, _, reported = run(*arguments)
    assert status == 2 and message in reported
