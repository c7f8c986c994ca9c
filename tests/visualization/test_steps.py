"""The picture of the steps: its size, and what stands where."""

import numpy as np
import pytest
import torch

from rec_attend_d2.visualization import draw_steps
from rec_attend_d2.visualization.colors import BACKGROUND, BOX, STOP, instance_color

# Layout of the picture: 40 x 60 images are magnified 4 times, to 160 x 240.
FACTOR, CELL_HEIGHT, CELL_WIDTH, GAP, LABEL, HEADER = 4, 160, 240, 4, 112, 44
LOOK, BOXES, PATCHES, FOUND, MEMORY = range(5)


def cell(picture: np.ndarray, row: int, step: int) -> np.ndarray:
    """The cell [160, 240, 3] of a row and step."""
    top = HEADER + GAP + row * (CELL_HEIGHT + GAP)
    left = LABEL + GAP + step * (CELL_WIDTH + GAP)
    return picture[top : top + CELL_HEIGHT, left : left + CELL_WIDTH]


def has_color(picture: np.ndarray, color: tuple[int, int, int]) -> np.ndarray:
    """[H, W] bool: where the picture has exactly this colour."""
    return (picture == color).all(axis=2)


@pytest.mark.parametrize(("name", "rows"), [("example", 5), ("boxes_alone", 4)])
@pytest.mark.parametrize(("max_steps", "steps"), [(12, 3), (2, 2)])
def test_size_is_a_column_per_step_and_a_row_per_map(request, name, rows, max_steps, steps):
    picture = draw_steps(request.getfixturevalue(name), max_steps)
    expected = HEADER + GAP + rows * (CELL_HEIGHT + GAP), LABEL + GAP + steps * (CELL_WIDTH + GAP), 3
    assert picture.dtype == np.uint8 and picture.shape == expected


def test_box_lines_run_through_the_corner_pixels_and_nowhere_else(example):
    drawn = has_color(cell(draw_steps(example), BOXES, 1), BOX)
    # The claimed one of two: rows 25..31 and columns 2..8; a pixel's middle is 2 pixels into its 4 x 4 square.
    top, bottom, left, right = 102, 126, 10, 34
    assert drawn[top, left : right + 1].all() and drawn[bottom, left : right + 1].all()
    assert drawn[top : bottom + 1, left].all() and drawn[top : bottom + 1, right].all()
    allowed = np.zeros_like(drawn)
    allowed[top - 2 : bottom + 3, left - 2 : right + 3] = True
    allowed[top + 3 : bottom - 2, left + 3 : right - 2] = False
    assert not (drawn & ~allowed).any()


def test_heat_is_where_the_model_looked(example):
    picture = draw_steps(example)
    for step in (0, 1):
        bright = cell(picture, LOOK, step).mean(axis=2)
        expected = np.zeros((CELL_HEIGHT, CELL_WIDTH), dtype=bool)
        expected[:80, step * 80 : step * 80 + 80] = True
        np.testing.assert_array_equal(bright > 100, expected)


def test_objects_found_stay_and_add_up(example):
    picture = draw_steps(example)
    for step, count in ((0, 2), (1, 3)):
        shown = cell(picture, FOUND, step)
        for number, (row, column) in enumerate([(9, 9), (26, 40), (28, 5)]):
            expected = np.round(0.55 * 20 + 0.45 * np.array(instance_color(number))) if number < count else (20, 20, 20)
            assert tuple(shown[row * FACTOR + 1, column * FACTOR + 1]) == tuple(expected), (step, number)
        assert tuple(shown[4 * FACTOR, 50 * FACTOR]) == (20, 20, 20)  # looked at, but not claimed


def test_patches_of_a_glance_stand_side_by_side(example):
    shown = cell(draw_steps(example), PATCHES, 1)  # one claimed patch fills 160 x 160 in the middle
    assert (shown[10:70, 50:190] == 255).all() and (shown[90:150, 50:190] == 0).all()
    assert (shown[:, :30] == BACKGROUND).all() and (shown[:, 210:] == BACKGROUND).all()
    both = cell(draw_steps(example), PATCHES, 0).mean(axis=2)  # two of four places
    assert both[20, 60] == 255 and both[20, 180] == 255 and both[140, 60] == 0 and both[60, 60] == 0


def test_memory_is_what_earlier_steps_claimed(example):
    picture = draw_steps(example)
    assert (cell(picture, MEMORY, 0) == 0).all()
    claimed = (cell(picture, MEMORY, 1) == 255).all(axis=2)
    assert claimed.sum() == (11 * 9 + 13 * 21) * FACTOR**2 and claimed[4 * FACTOR, 5 * FACTOR]


def test_a_step_that_claims_nothing_is_dimmed(example):
    picture = draw_steps(example)
    assert not has_color(cell(picture, BOXES, 2), BOX).any() and not has_color(cell(picture, BOXES, 2), STOP).any()
    assert cell(picture, FOUND, 2).max() < cell(picture, FOUND, 1).max()


def test_headings_say_what_was_claimed(example, boxes_alone):
    assert [example.heading(number) for number in range(3)] == [
        "glance 1: 2 objects",
        "glance 2: 1 object",
        "glance 3: 0 objects",
    ]
    assert boxes_alone.heading(2) == "step 3, score 0.20"


def test_box_far_outside_of_the_image_is_cut_off(example):
    example.steps[0].where.boxes.center[0] = torch.tensor([1e12, -1e12])
    drawn = has_color(cell(draw_steps(example), BOXES, 0), BOX)
    assert drawn.any() and not drawn[: 15 * FACTOR].any()
