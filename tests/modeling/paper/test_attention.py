"""The attention window of a proposal, with numbers computed by scipy and numpy."""

import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from torch import Tensor

from rec_attend_d2.layers.boxes import CenterBoxes
from rec_attend_d2.modeling.paper.attention import FILTER_VARIANCES, GaussianAttention, Window
from rec_attend_d2.modeling.paper.sequence import BoxProposal

IMAGE_SIZE, PATCH_SIZE = (32, 48), (16, 24)
CENTER = torch.tensor([[15.0, 20.5], [10.0, 30.0]])
SIZE = torch.tensor([[12.0, 20.0], [18.0, 30.0]])
LOG_VARIANCE = torch.tensor([[0.5, -0.3], [0.1, 0.9]])


def attention(variance: str = "from_size", learn_gains: bool = False) -> GaussianAttention:
    return GaussianAttention(patch_size=PATCH_SIZE, variance=variance, learn_gains=learn_gains)


@pytest.fixture
def proposal(make_proposal) -> BoxProposal:
    return make_proposal(
        CENTER,
        SIZE,
        learned_log_variance=LOG_VARIANCE,
        learned_patch_log_gain=torch.tensor([0.3, -0.4]),
        learned_mask_log_gain=torch.tensor([1.5, 0.7]),
        box_map_log_gain=torch.tensor([2.0, 1.0]),
    )


def bank(center: float, size: float, variance: float, length: int, patch_length: int) -> np.ndarray:
    """Filter bank [L, F] of scipy's normal densities."""
    offsets = np.arange(patch_length) - (patch_length - 1) / 2
    means = center + (size + 1) / patch_length * offsets
    return scipy.stats.norm.pdf(np.arange(length)[:, None], means[None], math.sqrt(variance))


def variances(name: str, index: int) -> list[float]:
    return {
        "from_size": [SIZE[index, 0].item() / PATCH_SIZE[0], SIZE[index, 1].item() / PATCH_SIZE[1]],
        "learned": [math.exp(value) for value in LOG_VARIANCE[index].tolist()],
        "unit": [1.0, 1.0],
    }[name]


def banks(name: str, index: int, center: Tensor, size: Tensor) -> list[np.ndarray]:
    return [
        bank(center[index, a].item(), size[index, a].item(), variances(name, index)[a], IMAGE_SIZE[a], PATCH_SIZE[a])
        for a in (0, 1)
    ]


@pytest.mark.parametrize("variance", ["from_size", "learned", "unit"])
def test_window_at_the_proposed_box(proposal: BoxProposal, variance: str):
    window = attention(variance).window(proposal.boxes, proposal, IMAGE_SIZE)
    for index in range(2):
        expected = banks(variance, index, CENTER, SIZE)
        np.testing.assert_allclose(window.filters_y[index].numpy(), expected[0], rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(window.filters_x[index].numpy(), expected[1], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("variance", ["from_size", "learned", "unit"])
def test_window_at_a_true_box_keeps_the_proposals_variance(proposal: BoxProposal, variance: str):
    true_boxes = CenterBoxes(CENTER + 2, SIZE * 0.5)
    window = attention(variance).window(true_boxes, proposal, IMAGE_SIZE)
    expected = banks(variance, 1, CENTER + 2, SIZE * 0.5)
    np.testing.assert_allclose(window.filters_y[1].numpy(), expected[0], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(window.filters_x[1].numpy(), expected[1], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("learn_gains", "patch_gain", "mask_gain"), [(False, [0.0, 0.0], [2.0, 2.0]), (True, [0.3, -0.4], [1.5, 0.7])]
)
def test_gains_are_fixed_or_learned(
    proposal: BoxProposal, learn_gains: bool, patch_gain: list[float], mask_gain: list[float]
):
    window = attention(learn_gains=learn_gains).window(proposal.boxes, proposal, IMAGE_SIZE)
    np.testing.assert_allclose(window.patch_log_gain.numpy(), patch_gain, rtol=1e-6)
    np.testing.assert_allclose(window.mask_log_gain.numpy(), mask_gain, rtol=1e-6)


@pytest.fixture
def window() -> Window:
    generator = torch.Generator().manual_seed(0)
    return Window(
        filters_y=torch.rand(2, 32, 16, generator=generator) / 10,
        filters_x=torch.rand(2, 48, 24, generator=generator) / 10,
        patch_log_gain=torch.tensor([0.0, math.log(3)]),
        mask_log_gain=torch.tensor([math.log(0.5), math.log(2)]),
    )


def test_cutting_multiplies_all_maps_by_the_gain(window: Window):
    image = torch.rand(2, 4, *IMAGE_SIZE)
    patch = attention().cut([image[:, :3], image[:, 3:]], window)
    assert patch.shape == (2, 4, *PATCH_SIZE)
    for index, gain in enumerate((1, 3)):
        for channel in range(4):
            filter_y, filter_x = window.filters_y[index].numpy(), window.filters_x[index].numpy()
            expected = gain * filter_y.T @ image[index, channel].numpy() @ filter_x
            np.testing.assert_allclose(patch[index, channel].numpy(), expected, rtol=1e-4)


def test_paste_is_a_sigmoid_of_the_gained_patch(window: Window):
    patch_mask = torch.rand(2, *PATCH_SIZE)
    mask = attention().paste(patch_mask, window)
    assert mask.shape == (2, *IMAGE_SIZE)
    for index, gain in enumerate((0.5, 2)):
        pasted = window.filters_y[index].numpy() @ patch_mask[index].numpy() @ window.filters_x[index].numpy().T
        np.testing.assert_allclose(mask[index].numpy(), scipy.special.expit(gain * pasted - 5), rtol=1e-4)


@pytest.mark.parametrize("variance", ["from_size", "learned", "unit"])
def test_box_maps_are_pasted_ones(make_proposal, proposal: BoxProposal, variance: str):
    # Two images of one step each, as one image of two steps.
    sequence = make_proposal(
        CENTER[None],
        SIZE[None],
        learned_log_variance=LOG_VARIANCE[None],
        box_map_log_gain=proposal.box_map_log_gain[None],
    )
    maps = attention(variance).box_maps(sequence, IMAGE_SIZE)
    assert maps.shape == (1, 2, *IMAGE_SIZE)
    for step, log_gain in enumerate((2.0, 1.0)):
        filter_y, filter_x = banks(variance, step, CENTER, SIZE)
        pasted = filter_y @ np.ones(PATCH_SIZE) @ filter_x.T
        expected = scipy.special.expit(math.exp(log_gain) * pasted - 5)
        np.testing.assert_allclose(maps[0, step].numpy(), expected, rtol=1e-4)


def test_a_box_map_is_high_inside_its_box_and_low_outside(make_proposal):
    center, size = torch.tensor([[[15.0, 25.0]]]), torch.tensor([[[12.0, 20.0]]])
    maps = attention().box_maps(make_proposal(center, size, box_map_log_gain=torch.full((1, 1), 2.0)), IMAGE_SIZE)[0, 0]
    # Inside, filters add up to their density of 16 / 13 and 24 / 21 per pixel.
    assert maps[15, 25].item() == pytest.approx(scipy.special.expit(math.e**2 * 16 / 13 * 24 / 21 - 5), abs=2e-3)
    assert maps[15, 40].item() == pytest.approx(scipy.special.expit(-5), abs=1e-3)
    inside = maps[10:21, 16:35]
    assert inside.min() > 0.5


def test_variance_from_size_is_size_over_patch_in_pixels(proposal: BoxProposal):
    log_variance = FILTER_VARIANCES["from_size"](proposal, torch.tensor(PATCH_SIZE))
    np.testing.assert_allclose(torch.exp(log_variance).numpy(), [[12 / 16, 20 / 24], [18 / 16, 30 / 24]], rtol=1e-5)


def test_built_from_config(tiny_cfg):
    cfg = tiny_cfg({"ATTENTION.FILTER_VARIANCE": "learned", "ATTENTION.LEARN_GAINS": True})
    part = GaussianAttention(cfg)
    assert part.patch_size == PATCH_SIZE
    assert part.learn_gains
    assert not part.state_dict()  # it learns nothing, so checkpoints hold nothing of it
