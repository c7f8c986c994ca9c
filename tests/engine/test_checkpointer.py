"""Checkpoints and an interruption while they are written."""

import logging
from pathlib import Path

import pytest
import torch
from torch import nn

from rec_attend_d2.engine.checkpointer import BEST_NAME, SafeCheckpointer


@pytest.fixture
def checkpointer(tmp_path) -> SafeCheckpointer:
    return SafeCheckpointer(nn.Linear(2, 1), str(tmp_path))


def break_file(path: Path) -> None:
    """Leave the first half, as an interrupted write does."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def test_save_and_load(checkpointer, tmp_path):
    checkpointer.save("model_0000004", iteration=4)
    assert (tmp_path / "last_checkpoint").read_text() == "model_0000004.pth"
    other = SafeCheckpointer(nn.Linear(2, 1), str(tmp_path))
    assert other.resume_or_load("", resume=True)["iteration"] == 4
    assert torch.equal(other.model.weight, checkpointer.model.weight)


def test_the_best_checkpoint_is_not_the_one_to_go_on_from(checkpointer, tmp_path):
    checkpointer.save("model_0000004")
    checkpointer.save(BEST_NAME)
    assert checkpointer.get_checkpoint_file() == str(tmp_path / "model_0000004.pth")
    assert (tmp_path / "model_best.pth").is_file()


def flip_bit(path: Path) -> None:
    """Change a bit of the weights, which PyTorch does not notice."""
    content = bytearray(path.read_bytes())
    content[content.index(torch.load(path, weights_only=True)["model"]["weight"].numpy().tobytes()) + 3] ^= 64
    path.write_bytes(content)


DAMAGES = {"no last_checkpoint": None, "empty last_checkpoint": b"", "binary last_checkpoint": b"\xff\x00\xfe"}


@pytest.mark.parametrize("damage", ["broken", "flipped", "missing", *DAMAGES])
def test_a_broken_checkpoint_is_passed_over(checkpointer, tmp_path, caplog, damage):
    for number in (9, 10, 99999999):
        checkpointer.save(f"model_{number:07}", iteration=number)
    last = tmp_path / "model_99999999.pth"
    if damage == "broken":
        break_file(last)
    elif damage == "flipped":
        flip_bit(last)
    elif damage == "missing":
        last.unlink()
    else:
        break_file(last)
        (tmp_path / "last_checkpoint").unlink()
        if DAMAGES[damage] is not None:
            (tmp_path / "last_checkpoint").write_bytes(DAMAGES[damage])
    with caplog.at_level(logging.WARNING):
        assert checkpointer.has_checkpoint()
        assert checkpointer.resume_or_load("", resume=True)["iteration"] == 10
    assert f"going on from '{tmp_path / 'model_0000010.pth'}'" in caplog.text
    if damage in ("broken", "flipped", "missing"):
        assert f"'{last}' (named by last_checkpoint) is missing or broken" in caplog.text


def test_nothing_to_go_on_from(checkpointer, tmp_path, caplog):
    assert not checkpointer.has_checkpoint() and caplog.text == ""
    checkpointer.save("model_0000001")
    break_file(tmp_path / "model_0000001.pth")
    with caplog.at_level(logging.WARNING):
        assert not checkpointer.has_checkpoint()
    assert "there is no checkpoint to go on from" in caplog.text


def test_nothing_is_written_without_a_folder():
    SafeCheckpointer(nn.Linear(2, 1), "").save("model")
    assert not Path("model.pth").exists()
