"""Where a glance looks: the best place, and others whose boxes keep apart."""

import pytest
import torch
from detectron2.modeling import build_model

from rec_attend_d2.layers.overlap import pairwise_box_iou
from rec_attend_d2.modeling.fast.place_proposer import (
    BOXES_APART,
    FRESH_PLACE_LOGIT,
    TRAINED_CANDIDATES,
    places_apart,
    trained_candidates,
)
from rec_attend_d2.modeling.steps import StepInputs

# Boxes of side 10 in a row, 4 pixels from each other.
CORNERS = torch.tensor([[4.0 * i, 0, 4.0 * i + 10, 10] for i in range(8)])[None]


def test_the_best_places_whose_boxes_stand_apart_best_first():
    logits = torch.tensor([[0.0, 3, 2, -9, 1, 4, 0, 2.5]])
    image, place = places_apart(logits, CORNERS, 0)
    # 5, then 1, which reaches to 14 and so ends before 20; 7, 2 and 4 overlap one of them; 3 is improbable.
    assert image.tolist() == [0, 0] and place.tolist() == [5, 1]


def test_an_image_without_a_probable_place_is_looked_at_once():
    logits = torch.tensor([[-9.0] * 7 + [-8], [5.0] + [-9] * 6 + [3]])
    image, place = places_apart(logits, CORNERS.expand(2, 8, 4), 0)
    assert list(zip(image.tolist(), place.tolist(), strict=True)) == [(0, 7), (1, 0), (1, 7)]


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_a_limit_keeps_the_best(limit):
    logits = torch.tensor([[3.0, 0, 0, 5, 0, 0, 0, 4]])
    kept = places_apart(logits, CORNERS, limit)[1].tolist()
    assert kept == [3, 7, 0][:limit]


def test_one_object_per_glance_is_what_comes_first_without_a_limit():
    torch.manual_seed(0)
    logits = torch.randn(4, 8)
    image, place = places_apart(logits, CORNERS.expand(4, 8, 4), 0)
    first = [place[image == row][0].item() for row in range(4)]
    assert places_apart(logits, CORNERS.expand(4, 8, 4), 1)[1].tolist() == first


def test_training_cuts_out_all_candidates_where_they_are_few():
    image = torch.tensor([0] * TRAINED_CANDIDATES + [2] * 3)
    assert trained_candidates(image, 3).tolist() == list(range(len(image)))


def test_training_draws_from_many_candidates_evenly():
    torch.manual_seed(0)
    counts = [60, 0, TRAINED_CANDIDATES, 80]
    image = torch.repeat_interleave(torch.arange(4), torch.tensor(counts))
    drawn = torch.zeros(len(image))
    for _ in range(300):
        kept = trained_candidates(image, 4)
        assert (kept.diff() > 0).all()
        assert torch.bincount(image[kept], minlength=4).tolist() == [40, 0, 40, 40]
        drawn[kept] += 1
    assert (drawn[60:100] == 300).all()
    # Two thirds and a half of 300, give or take five standard deviations.
    assert 159 < drawn[:60].min() and drawn[:60].max() < 241
    assert 106 < drawn[100:].min() and drawn[100:].max() < 194


def inputs(model, height: int, width: int) -> StepInputs:
    images = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(1))
    return StepInputs(images, torch.zeros(2, height, width), model.preprocessor(images, []))


def test_candidates_are_read_at_their_places(model):
    torch.nn.init.normal_(model.box_proposer.box.weight, std=0.1)
    torch.nn.init.normal_(model.box_proposer.place.weight)
    candidates, scan = model.look(inputs(model, 64, 96))
    assert scan.logits.shape == (2, 16, 24) and scan.heat().shape == scan.logits.shape
    assert candidates.hidden.shape == (len(candidates.image), model.box_proposer.hidden_dim)
    for row in range(2):
        own = candidates.image == row
        best_logit = candidates.hidden[own][0, -2] * -FRESH_PLACE_LOGIT
        torch.testing.assert_close(best_logit, scan.logits[row].max())
        boxes = type(candidates.boxes)(candidates.boxes.center[None, own], candidates.boxes.size[None, own])
        overlap = pairwise_box_iou(boxes, boxes)[0].fill_diagonal_(0)
        assert overlap.max() <= BOXES_APART + 1e-3


def test_fresh_boxes_lie_at_their_cells_and_have_the_initial_size(model):
    _, scan = model.look(inputs(model, 64, 96))
    torch.testing.assert_close(scan.boxes.center[0, :2], torch.tensor([[1.5, 1.5], [1.5, 5.5]]))
    torch.testing.assert_close(scan.boxes.size, torch.full_like(scan.boxes.size, 1.8 * 8))


def test_what_the_scorer_reads_does_not_depend_on_the_images_size(model):
    widths = {model.look(inputs(model, *size))[0].hidden.shape[1] for size in [(32, 32), (64, 96), (160, 64)]}
    assert widths == {2 * model.box_proposer.control_cnn.out_channels + 2}


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("FAST.OBJECTS_PER_GLANCE", -1, "OBJECTS_PER_GLANCE is -1"),
        ("BOX_PROPOSER.INITIAL_SIZE", 0.5, "BOX_PROPOSER.INITIAL_SIZE: the fast model"),
        ("FAST.WIDTH", 0.0, "WIDTH is 0.0; give at least 0.125"),
        ("NUM_CLASSES", 1, "NUM_CLASSES is 1"),
        ("TEST.DILATION", 5, "TEST.DILATION: the fast model .* has no such setting"),
        ("PREPROCESSOR.NAME", "NoPreprocessor", "'NoPreprocessor' is a part of RecAttend, not of FastRecAttend"),
        ("STOP_SCORER.NAME", "LinearStopScorer", "'LinearStopScorer' is a part of RecAttend"),
        ("TIME_STEPS", 9, "TIME_STEPS: the fast model"),
    ],
)
def test_wrong_settings_are_named(cfg, key, value, message):
    cfg.merge_from_list([f"MODEL.REC_ATTEND.{key}", value])
    with pytest.raises(ValueError, match=message):
        build_model(cfg)
