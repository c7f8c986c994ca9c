"""Groups of images and objects, and what occlusion is."""

import numpy as np
import pytest
from detectron2.data import DatasetCatalog

from rec_attend_d2.benchmark.groups import contact_shares, quality_by_group
from rec_attend_d2.data.datasets import register_coco_files


def rectangles(*boxes: tuple[int, int, int, int]) -> np.ndarray:
    """Masks bool [N, 20, 20] of boxes (top, left, bottom, right)."""
    masks = np.zeros((len(boxes), 20, 20), bool)
    for mask, (top, left, bottom, right) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = True
    return masks


def test_contact_is_the_share_of_the_boundary_near_others():
    # 4 x 4 pixels have a boundary of 12. The first two share a side; of each the last two columns are near: 2 * 2 + 2
    # boundary pixels outside the side itself, of which the side has 4.
    assert contact_shares(rectangles((4, 4, 8, 8), (4, 8, 8, 12))) == pytest.approx([6 / 12, 6 / 12])
    # One pixel between them: only the side is near. Two pixels: nothing.
    assert contact_shares(rectangles((4, 4, 8, 8), (4, 9, 8, 13))) == pytest.approx([4 / 12, 4 / 12])
    assert contact_shares(rectangles((4, 4, 8, 8), (4, 10, 8, 14))) == pytest.approx([0, 0])


def test_contact_of_one_inside_another_and_at_the_border():
    outer, inner = contact_shares(rectangles((0, 0, 12, 12), (4, 4, 8, 8)))
    assert inner == 1 and outer == 0
    # At the image's border an object has no boundary: 4 + 4 - 1 pixels are left, and none without neighbours touches.
    assert contact_shares(rectangles((0, 0, 4, 4))).tolist() == [0]
    assert contact_shares(rectangles((0, 0, 4, 4), (0, 4, 4, 8)))[0] == pytest.approx(5 / 7)
    assert contact_shares(rectangles((0, 0, 20, 20))).tolist() == [0]
    assert contact_shares(np.zeros((0, 20, 20), bool)).shape == (0,)


def test_quality_by_group(squares):
    register_coco_files([["squares_groups", str(squares / "squares.json"), str(squares)]])
    records = DatasetCatalog.get("squares_groups")
    perfect, blind = [], []
    for count in range(4):
        image = {"gt_count": count}
        perfect.append({**image, "pred_count": count, "matches50": count, "sbd": 1.0, "best_iou": [1.0] * count})
        blind.append({**image, "pred_count": 0, "matches50": 0, "sbd": float(count == 0), "best_iou": [0.0] * count})
    groups = quality_by_group(records, {"perfect": perfect, "blind": blind})
    assert [(group["label"], group["size"]) for group in groups["by_count"]] == [(str(n), 1) for n in range(4)]
    figures = [group["models"]["blind"] for group in groups["by_count"]]
    assert [figure["abs_DiC"] for figure in figures] == [0, 1, 2, 3]
    assert [figure["SBD"] for figure in figures] == [1, 0, 0, 0]
    assert [figure["count_accuracy"] for figure in figures] == [1, 0, 0, 0]
    assert [figure["relative_count_error"] for figure in figures[1:]] == [1, 1, 1]
    assert [figure["F1"] for figure in figures] == [1, 0, 0, 0]
    # Two images have squares that touch; the image without squares is in no group of contact.
    assert sum(group["size"] for group in groups["by_contact"]) == 3
    assert groups["by_contact"][0]["label"] == "0.00"
    assert sum(group["size"] for group in groups["objects_by_contact"]) == 6
    # Squares of 16 pixels, and one of 20.
    assert [(group["label"], group["size"]) for group in groups["objects_by_area"]] == [("256", 5), ("400", 1)]
    for group in groups["objects_by_contact"] + groups["objects_by_area"]:
        assert group["models"] == {
            "perfect": {"recall50": 1.0, "mean_IoU": 1.0},
            "blind": {"recall50": 0.0, "mean_IoU": 0.0},
        }
