"""Predictions as label images, and what is wrong with the label images of others."""

import numpy as np
import pytest
import torch
from detectron2.structures import Instances

from rec_attend_d2.evaluation.label_images import (
    draw_predictions,
    label_image,
    label_instances,
    label_problems,
    name_problems,
    raise_problems,
)

RECORD = {"file_name": "a.png", "image_id": "a", "height": 1, "width": 6}
OTHER = {**RECORD, "file_name": "b.png", "image_id": "b"}


def strips(*ends: tuple[int, int]) -> np.ndarray:
    """Masks [N, 1, 6] that are on from start to stop (exclusive)."""
    masks = np.zeros((len(ends), 1, 6), dtype=bool)
    for mask, (start, stop) in zip(masks, ends, strict=True):
        mask[:, start:stop] = True
    return masks


def predicted(*ends: tuple[int, int], scores: list[float] | None = None) -> Instances:
    instances = Instances((1, 6))
    instances.pred_masks = torch.from_numpy(strips(*ends))
    instances.scores = torch.tensor([1.0] * len(ends) if scores is None else scores)
    return instances


class TestLabelImage:
    @pytest.mark.parametrize(
        ("ends", "scores", "expected"),
        [
            ([(0, 3), (3, 6)], [0.5, 0.9], [2, 2, 2, 1, 1, 1]),
            ([(0, 4), (2, 6)], [0.5, 0.9], [2, 2, 1, 1, 1, 1]),
            ([(0, 4), (2, 6)], [0.9, 0.5], [1, 1, 1, 1, 2, 2]),
            ([(0, 4), (2, 6)], [0.7, 0.7], [1, 1, 1, 1, 2, 2]),
            # The second is hidden by the first: there is no gap.
            ([(0, 4), (1, 3), (4, 6)], [0.9, 0.8, 0.7], [1, 1, 1, 1, 2, 2]),
            ([(0, 0), (1, 2)], [0.9, 0.8], [0, 1, 0, 0, 0, 0]),
            ([], [], [0] * 6),
        ],
    )
    def test_higher_scores_win_and_numbers_have_no_gap(self, ends, scores, expected):
        labels = label_image(strips(*ends), np.array(scores))
        assert labels.tolist() == [expected]

    def test_there_and_back(self):
        rng = np.random.default_rng(0)
        labels = rng.integers(0, 5, (9, 11))
        instances = label_instances(labels)
        assert instances.image_size == (9, 11) and len(instances) == 4
        again = label_image(instances.pred_masks.numpy(), instances.scores.numpy())
        np.testing.assert_array_equal(again, labels)

    def test_instances_of_an_empty_image(self):
        instances = label_instances(np.zeros((2, 3), dtype=np.uint8))
        assert len(instances) == 0 and instances.pred_masks.shape == (0, 2, 3)


class TestDrawPredictions:
    def test_in_the_order_of_the_predictions(self):
        predictions = [("b", predicted()), ("a", predicted((1, 3)))]
        (first, empty), (second, labels) = draw_predictions([RECORD, OTHER], predictions, np.uint8)
        assert (first, second) == (OTHER, RECORD)
        assert empty.tolist() == [[0] * 6] and labels.tolist() == [[0, 1, 1, 0, 0, 0]]
        assert labels.dtype == empty.dtype == np.uint8

    @pytest.mark.parametrize(
        ("predictions", "message"),
        [
            ([("a", predicted())], "1 of 2 images have no prediction, first 'b.png'.*Instances of length 0"),
            ([("c", predicted())], "image_id 'c' is not an image of the data set"),
            ([("a", Instances((1, 6), scores=torch.ones(0)))], r"'a\.png' have no pred_masks, only \['scores'\]"),
            ([("a", predicted()), ("a", predicted())], "image_id 'a' is given twice"),
            (
                [("a", label_instances(np.zeros((2, 6), int)))],
                r"'a\.png' are of size \(2, 6\), but the image is \(1, 6\)",
            ),
        ],
    )
    def test_predictions_that_do_not_fit(self, predictions, message):
        with pytest.raises(ValueError, match=message):
            list(draw_predictions([RECORD, OTHER], predictions, np.uint8))

    @pytest.mark.parametrize(("dtype", "fits"), [(np.uint8, False), (np.uint16, True)])
    def test_number_of_instances(self, dtype, fits):
        record = {**RECORD, "height": 16, "width": 16}
        instances = label_instances(np.arange(1, 257).reshape(16, 16))
        if fits:
            assert next(draw_predictions([record], [("a", instances)], dtype))[1].max() == 256
        else:
            with pytest.raises(ValueError, match=r"'a\.png' has 256 instances, but .* holds 255: raise the score"):
                list(draw_predictions([record], [("a", instances)], dtype))


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        (np.array([[0, 1, 2, 2, 0, 3]], dtype=np.uint8), None),
        (np.zeros((1, 6), dtype=np.uint8), None),
        (np.ones((1, 6), dtype=np.uint8), None),
        (np.array([[0, 1, 1, 3, 4, 4]], dtype=np.uint8), "X does not number its instances 1 to n: 2 is missing."),
        (np.full((1, 6), 255, dtype=np.uint8), "X does not number its instances 1 to n: 1 is missing."),
        (np.ones((1, 6), dtype=np.uint16), "X is uint16, but the format asks for uint8."),
        (np.ones((1, 6), dtype=np.float32), "X is float32, but the format asks for uint8."),
        (np.ones((6, 1), dtype=np.uint8), r"X has the shape (6, 1), but the image is (1, 6) (height, width)."),
        (np.ones((1, 6, 3), dtype=np.uint8), r"X has the shape (1, 6, 3), but the image is (1, 6) (height, width)."),
        (np.array(3), r"X has the shape (), but the image is (1, 6) (height, width)."),
    ],
)
def test_label_problems(labels, problem):
    assert label_problems(labels, RECORD, np.uint8, "X") == ([] if problem is None else [problem])


def test_a_gap_behind_a_huge_number():
    labels = np.array([[0, 1, 1, 3, 4, 2**60]])
    assert label_problems(labels, RECORD, np.int64, "X") == ["X does not number its instances 1 to n: 2 is missing."]


def test_signed_labels_have_two_problems():
    type_problem, negative = label_problems(np.array([[0, -1, 1, 1, 0, 0]]), RECORD, np.uint8, "X")
    assert type_problem == "X is int64, but the format asks for uint8."
    assert negative == "X does not number its instances 1 to n: -1 is negative."


def test_name_problems():
    assert name_problems(["a", "b"], ["b", "a"], "X") == []
    assert name_problems(["b", "d"], ["a", "b", "c"], "X") == [
        "X lacks a; an image without objects needs an empty one.",
        "X lacks c; an image without objects needs an empty one.",
        "X has d, which is not in the data set.",
    ]


def test_raise_problems():
    raise_problems("x.zip", [])
    with pytest.raises(ValueError, match=r"x\.zip is no valid submission; 2 problem\(s\):\n  one\n  two"):
        raise_problems("x.zip", ["one", "two"])
