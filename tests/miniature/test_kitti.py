"""The rendered streets in the tree of KITTI's cars."""

import filecmp
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from miniature.kitti import write_kitti


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("kitti")
    write_kitti(root, {"train": 4, "valid_man": 2, "test_man": 1}, size=(40, 120))
    return root / "kitti"


def listed(folder: Path, split: str) -> list[str]:
    return [f"{int(line):06d}.png" for line in (folder / f"{split}.txt").read_text().splitlines()]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_tree(folder):
    assert names(folder) == ["gt", "gt_man", "images", "test_man.txt", "train.txt", "valid_man.txt"]
    train, val, test = (listed(folder, split) for split in ("train", "valid_man", "test_man"))
    assert (len(train), len(val), len(test)) == (4, 2, 1)
    assert names(folder / "images") == sorted(train + val + test)
    assert names(folder / "gt") == train
    assert names(folder / "gt_man") == sorted(val + test)


def test_pictures(folder):
    for path in [*(folder / "gt").iterdir(), *(folder / "gt_man").iterdir()]:
        label, image = Image.open(path), Image.open(folder / "images" / path.name)
        assert (label.mode, image.mode, label.size, image.size) == ("L", "RGB", (120, 40), (120, 40))
        values = np.unique(np.asarray(label)).tolist()
        assert values == list(range(len(values)))
    assert sum(np.asarray(Image.open(path)).max() for path in (folder / "gt").iterdir()) >= 4


def test_the_same_arguments_give_the_same_files(folder, tmp_path):
    write_kitti(tmp_path, {"train": 4, "valid_man": 2, "test_man": 1}, size=(40, 120))
    files = [path.relative_to(folder) for path in folder.rglob("*.*")]
    assert filecmp.cmpfiles(folder, tmp_path / "kitti", files, shallow=False) == (files, [], [])
