"""Metrics against values counted by hand, plain loops over pixels, and the properties their definitions imply."""

import itertools
import math

import numpy as np
import pytest

from rec_attend_d2.evaluation import metrics


def strip(start: int, stop: int, width: int = 10) -> np.ndarray:
    """A mask on a 1 x width image that is on from start to stop (exclusive)."""
    mask = np.zeros((1, width), dtype=bool)
    mask[0, start:stop] = True
    return mask


def stack(*masks: np.ndarray, shape: tuple[int, int] = (1, 10)) -> np.ndarray:
    return np.stack(masks) if masks else np.zeros((0, *shape), dtype=bool)


def random_masks(rng: np.random.Generator, count: int, shape: tuple[int, int] = (13, 17)) -> np.ndarray:
    """Overlapping rectangles of random size with a pixel at least."""
    masks = np.zeros((count, *shape), dtype=bool)
    for mask in masks:
        y, x = rng.integers(0, shape[0] - 1), rng.integers(0, shape[1] - 1)
        mask[y : y + rng.integers(1, 8), x : x + rng.integers(1, 8)] = True
    return masks


def pixels(mask: np.ndarray) -> set[tuple[int, ...]]:
    return set(map(tuple, np.argwhere(mask).tolist()))


def loop_scores(pred_masks: np.ndarray, gt_masks: np.ndarray) -> dict[str, float]:
    """All scores of an image with both sides non-empty, from sets of pixels and exhaustive matching."""
    pred, gt = [pixels(m) for m in pred_masks], [pixels(m) for m in gt_masks]

    def iou(a: set, b: set) -> float:
        return len(a & b) / len(a | b)

    def dice(a: set, b: set) -> float:
        return 2 * len(a & b) / (len(a) + len(b))

    def one_sided_dice(one: list, other: list) -> float:
        return sum(max(dice(a, b) for b in other) for a in one) / len(one)

    small, large = sorted((pred, gt), key=len)
    coverage = [max(iou(p, g) for p in pred) for g in gt]
    pred_union, gt_union = set().union(*pred), set().union(*gt)
    return {
        "gt_count": len(gt),
        "pred_count": len(pred),
        "sbd": min(one_sided_dice(pred, gt), one_sided_dice(gt, pred)),
        "fbd": dice(pred_union, gt_union),
        "mean_coverage": sum(coverage) / len(gt),
        "weighted_coverage": sum(c * len(g) for c, g in zip(coverage, gt, strict=True)) / sum(map(len, gt)),
        "false_positives": sum(all(not p & g for g in gt) for p in pred),
        "false_negatives": sum(all(not p & g for p in pred) for g in gt),
        "matches50": max(
            sum(iou(a, b) >= 0.5 for a, b in zip(small, order, strict=False))
            for order in itertools.permutations(large, len(small))
        ),
        "pixel_precision": sum(len(p & gt_union) / len(p) for p in pred) / len(pred),
        "pixel_recall": sum(len(g & pred_union) / len(g) for g in gt) / len(gt),
    }


def as_dict(scores: metrics.ImageScores) -> dict[str, float]:
    return dict(vars(scores))


class TestPairwise:
    def test_matches_sets_of_pixels(self):
        rng = np.random.default_rng(0)
        a, b = random_masks(rng, 4), random_masks(rng, 6)
        for i, j in itertools.product(range(4), range(6)):
            pa, pb = pixels(a[i]), pixels(b[j])
            assert metrics.pairwise_intersection(a, b)[i, j] == len(pa & pb)
            assert metrics.pairwise_iou(a, b)[i, j] == pytest.approx(len(pa & pb) / len(pa | pb))
            assert metrics.pairwise_dice(a, b)[i, j] == pytest.approx(2 * len(pa & pb) / (len(pa) + len(pb)))

    def test_image_of_several_chunks(self):
        # 2.6 million pixels: three matrix products, the last of a part.
        masks = np.ones((2, 1301, 2003), dtype=bool)
        masks[1, 0, 0] = False
        assert metrics.pairwise_intersection(masks, masks).tolist() == [
            [1301 * 2003, 1301 * 2003 - 1],
            [1301 * 2003 - 1, 1301 * 2003 - 1],
        ]

    def test_empty_sides_and_empty_masks(self):
        some = stack(strip(0, 3), strip(4, 4))
        assert metrics.pairwise_iou(stack(), some).shape == (0, 2)
        assert metrics.pairwise_dice(some, stack()).shape == (2, 0)
        assert metrics.pairwise_iou(some, some).tolist() == [[1, 0], [0, 0]]
        assert metrics.pairwise_dice(some, some).tolist() == [[1, 0], [0, 0]]

    def test_sizes_must_agree(self):
        with pytest.raises(ValueError, match=r"\(1, 1, 10\) and \(1, 1, 9\)"):
            metrics.pairwise_intersection(stack(strip(0, 1)), stack(strip(0, 1, width=9)))


class TestByHand:
    # Predictions cover pixels 0-3 and 6-9; the truth 0-4 (5 pixels), 5-5 (1 pixel).
    pred = stack(strip(0, 4), strip(6, 10))
    gt = stack(strip(0, 5), strip(5, 6))

    def test_all_scores(self):
        # IoU 4/5, Dice 8/9 of the first pair, nothing else overlaps.
        assert as_dict(metrics.score_image(self.pred, self.gt)) == pytest.approx(
            {
                "gt_count": 2,
                "pred_count": 2,
                "sbd": (8 / 9 + 0) / 2,
                "fbd": 2 * 4 / (8 + 6),
                "mean_coverage": (4 / 5 + 0) / 2,
                "weighted_coverage": (5 * 4 / 5 + 0) / 6,
                "false_positives": 1,
                "false_negatives": 1,
                "matches50": 1,
                "pixel_precision": (1 + 0) / 2,
                "pixel_recall": (4 / 5 + 0) / 2,
            }
        )

    def test_sbd_is_the_worse_side(self):
        # One leaf split into halves: each half has Dice 2*5/(5+10) = 2/3 with it, and so has it with its best half.
        # A second, missed leaf halves only BestDice(true, pred).
        halves = stack(strip(0, 3), strip(3, 6))
        dice = metrics.pairwise_dice(halves, stack(strip(0, 6), strip(8, 10)))
        assert dice.max(axis=1).mean() == pytest.approx(2 / 3)
        assert metrics.symmetric_best_dice(dice) == metrics.symmetric_best_dice(dice.T) == pytest.approx(1 / 3)

    def test_match_at_exactly_half(self):
        assert metrics.count_matches(metrics.pairwise_iou(stack(strip(0, 3)), stack(strip(0, 6)))) == 1
        assert metrics.count_matches(metrics.pairwise_iou(stack(strip(0, 3)), stack(strip(0, 7)))) == 0

    def test_match_is_one_to_one_and_of_largest_number(self):
        # Taking the best pair (row 0, column 0) first would leave row 1 without a partner.
        assert metrics.count_matches(np.array([[0.9, 0.6], [0.7, 0.2]])) == 2
        assert metrics.count_matches(np.array([[0.9], [0.8]])) == 1

    def test_summary_of_two_images(self):
        # Second image: one true object found exactly, and two predictions on nothing.
        second = metrics.score_image(stack(strip(0, 4), strip(5, 6), strip(8, 9)), stack(strip(0, 4)))
        summary = metrics.summarize([metrics.score_image(self.pred, self.gt), second])
        sbd = [4 / 9, 1 / 3]
        assert summary == pytest.approx(
            {
                "SBD": sum(sbd) / 2,
                "SBD_std": (sbd[0] - sbd[1]) / math.sqrt(2),
                "FBD": (8 / 14 + 8 / 10) / 2,
                "FBD_std": (8 / 10 - 8 / 14) / math.sqrt(2),
                "MUCov": (0.4 + 1) / 2,
                "MUCov_std": 0.6 / math.sqrt(2),
                "MWCov": (2 / 3 + 1) / 2,
                "MWCov_std": (1 / 3) / math.sqrt(2),
                "DiC": (0 + 2) / 2,
                "DiC_std": math.sqrt(2),
                "abs_DiC": 1,
                "abs_DiC_std": math.sqrt(2),
                "count_accuracy": 0.5,
                "count_MSE": (0 + 4) / 2,
                "AvgFP": (1 + 2) / 2,
                "AvgFN": (1 + 0) / 2,
                "precision50": 2 / 5,
                "recall50": 2 / 3,
                "pixel_precision": (1 + 0 + 1 + 0 + 0) / 5,
                "pixel_recall": (0.8 + 0 + 1) / 3,
                "num_images": 2,
            }
        )

    def test_signed_count_error_cancels_absolute_does_not(self):
        counts = metrics.summarize_counts([3, 5, 4], [4, 4, 4])
        assert counts["DiC"] == 0
        assert counts["abs_DiC"] == pytest.approx(2 / 3)
        assert counts["count_accuracy"] == pytest.approx(1 / 3)
        assert counts["count_MSE"] == pytest.approx(2 / 3)
        assert counts["DiC_std"] == pytest.approx(1)


@pytest.mark.parametrize("seed", range(12))
class TestProperties:
    def masks(self, seed: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng(seed)
        return random_masks(rng, int(rng.integers(1, 6))), random_masks(rng, int(rng.integers(1, 6)))

    def test_agrees_with_loops(self, seed):
        pred, gt = self.masks(seed)
        assert as_dict(metrics.score_image(pred, gt)) == pytest.approx(loop_scores(pred, gt))

    def test_order_of_instances_does_not_matter(self, seed):
        pred, gt = self.masks(seed)
        rng = np.random.default_rng(seed + 100)
        shuffled = metrics.score_image(rng.permutation(pred), rng.permutation(gt))
        assert as_dict(shuffled) == pytest.approx(as_dict(metrics.score_image(pred, gt)))

    def test_swapping_the_sides(self, seed):
        pred, gt = self.masks(seed)
        there, back = metrics.score_image(pred, gt), metrics.score_image(gt, pred)
        assert there.sbd == pytest.approx(back.sbd)
        assert there.fbd == pytest.approx(back.fbd)
        assert there.matches50 == back.matches50
        assert there.false_positives == back.false_negatives
        assert there.pixel_precision == pytest.approx(back.pixel_recall)

    def test_truth_against_itself_is_perfect(self, seed):
        _, gt = self.masks(seed)
        summary = metrics.summarize([metrics.score_image(gt, gt)])
        perfect = {"SBD", "FBD", "MUCov", "MWCov", "count_accuracy", "precision50", "recall50"}
        perfect |= {"pixel_precision", "pixel_recall"}
        assert {name: summary[name] for name in perfect} == pytest.approx(dict.fromkeys(perfect, 1))
        none = {"DiC", "abs_DiC", "count_MSE", "AvgFP", "AvgFN"}
        assert {name: summary[name] for name in none} == dict.fromkeys(none, 0)

    def test_masks_without_pixels_change_nothing(self, seed):
        pred, gt = self.masks(seed)
        empty = np.zeros((2, *pred.shape[1:]), dtype=bool)
        padded = metrics.score_image(np.concatenate([empty, pred]), np.concatenate([gt, empty]))
        assert padded == metrics.score_image(pred, gt)


class TestEmpty:
    some = stack(strip(0, 3), strip(5, 7))

    def test_nothing_against_nothing(self):
        scores = metrics.score_image(stack(), stack())
        assert (scores.sbd, scores.fbd, scores.pixel_precision, scores.pixel_recall) == (1, 1, 1, 1)
        assert (scores.pred_count, scores.gt_count, scores.false_positives, scores.false_negatives) == (0, 0, 0, 0)
        assert math.isnan(scores.mean_coverage) and math.isnan(scores.weighted_coverage)

    def test_everything_missed(self):
        scores = metrics.score_image(stack(), self.some)
        assert (scores.sbd, scores.fbd, scores.mean_coverage, scores.weighted_coverage) == (0, 0, 0, 0)
        assert (scores.false_positives, scores.false_negatives, scores.matches50) == (0, 2, 0)
        assert (scores.pixel_precision, scores.pixel_recall) == (0, 0)

    def test_everything_invented(self):
        scores = metrics.score_image(self.some, stack())
        assert (scores.sbd, scores.fbd) == (0, 0)
        assert math.isnan(scores.mean_coverage) and math.isnan(scores.weighted_coverage)
        assert (scores.false_positives, scores.false_negatives, scores.matches50) == (2, 0, 0)
        assert (scores.pixel_precision, scores.pixel_recall) == (0, 0)

    def test_image_without_objects_counts_in_sbd_but_not_in_coverage(self):
        found = metrics.score_image(self.some, self.some)
        invented = metrics.score_image(self.some, stack())
        summary = metrics.summarize([found, invented])
        assert summary["SBD"] == 0.5
        assert summary["abs_DiC"] == 1
        assert (summary["MUCov"], summary["MWCov"], summary["MUCov_std"]) == (1, 1, 0)

    @pytest.mark.parametrize(
        ("pred", "gt", "coverage", "precision", "recall"),
        [(stack(), stack(), 1, 1, 1), (some, stack(), 0, 0, 0), (stack(), some, 0, 0, 0)],
    )
    def test_data_set_with_an_empty_side_has_numbers_everywhere(self, pred, gt, coverage, precision, recall):
        summary = metrics.summarize([metrics.score_image(pred, gt)])
        assert all(math.isfinite(value) for value in summary.values())
        assert (summary["MUCov"], summary["MWCov"]) == (coverage, coverage)
        assert (summary["precision50"], summary["pixel_precision"]) == (precision, precision)
        assert (summary["recall50"], summary["pixel_recall"]) == (recall, recall)

    def test_no_images(self):
        with pytest.raises(ValueError, match="no image"):
            metrics.summarize([])


class TestCrowd:
    gt = stack(strip(0, 2))
    crowd = stack(strip(4, 10))

    def kept(self, *pred: np.ndarray) -> int:
        return len(metrics.drop_crowd(stack(*pred), self.gt, self.crowd))

    def test_only_predictions_mostly_inside_are_ignored(self):
        assert self.kept(strip(5, 9)) == 0
        assert self.kept(strip(3, 6)) == 0  # two thirds inside
        assert self.kept(strip(2, 6)) == 1  # exactly half
        assert self.kept(strip(0, 2)) == 1
        assert self.kept() == 0

    def test_detected_object_inside_a_crowd_region_stays(self):
        pred = stack(strip(4, 6), strip(7, 9))
        assert len(metrics.drop_crowd(pred, stack(strip(4, 7)), self.crowd)) == 1

    def test_parts_in_two_regions_do_not_add_up(self):
        pred = stack(strip(0, 10))
        assert len(metrics.drop_crowd(pred, stack(), stack(strip(0, 4), strip(6, 10)))) == 1

    def test_no_crowd_keeps_all_with_pixels(self):
        pred = stack(strip(0, 1), strip(3, 3), strip(5, 6))
        assert len(metrics.drop_crowd(pred, stack(), stack())) == 2


def test_pooled_figures_without_objects():
    without = metrics.pooled_figures(0, 0, 0, 0)
    assert without["F1"] == 1 and math.isnan(without["relative_count_error"])
    assert metrics.pooled_figures(0, 3, 0, 3) == {"relative_count_error": 1, "F1": 0}


def test_pairs_are_one_to_one_and_as_many_as_possible():
    # The first prediction fits both true instances, the second only the first one.
    iou = np.array([[0.6, 0.7], [0.5, 0.0], [0.4, 0.4]])
    assert metrics.match_pairs(iou).tolist() == [1, 0]
    assert metrics.match_pairs(iou, 0.65).tolist() == [-1, 0]
    assert metrics.match_pairs(np.zeros((0, 2))).tolist() == [-1, -1]
    assert metrics.match_pairs(np.zeros((2, 0))).tolist() == []


def test_predictions_that_count_are_neither_empty_nor_in_a_crowd():
    predicted = stack(strip(0, 3), strip(4, 4), strip(5, 8))
    true, crowd = stack(strip(0, 3)), stack(strip(0, 9))
    assert metrics.to_be_scored(predicted, true, crowd).tolist() == [True, False, False]
    assert metrics.to_be_scored(predicted, true, stack()).tolist() == [True, False, True]
