"""The animation: a frame per step, objects that add up, and a GIF that keeps them."""

import numpy as np
import pytest
from PIL import Image

from rec_attend_d2.visualization import draw_animation, draw_sequence, save_gif, save_steps
from rec_attend_d2.visualization.colors import STOP, instance_color

# 40 x 60 images are magnified 8 times; two panels below a header of 32 + 4 pixels, with gaps of 4.
FACTOR, HEADER, PANEL = 8, 36, 480
RIGHT = PANEL + 4


def found_panel(frame: np.ndarray) -> np.ndarray:
    """The right panel [320, 480, 3]: objects found so far."""
    return frame[HEADER : HEADER + 320, RIGHT : RIGHT + PANEL]


def pixel(panel: np.ndarray, row: int, column: int) -> tuple[int, ...]:
    """Colour in the middle of a pixel of the network's input."""
    return tuple(int(value) for value in panel[row * FACTOR + 4, column * FACTOR + 4])


def test_there_is_a_frame_per_step(example):
    frames = draw_animation(example.image, example.masks, 0)
    assert len(frames) == 4
    assert {frame.shape for frame in frames} == {(HEADER + 324, 2 * (PANEL + 4), 3)}
    assert len(draw_animation(example.image, example.boxes, 0, max_steps=2)) == 2


def test_objects_stay_coloured_and_a_stop_adds_none(example):
    panels = [found_panel(frame) for frame in draw_animation(example.image, example.masks, 0)]
    inside = [(9, 9), (26, 40), (28, 5), (6, 49)]  # of the rectangles of the four steps
    for step, panel in enumerate(panels):
        for number, place in enumerate(inside):
            claimed = number <= step and number != 2  # step 2 has a score of 0.2
            expected = np.round(0.55 * 20 + 0.45 * np.array(instance_color(number))) if claimed else (20, 20, 20)
            assert pixel(panel, *place) == tuple(expected), (step, number)


def test_stopping_step_has_its_box_in_the_colour_of_stop(example):
    frames = draw_animation(example.image, example.masks, 0)
    has_stop = [(frame[HEADER:, :PANEL] == STOP).all(axis=2).any() for frame in frames]
    assert has_stop == [False, False, True, False]


def test_pixel_of_two_objects_goes_to_the_stronger_one(example):
    example.masks.masks[0, 1, 9, 9] = 1.0  # inside the first rectangle; 0.9 * 1 > 0.8 * 1
    example.masks.masks[0, 0, 10, 9] = 0.5
    example.masks.masks[0, 1, 10, 9] = 1.0  # 0.9 * 0.5 < 0.8 * 1
    panel = found_panel(draw_animation(example.image, example.masks, 0)[1])
    first, second = (np.round(0.55 * 20 + 0.45 * np.array(instance_color(number))) for number in (0, 1))
    assert pixel(panel, 8, 8) == tuple(first)
    assert pixel(panel, 9, 9) == tuple(first)
    assert (panel[10 * FACTOR + 4, 9 * FACTOR + 4] == second).all()


def test_boxes_alone_are_drawn_in_their_colours(example):
    panel = found_panel(draw_animation(example.image, example.boxes, 0)[1])
    for number, (row, column) in enumerate([(4, 9), (20, 40)]):  # on the upper sides
        assert pixel(panel, row, column) == instance_color(number)
    assert pixel(panel, 9, 9) == (20, 20, 20)


def test_gif_has_all_frames_and_their_time(example, tmp_path):
    frames = draw_animation(example.image, example.masks, 0)
    save_gif(tmp_path / "steps.gif", frames, 0.7)
    with Image.open(tmp_path / "steps.gif") as gif:
        assert gif.n_frames == 4 and gif.size == (frames[0].shape[1], frames[0].shape[0])
        assert gif.info["duration"] == 700 and gif.info["loop"] == 0
        for number, frame in enumerate(frames):
            gif.seek(number)
            difference = np.abs(np.asarray(gif.convert("RGB")).astype(int) - frame)
            assert difference.mean() < 3, number  # a GIF has 256 colours


def test_gif_without_frames_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at least one frame"):
        save_gif(tmp_path / "none.gif", [])


def test_steps_are_saved_as_picture_and_as_animation(example, tmp_path):
    picture, animation = save_steps(tmp_path / "plant", example.image, example.masks, 0.85)
    assert (picture, animation) == (str(tmp_path / "plant_steps.png"), str(tmp_path / "plant_steps.gif"))
    expected = draw_sequence(example.image, example.masks, 0, threshold=0.85)
    np.testing.assert_array_equal(np.array(Image.open(picture)), expected)
    with Image.open(animation) as gif:
        assert gif.n_frames == 4
