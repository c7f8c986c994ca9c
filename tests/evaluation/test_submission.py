"""What the formats of submissions share: predictions and their images, and lists of problems."""

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog
from detectron2.structures import Instances

from rec_attend_d2.evaluation.submission import matched, raise_problems

RECORD = {"file_name": "a.png", "image_id": "a", "height": 1, "width": 6}
OTHER = {**RECORD, "file_name": "b.png", "image_id": "b"}


@pytest.fixture(autouse=True)
def _registered():
    DatasetCatalog.register("two", lambda: [RECORD, OTHER])
    yield
    DatasetCatalog.remove("two")


def predicted(count: int, size: tuple[int, int] = (1, 6)) -> Instances:
    return Instances(size, pred_masks=torch.from_numpy(np.zeros((count, *size), dtype=bool)))


def test_in_the_order_of_the_predictions():
    (first, empty), (second, two) = matched("two", [("b", predicted(0)), ("a", predicted(2))])
    assert (first, second) == (OTHER, RECORD)
    assert (len(empty), len(two)) == (0, 2)


@pytest.mark.parametrize(
    ("predictions", "message"),
    [
        ([("a", predicted(0))], "1 of 2 images have no prediction, first 'b.png'.*Instances of length 0"),
        ([("c", predicted(0))], "image_id 'c' is not an image of the data set"),
        ([("a", Instances((1, 6), scores=torch.ones(0)))], r"'a\.png' have no pred_masks, only \['scores'\]"),
        ([("a", predicted(0)), ("a", predicted(0))], "image_id 'a' is given twice"),
        ([("a", predicted(1, (2, 6)))], r"'a\.png' are for .* \(2, 6\), but its original size is \(1, 6\)"),
    ],
)
def test_predictions_that_do_not_fit(predictions, message):
    with pytest.raises(ValueError, match=message):
        list(matched("two", predictions))


def test_raise_problems():
    raise_problems("x.zip", [])
    with pytest.raises(ValueError, match=r"x\.zip is no valid submission; 2 problem\(s\):\n  one\n  two"):
        raise_problems("x.zip", ["one", "two"])
