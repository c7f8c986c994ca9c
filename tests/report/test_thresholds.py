"""Which threshold is chosen, and that the model runs with each of them."""

import pytest

from rec_attend_d2.report.thresholds import THRESHOLDS, Tried, best_of, choose_threshold


def tried(*merits: float) -> list[Tried]:
    return [Tried(threshold, merit, 0.0) for threshold, merit in zip(THRESHOLDS, merits, strict=True)]


@pytest.mark.parametrize(
    ("merits", "expected"),
    [
        ((0.1, 0.9, 0.5, 0.4, 0.3, 0.2), 0.3),
        ((0.8, 0.8, 0.8, 0.8, 0.8, 0.8), 0.5),  # flat
        ((0.804, 0.8, 0.8, 0.7, 0.6, 0.5), 0.4),  # a difference that is chance
        ((0.5, 0.5, 0.800, 0.5, 0.803, 0.5), 0.6),  # equally near
        ((0.5, 0.5, 0.8, 0.5, 0.8, 0.5), 0.4),
    ],
)
def test_the_best_and_of_nearly_equal_ones_the_usual(merits, expected):
    assert best_of(tried(*merits)) == expected


def test_the_model_runs_with_every_threshold(register, make_predictor):
    predictor, seen = make_predictor(), []
    chosen = choose_threshold(predictor, register(), progress=lambda records: seen.extend(records) or records)
    assert chosen.pictures == len(seen) == 3  # with objects
    # Up to 0.25 something is invented, from 0.65 on nothing is found.
    assert [round(t.relative_count_error, 3) for t in chosen.tried] == [0.167, 0.333, 0.333, 0.333, 0.333, 1]
    assert chosen.tried[0].sbd < chosen.tried[1].sbd > chosen.tried[5].sbd == 0
    assert chosen.threshold == 0.5 and chosen.tried[3].merit == chosen.tried[3].sbd - 2 / 6
    assert predictor.score_threshold == 0.2


def test_few_pictures_are_spread(register, make_predictor):
    assert choose_threshold(make_predictor(), register(), max_pictures=2).pictures == 2


def test_without_objects_nothing_can_be_chosen(register, make_predictor):
    with pytest.raises(ValueError, match="has an object"):
        choose_threshold(make_predictor(), register(lambda content: content["annotations"].clear()))
    with pytest.raises(ValueError, match="on 0 pictures"):
        choose_threshold(make_predictor(), register(), max_pictures=0)
