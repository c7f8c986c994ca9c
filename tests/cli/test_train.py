"""``rec-attend train``: from a folder of pictures to a model, and on after an interruption."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from rec_attend_d2.cli import main
from rec_attend_d2.prediction import Predictor


@pytest.fixture(scope="module")
def trained(rec_attend, discs, tmp_path_factory) -> tuple[Path, str]:
    """The folder of a model that was trained for seconds, and what was printed."""
    folder = tmp_path_factory.mktemp("trained") / "nuclei"  # also the name of a data set
    paths = ("--images", discs / "images", "--labels", discs / "labels", "--output", folder)
    done = rec_attend("train", *paths, "--minutes", 0.5)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_a_folder_becomes_a_model(trained, discs):
    folder, said = trained
    for name in ("plan.yaml", "config.yaml", "model.pth", "README.md", "report.html", "evaluation.csv"):
        assert (folder / name).is_file(), name
    assert "rec-attend count --model" in said and "Validation: 2 of 10 pictures" in said
    plan = yaml.safe_load((folder / "plan.yaml").read_text())
    assert plan["settings"]["INPUT.OBJECT_SIZE"]["value"] == pytest.approx(8.2, abs=0.5)
    # No path of this machine is in the config of the model.
    assert str(discs) not in (folder / "config.yaml").read_text()
    # The model counts as the report says that it does.
    predictor = Predictor(folder / "config.yaml", folder / "model.pth")
    pictures = json.loads((folder / "evaluation.json").read_text())["pictures"]
    assert {Path(picture["file_name"]).name for picture in pictures} == set(plan["validation"])
    for picture in pictures:
        found = predictor.predict([predictor.read(picture["file_name"])])[0]
        assert (found.count, picture["true_count"]) == (picture["predicted_count"], 6)


def test_a_finished_training_says_so(trained, discs, rec_attend):
    folder, _ = trained
    paths = ("--images", discs / "images", "--labels", discs / "labels", "--output", folder)
    before = (folder / "model.pth").stat().st_mtime_ns
    done = rec_attend("train", *paths, "--minutes", 0.5)
    assert done.returncode == 0 and "is finished" in done.stdout
    assert (folder / "model.pth").stat().st_mtime_ns == before
    other = rec_attend("train", *paths, "--minutes", 2)
    assert other.returncode == 1 and "other minutes" in other.stderr and "--overwrite" in other.stderr


def test_an_interrupted_training_goes_on(discs, tmp_path):
    folder = tmp_path / "model"
    command = [sys.executable, "-m", "rec_attend_d2.cli", "train", "--images", discs / "images"]
    command += ["--labels", discs / "labels", "--output", folder, "--minutes", "0.6"]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    checkpoint = folder / "training" / "last_checkpoint"
    end = time.monotonic() + 300
    while not checkpoint.is_file() and process.poll() is None and time.monotonic() < end:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert checkpoint.is_file() and not (folder / "report.html").exists()
    validation = yaml.safe_load((folder / "plan.yaml").read_text())["validation"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert "Going on with" in done.stdout and (folder / "report.html").is_file()
    assert yaml.safe_load((folder / "plan.yaml").read_text())["validation"] == validation
    log = (folder / "training" / "log.txt").read_text()
    assert "Starting training from iteration 0" in log and log.count("Starting training from iteration") >= 3


def test_an_edited_plan_is_followed(trained, discs, tmp_path, monkeypatch):
    content = yaml.safe_load((trained[0] / "plan.yaml").read_text())
    content["settings"]["INPUT.OBJECT_PIXELS"] = 10
    content["settings"]["SOLVER.BASE_LR"] = 0.001
    (tmp_path / "edited.yaml").write_text(yaml.safe_dump(content))
    monkeypatch.setattr("rec_attend_d2.cli.train.train_for", _raise_config)
    with pytest.raises(_Config) as caught:
        main(["train", "--plan", str(tmp_path / "edited.yaml"), "--output", str(tmp_path / "edited")])
    cfg = caught.value.args[0]
    assert (cfg.INPUT.OBJECT_PIXELS, cfg.SOLVER.BASE_LR) == (10.0, 0.001)


class _Config(Exception):
    pass


def _raise_config(cfg, *_):
    raise _Config(cfg)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--output", "o"], "Say where the pictures are"),
        (["--images", "none", "--labels", "l", "--output", "o"], "l does not exist"),
        (["--images", "i", "--labels", "i", "--output", "o"], "in the same folder i: tell them apart"),
        (["--images", "i", "--labels", "l", "--coco", "c", "--output", "o"], "not both"),
        (["--images", "i", "--labels", "l", "--minutes", "0", "--output", "o"], "The time is 0.0 minutes"),
        (["--images", "i", "--labels", "l", "--val-images", "v", "--output", "o"], "--val-images needs"),
        (["--plan", "none.yaml", "--output", "o"], "The plan 'none.yaml' does not exist"),
        (["--plan", "p", "--images", "i", "--output", "o"], "--plan says itself where its data are"),
        (["--plan", "p", "--split-components", "--output", "o"], "leave out --split-components"),
    ],
)
def test_wrong_words_are_one_line(words, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(["train", *words])
    text = str(stopped.value)
    assert text.startswith("rec-attend train: ") and message in text and "\n" not in text


def test_nothing_of_the_users_is_written_over(discs, tmp_path, monkeypatch):
    folder = tmp_path / "project"
    for name in ("images", "labels"):
        (folder / "training" / "data" / name).mkdir(parents=True)
    (folder / "README.md").write_text("mine")
    data = folder / "training" / "data"
    before = sorted(folder.rglob("*"))
    inside = ["train", "--images", data / "images", "--labels", data / "labels", "--output", folder, "--overwrite"]
    with pytest.raises(SystemExit, match="lies where the training writes its own files"):
        main(list(map(str, inside)))
    paths = ["--images", discs / "images", "--labels", discs / "labels"]
    with pytest.raises(SystemExit, match="has README.md, training, which no rec-attend train wrote"):
        main(list(map(str, ["train", *paths, "--output", folder, "--overwrite"])))
    assert sorted(folder.rglob("*")) == before and (folder / "README.md").read_text() == "mine"


def test_a_plan_of_the_same_folder_is_refused(trained):
    plan = trained[0] / "plan.yaml"
    before = plan.read_text()
    with pytest.raises(SystemExit, match="name another --output"):
        main(["train", "--plan", str(plan), "--output", str(trained[0]), "--overwrite"])
    assert plan.read_text() == before


def test_other_ways_to_read_labels_are_another_training(trained, discs):
    paths = ["--images", discs / "images", "--labels", discs / "labels", "--output", trained[0], "--minutes", 0.5]
    with pytest.raises(SystemExit, match="another way to read them"):
        main(list(map(str, ["train", *paths, "--keep-components"])))
