"""External memory: what it remembers, what it hides, and that no gradient flows through it."""

import numpy as np
import pytest
import scipy.ndimage
import torch

from rec_attend_d2.modeling.memory import (
    BoundaryMemory,
    FeatureMemory,
    MaxMemory,
    NoOverwriteMemory,
    build_memory,
    memory_channels,
    soft_boundary,
)
from rec_attend_d2.modeling.step_types import ExtraMaps


@pytest.mark.parametrize(
    ("name", "kind", "channels"),
    [("MaxMemory", MaxMemory, 1), ("NoOverwriteMemory", NoOverwriteMemory, 1), ("BoundaryMemory", BoundaryMemory, 2)],
)
def test_built_from_config(tiny_cfg, name: str, kind: type, channels: int):
    cfg = tiny_cfg({"MEMORY.NAME": name})
    memory = build_memory(cfg)
    assert type(memory) is kind
    state = memory.initial(torch.zeros(2, 3, 4, 5))
    assert memory_channels(cfg) == channels == (1 if state.ndim == 3 else state.shape[1])


@pytest.mark.parametrize("memory", [MaxMemory(), NoOverwriteMemory()])
def test_empty_at_first(memory: MaxMemory):
    initial = memory.initial(torch.rand(2, 3, 4, 5, dtype=torch.float64))
    assert initial.shape == (2, 4, 5)
    assert initial.dtype == torch.float64
    assert (initial == 0).all()


@pytest.mark.parametrize("memory", [MaxMemory(), NoOverwriteMemory()])
def test_each_pixel_keeps_the_most_that_was_ever_claimed(memory: MaxMemory):
    claims = torch.rand(6, 2, 4, 5)
    state = memory.initial(torch.zeros(2, 3, 4, 5))
    for t in range(6):
        state = memory.update(state, claims[t])
        assert torch.equal(state, claims[: t + 1].amax(0))


@pytest.mark.parametrize("memory", [MaxMemory(), NoOverwriteMemory()])
def test_no_gradient_flows_into_what_was_claimed(memory: MaxMemory):
    claimed = torch.rand(2, 4, 5, requires_grad=True)
    assert not memory.update(torch.zeros(2, 4, 5), claimed).requires_grad


def test_max_memory_hides_nothing():
    mask = torch.rand(2, 4, 5)
    assert torch.equal(MaxMemory().visible(mask, torch.rand(2, 4, 5)), mask)


def test_no_overwrite_lets_a_mask_have_only_what_is_left():
    mask = torch.tensor([[[0.8, 0.8, 0.8, 0.0]]], requires_grad=True)
    memory = torch.tensor([[[0.0, 0.25, 1.0, 0.5]]])
    visible = NoOverwriteMemory().visible(mask, memory)
    torch.testing.assert_close(visible, torch.tensor([[[0.8, 0.6, 0.0, 0.0]]]))
    visible.sum().backward()
    torch.testing.assert_close(mask.grad, torch.tensor([[[1.0, 0.75, 0.0, 0.5]]]))


def test_what_was_claimed_is_the_whole_memory_or_its_first_channel():
    state = torch.rand(2, 4, 5)
    assert torch.equal(MaxMemory().claimed(state), state)
    both = torch.rand(2, 2, 4, 5)
    assert torch.equal(BoundaryMemory().claimed(both), both[:, 0])


def test_the_boundary_of_a_rectangle_is_its_ring_but_not_at_the_images_edge():
    mask = torch.zeros(2, 7, 8)
    mask[0, 1:6, 2:7] = 1
    mask[1, 0:3, 5:8] = 1
    inside, corner = soft_boundary(mask)
    ring = np.zeros((7, 8))
    ring[1:6, 2:7] = 1
    ring[2:5, 3:6] = 0
    np.testing.assert_array_equal(inside.numpy(), ring)
    edge = np.zeros((7, 8))
    edge[2, 5:8] = edge[0:3, 5] = 1
    np.testing.assert_array_equal(corner.numpy(), edge)


def test_the_boundary_of_a_soft_mask_is_how_far_the_lowest_neighbour_is_below():
    mask = torch.rand(3, 6, 9)
    lowest = scipy.ndimage.minimum_filter(mask.numpy(), size=(1, 3, 3), mode="nearest")
    np.testing.assert_allclose(soft_boundary(mask).numpy(), mask.numpy() - lowest, atol=1e-7)


def test_boundary_memory_keeps_the_most_of_masks_and_of_boundaries():
    memory = BoundaryMemory()
    claims = torch.rand(4, 2, 6, 9)
    state = memory.initial(torch.zeros(2, 3, 6, 9, dtype=torch.float64))
    assert state.shape == (2, 2, 6, 9) and state.dtype == torch.float64 and (state == 0).all()
    state = state.float()
    for t in range(4):
        state = memory.update(state, claims[t])
        lowest = scipy.ndimage.minimum_filter(claims[: t + 1].numpy(), size=(1, 1, 3, 3), mode="nearest")
        np.testing.assert_array_equal(state[:, 0].numpy(), claims[: t + 1].numpy().max(0))
        np.testing.assert_allclose(state[:, 1].numpy(), (claims[: t + 1].numpy() - lowest).max(0), atol=1e-7)


def test_touching_objects_stay_apart_in_the_boundary_memory():
    # In the first channel the two become one.
    left, right = torch.zeros(1, 5, 8), torch.zeros(1, 5, 8)
    left[:, 1:4, 0:4], right[:, 1:4, 4:8] = 1, 1
    memory = BoundaryMemory()
    state = memory.update(memory.update(memory.initial(torch.zeros(1, 3, 5, 8)), left), right)
    assert state[0, 0, 2].tolist() == [1] * 8
    assert state[0, 1, 2].tolist() == [0, 0, 0, 1, 1, 0, 0, 0]


def test_no_gradient_flows_into_the_boundary_memory_and_it_hides_nothing():
    memory, claimed = BoundaryMemory(), torch.rand(2, 4, 5, requires_grad=True)
    assert not memory.update(torch.zeros(2, 2, 4, 5), claimed).requires_grad
    assert memory.visible(claimed, torch.rand(2, 4, 5)) is claimed


# ---------------------------------------------------------------- features


def test_the_feature_memory_is_built_from_the_config(fast_cfg):
    cfg = fast_cfg({"MEMORY.NAME": "FeatureMemory", "MEMORY.FEATURES": 3})
    memory = build_memory(cfg)
    state = memory.initial(torch.zeros(2, 3, 8, 12))
    assert state.shape == (2, 4, 8, 12) and (state == 0).all()
    assert memory_channels(cfg) == 4


@pytest.mark.parametrize("features", [0, 5])
def test_the_feature_memory_keeps_no_more_features_than_there_are(fast_cfg, features: int):
    with pytest.raises(ValueError, match=rf"MEMORY.FEATURES is {features}, but FeatureMemory keeps 1 to 4"):
        build_memory(fast_cfg({"MEMORY.NAME": "FeatureMemory", "MEMORY.FEATURES": features}))


def test_the_feature_memory_needs_features(tiny_cfg):
    with pytest.raises(ValueError, match="keeps 1 to 0 channels.*ImageEncoder"):
        build_memory(tiny_cfg({"MEMORY.NAME": "FeatureMemory"}))
    memory = FeatureMemory(features=2)
    with pytest.raises(ValueError, match="the preprocessor made none"):
        memory.update(torch.zeros(1, 3, 4, 4), torch.zeros(1, 4, 4), ExtraMaps())


def test_every_pixel_remembers_the_mean_features_of_its_object():
    memory, fine = FeatureMemory(features=2), torch.rand(2, 3, 2, 3, requires_grad=True)
    extra = ExtraMaps(features=(fine, torch.rand(2, 4, 1, 2)))
    # Cells of 4 x 4 pixels. The first object covers two cells, the second a quarter of another and half of a fourth.
    first, second = torch.zeros(2, 8, 12), torch.zeros(2, 8, 12)
    first[:, 0:4, 0:8] = 1
    second[:, 4:6, 4:6] = second[:, 4:6, 8:12] = 1
    state = memory.initial(torch.zeros(2, 3, 8, 12))
    for mask in (first, second):
        state = memory.update(state, mask, extra)
    assert not state.requires_grad
    torch.testing.assert_close(state[:, 0], first + second)
    means = {
        "first": fine[:, :2, 0, :2].mean(2),
        "second": (fine[:, :2, 1, 1] * 4 + fine[:, :2, 1, 2] * 8) / 12,
    }
    expected = first[:, None] * means["first"][..., None, None] + second[:, None] * means["second"][..., None, None]
    torch.testing.assert_close(state[:, 1:], expected.detach())
    # A weak claim changes little of what was remembered; nothing claimed changes nothing.
    torch.testing.assert_close(memory.update(state, 0 * first, extra), state)
    weak = memory.update(state, 0.1 * second, extra)
    torch.testing.assert_close(weak, state)
    assert memory.claimed(state) is not None and torch.equal(memory.claimed(state), state[:, 0])
