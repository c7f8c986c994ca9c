"""Pictures of image files: of a photo or of one page of a TIFF stack, with all its channels and its pixel size.

Shapes: `H, W` picture in pixels, `C` channels.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray

from ..data.image_io import decode_image
from ..data.large_images import LARGEST_READ, map_large_image
from .pixel_size import Scale, read_scale
from .sources import distinct_names, plural

# First bytes of TIFF and BigTIFF files.
_TIFF_MARKS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Samples of a pixel that are one picture: grey, colour, colour with alpha.
_USUAL_SAMPLES = (1, 3, 4)
# Types, in this machine's order of bytes, that OpenCV scales.
_SCALABLE = (np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.int16), np.dtype(np.float32))


@dataclass(frozen=True)
class ImageSource:
    """A picture to be counted.

    Attributes:
        file: path as it was given.
        label: name for output files, without ending; no two pictures share one.
        page: number of the page of a stack, from 1; None of a file that holds one picture.
    """

    file: str
    label: str
    page: int | None = None

    @property
    def name(self) -> str:
        """For messages."""
        return self.file if self.page is None else f"{self.file}, page {self.page}"


@dataclass(frozen=True)
class Stack:
    """What a TIFF file says of its pictures.

    Attributes:
        axes: letter of each axis of the file's array, as tifffile names them; several arrays are joined by "+".
        shape: of the array in words, such as "10 x 2 x 512 x 512".
        pages: number of pictures.
        channels: of a picture; those of colour and alpha are one.
        samples: of the pixel of a channel: 1, or 3 and more of colour.
        dtype: of the pixels.
    """

    axes: str
    shape: str
    pages: int
    channels: int
    samples: int
    dtype: np.dtype


@dataclass(frozen=True)
class Picture:
    """The pixels of a picture as they are in the file.

    Attributes:
        image: what the model is shown: grey [H, W] or BGR [H, W, 3], of any type. Of a large file it is mapped.
        channels: [H, W, C] in the order of the file (of colour red, green, blue), to be measured.
        scale: what the file says about it.
    """

    image: NDArray
    channels: NDArray
    scale: Scale = Scale()


def is_tiff(path: str | os.PathLike) -> bool:
    """Whether a file that exists begins as a TIFF does."""
    with open(path, "rb") as file:
        return file.read(4) in _TIFF_MARKS


def read_stack(path: str | os.PathLike) -> Stack | None:
    """What a TIFF file says of its pictures; None of any other file.

    Raises:
        OSError: the file cannot be opened.
        ValueError: it is a damaged TIFF, or one without pictures.
    """
    if not is_tiff(path):
        return None
    try:
        with tifffile.TiffFile(path) as file:
            parts = _parts(file)
    except (tifffile.TiffFileError, ValueError, IndexError, KeyError, TypeError) as error:
        raise ValueError(f"Image {path} is a damaged TIFF: {error}") from error
    if not parts:
        raise ValueError(f"Image {path} is a damaged TIFF, or one without pictures.")
    return Stack(
        "+".join(part.axes for part in parts),
        " + ".join(" x ".join(map(str, part.shape)) for part in parts),
        sum(part.pages for part in parts),
        max(part.channels for part in parts),
        max(part.samples for part in parts),
        parts[0].series.dtype or np.dtype(np.uint8),
    )


def _parts(file: tifffile.TiffFile) -> list["_Part"]:
    """The arrays of a file that show something at full size: no thumbnails and levels of a pyramid."""
    parts = [_Part(series, number) for number, series in enumerate(file.series) if {"Y", "X"} <= set(series.axes)]
    return [part for part in parts if not part.series.keyframe.is_reduced] or parts


class _Part:
    """An array of a TIFF file: which of its axes number pages, and which channels."""

    def __init__(self, series: tifffile.TiffPageSeries, number: int):
        self.series = series
        self.number = number
        self.axes: str = series.axes
        self.shape: tuple[int, ...] = series.shape
        sizes = dict(zip(self.axes, self.shape, strict=True))
        self.samples = sizes.get("S", 1)
        self.channels = sizes.get("C", 1)
        self.page_axes = [axis for axis in self.axes if axis not in "CYXS"]
        self.page_shape = tuple(sizes[axis] for axis in self.page_axes)
        self.pages = int(np.prod(self.page_shape, dtype=np.int64))

    def read(self, number: int, path: str) -> NDArray:
        """The page ``number``, from 0: [H, W, channels * samples]. Raises a ValueError if it cannot be decoded."""
        place = dict(zip(self.page_axes, np.unravel_index(number, self.page_shape), strict=True))
        leading = self.axes[: len(self.axes) - len(self.series.keyframe.axes)]
        if self.series.dataoffset is not None and self.series.keyframe.is_memmappable:
            # The pixels lie in the file one after another: nothing but the page is read.
            array: NDArray = tifffile.memmap(path, series=self.number, mode="r")
        elif int(np.prod(self.shape[: len(leading)], dtype=np.int64)) == len(self.series.pages) and set(
            self.page_axes
        ) <= set(leading):
            return self._read_directories(place, leading, path)
        else:
            array = self.series.asarray()
        array = array[tuple(place.get(axis, slice(None)) for axis in self.axes)]
        axes = "".join(axis for axis in self.axes if axis not in place)
        return _finished(_to_last(array, axes), self.series.keyframe)

    def _read_directories(self, place: dict[str, np.intp], leading: str, path: str) -> NDArray:
        """A page whose channels are image directories of their own, or are within one."""
        shape = self.shape[: len(leading)]
        channels = range(self.channels) if "C" in leading else (0,)
        planes = []
        for channel in channels:
            index = [channel if axis == "C" else int(place[axis]) for axis in leading]
            directory = self.series.pages[int(np.ravel_multi_index(index, shape)) if index else 0]
            if directory is None:
                raise ValueError(f"Image {path} lacks a part of its stack.")
            planes.append(_decoded(directory, path, self.series.keyframe))
        return np.concatenate(planes, axis=2)


def _decoded(directory: tifffile.TiffPage | tifffile.TiffFrame, path: str, first: tifffile.TiffPage) -> NDArray:
    """Pixels [H, W, C] of an image directory of the kind of the ``first``."""
    try:
        return _finished(_to_last(np.asarray(directory.asarray()), first.axes), first)
    except ValueError as error:
        # Without its companion imagecodecs tifffile knows few compressions, but OpenCV knows more.
        success, images = cv2.imreadmulti(path, directory.index, 1, flags=cv2.IMREAD_ANYDEPTH | cv2.IMREAD_ANYCOLOR)
        if not success or not images:
            raise ValueError(f"Image {path} cannot be decoded: {error}. Save it without compression.") from error
    image = np.asarray(images[0])
    if first.photometric == tifffile.PHOTOMETRIC.MINISWHITE and image.dtype == np.uint16:
        image = np.iinfo(np.uint16).max - image  # OpenCV does it itself of 8 bits
    return image[..., None] if image.ndim == 2 else image[..., ::-1]


def _to_last(array: NDArray, axes: str) -> NDArray:
    """[H, W, C] of an array whose axes are Y, X and maybe C and S; those become the last one."""
    order = [axes.index(axis) for axis in "YXCS" if axis in axes]
    array = array.transpose(order)
    return array.reshape(*array.shape[:2], -1) if array.ndim != 3 else array


def _finished(pixels: NDArray, page: tifffile.TiffPage) -> NDArray:
    """Pixels [H, W, C] as they look: of a palette its colours, bits as 0 and 255, and where 0 is white, inverted."""
    if page.photometric == tifffile.PHOTOMETRIC.PALETTE and page.colormap is not None and pixels.shape[2] == 1:
        return (page.colormap[:, np.asarray(pixels[..., 0])] >> 8).astype(np.uint8).transpose(1, 2, 0)
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8) * np.uint8(255)
    if page.photometric == tifffile.PHOTOMETRIC.MINISWHITE and pixels.dtype.kind == "u":
        return np.iinfo(pixels.dtype).max - np.asarray(pixels)
    return pixels


class ImageReader:
    """Reads pictures: what the model is shown of them, and all that is to be measured."""

    def __init__(self, channel: int | None = None, maps_large: bool = True):
        """
        Args:
            channel: number of the channel that the model is shown, from 1; None = grey or colour as it is.
            maps_large: the pixels of large uncompressed TIFFs stay in the file, see :func:`map_large_image`.
        """
        self._channel = channel
        self._maps_large = maps_large

    def read(self, source: ImageSource) -> Picture:
        """The pixels of a picture.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it cannot be read, has no such page or channel, or no pixel that is a number; names the file.
        """
        stack = read_stack(source.file) if os.path.isfile(source.file) else None
        scale = read_scale(source.file) if stack is not None else Scale()
        if stack is None or _is_plain(stack):
            pixels = self._read_plain(source.file)
        else:
            pixels = self._read_page(source)
        shown = self._shown(pixels, source)
        if shown.dtype.kind == "f" and not isinstance(shown, np.memmap) and not np.isfinite(shown).any():
            raise ValueError(f"Image {source.name} has no pixel that is a number.")
        return Picture(shown, pixels, scale)

    def _read_plain(self, path: str) -> NDArray:
        """[H, W, C] of a file with one picture, read as those of the training are."""
        mapped = map_large_image(path) if self._maps_large else None
        image = mapped if mapped is not None else decode_image(path)
        if image.ndim == 2:
            return image[..., None]
        return image[..., ::-1]  # OpenCV's order is blue, green, red

    def _read_page(self, source: ImageSource) -> NDArray:
        number = (source.page or 1) - 1
        with tifffile.TiffFile(source.file) as file:
            for part in _parts(file):
                if number < part.pages:
                    return self._in_memory(part.read(number, source.file))
                number -= part.pages
        raise ValueError(f"Image {source.file} has no page {source.page}.")

    def _in_memory(self, pixels: NDArray) -> NDArray:
        """The pixels, read unless there are very many of them, of a type that OpenCV knows."""
        is_large = pixels.shape[0] * pixels.shape[1] >= LARGEST_READ
        if self._maps_large and is_large and isinstance(pixels, np.memmap) and pixels.dtype in _SCALABLE:
            return pixels
        native = pixels.dtype.newbyteorder("=")
        return np.array(pixels, dtype=np.float32 if native.kind == "f" else native)

    def _shown(self, pixels: NDArray, source: ImageSource) -> NDArray:
        """What the model sees of [H, W, C]: [H, W], or BGR [H, W, 3]."""
        channels = pixels.shape[2]
        if self._channel is not None:
            if self._channel > channels:
                number = plural(channels, "channel")
                raise ValueError(f"Image {source.name} has {number}, so that there is no channel {self._channel}.")
            shown = pixels[..., self._channel - 1]
        else:
            shown = pixels[..., 0] if channels == 1 else pixels[..., 2::-1]
        return shown if isinstance(shown, np.memmap) else np.ascontiguousarray(shown)


def _is_plain(stack: Stack) -> bool:
    """Whether OpenCV reads it as it is meant: one picture of 8 or 16 bits, or of floats, grey or in colour."""
    usual = stack.samples in _USUAL_SAMPLES and stack.dtype in (np.uint8, np.uint16, np.float32)
    return stack.pages == 1 and stack.channels == 1 and usual


@dataclass(frozen=True)
class Choice:
    """Which pictures of stacks are counted.

    Attributes:
        page: number of the page, from 1; "all" = each is a picture of its own; None = no file has several.
        channel: number of the channel, from 1; None = no file has several.
    """

    page: int | str | None = None
    channel: int | None = None


def list_pictures(
    files: Sequence[str],
    choice: Choice,
    any_type: bool,
    known: Mapping[tuple[str, int | None], str],
) -> tuple[list[ImageSource], list[str]]:
    """The pictures of files, after a look at the header of every TIFF.

    Args:
        files: paths; they need not exist.
        choice: of pages and channels.
        any_type: pixels may be of any type, since the model stretches the contrast; else of 8 or 16 bits.
        known: labels of pictures by absolute path and page, which they keep and no other picture gets.

    Returns:
        The pictures, and why files cannot be read.

    Raises:
        ValueError: a file leaves a choice open, or does not have what was chosen, or has pixels of another type; names
            the first such file, how many there are, and the option.
    """
    places: list[tuple[str, int | None]] = []
    failures, problems = [], []
    for file in files:
        try:
            stack = read_stack(file) if os.path.isfile(file) else None
        except (OSError, ValueError) as error:
            failures.append(str(error))
            continue
        problem = _problem(file, stack, choice, any_type) if os.path.isfile(file) else ""
        if problem:
            problems.append(problem)
        pages = 1 if stack is None else stack.pages
        if pages == 1:
            places.append((file, None))
        elif choice.page == "all":
            places += [(file, number) for number in range(1, pages + 1)]
        elif isinstance(choice.page, int):
            places.append((file, choice.page))
    if problems:
        others = len(problems) - 1
        raise ValueError(problems[0] + (f" So it is with {plural(others, 'other file')}." if others else ""))
    return _labelled(places, known), failures


def _labelled(
    places: Sequence[tuple[str, int | None]], known: Mapping[tuple[str, int | None], str]
) -> list[ImageSource]:
    keys = [(os.path.abspath(file), page) for file, page in places]
    new = [place for place, key in zip(places, keys, strict=True) if key not in known]
    paths = [
        Path(file) if page is None else Path(file).with_name(f"{Path(file).stem}_p{page:04d}{Path(file).suffix}")
        for file, page in new
    ]
    names = iter(distinct_names(paths, known.values()))
    return [
        ImageSource(file, known.get(key) or next(names), page) for (file, page), key in zip(places, keys, strict=True)
    ]


def _problem(file: str, stack: Stack | None, choice: Choice, any_type: bool) -> str:
    """What keeps a file from being counted, in a sentence; "" if nothing does. Files that are no TIFF have no stack."""
    if stack is None:
        has_page = not isinstance(choice.page, int) or choice.page == 1
        return "" if has_page else f"{file} holds 1 page: there is no page {choice.page}."
    described = f"{file} holds {plural(stack.pages, 'page')} of {plural(stack.channels, 'channel')} "
    described += f"(axes {stack.axes}, {stack.shape})"
    wanted = []
    if stack.pages > 1 and choice.page is None:
        wanted.append("--page N (from 1), or --page all for each as a picture of its own")
    unusual = stack.channels > 1 or stack.samples not in _USUAL_SAMPLES
    if unusual and choice.channel is None:
        wanted.append("--channel N (from 1), the channel that shows the objects")
    if wanted:
        return f"{described}. Say which to count by {', and by '.join(wanted)}."
    if isinstance(choice.page, int) and choice.page > stack.pages:
        return f"{described}: there is no page {choice.page}."
    number = stack.channels * stack.samples
    if choice.channel is not None and choice.channel > number:
        return f"{described}: there is no channel {choice.channel}."
    if stack.dtype.kind == "c":
        return f"{file} has complex numbers as pixels. Save their magnitude."
    if not any_type and stack.dtype not in (np.uint8, np.uint16, np.bool_):
        return (
            f"{file} has pixels of type {stack.dtype}, whose range the model does not know. Give the percentiles of "
            "the grey values that become black and white, such as --percentiles 1 99.8, or save it with 8 or 16 bits."
        )
    return ""
