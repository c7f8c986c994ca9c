"""tools/train_net.py as a user calls it: stage B, stage C from it, resuming, evaluating, own data, bad input."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

QUICK = "tests/configs"


def train(run_tool, *arguments) -> str:
    """Run the tool, which has to succeed, and return all it printed."""
    process = run_tool("train_net", *arguments)
    assert process.returncode == 0, process.stderr[-3000:]
    return process.stdout + process.stderr


def read_metrics(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]


@pytest.fixture(scope="module")
def stage_b(run_tool, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("stage_b")
    train(run_tool, "--config-file", f"{QUICK}/stage_b.yaml", "OUTPUT_DIR", folder)
    return folder


@pytest.fixture(scope="module")
def stage_c(run_tool, stage_b, tmp_path_factory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("stage_c")
    weights = ["MODEL.WEIGHTS", stage_b / "model_final.pth"]
    printed = train(run_tool, "--config-file", f"{QUICK}/stage_c.yaml", *weights, "OUTPUT_DIR", folder)
    return folder, printed


def test_stage_b_is_scored_by_boxes(stage_b):
    results = json.loads((stage_b / "metrics_final.json").read_text())
    assert set(results) == {"bbox", "box_counting"}
    assert 0 <= results["box_counting"]["best_box_IoU"] <= 1


def test_stage_c_takes_the_box_proposer_and_nothing_else(stage_b, stage_c):
    folder, printed = stage_c
    assert "Parts that start from initial weights, since the file has none: segmentation_head, stop_scorer" in printed
    assert (
        "Not used, since the model has nothing of that name: box_scorer.linear.bias, box_scorer.linear.weight"
        in printed
    )
    first = torch.load(folder / "model_0000001.pth", weights_only=True)
    assert first["iteration"] == 1
    # Two steps of Adam with learning rate 0.001 leave the weights close to those they started from.
    before = torch.load(stage_b / "model_final.pth", weights_only=True)["model"]
    key = "box_proposer.glimpse.lstm.gates.weight"
    assert (first["model"][key] - before[key]).abs().max() < 0.003


def test_stage_c_leaves_results_of_every_kind(stage_c):
    folder, printed = stage_c
    results = json.loads((folder / "metrics_final.json").read_text())
    assert set(results) == {"segm", "counting"}
    assert {"SBD", "FBD", "DiC", "abs_DiC", "count_accuracy", "MUCov", "MWCov", "AvgFP", "AvgFN"} <= set(
        results["counting"]
    )
    table = (folder / "inference" / "rosettes_val" / "counting_per_image.csv").read_text().splitlines()
    assert len(table) == 1 + 60
    assert (folder / "model_best.pth").is_file()
    assert "eta:" in printed


def test_tensorboard_has_losses_count_error_probabilities_and_pictures(stage_c):
    events = EventAccumulator(str(stage_c[0]), size_guidance={"images": 0}).Reload()
    scalars = set(events.Tags()["scalars"])
    assert {"loss_mask", "loss_box", "loss_score", "loss_weight_decay", "total_loss"} <= scalars
    assert {"train/dic_abs", "train/iou_soft", "sampling/box_first_step", "sampling/mask_last_step"} <= scalars
    assert "counting/SBD" in scalars
    picture = events.Images("steps")[-1]
    assert picture.width > 48 and picture.height > 32


def test_resuming_continues_schedule_optimizer_and_best_metric(run_tool, stage_c, tmp_path):
    folder, _ = stage_c
    copy = tmp_path / "resumed"
    copy.mkdir()
    for name in ("model_0000003.pth", "metrics.json"):
        (copy / name).write_bytes((folder / name).read_bytes())
    (copy / "last_checkpoint").write_text("model_0000003.pth")
    arguments = ["--resume", "OUTPUT_DIR", copy, "SOLVER.MAX_ITER", "6", "MODEL.WEIGHTS", ""]
    printed = train(run_tool, "--config-file", f"{QUICK}/stage_c.yaml", *arguments)
    assert "Starting training from iteration 4" in printed
    probabilities = [m["sampling/mask_first_step"] for m in read_metrics(copy) if m["iteration"] == 5]
    # Offset 2, half every 2 iterations: 0.5^((5 - 2) / 2); the writer takes the median of iterations 4 and 5.
    assert probabilities and 0.5**1.5 <= probabilities[0] <= 0.5
    last = torch.load(copy / "model_final.pth", weights_only=True)
    assert last["iteration"] == 5
    steps = {group["steps_taken"] for group in last["trainer"]["_trainer"]["optimizer"]["param_groups"]}
    assert steps == {6}
    best = last["trainer"]["hooks"]["ResumableBestCheckpointer"]
    assert best["best_metric"] is not None and best["best_iter"] in (1, 3, 5)


def test_evaluating_gives_the_results_of_training(run_tool, stage_c, tmp_path):
    folder, _ = stage_c
    arguments = ["--eval-only", "MODEL.WEIGHTS", folder / "model_final.pth", "OUTPUT_DIR", tmp_path]
    train(run_tool, "--config-file", f"{QUICK}/stage_c.yaml", *arguments)
    again = json.loads((tmp_path / "metrics_final.json").read_text())
    before = json.loads((folder / "metrics_final.json").read_text())
    assert again["counting"] == pytest.approx(before["counting"])
    assert again["segm"] == before["segm"]


def test_weights_of_another_configuration_are_refused(run_tool, stage_c, tmp_path):
    arguments = ["--eval-only", "MODEL.WEIGHTS", stage_c[0] / "model_final.pth", "OUTPUT_DIR", tmp_path]
    more_steps = ["MODEL.REC_ATTEND.TIME_STEPS", "5"]
    process = run_tool("train_net", "--config-file", f"{QUICK}/stage_c.yaml", *arguments, *more_steps)
    assert process.returncode != 0
    assert "holds weights of another configuration" in process.stderr
    assert "(3, 4) in the file, (5, 4) in the model" in process.stderr


def make_own_data(folder: Path) -> tuple[Path, Path]:
    """A COCO data set of one's own: three gray images of odd size with a rectangle each, and one without objects."""
    images = folder / "pictures"
    images.mkdir()
    entries, annotations = [], []
    for number in range(4):
        picture = np.full((41, 53), 30, np.uint8)
        mask = np.zeros((41, 53), np.uint8)
        if number < 3:
            mask[5:25, 10 + number : 30] = 1
            rle = coco_mask.encode(np.asfortranarray(mask))
            annotations.append(
                {
                    **{"id": number + 1, "image_id": number, "category_id": 7, "iscrowd": 0, "area": int(mask.sum())},
                    "bbox": coco_mask.toBbox(rle).tolist(),
                    "segmentation": {"size": [41, 53], "counts": rle["counts"].decode()},
                }
            )
        cv2.imwrite(str(images / f"{number}.png"), picture + 150 * mask)
        entries.append({"id": number, "file_name": f"{number}.png", "height": 41, "width": 53})
    content = {"images": entries, "annotations": annotations, "categories": [{"id": 7, "name": "thing"}]}
    (folder / "own.json").write_text(json.dumps(content))
    return folder / "own.json", images


def test_own_data_trains_from_the_command_line(run_tool, tmp_path):
    json_file, images = make_own_data(tmp_path)
    files = f"[['own_train', '{json_file}', '{images}']]"
    names = ["DATASETS.TRAIN", "('own_train',)", "DATASETS.TEST", "('own_train',)"]
    arguments = ["DATASETS.COCO_FILES", files, *names, "MODEL.WEIGHTS", "", "OUTPUT_DIR", tmp_path / "out"]
    train(run_tool, "--config-file", f"{QUICK}/stage_c.yaml", *arguments)
    results = json.loads((tmp_path / "out" / "metrics_final.json").read_text())
    assert results["counting"]["num_images"] == 4


def test_given_angle_and_foreground_maps(run_tool, tmp_path):
    node, inputs = "MODEL.REC_ATTEND", "['image', 'memory', 'angle', 'foreground']"
    maps = [f"{node}.PREPROCESSOR.NAME", "GivenMaps", f"{node}.PREPROCESSOR.ANGLE_BINS", "8"]
    maps += [f"{node}.PREPROCESSOR.FOREGROUND_CLASSES", "1", f"{node}.TEST.USE_FOREGROUND", "True"]
    maps += [f"{node}.BOX_PROPOSER.INPUTS", inputs, f"{node}.SEGMENTATION_HEAD.INPUTS", inputs]
    arguments = ["MODEL.WEIGHTS", "", "OUTPUT_DIR", tmp_path, "SOLVER.MAX_ITER", "2"]
    train(run_tool, "--config-file", f"{QUICK}/stage_c.yaml", *maps, *arguments)
    weights = torch.load(tmp_path / "model_final.pth", weights_only=True)["model"]
    assert weights["box_proposer.control_cnn.layers.0.conv.weight"].shape[1] == 3 + 1 + 8 + 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config-file", "nowhere.yaml"], "config file 'nowhere.yaml' does not exist"),
        (["DATASETS.TRAIN", "('rosetes_train',)"], "DATASETS.TRAIN names the data set 'rosetes_train'"),
        (["--eval-only", "MODEL.WEIGHTS", "nowhere.pth"], "MODEL.WEIGHTS names 'nowhere.pth', which does not exist"),
    ],
)
def test_bad_input_is_named(run_tool, tmp_path, arguments, message):
    config = [] if "--config-file" in arguments else ["--config-file", f"{QUICK}/stage_c.yaml"]
    process = run_tool("train_net", *config, *arguments, "OUTPUT_DIR", tmp_path)
    assert process.returncode != 0
    assert message in process.stderr
