"""Training statistics against loops over hard masks."""

import numpy as np
import pytest
import torch

from rec_attend_d2.layers.boxes import CenterBoxes
from rec_attend_d2.modeling.paper.criterion import BoxCriterion, MaskCriterion
from rec_attend_d2.modeling.paper.statistics import (
    count_statistics,
    mask_statistics,
    proposal_statistics,
    training_statistics,
)

PROPOSAL_NAMES = {"box_side", "box_spread", "score_spread"}
MASK_NAMES = {"iou_soft", "iou_hard", "dice", "wt_cov_soft", "wt_cov_hard", "unwt_cov_soft", "unwt_cov_hard"}


def test_counts_by_hand():
    scores = torch.tensor([[0.9, 0.6, 0.5], [0.4, 0.9, 0.1], [0.1, 0.2, 0.3], [0.9, 0.9, 0.9]])
    # 2, 1, 0 and 3 scores are above one half.
    result = count_statistics(scores, torch.tensor([2, 3, 1, 1]))
    assert result["count_acc"].item() == pytest.approx(1 / 4)
    assert result["dic"].item() == pytest.approx((0 - 2 - 1 + 2) / 4)
    assert result["dic_abs"].item() == pytest.approx((0 + 2 + 1 + 2) / 4)


@pytest.fixture
def output(tiny_cfg, make_targets, make_sequence):
    """Criterion output of blurred, shifted true masks of two images with objects and one without."""
    targets = make_targets([2, 3, 0])
    shifted = targets.masks.roll((2, -3), (2, 3)) * 0.7 + 0.1
    shifted[1, 0] *= 0.5
    sequence = make_sequence(shifted, torch.tensor([[0.9, 0.8, 0.2]] * 3))
    return MaskCriterion(tiny_cfg())(sequence, targets)


def hard_iou(a: np.ndarray, b: np.ndarray) -> float:
    union = (a | b).sum()
    return (a & b).sum() / union if union else 0.0


def test_mask_statistics_are_those_of_hard_masks(output):
    statistics = mask_statistics(output.mask)
    pred, gt = output.mask.pred_maps.numpy() > 0.5, output.mask.gt_maps.numpy() > 0.5
    ious, dices, weighted, unweighted = [], [], [], []
    for b, count in enumerate((2, 3, 0)):
        # Shifted masks overlap most with their own instance, so step n is instance n.
        pairs = [(pred[b, n], gt[b, n]) for n in range(count)]
        best = [max(hard_iou(p, g) for p in pred[b]) for g in gt[b, :count]]
        areas = gt[b, :count].sum((1, 2))
        ious.append(np.mean([hard_iou(p, g) for p, g in pairs]) if count else 0)
        dices.append(np.mean([2 * (p & g).sum() / (p.sum() + g.sum()) for p, g in pairs]) if count else 0)
        weighted.append((best * areas).sum() / areas.sum() if count else 0)
        unweighted.append(np.mean(best) if count else 0)
    assert statistics["iou_hard"].item() == pytest.approx(np.mean(ious), rel=1e-3)
    assert statistics["dice"].item() == pytest.approx(np.mean(dices), rel=1e-3)
    assert statistics["wt_cov_hard"].item() == pytest.approx(np.mean(weighted), rel=1e-3)
    assert statistics["unwt_cov_hard"].item() == pytest.approx(np.mean(unweighted), rel=1e-3)


def test_soft_statistics_use_the_overlap_of_the_loss(output):
    statistics = mask_statistics(output.mask)
    assert statistics["iou_soft"].item() == pytest.approx(-output.losses["loss_mask"].item(), rel=1e-5)
    overlap = output.mask.overlap.detach().numpy()
    best = [overlap[b].max(0)[:count].mean() if count else 0 for b, count in enumerate((2, 3, 0))]
    assert statistics["unwt_cov_soft"].item() == pytest.approx(np.mean(best), rel=1e-4)
    areas = output.mask.gt_maps.sum((2, 3)).numpy()
    weighted = [(overlap[b].max(0) * areas[b]).sum() / max(areas[b].sum(), 1) for b in range(3)]
    assert statistics["wt_cov_soft"].item() == pytest.approx(np.mean(weighted), rel=1e-4)


def test_statistics_of_the_full_model(output):
    statistics = training_statistics(output)
    assert set(statistics) == MASK_NAMES | PROPOSAL_NAMES | {"count_acc", "dic", "dic_abs", "box_iou"}
    assert statistics["count_acc"].item() == pytest.approx(1 / 3)
    assert statistics["box_iou"].item() == pytest.approx(-output.losses["loss_box"].item(), rel=1e-5)
    assert not any(value.requires_grad for value in statistics.values())


def test_statistics_of_stage_b_have_no_masks(tiny_cfg, make_targets, make_sequence):
    targets = make_targets([2, 0])
    sequence = make_sequence(targets.box_maps, torch.tensor([[0.9, 0.8, 0.2], [0.1, 0.1, 0.1]]))
    statistics = training_statistics(BoxCriterion(tiny_cfg())(sequence, targets))
    assert set(statistics) == PROPOSAL_NAMES | {"count_acc", "dic", "dic_abs", "box_iou"}
    assert statistics["count_acc"].item() == 1
    assert statistics["box_iou"].item() == pytest.approx(0.5, abs=1e-3)  # the image without objects counts 0


def test_sides_and_spreads_of_proposals():
    center = torch.tensor([[[5.0, 6.0], [7.0, 6.0]], [[5.0, 9.5], [5.0, 6.0]]])
    size = torch.tensor([[[4.0, 2.0], [3.0, 8.0]], [[1.0, 1.0], [2.0, 2.0]]])
    statistics = proposal_statistics(CenterBoxes(center, size), torch.tensor([[0.2, 0.9], [0.4, 0.5]]))
    expected = {"box_side": (2 + 3 + 1 + 2) / 4, "box_spread": 7.0, "score_spread": 0.7}
    assert {name: value.item() for name, value in statistics.items()} == pytest.approx(expected)
