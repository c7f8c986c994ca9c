"""Classes of instances from label images made elsewhere."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.modeling import build_model

from rec_attend_d2.modeling.paper.semantic_files import SemanticFiles, build_semantic_files

VALUES = [24, 26]


@pytest.fixture
def folder(tmp_path) -> Path:
    """Label images of two images of 6 x 8 pixels."""
    labels = np.zeros((6, 8), dtype=np.uint8)
    labels[:, :3], labels[2:4, 5:], labels[5, 7] = 24, 26, 7
    (tmp_path / "zurich").mkdir()
    cv2.imwrite(str(tmp_path / "zurich" / "zurich_000_001_gtFine_labelIds.png"), labels)
    cv2.imwrite(str(tmp_path / "plain.png"), labels.T.copy())
    return tmp_path


def test_every_class_has_a_map_and_the_rest_is_background(folder):
    files = SemanticFiles(folder, VALUES)
    maps = files.read("leftImg8bit/val/zurich/zurich_000_001_leftImg8bit.png", (6, 8))
    expected = np.zeros((3, 6, 8))
    expected[1, :, :3] = expected[2, 2:4, 5:] = 1
    expected[0] = 1 - expected[1:].sum(0)
    np.testing.assert_array_equal(maps.numpy(), expected)
    assert files.read("plain.jpg", (8, 6)).shape == (3, 8, 6)


@pytest.mark.parametrize(
    ("file_name", "size", "message"),
    [
        ("other.png", (6, 8), "other.png needs one label image 'other.png' or 'other_.*found: none"),
        ("twice.png", (6, 8), "twice.png needs one label image.*found: twice_a.png, twice_b.png"),
        ("plain.png", (6, 8), r"plain.png .*has the shape \[8, 6\]; expected one channel of \[6, 8\]"),
        ("colour.png", (6, 8), r"colour.png .*has the shape \[6, 8, 3\]"),
        ("broken.png", (6, 8), "broken.png .*cannot be read"),
    ],
)
def test_files_that_do_not_fit_are_named(folder, file_name: str, size: tuple[int, int], message: str):
    for name in ("twice_a", "twice_b"):
        cv2.imwrite(str(folder / f"{name}.png"), np.zeros((6, 8), dtype=np.uint8))
    cv2.imwrite(str(folder / "colour.png"), np.zeros((6, 8, 3), dtype=np.uint8))
    (folder / "broken.png").write_bytes(b"no picture")
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        SemanticFiles(folder, VALUES).read(file_name, size)


def test_settings_that_make_no_sense(folder, tiny_cfg):
    assert build_semantic_files(tiny_cfg()) is None
    with pytest.raises(FileNotFoundError, match="SEM_SEG_DIR names '.*nowhere', which is no folder with PNG"):
        SemanticFiles(folder / "nowhere", VALUES)
    with pytest.raises(ValueError, match="give the pixel value of each class in TEST.SEM_SEG_VALUES"):
        build_semantic_files(tiny_cfg({"TEST.SEM_SEG_DIR": str(folder)}))


def test_instances_get_their_class_from_the_files(tiny_cfg, tmp_path):
    cfg = tiny_cfg({"TEST.SCORE_THRESHOLD": 0.0, "TEST.MASK_THRESHOLD": 0.001})
    height, width = cfg.INPUT.IMAGE_SIZE
    entry = {"image": torch.randint(0, 255, (3, height, width), dtype=torch.uint8), "file_name": "a.png"}
    classes = []
    for value in VALUES:
        cv2.imwrite(str(tmp_path / "a.png"), np.full((2 * height, 2 * width), value, dtype=np.uint8))
        cfg.MODEL.REC_ATTEND.TEST.SEM_SEG_DIR, cfg.MODEL.REC_ATTEND.TEST.SEM_SEG_VALUES = str(tmp_path), VALUES
        torch.manual_seed(0)
        model = build_model(cfg).eval()
        with torch.no_grad():
            (result,) = model([{**entry, "height": 2 * height, "width": 2 * width}])
        classes.append(set(result["instances"].pred_classes.tolist()))
    assert classes == [{0}, {1}]
