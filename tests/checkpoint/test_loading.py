"""Loading weights: what is reported and what is refused."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from rec_attend_d2.checkpoint import load_weights
from rec_attend_d2.checkpoint.files import save_inference_weights
from rec_attend_d2.checkpoint.loading import read_object_size


class Model(nn.Module):
    """Two parts."""

    def __init__(self, width: int = 3):
        super().__init__()
        self.proposer = nn.Linear(2, width)
        self.head = nn.Linear(width, 1)

    def forward(self, x):
        return self.head(self.proposer(x))


@pytest.fixture
def save(tmp_path):
    def save_weights(weights: dict) -> str:
        path = tmp_path / "weights.pth"
        torch.save({"model": weights, "iteration": 7}, path)
        return str(path)

    return save_weights


def test_everything(save):
    source, target = Model(), Model()
    report = load_weights(target, save(source.state_dict()), complete=True)
    assert torch.equal(source.head.weight, target.head.weight)
    assert (len(report.loaded), report.fresh_parts, report.unused, report.averaged) == (4, [], [], False)


def test_a_missing_part_stays_as_it_is(save):
    source, target = Model(), Model()
    before = target.head.weight.clone()
    weights = {key: value for key, value in source.state_dict().items() if key.startswith("proposer")}
    report = load_weights(target, save({**weights, "scorer.w": torch.ones(1)}), complete=False)
    assert torch.equal(source.proposer.weight, target.proposer.weight)
    assert torch.equal(before, target.head.weight)
    assert (report.fresh_parts, report.unused) == (["head"], ["scorer.w"])


def test_evaluation_wants_all_parts(save):
    weights = {key: value for key, value in Model().state_dict().items() if key.startswith("proposer")}
    with pytest.raises(ValueError, match="head.weight: not in the file"):
        load_weights(Model(), save(weights), complete=True)


def test_the_width_of_objects_is_read_but_not_loaded(save):
    """A model keeps that of its config; weights may say another, or nothing."""
    source, target = Model(), Model()
    for model, size in ((source, 17.5), (target, 30.0)):
        model.register_buffer("object_size", torch.tensor(size))
    path = save(source.state_dict())
    assert read_object_size(path) == 17.5
    report = load_weights(target, path, complete=True)
    assert target.object_size == 30.0 and torch.equal(source.head.weight, target.head.weight)
    assert (len(report.loaded), report.fresh_parts, report.unused) == (4, [], [])
    path = save(Model().state_dict())
    assert read_object_size(path) == 0.0
    assert load_weights(target, path, complete=True).fresh_parts == []
    assert target.object_size == 30.0


def test_half_a_part_is_refused(save):
    weights = Model().state_dict()
    del weights["head.bias"]
    with pytest.raises(ValueError, match="head.bias: not in the file"):
        load_weights(Model(), save(weights), complete=False)


def test_other_shapes_are_refused_and_nothing_is_loaded(save):
    target = Model()
    before = {key: value.clone() for key, value in target.state_dict().items()}
    with pytest.raises(ValueError, match=r"proposer.weight: \(4, 2\) in the file, \(3, 2\) in the model"):
        load_weights(target, save(Model(width=4).state_dict()), complete=False)
    assert all(torch.equal(before[key], value) for key, value in target.state_dict().items())


def test_files_that_are_no_checkpoints(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.pth"):
        load_weights(Model(), str(tmp_path / "nowhere.pth"), complete=True)
    (tmp_path / "text.pth").write_text("no checkpoint")
    with pytest.raises(ValueError, match="text.pth', which is no checkpoint"):
        load_weights(Model(), str(tmp_path / "text.pth"), complete=True)


def make_averaged_checkpoint(path: Path, raw: nn.Module, averaged: nn.Module) -> None:
    optimizer = torch.optim.AdamW(raw.parameters())
    raw(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    state = AveragedModel(averaged).state_dict()
    torch.save({"model": raw.state_dict(), "ema": state, "trainer": {"optimizer": optimizer.state_dict()}}, path)


def test_averaged_weights_are_taken_where_there_are_some(tmp_path, caplog):
    averaged, target = Model(), Model()
    make_averaged_checkpoint(tmp_path / "trained.pth", Model(), averaged)
    with caplog.at_level("INFO"):
        report = load_weights(target, str(tmp_path / "trained.pth"), complete=True)
    assert report.averaged and report.unused == []
    assert "(averaged weights)" in caplog.text
    assert all(torch.equal(value, target.state_dict()[key]) for key, value in averaged.state_dict().items())


@pytest.mark.parametrize("with_average", [True, False])
def test_a_file_for_inference_holds_the_weights_alone(tmp_path, with_average):
    raw, averaged, target = Model(width=200), Model(width=200), Model(width=200)
    trained, small = tmp_path / "trained.pth", tmp_path / "new" / "small.pth"
    make_averaged_checkpoint(trained, raw, averaged)
    if not with_average:
        content = torch.load(trained, weights_only=True)
        del content["ema"]
        torch.save(content, trained)
    assert save_inference_weights(str(trained), str(small)) is with_average
    assert list(torch.load(small, weights_only=True)) == ["model"]
    assert small.stat().st_size < trained.stat().st_size / 2
    load_weights(target, str(small), complete=True)
    expected = averaged if with_average else raw
    assert all(torch.equal(value, target.state_dict()[key]) for key, value in expected.state_dict().items())


def test_a_file_for_inference_never_replaces_the_checkpoint(tmp_path):
    path = tmp_path / "trained.pth"
    make_averaged_checkpoint(path, Model(), Model())
    before = path.read_bytes()
    with pytest.raises(ValueError, match="is the checkpoint itself"):
        save_inference_weights(str(path), str(tmp_path / "." / "trained.pth"))
    assert path.read_bytes() == before
    with pytest.raises(FileNotFoundError, match="nowhere.pth' does not exist"):
        save_inference_weights(str(tmp_path / "nowhere.pth"), str(tmp_path / "small.pth"))
    assert not (tmp_path / "small.pth").exists()
