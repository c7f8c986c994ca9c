"""Loading weights: what is reported and what is refused."""

import pytest
import torch
from torch import nn

from rec_attend_d2.checkpoint import load_weights


class Model(nn.Module):
    """Two parts."""

    def __init__(self, width: int = 3):
        super().__init__()
        self.proposer = nn.Linear(2, width)
        self.head = nn.Linear(width, 1)


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
    assert (len(report.loaded), report.fresh_parts, report.unused) == (4, [], [])


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
