"""Weights of an image encoder from Detectron2's .pkl files."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from torch import nn

from rec_attend_d2.checkpoint import load_weights
from rec_attend_d2.config import load_config

ROOT = Path(__file__).resolve().parents[2]
# Small, for a test.
RESNET = {
    "MODEL.DEVICE": "cpu",
    "MODEL.BACKBONE.NAME": "build_resnet_fpn_backbone",
    "MODEL.FPN.IN_FEATURES": ["res2", "res3"],
    "MODEL.RESNETS.OUT_FEATURES": ["res2", "res3"],
    "MODEL.RESNETS.DEPTH": 18,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 64,
    "MODEL.REC_ATTEND.FAST.WIDTH": 0.25,
}


def fast_model(**options) -> nn.Module:
    pairs = [str(part) for pair in (RESNET | options).items() for part in pair]
    return build_model(load_config(ROOT / "configs" / "Fast-RecAttend.yaml", pairs))


def write(path: Path, arrays: dict[str, np.ndarray]) -> str:
    content = {"model": arrays, "__author__": "a test", "matching_heuristics": True}
    path.write_bytes(pickle.dumps(content))
    return str(path)


def test_a_resnet_is_loaded_below_its_pyramid(tmp_path):
    model = fast_model()
    bottom_up = model.preprocessor.backbone.bottom_up
    generator = np.random.default_rng(0)
    arrays = {
        name: generator.normal(size=tensor.shape).astype(np.float32) for name, tensor in bottom_up.state_dict().items()
    }
    # A classifier, which the encoder lacks.
    arrays["fc.weight"] = np.zeros((5, 3), np.float32)
    others = {name: tensor.clone() for name, tensor in model.state_dict().items() if "bottom_up" not in name}
    report = load_weights(model, write(tmp_path / "R-18.pkl", arrays), complete=False)
    for name, tensor in bottom_up.state_dict().items():
        assert torch.equal(tensor, torch.from_numpy(arrays[name]))
    assert set(report.loaded) == {f"preprocessor.backbone.bottom_up.{name}" for name in bottom_up.state_dict()}
    assert "box_proposer" in report.fresh_parts
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in others.items())


def test_weights_of_something_else_are_refused(tmp_path):
    path = write(tmp_path / "other.pkl", {"blocks.0.attention": np.zeros((4, 4), np.float32)})
    with pytest.raises(ValueError, match="other.pkl' holds nothing that fits the image encoder FPN"):
        load_weights(fast_model(), path, complete=False)


class Evil:
    """Runs code when it is unpickled."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def test_a_file_that_would_run_code_is_refused(tmp_path):
    path = tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps({"model": Evil(tmp_path / "ran")}))
    with pytest.raises(ValueError, match="evil.pkl', which is not loaded: it asks for posix.mkdir"):
        load_weights(fast_model(), str(path), complete=False)
    assert not (tmp_path / "ran").exists()


def test_a_file_of_something_else_is_refused(tmp_path):
    path = tmp_path / "text.pkl"
    path.write_text("weights")
    with pytest.raises(ValueError, match="text.pkl', which is not loaded"):
        load_weights(fast_model(), str(path), complete=False)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickles_of_any_age_are_read(tmp_path, protocol: int):
    model = fast_model()
    # Caffe2's names, as in the files of ImageNet weights.
    weight = np.full(model.preprocessor.backbone.bottom_up.stem.conv1.weight.shape, 0.5, np.float32)
    (tmp_path / "R-18.pkl").write_bytes(pickle.dumps({"conv1_w": weight}, protocol))
    report = load_weights(model, str(tmp_path / "R-18.pkl"), complete=False)
    assert "preprocessor.backbone.bottom_up.stem.conv1.weight" in report.loaded
    assert (model.preprocessor.backbone.bottom_up.stem.conv1.weight == 0.5).all()


def test_a_model_without_an_image_encoder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="image encoder, which Linear has not"):
        load_weights(nn.Linear(1, 1), write(tmp_path / "R-18.pkl", {}), complete=False)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.pkl"):
        load_weights(fast_model(), str(tmp_path / "nowhere.pkl"), complete=False)


def test_it_is_no_finished_model(tmp_path):
    with pytest.raises(ValueError, match="from which a training starts"):
        load_weights(fast_model(), write(tmp_path / "R-18.pkl", {}), complete=True)
