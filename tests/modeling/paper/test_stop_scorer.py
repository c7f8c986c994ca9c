"""Stop scorers: which numbers they weigh, and their range."""

import math

import pytest
import torch

from rec_attend_d2.modeling.paper.stop_scorer import HiddenStateScorer, LinearStopScorer

HIDDEN, CHANNELS, HEIGHT, WIDTH = 8, 3, 2, 4


@pytest.fixture
def scorer(tiny_cfg) -> LinearStopScorer:
    return LinearStopScorer(tiny_cfg(), HIDDEN, (CHANNELS, HEIGHT, WIDTH))


def test_features_follow_the_hidden_state_in_the_order_y_x_channel(scorer: LinearStopScorer):
    hidden, features = torch.randn(2, HIDDEN), torch.randn(2, CHANNELS, HEIGHT, WIDTH)
    ordered = [hidden[:, i] for i in range(HIDDEN)]
    ordered += [features[:, c, y, x] for y in range(HEIGHT) for x in range(WIDTH) for c in range(CHANNELS)]
    for position, value in enumerate(ordered):
        torch.nn.init.zeros_(scorer.linear.weight)
        with torch.no_grad():
            scorer.linear.weight[0, position] = 1
        torch.testing.assert_close(scorer(hidden, features), 1 / (1 + torch.exp(-value)))


def test_the_bias_is_added(scorer: LinearStopScorer):
    torch.nn.init.zeros_(scorer.linear.weight)
    torch.nn.init.constant_(scorer.linear.bias, math.log(3))
    scores = scorer(torch.randn(2, HIDDEN), torch.randn(2, CHANNELS, HEIGHT, WIDTH))
    assert scores.tolist() == pytest.approx([0.75, 0.75])


@pytest.mark.parametrize("foreground_classes", [0, 1])
def test_hidden_state_scorer_without_classes_is_a_sigmoid(tiny_cfg, foreground_classes: int):
    scorer = HiddenStateScorer(tiny_cfg({"PREPROCESSOR.FOREGROUND_CLASSES": foreground_classes}), HIDDEN)
    hidden = torch.randn(4, HIDDEN)
    scores, probabilities = scorer(hidden)
    assert probabilities is None
    logits = hidden @ scorer.linear.weight[0] + scorer.linear.bias
    torch.testing.assert_close(scores, 1 / (1 + torch.exp(-logits)))


def test_hidden_state_scorer_with_classes_is_one_minus_background(tiny_cfg):
    scorer = HiddenStateScorer(tiny_cfg({"PREPROCESSOR.FOREGROUND_CLASSES": 3}), HIDDEN)
    hidden = torch.randn(4, HIDDEN)
    scores, probabilities = scorer(hidden)
    exponentials = torch.exp(hidden @ scorer.linear.weight.T + scorer.linear.bias)
    expected = exponentials / exponentials.sum(1, keepdim=True)
    torch.testing.assert_close(probabilities, expected)
    torch.testing.assert_close(scores, expected[:, 1] + expected[:, 2])
