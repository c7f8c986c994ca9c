"""Training statistics against loops over hard masks."""

import numpy as np
import pytest
import torch

from rec_attend_d2.layers.boxes import CenterBoxes
from rec_attend_d2.modeling.criterion import BoxCriterion, MaskCriterion
from rec_attend_d2.modeling.statistics import (
    count_statistics,
    mask_statistics,
    proposal_statistics,
    step_statistics,
    training_statistics,
)
from rec_attend_d2.modeling.step_criterion import PatchPairs, StepTargets

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


def test_statistics_of_stage_b_have_no_masks(tiny_cfg, make_targets, make_box_sequence):
    targets = make_targets([2, 0])
    sequence = make_box_sequence(targets.box_maps, torch.tensor([[0.9, 0.8, 0.2], [0.1, 0.1, 0.1]]))
    statistics = training_statistics(BoxCriterion(tiny_cfg())(sequence, targets))
    assert set(statistics) == PROPOSAL_NAMES | {"count_acc", "dic", "dic_abs", "box_iou"}
    assert statistics["count_acc"].item() == 1
    assert statistics["box_iou"].item() == pytest.approx(0.5, abs=1e-3)  # the image without objects counts 0


def make_pairs(masks: torch.Tensor, true_masks: torch.Tensor) -> PatchPairs:
    """Pairs whose pasted masks are ``masks`` [n, H, W]."""
    classes = torch.zeros(len(masks), dtype=torch.int64)
    return PatchPairs(
        masks,
        torch.zeros_like(masks),
        torch.zeros_like(masks),
        None,
        true_masks,
        classes,
        None,
        lambda patches, window: patches,
    )


def test_statistics_of_single_steps_by_loop():
    masks, true_masks = torch.rand(4, 6, 9, requires_grad=True), (torch.rand(4, 6, 9) < 0.4).float()
    scores = torch.tensor([[0.9, 0.2], [0.5, 0.7], [0.6, 0.1]])
    anything = [[True, True], [True, False], [True, False]]
    hit = [[True, False], [True, False], [False, False]]
    box_iou = [[0.8, 0.1], [0.6, 0.9], [0.2, 0.0]]
    steps = StepTargets(
        torch.ones(3, 2, 5, dtype=torch.bool),
        torch.tensor(anything),
        torch.zeros(3, 2, dtype=torch.int64),
        torch.tensor(hit),
        torch.tensor(box_iou),
    )
    boxes = CenterBoxes(torch.rand(3, 2, 2), torch.rand(3, 2, 2))
    statistics = step_statistics(boxes, scores, steps, make_pairs(masks, true_masks))
    dices = []
    for mask, truth in zip(masks.detach().numpy() > 0.5, true_masks.numpy() > 0.5, strict=True):
        dices.append(2 * (mask & truth).sum() / (mask.sum() + truth.sum()))
    expected = {
        "dice": np.mean(dices),
        "box_iou": (0.8 + 0.1 + 0.6 + 0.2) / 4,
        "hit": 2 / 4,
        # Scores above one half are right at steps 0, 0 of the first and last image; 0.5 and 0.2 miss what is left.
        "score_acc": 3 / 6,
        "stop_share": 2 / 6,
        **{name: value.item() for name, value in proposal_statistics(boxes, scores).items()},
    }
    assert {name: value.item() for name, value in statistics.items()} == pytest.approx(expected)
    assert not any(value.requires_grad for value in statistics.values())


def test_statistics_of_steps_with_nothing_left():
    nothing, empty = torch.zeros(2, 1, dtype=torch.bool), torch.zeros(0, 6, 9)
    steps = StepTargets(nothing[..., None], nothing, nothing.long(), nothing, torch.rand(2, 1))
    boxes = CenterBoxes(torch.zeros(2, 1, 2), torch.full((2, 1, 2), 3.0))
    statistics = step_statistics(boxes, torch.tensor([[0.1], [0.8]]), steps, make_pairs(empty, empty))
    expected = {"dice": 0.0, "box_iou": 0.0, "hit": 0.0, "score_acc": 0.5, "stop_share": 1.0}
    expected |= {"box_side": 3.0, "box_spread": 0.0, "score_spread": 0.7}
    assert {name: value.item() for name, value in statistics.items()} == pytest.approx(expected)


def test_sides_and_spreads_of_proposals():
    center = torch.tensor([[[5.0, 6.0], [7.0, 6.0]], [[5.0, 9.5], [5.0, 6.0]]])
    size = torch.tensor([[[4.0, 2.0], [3.0, 8.0]], [[1.0, 1.0], [2.0, 2.0]]])
    statistics = proposal_statistics(CenterBoxes(center, size), torch.tensor([[0.2, 0.9], [0.4, 0.5]]))
    expected = {"box_side": (2 + 3 + 1 + 2) / 4, "box_spread": 7.0, "score_spread": 0.7}
    assert {name: value.item() for name, value in statistics.items()} == pytest.approx(expected)
