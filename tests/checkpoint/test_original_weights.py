"""Converting the original's weights: names, shapes, options, files and the command line tool."""

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
import yaml
from detectron2.config import get_cfg
from detectron2.modeling import build_model

from rec_attend_d2 import add_rec_attend_config
from rec_attend_d2.checkpoint import convert_original_weights, has_running_statistics, to_original_names

REFERENCE = Path(__file__).resolve().parents[1] / "reference"


def load(name: str) -> tuple[dict[str, np.ndarray], dict]:
    with np.load(REFERENCE / f"{name}.npz", allow_pickle=False) as file:
        weights = {key[2:]: file[key] for key in file.files if key.startswith("w/")}
        return weights, json.loads(file["meta"].item().decode())["opt"]


@pytest.fixture
def leaf() -> tuple[dict[str, np.ndarray], dict]:
    """Weights and options of a full model."""
    return load("full_leaf")


def without_statistics(weights: dict) -> dict:
    return {name: value for name, value in weights.items() if not name.endswith(("ema_mean", "ema_var"))}


@pytest.mark.parametrize(("name", "architecture"), [("full_leaf", "RecAttend"), ("box_leaf", "RecAttendBoxProposer")])
def test_there_and_back(name, architecture):
    weights, options = load(name)
    cfg, state = convert_original_weights(weights, options)
    assert cfg.MODEL.META_ARCHITECTURE == architecture
    model = build_model(cfg)
    model.load_state_dict(state)
    back = to_original_names(model, model.state_dict())
    assert set(back) == set(weights) - {"global_step"}
    for key, value in back.items():
        np.testing.assert_array_equal(value, weights[key], err_msg=key)


def test_names_that_are_not_used_are_reported(leaf, caplog):
    weights, options = leaf
    convert_original_weights({**weights, "colour_net_w_0": np.zeros(3)}, options)
    assert "2 names of the weights were not used: colour_net_w_0, global_step" in caplog.text


def test_a_missing_name_is_an_error_that_lists_it_and_the_unused_ones(leaf):
    weights, options = leaf
    weights["attn_cnn_w_two"] = weights.pop("attn_cnn_w_2")
    with pytest.raises(ValueError, match="lack 1 names.*: attn_cnn_w_2. Names not used: attn_cnn_w_two"):
        convert_original_weights(weights, options)


def test_a_wrong_shape_names_both(leaf):
    weights, options = leaf
    weights["ctrl_mlp_w_0"] = weights["ctrl_mlp_w_0"][:, :7]
    with pytest.raises(ValueError, match=r"'ctrl_mlp_w_0' has shape \(24, 7\).*needs \(9, 24\)"):
        convert_original_weights(weights, options)


def test_missing_statistics_are_said_and_leave_zero_and_one(leaf, caplog):
    weights, options = leaf
    assert has_running_statistics(weights)
    lacking = without_statistics(weights)
    assert not has_running_statistics(lacking)
    _, state = convert_original_weights(lacking, options)
    assert "no running statistics" in caplog.text and "estimate_running_statistics" in caplog.text
    assert state["box_proposer.control_cnn.layers.0.norm.running_mean"].abs().max() == 0
    assert (state["box_proposer.control_cnn.layers.0.norm.running_var"] == 1).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"timespan": None}, "options lack 'timespan'"),
        ({"stop_canvas_grad": False}, "'stop_canvas_grad' is False; only True"),
        ({"ctrl_cnn_filter_size": [5] * 8}, "only 3x3 filters"),
        ({"mlp_dropout": 0.5}, "'mlp_dropout' is 0.5"),
        ({"attn_dcnn_pool": [1, 2, 2, 1, 2, 1, 1]}, r"'attn_dcnn_pool' is .* fit with \[2, 1, 2, 1, 2, 1, 1\]"),
    ],
)
def test_options_without_a_counterpart_are_refused(leaf, change, message):
    weights, options = leaf
    changed = {key: value for key, value in {**options, **change}.items() if key != "timespan" or value is not None}
    with pytest.raises(ValueError, match=message):
        convert_original_weights(weights, changed)


@pytest.mark.parametrize(
    ("change", "path", "value"),
    [
        ({"fixed_var": True}, "ATTENTION.FILTER_VARIANCE", "unit"),
        ({"dynamic_var": True}, "ATTENTION.FILTER_VARIANCE", "learned"),
        ({"fixed_gamma": False}, "ATTENTION.LEARN_GAINS", True),
        ({"squash_ctrl_params": True}, "BOX_PROPOSER.SQUASH", True),
        ({"disable_overwrite": True}, "NO_OVERWRITE", True),
        ({"segm_loss_fn": "wt_cov"}, "LOSS.MASK", "weighted_coverage"),
        ({"box_loss_fn": "huber"}, "LOSS.BOX", "huber"),
        ({"fixed_order": True}, "LOSS.MATCHER", "in_order"),
        ({"use_knob": True}, "SCHEDULED_SAMPLING.ENABLED", True),
        # Stage C compares corners only where it samples.
        ({"use_iou_box": True, "use_knob": True}, "LOSS.BOX_OVERLAP", "corners"),
        ({"use_iou_box": True, "use_knob": False}, "LOSS.BOX_OVERLAP", "maps"),
        ({"use_iou_box": False, "use_knob": True}, "LOSS.BOX_OVERLAP", "maps"),
        ({"padding": 6}, "LOSS.BOX_PADDING_PIXELS", 10.0),
    ],
)
def test_options_reach_the_config(leaf, change, path, value):
    weights, options = leaf
    cfg, _ = convert_original_weights(weights, {**options, **change})
    node = cfg.MODEL.REC_ATTEND
    for key in path.split("."):
        node = node[key]
    assert node == value


def write_h5(path: Path, weights: dict) -> None:
    with h5py.File(path, "w") as file:
        for key, value in weights.items():
            file[key] = value


def read_config(path: Path):
    cfg = get_cfg()
    add_rec_attend_config(cfg)
    cfg.merge_from_file(str(path))
    return cfg


def convert(run_tool, tmp_path: Path, weights: Path, options: Path, *further: str):
    outputs = ["--output", tmp_path / "model.pth", "--config-output", tmp_path / "model.yaml"]
    return run_tool("convert_weights", "--weights", weights, "--options", options, *outputs, *further)


def test_the_tool_converts_h5_and_estimates_statistics(run_tool, leaf, tmp_path):
    weights, options = leaf
    write_h5(tmp_path / "weights.h5", without_statistics(weights))
    (tmp_path / "model_opt.yaml").write_text(yaml.safe_dump(options))
    estimate = ["--estimate-statistics", "rosettes_val"]
    process = convert(run_tool, tmp_path, tmp_path / "weights.h5", tmp_path / "model_opt.yaml", *estimate)
    assert process.returncode == 0, process.stderr[-2000:]
    assert "Estimated running statistics from 60 batches of rosettes_val" in process.stdout

    cfg = read_config(tmp_path / "model.yaml")
    assert cfg.MODEL.WEIGHTS == str(tmp_path / "model.pth")
    state = torch.load(tmp_path / "model.pth", weights_only=True)["model"]
    build_model(cfg).load_state_dict(state)
    key = "box_proposer.control_cnn.layers.0"
    np.testing.assert_array_equal(state[f"{key}.conv.weight"].numpy(), weights["ctrl_cnn_w_0"].transpose(3, 2, 0, 1))
    assert state[f"{key}.norm.running_mean"].abs().max() > 0.01


def test_the_tool_reads_npz_and_json(run_tool, leaf, tmp_path):
    weights, options = leaf
    np.savez(tmp_path / "weights.npz", **weights)
    (tmp_path / "options.json").write_text(json.dumps(options))
    process = convert(run_tool, tmp_path, tmp_path / "weights.npz", tmp_path / "options.json")
    assert process.returncode == 0, process.stderr[-2000:]
    state = torch.load(tmp_path / "model.pth", weights_only=True)["model"]
    _, expected = convert_original_weights(weights, options)
    assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())


def test_the_tool_names_a_bad_file(run_tool, tmp_path):
    (tmp_path / "weights.h5").write_text("no HDF5")
    (tmp_path / "options.json").write_text("{}")
    process = convert(run_tool, tmp_path, tmp_path / "weights.h5", tmp_path / "options.json")
    assert process.returncode != 0
    assert f"'{tmp_path / 'weights.h5'}' can't be read" in process.stderr
