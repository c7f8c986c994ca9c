"""Images of files, folders, patterns and videos."""

import os
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from rec_attend_d2.data.image_io import read_image, to_bgr
from rec_attend_d2.prediction.sources import (
    distinct_names,
    find_images,
    image_frames,
    known_property,
    open_video,
    open_webcam,
    video_frames,
)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The working folder, with images (all of them empty files) and others."""
    for name in ("plants/b.PNG", "plants/a.jpg", "plants/notes.txt", "plants/young/c.tiff", "d.png", "odd[1].png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (["d.png"], ["d.png"]),
        (["plants"], ["plants/a.jpg", "plants/b.PNG"]),
        (["plants/*.jpg", "plants/"], ["plants/a.jpg", "plants/b.PNG"]),
        (["plants/**/*.ti*"], ["plants/young/c.tiff"]),
        (["plants/*"], ["plants/a.jpg", "plants/b.PNG", "plants/notes.txt"]),
        (["odd[1].png"], ["odd[1].png"]),
        (["missing.png", "d.png", "d.png"], ["missing.png", "d.png"]),
    ],
)
def test_images_of_files_folders_and_patterns(folder, inputs, expected):
    assert find_images(inputs) == expected


@pytest.mark.parametrize(
    ("name", "message"),
    [("empty", "The folder 'empty' has no images"), ("*.gif", r"No file matches the pattern '\*\.gif'")],
)
def test_nothing_found_is_an_error(folder, name, message):
    with pytest.raises(ValueError, match=message):
        find_images(["d.png", name])


def test_the_home_folder_is_known(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder))
    assert find_images(["~/plants"]) == [str(folder / "plants" / name) for name in ("a.jpg", "b.PNG")]


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        (["x.png", "y.png"], ["x", "y"]),
        (["a/x.png", "b/x.png", "c/d/x.jpg"], ["x", "b_x", "d_x"]),
        (["a/x.png", "a/x.jpg", "a/x.tif"], ["x", "a_x", "x_2"]),
        (["x.png", "X.jpg", "x_2.png"], ["x", "X_2", "x_2_2"]),
    ],
)
def test_names_are_distinct(paths, expected):
    assert distinct_names(paths) == expected


def test_images_that_cannot_be_read_are_reported(tmp_path):
    good, bad, missing = (str(tmp_path / name) for name in ("good.png", "bad.png", "missing.png"))
    cv2.imwrite(good, np.full((4, 5), 7, np.uint8))
    Path(bad).write_text("no image")
    reports: list[str] = []
    named = [(bad, "bad"), (good, "good"), (missing, "missing")]
    (frame,) = image_frames(named, read_image, reports.append)
    assert (frame.file, frame.label, frame.number, frame.image.shape) == (good, "good", None, (4, 5, 3))
    assert [path in report for path, report in zip((bad, missing), reports, strict=True)] == [True, True]


@pytest.fixture
def video(tmp_path) -> str:
    """Six grey frames, each brighter than the one before, 12 a second."""
    path = str(tmp_path / "clip.avi")
    writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*"MJPG"), 12, (48, 32))
    for brightness in range(0, 240, 40):
        writer.write(np.full((32, 48, 3), brightness, np.uint8))
    writer.release()
    return path


def test_frames_of_a_video(video):
    capture = open_video(video)
    assert known_property(capture, cv2.CAP_PROP_FPS) == pytest.approx(12)
    assert known_property(capture, cv2.CAP_PROP_FRAME_COUNT) == 6
    frames = list(video_frames(capture, video, lambda image, name: to_bgr(image, (), name)))
    assert [frame.number for frame in frames] == list(range(6))
    assert [frame.label for frame in frames][::5] == ["clip_000000", "clip_000005"]
    assert {frame.file for frame in frames} == {video} and frames[0].image.shape == (32, 48, 3)
    assert all(second.image.mean() > first.image.mean() + 30 for first, second in pairwise(frames))
    with pytest.raises(ValueError, match="has no frame that can be read"):
        next(video_frames(capture, video, lambda image, name: image))  # at its end


@pytest.mark.parametrize("said", [0.0, -1.0, float("nan"), float("inf")])
def test_a_camera_that_does_not_know_its_rate(said):
    class Camera:
        def get(self, key: int) -> float:
            return said

    assert known_property(Camera(), cv2.CAP_PROP_FPS) is None


def test_what_is_no_video(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"The video 'missing\.mp4' does not exist"):
        open_video("missing.mp4")
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(ValueError, match=r"text\.mp4' is damaged or no video"):
        open_video(str(tmp_path / "text.mp4"))


@pytest.mark.skipif(os.path.exists("/dev/video99"), reason="there is such a camera")
def test_a_camera_that_is_not_there():
    with pytest.raises(ValueError, match="There is no webcam 99"):
        open_webcam(99)


def test_what_is_left_out_of_a_folder_is_said(folder):
    (folder / "plants" / "._a.jpg").touch()
    (folder / "plants" / ".cache").mkdir()
    (folder / "plants" / ".cache" / "e.png").touch()
    lines: list[str] = []
    assert find_images(["plants"], report=lines.append) == ["plants/a.jpg", "plants/b.PNG"]
    assert lines.pop() == (
        "plants: 2 images. Left out: 1 file of other kinds (.txt), 1 hidden file, 1 image of folders inside "
        "(--recursive takes them)."
    )
    assert find_images(["plants"], True, lines.append) == ["plants/a.jpg", "plants/b.PNG", "plants/young/c.tiff"]
    assert lines.pop() == "plants: 3 images. Left out: 1 file of other kinds (.txt), 2 hidden files."
    with pytest.raises(ValueError, match=r"'\.' has no images .* left out: 1 hidden file, 3 images"):
        (folder / "._d.png").touch()
        for name in ("d.png", "odd[1].png"):
            (folder / name).unlink()
        find_images(["."], report=lines.append)
    # Results among the inputs are none, unless they are asked for.
    results = [Path("plants/young")]
    assert find_images(["plants"], True, None, results) == ["plants/a.jpg", "plants/b.PNG"]
    assert find_images(["plants/**/*.[jt]*"], False, None, results) == ["plants/a.jpg", "plants/notes.txt"]
    assert find_images(["plants/young"], False, None, results) == ["plants/young/c.tiff"]


def test_names_of_others_are_not_taken():
    assert distinct_names(["a/x.png", "a/y.png"], ["X", "z"]) == ["a_x", "y"]
