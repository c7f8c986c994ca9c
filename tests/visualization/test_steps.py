"""The picture of the steps: its size, and what stands where."""

import numpy as np
import pytest
import torch

from rec_attend_d2.visualization import draw_sequence
from rec_attend_d2.visualization.colors import BACKGROUND, BOX, MASK
from rec_attend_d2.visualization.steps import glimpse_heat

# Layout of the picture: 40 x 60 images are magnified 4 times, to 160 x 240.
FACTOR, CELL_HEIGHT, CELL_WIDTH, GAP, LABEL, HEADER = 4, 160, 240, 4, 112, 44
LOOK, BOX_ROW, PATCH, MASK_ROW, MEMORY = range(5)


def cell(picture: np.ndarray, row: int, step: int) -> np.ndarray:
    """The cell [160, 240, 3] of a row and step."""
    top = HEADER + GAP + row * (CELL_HEIGHT + GAP)
    left = LABEL + GAP + step * (CELL_WIDTH + GAP)
    return picture[top : top + CELL_HEIGHT, left : left + CELL_WIDTH]


def has_color(picture: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    """[H, W] bool: where the picture has exactly this colour."""
    return (picture == color).all(axis=2)


@pytest.mark.parametrize(("kind", "rows"), [("masks", 5), ("boxes", 4)])
@pytest.mark.parametrize(("max_steps", "steps"), [(12, 4), (3, 3)])
def test_size_is_a_column_per_step_and_a_row_per_map(example, kind, rows, max_steps, steps):
    picture = draw_sequence(example.image, getattr(example, kind), 0, max_steps)
    assert picture.dtype == np.uint8
    assert picture.shape == (
        HEADER + GAP + rows * (CELL_HEIGHT + GAP),
        LABEL + GAP + steps * (CELL_WIDTH + GAP),
        3,
    )


def test_large_images_are_not_magnified(example):
    sequence = example.boxes
    sequence.memories = torch.zeros(2, 4, 200, 210)
    sequence.box_maps = torch.zeros(2, 4, 200, 210)
    picture = draw_sequence(np.zeros((200, 210, 3), np.uint8), sequence, 0)
    assert picture.shape == (HEADER + GAP + 4 * (200 + GAP), LABEL + GAP + 4 * (210 + GAP), 3)


def test_box_lines_run_through_the_corner_pixels_and_nowhere_else(example):
    drawn = has_color(cell(draw_sequence(example.image, example.masks, 0), BOX_ROW, 1), BOX)
    # Rectangle of rows 20..32 and columns 30..50; a pixel's middle is 2 pixels into its 4 x 4 square.
    top, bottom, left, right = 82, 130, 122, 202
    assert drawn[top, left : right + 1].all() and drawn[bottom, left : right + 1].all()
    assert drawn[top : bottom + 1, left].all() and drawn[top : bottom + 1, right].all()
    allowed = np.zeros_like(drawn)
    allowed[top - 2 : bottom + 3, left - 2 : right + 3] = True
    allowed[top + 3 : bottom - 2, left + 3 : right - 2] = False
    assert not (drawn & ~allowed).any()


def test_glimpse_heats_the_place_the_network_looked_at_last(example):
    picture = draw_sequence(example.image, example.masks, 0)
    for step in (0, 1, 3):
        bright = cell(picture, LOOK, step).mean(axis=2)
        row, column = divmod(step, 3)
        expected = np.zeros((CELL_HEIGHT, CELL_WIDTH), dtype=bool)
        expected[row * 80 : row * 80 + 80, column * 80 : column * 80 + 80] = True
        np.testing.assert_array_equal(bright > 100, expected)


def test_heat_is_logarithmic_between_uniform_and_one_place():
    glimpse = np.array([[0.5, 0.25], [0.125, 0.125]])  # of 4 places: 2 x, 1 x and half of uniform
    np.testing.assert_allclose(glimpse_heat(glimpse, 2, 2), [[0.5, 0], [0, 0]], atol=1e-6)
    np.testing.assert_allclose(glimpse_heat(np.eye(3)[:1], 1, 3), [[1, 0, 0]], atol=1e-6)
    assert (glimpse_heat(np.full((2, 3), 1 / 6), 4, 6) < 1e-6).all()


def test_mask_is_tinted_exactly_where_it_is(example):
    shown = cell(draw_sequence(example.image, example.masks, 0), MASK_ROW, 0)
    tinted = np.zeros((CELL_HEIGHT, CELL_WIDTH), dtype=bool)
    tinted[4 * FACTOR : 15 * FACTOR, 5 * FACTOR : 14 * FACTOR] = True
    assert (shown[~tinted] == 20).all()
    expected = np.round(0.35 * 20 + 0.65 * np.array(MASK))
    assert (shown[tinted] == expected).all()


def test_patch_mask_keeps_its_shape_and_rows(example):
    shown = cell(draw_sequence(example.image, example.masks, 0), PATCH, 0)
    # The 8 x 8 patch fills 160 x 160 in the middle of the cell; its upper half is 1.
    assert (shown[:80, 40:200] == 255).all() and (shown[80:, 40:200] == 0).all()
    assert (shown[:, :40] == BACKGROUND).all() and (shown[:, 200:] == BACKGROUND).all()


def test_memory_is_what_earlier_steps_claimed(example):
    picture = draw_sequence(example.image, example.masks, 0)
    assert (cell(picture, MEMORY, 0) == 0).all()
    claimed = (cell(picture, MEMORY, 1) == 255).all(axis=2)
    assert claimed.sum() == 11 * 9 * FACTOR**2 and claimed[4 * FACTOR, 5 * FACTOR]


def test_steps_below_the_threshold_are_dimmed(example):
    lively = draw_sequence(example.image, example.masks, 0, threshold=0.1)
    picture = draw_sequence(example.image, example.masks, 0, threshold=0.5)
    for step, kept in enumerate([True, True, False, True]):
        same = np.array_equal(cell(picture, BOX_ROW, step), cell(lively, BOX_ROW, step))
        assert same == kept
        assert has_color(cell(picture, BOX_ROW, step), BOX).any() == kept


def test_index_chooses_the_image_of_the_batch(example):
    drawn = has_color(cell(draw_sequence(example.image, example.masks, 1), BOX_ROW, 2), BOX)
    # Rectangle from row 12 to 16, drawn two pixels wide around 50 and 66.
    rows = np.flatnonzero(drawn.any(axis=1))
    assert 48 <= rows.min() <= 50 and 66 <= rows.max() <= 68


def test_box_far_outside_of_the_image_is_cut_off(example):
    example.masks.proposals.boxes.center[0, 0] = torch.tensor([1e12, -1e12])
    picture = draw_sequence(example.image, example.masks, 0)
    assert not has_color(cell(picture, BOX_ROW, 0), BOX).any()
    assert has_color(cell(picture, BOX_ROW, 1), BOX).any()


def test_inputs_are_left_as_they_are(example):
    draw_sequence(example.image, example.masks, 0)
    assert (example.image == 20).all()


@pytest.mark.parametrize("image", [np.zeros((40, 61, 3), np.uint8), np.zeros((40, 60, 3), np.float32)])
def test_wrong_image_is_refused(example, image):
    with pytest.raises(ValueError, match=r"uint8 RGB of shape \(40, 60, 3\)"):
        draw_sequence(image, example.masks, 0)
