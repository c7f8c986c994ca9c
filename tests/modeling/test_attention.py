"""The attention window of a proposal, with numbers computed by scipy and numpy."""

import math

import numpy as np
import pytest
import scipy.ndimage
import scipy.special
import scipy.stats
import torch
from torch import Tensor
from torch.nn import functional as F

from rec_attend_d2.layers.boxes import CenterBoxes
from rec_attend_d2.modeling.attention import (
    Attention,
    BilinearAttention,
    GaussianAttention,
    Window,
    build_attention,
    on_smaller_map,
)
from rec_attend_d2.modeling.inputs import StepInputs
from rec_attend_d2.modeling.registries import FILTER_VARIANCE_REGISTRY
from rec_attend_d2.modeling.step_types import ExtraMaps, Proposal

IMAGE_SIZE, PATCH_SIZE = (32, 48), (16, 24)
CENTER = torch.tensor([[15.0, 20.5], [10.0, 30.0]])
SIZE = torch.tensor([[12.0, 20.0], [18.0, 30.0]])
LOG_VARIANCE = torch.tensor([[0.5, -0.3], [0.1, 0.9]])


def attention(variance: str = "from_size", learn_gains: bool = False) -> GaussianAttention:
    return GaussianAttention(patch_size=PATCH_SIZE, variance=variance, learn_gains=learn_gains)


@pytest.fixture
def proposal(make_proposal) -> Proposal:
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
def test_window_at_the_proposed_box(proposal: Proposal, variance: str):
    window = attention(variance).window(proposal.boxes, proposal, IMAGE_SIZE)
    for index in range(2):
        expected = banks(variance, index, CENTER, SIZE)
        np.testing.assert_allclose(window.filters_y[index].numpy(), expected[0], rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(window.filters_x[index].numpy(), expected[1], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("variance", ["from_size", "learned", "unit"])
def test_window_at_a_true_box_keeps_the_proposals_variance(proposal: Proposal, variance: str):
    true_boxes = CenterBoxes(CENTER + 2, SIZE * 0.5)
    window = attention(variance).window(true_boxes, proposal, IMAGE_SIZE)
    expected = banks(variance, 1, CENTER + 2, SIZE * 0.5)
    np.testing.assert_allclose(window.filters_y[1].numpy(), expected[0], rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(window.filters_x[1].numpy(), expected[1], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("learn_gains", "patch_gain", "mask_gain"), [(False, [0.0, 0.0], [2.0, 2.0]), (True, [0.3, -0.4], [1.5, 0.7])]
)
def test_gains_are_fixed_or_learned(
    proposal: Proposal, learn_gains: bool, patch_gain: list[float], mask_gain: list[float]
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


def test_extract_multiplies_by_the_gain(window: Window):
    image = torch.rand(2, 4, *IMAGE_SIZE)
    patch = attention().extract(image, window)
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
def test_box_maps_are_pasted_ones(make_proposal, proposal: Proposal, variance: str):
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


def test_variance_from_size_is_size_over_patch_in_pixels(proposal: Proposal):
    log_variance = FILTER_VARIANCE_REGISTRY.get("from_size")(proposal, torch.tensor(PATCH_SIZE))
    np.testing.assert_allclose(torch.exp(log_variance).numpy(), [[12 / 16, 20 / 24], [18 / 16, 30 / 24]], rtol=1e-5)


def test_built_from_config(tiny_cfg):
    cfg = tiny_cfg({"ATTENTION.FILTER_VARIANCE": "learned", "ATTENTION.LEARN_GAINS": True})
    part = GaussianAttention(cfg)
    assert part.patch_size == PATCH_SIZE
    assert part.learn_gains
    assert not part.state_dict()  # it learns nothing, so checkpoints hold nothing of it


def bilinear(sampling: str = "bilinear") -> BilinearAttention:
    return BilinearAttention(patch_size=PATCH_SIZE, sampling=sampling)


def patch_places(box: int, axis: int, center: Tensor = CENTER, size: Tensor = SIZE) -> np.ndarray:
    """Pixels at which the points of a patch lie."""
    steps = np.arange(PATCH_SIZE[axis]) - (PATCH_SIZE[axis] - 1) / 2
    return center[box, axis].item() + (size[box, axis].item() + 1) / PATCH_SIZE[axis] * steps


def test_bilinear_extraction_interpolates_the_image(proposal: Proposal):
    # Boxes smaller than the patch on both axes.
    boxes = CenterBoxes(CENTER, SIZE * 0.6)
    image = torch.rand(2, 3, *IMAGE_SIZE)
    part = bilinear()
    patch = part.extract(image, part.window(boxes, proposal, IMAGE_SIZE))
    assert patch.shape == (2, 3, *PATCH_SIZE)
    for box in range(2):
        places = np.meshgrid(*(patch_places(box, axis, boxes.center, boxes.size) for axis in (0, 1)), indexing="ij")
        for channel in range(3):
            expected = scipy.ndimage.map_coordinates(image[box, channel].numpy(), places, order=1, mode="grid-constant")
            np.testing.assert_allclose(patch[box, channel].numpy(), expected, atol=1e-5)


def test_gaussian_sampling_is_that_of_the_gaussian_window(proposal: Proposal):
    window = bilinear("gaussian").window(proposal.boxes, proposal, IMAGE_SIZE)
    for index in range(2):
        expected = banks("from_size", index, CENTER, SIZE)
        np.testing.assert_allclose(window.filters_y[index].numpy(), expected[0], rtol=1e-4, atol=1e-7)
        np.testing.assert_allclose(window.filters_x[index].numpy(), expected[1], rtol=1e-4, atol=1e-7)
    # Pasting is the same either way.
    other = bilinear().window(proposal.boxes, proposal, IMAGE_SIZE)
    assert torch.equal(window.paste_y, other.paste_y) and torch.equal(window.paste_x, other.paste_x)


@pytest.mark.parametrize("sampling", ["bilinear", "gaussian"])
def test_bilinear_windows_have_no_gains_and_no_variance_of_the_proposal(
    make_proposal, proposal: Proposal, sampling: str
):
    window = bilinear(sampling).window(proposal.boxes, proposal, IMAGE_SIZE)
    plain = bilinear(sampling).window(proposal.boxes, make_proposal(CENTER + 3, SIZE * 2), IMAGE_SIZE)
    assert torch.equal(window.filters_y, plain.filters_y) and torch.equal(window.filters_x, plain.filters_x)
    assert window.patch_log_gain.tolist() == window.mask_log_gain.tolist() == [0.0, 0.0]


@pytest.mark.parametrize("size", [1e-4, 0.5])
def test_a_box_counts_as_at_least_a_pixel_large(proposal: Proposal, size: float):
    part = bilinear()
    window = part.window(CenterBoxes(CENTER, torch.full_like(SIZE, size)), proposal, IMAGE_SIZE)
    pixel = part.window(CenterBoxes(CENTER, torch.ones_like(SIZE)), proposal, IMAGE_SIZE)
    for name in ("filters_y", "filters_x", "paste_y", "paste_x"):
        assert torch.equal(getattr(window, name), getattr(pixel, name))
    # From 14 to 16 and from 19.5 to 21.5 pixels, edges included.
    assert part.paste(torch.zeros(2, *PATCH_SIZE), window)[0].nonzero().tolist() == [
        [row, column] for row in (14, 15, 16) for column in (20, 21)
    ]


def test_bilinear_pasting_is_the_sigmoid_of_interpolated_logits_inside_the_box_and_0_outside(proposal: Proposal):
    part = bilinear()
    logits = torch.randn(2, *PATCH_SIZE) * 4
    mask = part.paste(logits, part.window(proposal.boxes, proposal, IMAGE_SIZE))
    assert mask.shape == (2, *IMAGE_SIZE)
    pixels = [np.arange(side) for side in IMAGE_SIZE]
    for box in range(2):
        rows = np.stack([np.interp(pixels[1], patch_places(box, 1), row) for row in logits[box].numpy()])
        both = np.stack([np.interp(pixels[0], patch_places(box, 0), column) for column in rows.T], axis=1)
        offsets = [np.abs(pixels[axis] - CENTER[box, axis].item()) for axis in (0, 1)]
        inside = [offsets[axis] <= (SIZE[box, axis].item() + 1) / 2 for axis in (0, 1)]
        expected = scipy.special.expit(both) * np.outer(*inside)
        assert 0 < np.outer(*inside).mean() < 1
        np.testing.assert_allclose(mask[box].numpy(), expected, rtol=1e-4, atol=1e-6)


def test_large_logits_are_pasted_as_a_sharp_box(make_proposal):
    # Rows 4 to 20 and columns 10 to 39, first and last pixel included.
    center, size = torch.tensor([[12.0, 24.5]]), torch.tensor([[16.0, 29.0]])
    part, proposal = bilinear(), make_proposal(center, size)
    mask = part.paste(torch.full((1, *PATCH_SIZE), 50.0), part.window(proposal.boxes, proposal, IMAGE_SIZE))
    expected = torch.zeros(1, *IMAGE_SIZE)
    expected[0, 4:21, 10:40] = 1
    torch.testing.assert_close(mask, expected)
    sequence = make_proposal(center[None], size[None])
    assert torch.equal(part.box_maps(sequence, IMAGE_SIZE)[0], expected)


def test_bilinear_box_maps_are_hard_and_without_gradient(make_proposal):
    center, size = CENTER[None].clone().requires_grad_(), SIZE[None].clone().requires_grad_()
    maps = bilinear().box_maps(make_proposal(center, size), IMAGE_SIZE)
    assert maps.shape == (1, 2, *IMAGE_SIZE) and not maps.requires_grad
    for step in range(2):
        expected = np.zeros(IMAGE_SIZE)
        first, last = CENTER[step] - SIZE[step] / 2, CENTER[step] + SIZE[step] / 2
        for y in range(IMAGE_SIZE[0]):
            for x in range(IMAGE_SIZE[1]):
                expected[y, x] = first[0] <= y <= last[0] and first[1] <= x <= last[1]
        np.testing.assert_array_equal(maps[0, step].numpy(), expected)


def test_gradients_of_bilinear_extraction_and_pasting(make_proposal):
    part = BilinearAttention(patch_size=(3, 3), sampling="bilinear")
    center = torch.tensor([[2.07, 3.12], [2.91, 3.23]], dtype=torch.float64).requires_grad_()
    size = torch.tensor([[1.63, 2.21], [4.37, 5.71]], dtype=torch.float64).requires_grad_()
    image = torch.rand(2, 1, 6, 7, dtype=torch.float64, requires_grad=True)

    def looked_at(center: Tensor, size: Tensor, image: Tensor) -> Tensor:
        window = part.window(CenterBoxes(center, size), make_proposal(center, size), (6, 7))
        return part.paste(part.extract(image, window)[:, 0] * 3 - 1, window)

    assert torch.autograd.gradcheck(looked_at, [center, size, image])


@pytest.mark.parametrize("length", [4, 8, 16, 5])
def test_filters_on_a_smaller_map_see_it_enlarged(length: int):
    filters = torch.rand(2, 32, 6)
    cells = torch.randn(length)
    # Bilinear interpolation of cells whose centres are at (i + 0.5) * 32 / length - 0.5 pixels.
    places = (np.arange(length) + 0.5) * 32 / length - 0.5
    enlarged = np.interp(np.arange(32), places, cells.numpy())
    seen = torch.einsum("bcf,c->bf", on_smaller_map(filters, length), cells)
    np.testing.assert_allclose(seen.numpy(), enlarged @ filters.numpy(), rtol=1e-4, atol=1e-5)


@pytest.fixture(params=["GaussianAttention", "BilinearAttention", "gaussian sampling"])
def either_attention(request: pytest.FixtureRequest) -> Attention:
    if request.param == "GaussianAttention":
        return attention("learned", learn_gains=True)
    return bilinear("gaussian" if request.param == "gaussian sampling" else "bilinear")


@pytest.mark.parametrize("size", [(8, 12), (4, 6), (5, 7)])
def test_extracting_from_a_small_map_is_extracting_from_it_enlarged(
    either_attention: Attention, proposal: Proposal, size: tuple[int, int]
):
    features = torch.randn(2, 3, *size)
    window = either_attention.window(proposal.boxes, proposal, IMAGE_SIZE)
    enlarged = F.interpolate(features, size=IMAGE_SIZE, mode="bilinear", align_corners=False)
    expected = either_attention.extract(enlarged, window)
    patch = either_attention.extract(features, window.on_map(*size))
    assert patch.shape == (2, 3, *PATCH_SIZE)
    torch.testing.assert_close(patch, expected, rtol=1e-4, atol=1e-5)


def test_a_window_on_a_smaller_map_leaves_the_window_as_it_is(either_attention: Attention, proposal: Proposal):
    window = either_attention.window(proposal.boxes, proposal, IMAGE_SIZE)
    small = window.on_map(8, 12)
    assert type(small) is type(window)
    assert window.filters_y.shape == (2, 32, 16) and window.filters_x.shape == (2, 48, 24)
    assert small.filters_y.shape == (2, 8, 16) and small.filters_x.shape == (2, 12, 24)


@pytest.mark.parametrize(
    "names",
    [["image"], ["image", "memory"], ["features"], ["features", "memory", "image"], ["image", "angle", "features"]],
)
def test_cut_puts_the_patches_of_all_named_maps_together(
    either_attention: Attention, proposal: Proposal, names: list[str]
):
    extra = ExtraMaps(angle=torch.rand(2, 8, *IMAGE_SIZE), features=(torch.randn(2, 5, 8, 12), torch.randn(2, 6, 4, 6)))
    inputs = StepInputs(torch.rand(2, 3, *IMAGE_SIZE), torch.rand(2, *IMAGE_SIZE), extra)
    maps = {
        "image": inputs.image,
        "memory": inputs.memory[:, None],
        "angle": extra.angle,
        "features": F.interpolate(extra.features[0], size=IMAGE_SIZE, mode="bilinear", align_corners=False),
    }
    window = either_attention.window(proposal.boxes, proposal, IMAGE_SIZE)
    patch = either_attention.cut(inputs, names, window)
    everything = torch.cat([values for name, values in maps.items() if name in names], dim=1)
    torch.testing.assert_close(patch, either_attention.extract(everything, window), rtol=1e-4, atol=1e-5)


def test_who_takes_logits():
    assert BilinearAttention.takes_logits and not GaussianAttention.takes_logits


def test_bilinear_attention_built_from_config(fast_cfg):
    part = build_attention(fast_cfg({"ATTENTION.PATCH_SIZE": [12, 20]}))
    assert isinstance(part, BilinearAttention)
    assert part.patch_size == (12, 20)
    assert not part.state_dict()


def test_bilinear_attention_refuses_learned_gains(fast_cfg):
    with pytest.raises(ValueError, match="(?=.*MODEL.REC_ATTEND.ATTENTION.LEARN_GAINS).*BilinearAttention"):
        build_attention(fast_cfg({"ATTENTION.LEARN_GAINS": True}))
