"""tools/publish_weights.py: what it writes, that it works where it lies, and what it refuses."""

import hashlib
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from detectron2.modeling import build_model
from torch.optim.swa_utils import AveragedModel

from rec_attend_d2.config import load_config

ROOT = Path(__file__).resolve().parents[1]
QUICK = ROOT / "tests" / "configs" / "stage_c.yaml"
METRICS = {"segm": {"AP": 12.3456, "AP50": None}, "counting": {"SBD": 0.8125, "abs_DiC": 1.5}}


@pytest.fixture
def tool(monkeypatch, tmp_path):
    """tools/publish_weights.py as a module, which notes what it publishes in ``tmp_path``/index.json."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    module = importlib.import_module("publish_weights")
    (tmp_path / "index.json").write_text('{"older": {"older.pth": "0"}, "quick": {"quick.pth": "0"}}')
    monkeypatch.setattr(module.published, "INDEX", tmp_path / "index.json")
    return module


@pytest.fixture
def training(tmp_path) -> Path:
    """The folder of a training: the quick config on nuclei, with averaged weights that differ from the last ones."""
    folder = tmp_path / "training"
    folder.mkdir()
    options = ["DATASETS.TRAIN", "('nuclei_train',)", "DATASETS.TEST", "('nuclei_val',)", "MODEL.WEIGHTS", ""]
    cfg = load_config(str(QUICK), [*options, "OUTPUT_DIR", str(folder), "MODEL.DEVICE", "cpu"])
    torch.manual_seed(0)
    model = build_model(cfg)
    average = AveragedModel(model)
    with torch.no_grad():
        for parameter in average.parameters():
            parameter.add_(0.25)
    content = {"model": model.state_dict(), "ema": average.state_dict(), "iteration": 3}
    torch.save(content, folder / "model_final.pth")
    (folder / "config.yaml").write_text(cfg.dump())
    (folder / "metrics_final.json").write_text(json.dumps(METRICS))
    (folder / "notes.md").write_text("* Thin objects are cut in two.\n")
    return folder


@pytest.fixture
def publish(tool, training, tmp_path, monkeypatch):
    """Runs the tool on the training with further arguments, the last of which win, and returns the release folder."""

    def run(*arguments: str) -> Path:
        output = tmp_path / "release"
        given = ["--config-file", training / "config.yaml", "--weights", training / "model_final.pth"]
        given += ["--results", training / "metrics_final.json", "--notes", training / "notes.md"]
        given += ["--name", "quick", "--output", output, *arguments]
        monkeypatch.setattr(sys, "argv", ["publish_weights.py", *map(str, given)])
        tool.main()
        return output

    return run


def write_nuclei(root: Path) -> None:
    """A validation set of two small images with a square each, in place of the nuclei."""
    images, annotations = [], []
    (root / "nuclei" / "images").mkdir(parents=True)
    for number in range(2):
        picture = np.full((24, 32), 30, np.uint8)
        picture[4:16, 6:20] = 200
        cv2.imwrite(str(root / "nuclei" / "images" / f"{number}.png"), picture)
        images.append({"id": number, "file_name": f"{number}.png", "height": 24, "width": 32})
        square = {"bbox": [6, 4, 14, 12], "area": 168, "segmentation": [[6, 4, 20, 4, 20, 16, 6, 16]], "iscrowd": 0}
        annotations.append({"id": number + 1, "image_id": number, "category_id": 1, **square})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "nucleus"}]}
    (root / "nuclei" / "val.json").write_text(json.dumps(content))


def test_the_averaged_weights_alone_are_published(publish, training):
    published = torch.load(publish() / "quick.pth", weights_only=True)
    assert published.keys() == {"model"}
    trained = torch.load(training / "model_final.pth", weights_only=True)
    assert published["model"].keys() == trained["model"].keys()
    for name, tensor in published["model"].items():
        assert torch.equal(tensor, trained["ema"][f"module.{name}"]), name
    assert not torch.equal(published["model"]["stop_scorer.linear.bias"], trained["model"]["stop_scorer.linear.bias"])


def test_the_config_is_complete_and_names_no_place(publish, training, tmp_path):
    folder = publish()
    text = (folder / "quick.yaml").read_text()
    assert str(tmp_path) not in text
    settings = yaml.safe_load(text)
    assert "_BASE_" not in settings
    assert (settings["MODEL"]["WEIGHTS"], settings["MODEL"]["DEVICE"]) == ("quick.pth", "cuda")
    cfg = load_config(str(folder / "quick.yaml"), ["OUTPUT_DIR", str(training), "MODEL.WEIGHTS", ""])
    trained = load_config(str(training / "config.yaml"), [])
    cfg.MODEL.DEVICE = trained.MODEL.DEVICE
    assert cfg == trained


def test_the_card_says_what_was_trained_and_how_well(publish, training):
    card = (publish("--minutes", "21.5") / "quick.md").read_text()
    assert "BBBC038v1" in card and "CC0 1.0" in card and "Code and weights: Apache License 2.0" in card
    assert "python tools/train_net.py --config-file quick.yaml MODEL.WEIGHTS ''" in card
    assert "* 4 iterations, 2 images each." in card
    assert "Training time, measured: 21.5 minutes." in card
    assert "Averaged weights" in card
    lines = [" ".join(line.split()) for line in card.splitlines()]
    assert "| | nuclei_val |" in lines
    assert {"| AP | 12.3 |", "| SBD | 0.812 |", "| \\|DiC\\| | 1.5 |"} <= set(lines)
    assert not [line for line in lines if line.startswith("| AP50")]
    assert card.endswith("## Known failures\n\n* Thin objects are cut in two.\n")


def test_weights_without_average_and_a_config_of_the_project(publish, training, tmp_path):
    content = torch.load(training / "model_final.pth", weights_only=True)
    torch.save({"model": content["model"], "iteration": 1}, tmp_path / "alone.pth")
    folder = publish("--config-file", str(QUICK), "--weights", str(tmp_path / "alone.pth"))
    published = torch.load(folder / "quick.pth", weights_only=True)["model"]
    assert torch.equal(published["stop_scorer.linear.bias"], content["model"]["stop_scorer.linear.bias"])
    card = (folder / "quick.md").read_text()
    assert "`python tools/train_net.py --config-file tests/configs/stage_c.yaml`" in card
    assert "* 2 of 4 iterations, 2 images each." in card
    assert "Started from `./output/quick_stage_b/model_final.pth`." in card
    assert "Weights as trained." in card and "Training time" not in card
    assert "Procedural plants" in card


def test_checksums_of_all_models_of_the_folder(publish):
    folder = publish()
    first = (folder / "SHA256SUMS").read_text().splitlines()
    publish("--name", "again")
    lines = (folder / "SHA256SUMS").read_text().splitlines()
    assert set(first) < set(lines)
    assert [line.split("  ")[1] for line in lines] == [
        *("again.md", "again.pth", "again.yaml", "quick.md", "quick.pth", "quick.yaml")
    ]
    for line in lines:
        value, name = line.split("  ")
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == value


def test_the_package_learns_which_files_were_published(publish, tmp_path):
    folder = publish()
    sums = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in ("quick.pth", "quick.yaml")}
    assert json.loads((tmp_path / "index.json").read_text()) == {"older": {"older.pth": "0"}, "quick": sums}


def test_it_evaluates_in_its_folder_as_the_card_says(publish, tmp_path):
    folder = publish()
    write_nuclei(tmp_path / "data")
    environment = {**os.environ, "DETECTRON2_DATASETS": str(tmp_path / "data"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "tools" / "train_net.py"), "--config-file", "quick.yaml", "--eval-only"]
    command += ["OUTPUT_DIR", str(tmp_path / "evaluated")]
    process = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr[-3000:]
    results = json.loads((tmp_path / "evaluated" / "metrics_final.json").read_text())
    assert results["counting"]["num_images"] == 2


def test_large_weights_are_kept_out_of_git(tool, publish, tmp_path, monkeypatch):
    monkeypatch.setattr(tool, "MAX_BYTES", 1000)
    publish()
    monkeypatch.setattr(tool, "GIT_FOLDER", tmp_path / "weights")
    with pytest.raises(SystemExit, match=r"those in git may take 0 MB. Publish them in a release alone"):
        publish("--output", str(tmp_path / "weights"))
    assert list((tmp_path / "weights").iterdir()) == []


def test_weights_of_another_config_are_refused(publish, training):
    with pytest.raises(SystemExit, match=r"was trained with other DATASETS.TEST, DATASETS.TRAIN than --config-file"):
        publish("--config-file", str(QUICK))
    (training / "config.yaml").unlink()
    other = load_config(str(QUICK), ["MODEL.REC_ATTEND.TIME_STEPS", "5"])
    (training / "other.yaml").write_text(other.dump())
    with pytest.raises(SystemExit, match="holds weights of another configuration"):
        publish("--config-file", str(training / "other.yaml"))


def test_a_tensor_that_was_written_wrongly_is_found(tool, publish, training):
    folder = publish()
    content = torch.load(folder / "quick.pth", weights_only=True)
    content["model"]["stop_scorer.linear.bias"] += 1
    torch.save(content, folder / "quick.pth")
    with pytest.raises(tool.PublishError, match="stop_scorer.linear.bias"):
        tool.check_published(folder / "quick.yaml", folder / "quick.pth", training / "model_final.pth")


def test_paths_of_the_machine_are_refused(publish, training, tmp_path):
    cfg = load_config(str(training / "config.yaml"), [])
    cfg.DATASETS.COCO_FILES = [["mine_train", str(tmp_path / "mine.json"), "images"]]
    (training / "config.yaml").write_text(cfg.dump())
    with pytest.raises(SystemExit, match="paths of this machine; make them relative: DATASETS.COCO_FILES"):
        publish()


def test_data_of_ones_own_have_to_be_described(publish, training):
    cfg = load_config(str(training / "config.yaml"), ["DATASETS.TRAIN", "('mine_train',)"])
    (training / "config.yaml").write_text(cfg.dump())
    with pytest.raises(SystemExit, match="Nothing is known of the data mine: say what they are with --data"):
        publish()
    assert "* Data: Pebbles. CC BY 4.0." in (publish("--data", "Pebbles. CC BY 4.0.") / "quick.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--name", "../quick"], "--name is '../quick'"),
        (["--weights", "nowhere.pth"], "--weights names 'nowhere.pth', which does not exist"),
        (["--config-file", "nowhere.yaml"], "config file 'nowhere.yaml' does not exist"),
    ],
)
def test_wrong_arguments_are_named(publish, tmp_path, arguments, message):
    with pytest.raises(SystemExit, match=message):
        publish(*arguments)
    assert not (tmp_path / "release").exists()


def test_results_of_something_else_are_refused(publish, training):
    (training / "metrics_final.json").write_text(json.dumps({"sem_seg": {"mIoU": 1.0}}))
    with pytest.raises(SystemExit, match="--results holds no figure"):
        publish()
