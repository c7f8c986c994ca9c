"""Where images come from: files, folders, patterns, videos and cameras.

Shapes: `H, W` image in pixels.
"""

import glob
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
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


def find_images(
    inputs: Sequence[str],
    recursive: bool = False,
    report: Callable[[str], object] | None = None,
    results: Collection[Path] = (),
) -> list[str]:
    """Paths of images, each once, in the order of the inputs.

    Args:
        inputs: files, folders (of which the image files are taken, sorted, but not the hidden ones) and patterns such
            as ``plants/*.png`` or ``plants/**/*.png``. A single file is not looked at, so that it can be missing or no
            image.
        recursive: take the images of folders inside folders too.
        report: is told in a line what is left out of a folder.
        results: folders whose images are no input, unless they are named themselves.

    Raises:
        ValueError: a folder without images, or a pattern that no file matches.
    """
    search = _Search(recursive, report, {folder.resolve() for folder in results})
    return list(dict.fromkeys(chain.from_iterable(search.files_of(os.path.expanduser(name)) for name in inputs)))


class _Search:
    def __init__(self, recursive: bool, report: Callable[[str], object] | None, results: set[Path]):
        self._recursive = recursive
        self._report = report
        self._results = results

    def files_of(self, name: str) -> list[str]:
        if os.path.isdir(name):
            return self._files_of_folder(Path(name))
        # A file may have the characters of a pattern in its name.
        if os.path.exists(name) or not glob.has_magic(name):
            return [name]
        found = (path for path in sorted(glob.glob(name, recursive=True)) if os.path.isfile(path))
        files = [path for path in found if not self._is_result(Path(path).parent)]
        if not files:
            raise ValueError(f"No file matches the pattern '{name}'.")
        return files

    def _is_result(self, folder: Path) -> bool:
        if not self._results:
            return False
        folder = folder.resolve()
        return not self._results.isdisjoint((folder, *folder.parents))

    def _files_of_folder(self, folder: Path) -> list[str]:
        images, others, hidden, inside = [], [], 0, 0
        for path in self._walk(folder):
            within = path.parent != folder
            if not is_image_name(path):
                others += [] if within and not self._recursive else [path]
            elif any(part.startswith(".") for part in path.relative_to(folder).parts):
                hidden += self._recursive or not within
            elif within and not self._recursive:
                inside += 1
            else:
                images.append(str(path))
        left_out = []
        if others:
            endings = sorted({path.suffix.lower() or path.name for path in others})
            shown = ", ".join(endings[:5]) + (", ..." if len(endings) > 5 else "")
            left_out.append(f"{plural(len(others), 'file')} of other kinds ({shown})")
        if hidden:
            left_out.append(plural(hidden, "hidden file"))
        if inside:
            left_out.append(f"{plural(inside, 'image')} of folders inside (--recursive takes them)")
        if not images:
            found = f"; left out: {', '.join(left_out)}" if left_out and self._report else ""
            raise ValueError(
                f"The folder '{folder}' has no images (files ending in {', '.join(IMAGE_SUFFIXES)}){found}."
            )
        if left_out and self._report:
            self._report(f"{folder}: {plural(len(images), 'image')}. Left out: {', '.join(left_out)}.")
        return images

    def _walk(self, folder: Path) -> Iterator[Path]:
        """The files of a folder, sorted, and those of the folders inside where somebody asks about them."""
        for path in sorted(folder.iterdir()):
            if not path.is_dir():
                if path.is_file():
                    yield path
            elif (self._recursive or self._report) and not path.is_symlink() and not self._is_result(path):
                yield from self._walk(path)


def plural(number: int, noun: str) -> str:
    """Such as "1 file" and "2 files"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def is_image_name(path: PathLike) -> bool:
    """Whether a file has one of the endings of IMAGE_SUFFIXES, in small or capital letters."""
    return Path(path).suffix.lower() in IMAGE_SUFFIXES


def distinct_names(paths: Sequence[PathLike], others: Iterable[str] = ()) -> list[str]:
    """A name per path, all distinct also where capitals do not count, and none of the ``others``.

    It is the file's name without ending; where that is taken, with the folder's name before it, or numbered.
    """
    taken = {name.casefold() for name in others}
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
