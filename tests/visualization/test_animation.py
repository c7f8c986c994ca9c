"""The animation: a frame per step, objects that add up, and a GIF that keeps them."""

import numpy as np
import pytest
from PIL import Image

from rec_attend_d2.visualization import draw_animation, draw_steps, save_gif, save_steps
from rec_attend_d2.visualization.colors import BOX, STOP, instance_color

# 40 x 60 images are magnified 8 times; two panels below a header of 32 + 4 pixels, with gaps of 4.
FACTOR, HEADER, PANEL = 8, 36, 480
RIGHT = PANEL + 4


def test_there_is_a_frame_per_step(example):
    frames = draw_animation(example)
    assert {frame.shape for frame in frames} == {(HEADER + 324, 2 * (PANEL + 4), 3)}
    assert len(frames) == 3 and len(draw_animation(example, max_steps=2)) == 2


def test_objects_stay_coloured_and_a_stop_adds_none(example):
    panels = [frame[HEADER : HEADER + 320, RIGHT : RIGHT + PANEL] for frame in draw_animation(example)]
    for panel, count in zip(panels, (2, 3, 3), strict=True):
        for number, (row, column) in enumerate([(9, 9), (26, 40), (28, 5)]):
            expected = np.round(0.55 * 20 + 0.45 * np.array(instance_color(number))) if number < count else (20, 20, 20)
            assert tuple(panel[row * FACTOR + 4, column * FACTOR + 4]) == tuple(expected)


def test_a_step_that_claims_nothing_has_its_boxes_in_the_colour_of_stop(example):
    left = [frame[HEADER:, :PANEL] for frame in draw_animation(example)]
    assert [(panel == STOP).all(axis=2).any() for panel in left] == [False, False, True]
    assert [(panel == BOX).all(axis=2).any() for panel in left] == [True, True, False]


def test_boxes_alone_are_drawn_in_their_colours(boxes_alone):
    panel = draw_animation(boxes_alone)[0][HEADER:, RIGHT:]
    for number, (row, column) in enumerate([(4, 9), (20, 40)]):  # on the upper sides
        assert tuple(panel[row * FACTOR, column * FACTOR]) == instance_color(number)
    assert tuple(panel[9 * FACTOR, 9 * FACTOR]) == (20, 20, 20)


def test_gif_has_all_frames_and_their_time(example, tmp_path):
    frames = draw_animation(example)
    save_gif(tmp_path / "steps.gif", frames, 0.7)
    with Image.open(tmp_path / "steps.gif") as gif:
        assert gif.n_frames == 3 and gif.size == (frames[0].shape[1], frames[0].shape[0])
        assert gif.info["duration"] == 700 and gif.info["loop"] == 0
        for number, frame in enumerate(frames):
            gif.seek(number)
            difference = np.abs(np.asarray(gif.convert("RGB")).astype(int) - frame)
            assert difference.mean() < 3, number  # a GIF has 256 colours


def test_gif_without_frames_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one frame"):
        save_gif(tmp_path / "none.gif", [])


def test_steps_are_saved_as_picture_and_as_animation(example, tmp_path):
    picture, animation = save_steps(tmp_path / "plant", example)
    assert (picture, animation) == (str(tmp_path / "plant_steps.png"), str(tmp_path / "plant_steps.gif"))
    np.testing.assert_array_equal(np.array(Image.open(picture)), draw_steps(example))
    with Image.open(animation) as gif:
        assert gif.n_frames == 3
