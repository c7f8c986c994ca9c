"""Where images come from: files, folders, patterns, videos and cameras.

Shapes: `H, W` image in pixels.
"""

import glob
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

PathLike = str | os.PathLike

# Of the files of a folder, those with these endings are its images.
IMAGE_SUFFIXES = (".bmp", ".jp2", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")


@dataclass(frozen=True)
class Frame:
    """An image and where it is from.

    Attributes:
        image: uint8 [H, W, 3] BGR, as Predictor.predict takes it.
        file: path of the image or video as it was given.
        label: name for output files, without ending; no two frames of a source share one.
        number: of a video's frame, from 0; None of an image file.
    """

    image: NDArray[np.uint8]
    file: str
    label: str
    number: int | None = None


def find_images(inputs: Sequence[str]) -> list[str]:
    """Paths of images, each once, in the order of the inputs.

    Args:
        inputs: files, folders (of which the image files are taken, sorted, without those of folders inside) and
            patterns such as ``plants/*.png`` or ``plants/**/*.png``. A single file is not looked at, so that it can
            be missing or no image.

    Raises:
        ValueError: a folder without images, or a pattern that no file matches.
    """
    return list(dict.fromkeys(chain.from_iterable(_files_of(os.path.expanduser(name)) for name in inputs)))


def _files_of(name: str) -> list[str]:
    if os.path.isdir(name):
        files = [str(path) for path in sorted(Path(name).iterdir()) if path.is_file() and is_image_name(path)]
        if not files:
            raise ValueError(f"The folder '{name}' has no images (files ending in {', '.join(IMAGE_SUFFIXES)}).")
        return files
    # A file may have the characters of a pattern in its name.
    if os.path.exists(name) or not glob.has_magic(name):
        return [name]
    files = [path for path in sorted(glob.glob(name, recursive=True)) if os.path.isfile(path)]
    if not files:
        raise ValueError(f"No file matches the pattern '{name}'.")
    return files


def is_image_name(path: PathLike) -> bool:
    """Whether a file has one of the endings of IMAGE_SUFFIXES, in small or capital letters."""
    return Path(path).suffix.lower() in IMAGE_SUFFIXES


def distinct_names(paths: Sequence[PathLike]) -> list[str]:
    """A name per path, all distinct also where capitals do not count.

    It is the file's name without ending; where that is taken, with the folder's name before it, or numbered.
    """
    taken: set[str] = set()
    names = []
    for path in map(Path, paths):
        within = [f"{path.parent.name}_{path.stem}"] if path.parent.name else []
        candidates = chain([path.stem], within, (f"{path.stem}_{number}" for number in count(2)))
        names.append(next(name for name in candidates if name.casefold() not in taken))
        taken.add(names[-1].casefold())
    return names


def image_frames(
    named: Iterable[tuple[str, str]],
    read: Callable[[str], NDArray[np.uint8]],
    report: Callable[[str], None],
) -> Iterator[Frame]:
    """The images that can be read.

    Args:
        named: path and label of each.
        read: Predictor.read.
        report: is told why an image cannot be read; the next one follows.
    """
    for path, label in named:
        try:
            image = read(path)
        except (OSError, ValueError) as error:
            report(str(error))
            continue
        yield Frame(image, path, label)


def open_video(path: str) -> cv2.VideoCapture:
    """A video file. Raises FileNotFoundError, or ValueError if it is no video that OpenCV reads."""
    if not os.path.isfile(path):
        raise FileNotFoundError(f"The video '{path}' does not exist.")
    return _opened(path, f"'{path}' is damaged or no video that OpenCV reads.")


def open_webcam(number: int = 0) -> cv2.VideoCapture:
    """The camera ``number`` of this machine. Raises a ValueError if there is none."""
    return _opened(number, f"There is no webcam {number}, or another program uses it.")


def _opened(source: str | int, fault: str) -> cv2.VideoCapture:
    capture = cv2.VideoCapture(source)
    if not capture.isOpened():
        raise ValueError(fault)
    return capture


def known_property(capture: cv2.VideoCapture, number: int) -> float | None:
    """A property such as ``cv2.CAP_PROP_FPS``; None where the source does not say, as many cameras."""
    value = capture.get(number)
    return value if 0 < value < float("inf") else None


def video_frames(
    capture: cv2.VideoCapture, file: str, prepare: Callable[[NDArray, str], NDArray[np.uint8]]
) -> Iterator[Frame]:
    """The frames until the video ends.

    Args:
        capture: open.
        file: its name.
        prepare: Predictor.prepare.

    Raises:
        ValueError: there is not a single frame.
    """
    for number in count():
        success, image = capture.read()
        if not success:
            if number == 0:
                raise ValueError(f"'{file}' has no frame that can be read.")
            return
        yield Frame(prepare(image, f"Frame {number} of {file}"), file, f"{Path(file).stem}_{number:06d}", number)
