"""What a memory has claimed, and drawn memories, against loops."""

from collections import Counter

import numpy as np
import pytest
import torch
from torch import Tensor

from rec_attend_d2.modeling import Targets
from rec_attend_d2.modeling.claims import DrawnMemories, dilate, erode, unclaimed_instances


def targets_of(masks: Tensor) -> Targets:
    return Targets.from_masks(masks, 0.2, 2.0)


def drawer(**changes) -> DrawnMemories:
    """A drawer without any noise, but for ``changes``."""
    return DrawnMemories(
        **{"empty_share": 0.0, "value_noise": 0.0, "shape_noise": False, "piece_noise": 0.0, **changes}
    )


def test_unclaimed_instances_by_loop():
    masks = (torch.rand(2, 4, 6, 7) < 0.3).float()
    masks[0, 3] = masks[1, 1:] = 0
    claimed = torch.rand(2, 5, 6, 7)
    found = unclaimed_instances(claimed, targets_of(masks))
    for b in range(2):
        for t in range(5):
            for n in range(4):
                pixels = [claimed[b, t, y, x] > 0.5 for y, x in masks[b, n].nonzero().tolist()]
                assert found[b, t, n] == (len(pixels) > 0 and 2 * sum(pixels) < len(pixels))
    assert found.any() and not found[0, :, :3].all()


def test_half_of_the_pixels_above_one_half_claim_an_object():
    masks = torch.zeros(1, 2, 3, 4)
    masks[0, 0, 0] = 1
    claimed = torch.zeros(1, 3, 3, 4)
    claimed[0, 0, 0, 0] = claimed[0, 1, 0, :2] = 0.51
    claimed[0, 2, 0] = 0.5
    # One pixel of four, two of four, and all at a value that is not above one half; the second slot is empty.
    assert unclaimed_instances(claimed, targets_of(masks))[0].tolist() == [[True, False], [False, False], [True, False]]


def neighbourhoods(mask: np.ndarray, reduce) -> np.ndarray:
    """``reduce`` of the 3x3 neighbours inside the image, for every pixel."""
    height, width = mask.shape
    return np.array(
        [[reduce(mask[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]) for x in range(width)] for y in range(height)]
    )


def test_masks_grow_and_shrink_by_a_pixel():
    masks = torch.zeros(5, 20, 24)
    masks[0, 3:13, 4:18] = 1
    masks[1, :9, 12:] = 1  # at the rim, where nothing is lost
    masks[2, 5:8, 5:8] = 1  # would shrink to a pixel
    masks[3, 4, 4] = 1
    masks[4] = torch.rand(20, 24) < 0.9
    for mask, grown, shrunk in zip(masks.numpy(), dilate(masks).numpy(), erode(masks).numpy(), strict=True):
        np.testing.assert_array_equal(grown, neighbourhoods(mask, np.max))
        smaller = neighbourhoods(mask, np.min)
        np.testing.assert_array_equal(shrunk, smaller if smaller.sum() > mask.sum() / 2 else mask)
    assert erode(masks).sum((1, 2)).tolist()[:4] == [8 * 12, 8 * 11, 9, 1]
    assert len(erode(masks[:0])) == len(dilate(masks[:0])) == 0


def bands(count: int) -> Tensor:
    """``count`` disjoint masks of 4 x 5 pixels, one above the other, with a row between them."""
    masks = torch.zeros(count, 5 * count, 7)
    for n in range(count):
        masks[n, 5 * n : 5 * n + 4, 1:6] = 1
    return masks


def test_subsets_of_all_sizes_are_drawn_alike():
    masks, draws = bands(3), 4000
    draw = drawer(empty_share=0.4, value_noise=0.2)
    sizes, members, values = Counter(), Counter(), []
    for _ in range(draws):
        chosen = draw.draw(masks)
        drawn = [int((mask[None] * masks).sum((1, 2)).argmax()) for mask in chosen]
        assert len(set(drawn)) == len(drawn)
        sizes[len(drawn)] += 1
        members.update(drawn)
        for n, mask in zip(drawn, chosen, strict=True):
            values.append(mask.max().item())
            assert torch.equal(mask, masks[n] * mask.max())
    # Standard deviations are below 0.008.
    assert sizes[0] / draws == pytest.approx(0.4, abs=0.03)
    for size in (1, 2, 3):
        assert sizes[size] / draws == pytest.approx(0.2, abs=0.03)
    for n in range(3):
        assert members[n] / draws == pytest.approx(0.2 * (1 / 3 + 2 / 3 + 1), abs=0.03)
    assert min(values) >= 0.8 and max(values) <= 1
    assert min(values) < 0.81 and max(values) > 0.99
    assert np.mean(values) == pytest.approx(0.9, abs=0.005)


def test_an_image_without_objects_has_nothing_to_claim():
    assert drawer(piece_noise=1.0, shape_noise=True).draw(torch.zeros(0, 6, 8)).shape == (0, 6, 8)


def test_a_quarter_each_is_eroded_and_dilated():
    mask = torch.zeros(1, 14, 14)
    mask[0, 3:11, 3:11] = 1
    draw = drawer(shape_noise=True)
    areas = Counter(int(draw.draw(mask).sum()) for _ in range(2000))
    assert set(areas) == {36, 64, 100}
    assert areas[36] / 2000 == pytest.approx(0.25, abs=0.04)
    assert areas[100] / 2000 == pytest.approx(0.25, abs=0.04)


@pytest.mark.parametrize("pixels", [*range(1, 13), 36])
def test_a_piece_never_claims_its_object(pixels: int):
    masks = torch.zeros(2, 9, 20)
    width = 6 if pixels == 36 else 4
    for n in range(2):
        for pixel in range(pixels):
            masks[n, 1 + pixel // width, 1 + 10 * n + pixel % width] = 1
    draw, shares = drawer(piece_noise=1.0), []
    for _ in range(60):
        chosen = draw.draw(masks)
        memory = chosen.amax(0)
        claimed = ~unclaimed_instances(memory[None, None], targets_of(masks[None]))[0, 0]
        assert len(chosen) == 2
        if claimed.all():  # everything was drawn, and nothing is left to take a piece of
            assert torch.equal(memory, masks.amax(0))
            continue
        (whole,) = claimed.nonzero().tolist()
        piece = chosen[1]
        assert torch.equal(chosen[0], masks[whole[0]])
        assert (piece <= masks[1 - whole[0]]).all()
        shares.append(piece.sum().item() / pixels)
    assert 0 <= min(shares) and max(shares) < 0.5
    if pixels == 36:
        assert min(shares) > 0 and max(shares) - min(shares) > 0.2


def test_pieces_come_as_often_as_told():
    masks = bands(2)
    draw = drawer(piece_noise=0.3)
    # Half the images claim both objects and have no piece.
    extra = 0
    for _ in range(1500):
        chosen = draw.draw(masks)
        extra += len(chosen) == 2 and chosen[1].sum() < 10
    assert extra / 1500 == pytest.approx(0.15, abs=0.04)


@pytest.mark.parametrize("name", ["EMPTY_SHARE", "VALUE_NOISE", "PIECE_NOISE"])
@pytest.mark.parametrize("value", [-0.1, 1.1])
def test_settings_out_of_range_are_refused(fast_cfg, name: str, value: float):
    with pytest.raises(ValueError, match=rf"MODEL.REC_ATTEND.TRAINING.DRAWN_MEMORY.{name} is {value}; give 0 to 1"):
        DrawnMemories(fast_cfg({f"TRAINING.DRAWN_MEMORY.{name}": value}))


def test_settings_come_from_the_config(fast_cfg):
    values = {"EMPTY_SHARE": 0.0, "VALUE_NOISE": 0.25, "SHAPE_NOISE": False, "PIECE_NOISE": 0.75}
    draw = DrawnMemories(fast_cfg({f"TRAINING.DRAWN_MEMORY.{key}": value for key, value in values.items()}))
    assert vars(draw) == {key.lower(): value for key, value in values.items()}
