"""The fast recipe as a user calls it: training on single glances, resuming, evaluating."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from rec_attend_d2.checkpoint.loading import read_object_size

QUICK = "tests/configs/fast.yaml"


def train(run_tool, *arguments) -> str:
    """Run the tool, which has to succeed, and return all it printed."""
    process = run_tool("train_net", "--config-file", QUICK, *arguments)
    assert process.returncode == 0, process.stderr[-3000:]
    return process.stdout + process.stderr


def saved_object_size(folder: Path) -> float:
    """INPUT.OBJECT_SIZE of the config.yaml in an output folder."""
    return yaml.safe_load((folder / "config.yaml").read_text())["INPUT"]["OBJECT_SIZE"]


@pytest.fixture(scope="module")
def trained(run_tool, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("fast")
    train(run_tool, "OUTPUT_DIR", folder, "INPUT.OBJECT_SIZE", "0.0")
    return folder


def test_the_measured_width_of_objects_is_kept_with_config_and_weights(trained):
    size = saved_object_size(trained)
    assert 5 < size < 60  # leaves in pictures of 128
    for name in ("model_final.pth", "model_0000003.pth"):
        assert read_object_size(str(trained / name)) == pytest.approx(size)


def test_training_leaves_results_losses_and_pictures(trained):
    results = json.loads((trained / "metrics_final.json").read_text())
    assert set(results) == {"segm", "counting"}
    assert results["counting"]["num_images"] == 60
    events = EventAccumulator(str(trained), size_guidance={"images": 0}).Reload()
    losses = {"loss_place", "loss_object", "loss_box", "loss_mask", "loss_score", "total_loss"}
    statistics = {"train/dice", "train/box_iou", "train/score_acc", "train/stop_share"}
    assert losses | statistics | {"max_mem_mb"} <= set(events.Tags()["scalars"])
    assert 100 < events.Scalars("max_mem_mb")[-1].value < 10_000
    assert events.Images("steps")[-1].width > 64


def test_resuming_continues_the_schedule(run_tool, trained, tmp_path):
    (tmp_path / "model_0000003.pth").write_bytes((trained / "model_0000003.pth").read_bytes())
    (tmp_path / "last_checkpoint").write_text("model_0000003.pth")
    options = ["OUTPUT_DIR", tmp_path, "SOLVER.MAX_ITER", "6", "INPUT.OBJECT_SIZE", "0.0"]
    printed = train(run_tool, "--resume", *options)
    assert "Starting training from iteration 4" in printed
    before, after = (
        torch.load(folder / name, weights_only=True)
        for folder, name in ((trained, "model_0000003.pth"), (tmp_path, "model_final.pth"))
    )
    assert after["iteration"] == 5
    assert (before["ema"]["n_averaged"], after["ema"]["n_averaged"]) == (4, 6)
    # Two steps of AdamW with a learning rate of at most 0.002 leave the weights close to the checkpoint's.
    name = "box_proposer.place.weight"
    change = (after["model"][name] - before["model"][name]).abs().max().item()
    assert 0 < change < 0.005


def test_evaluating_gives_the_results_of_training(run_tool, trained, tmp_path):
    # The width of objects is that of the weights, so that the training data need not be there.
    options = ["INPUT.OBJECT_SIZE", "0.0", "DATASETS.TRAIN", "()", "OUTPUT_DIR", tmp_path]
    train(run_tool, "--eval-only", "MODEL.WEIGHTS", trained / "model_final.pth", *options)
    sizes = [
        yaml.safe_load((folder / "config.yaml").read_text())["INPUT"]["OBJECT_SIZE"] for folder in (trained, tmp_path)
    ]
    assert sizes[1] == pytest.approx(sizes[0])
    again = json.loads((tmp_path / "metrics_final.json").read_text())
    before = json.loads((trained / "metrics_final.json").read_text())
    assert again["counting"] == pytest.approx(before["counting"])
    assert again["segm"] == before["segm"]
