"""Flipped bits in weights."""

import random
from pathlib import Path

import pytest
import torch

from rec_attend_d2.checkpoint.integrity import find_damage, is_whole
from rec_attend_d2.checkpoint.loading import read_checkpoint


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    torch.manual_seed(0)
    torch.save({"model": {"a.weight": torch.randn(20), "b.weight": torch.randn(3, 3)}}, tmp_path / "model.pth")
    return tmp_path / "model.pth"


def flip(path: Path, place: int) -> None:
    """Change a bit of a file."""
    content = bytearray(path.read_bytes())
    content[place // 8] ^= 1 << place % 8
    path.with_name(f"{place}.pth").write_bytes(content)


def test_a_flipped_bit_is_found_or_changes_nothing(checkpoint):
    before, _ = read_checkpoint(str(checkpoint))
    assert is_whole(str(checkpoint)) and find_damage(str(checkpoint)) == ""
    bits = random.Random(0).sample(range(8 * checkpoint.stat().st_size), 400)
    found = 0
    for place in bits:
        flip(checkpoint, place)
        try:
            after, _ = read_checkpoint(str(checkpoint.with_name(f"{place}.pth")))
        except ValueError:
            found += 1
        else:
            assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)
    assert found > 100


def test_a_changed_weight_is_named(checkpoint):
    content = checkpoint.read_bytes()
    weight = torch.load(checkpoint, weights_only=True)["model"]["a.weight"]
    flip(checkpoint, 8 * content.index(weight.numpy().tobytes()) + 30)  # the exponent of the first
    damaged = checkpoint.with_name(next(path.name for path in checkpoint.parent.iterdir() if path != checkpoint))
    with pytest.raises(
        ValueError, match=f"MODEL.WEIGHTS names '{damaged}', which is damaged: the checksum of its part"
    ):
        read_checkpoint(str(damaged), "MODEL.WEIGHTS")
    assert not is_whole(str(damaged))


def test_what_is_no_archive_has_no_checksums(tmp_path):
    path = tmp_path / "old.pth"
    torch.save({"a": torch.ones(2)}, path, _use_new_zipfile_serialization=False)
    assert find_damage(str(path)) == "" and not is_whole(str(path))
    assert torch.equal(read_checkpoint(str(path))[0]["a"], torch.ones(2))
    assert not is_whole(str(tmp_path / "nowhere.pth"))
