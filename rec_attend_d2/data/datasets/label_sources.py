"""Finds the images of a data set that is to be converted, and the label files that belong to each.

Two layouts: a folder of images and one of label images, paired by their names; and that of the Data Science Bowl 2018,
in which every image has a folder with a mask file for each object.

Shapes: `H, W` image size in pixels.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .file_trees import describe_contents
from .label_doubts import is_void
from .label_images import Background, check_size, instance_values, read_label_image
from .label_pixels import read_pixels

_LOSSY_ENDINGS = (".jpg", ".jpeg")
_IMAGE_ENDINGS = (".png", ".tif", ".tiff", ".bmp", *_LOSSY_ENDINGS)
# A scan of a whole tissue has thousands of cells; a photograph has more colours.
_MAX_INSTANCES = 20_000
_NAMES_SHOWN = 3
# What can be done with images that have no label file.
UNLABELED = ("refuse", "empty", "skip")


@dataclass(frozen=True)
class LabelImage:
    """An image with a label image, whose values or colours but the background are objects; None = there are none."""

    image: Path
    labels: Path | None
    background: Background = 0

    def masks(self, size: tuple[int, int]) -> Iterator[NDArray]:
        """The pixels of each object, bool [H, W], at least one.

        Args:
            size: (H, W) of the image.

        Raises:
            ValueError: the label file is damaged, of a wrong kind or not of this size; the message names it.
        """
        if self.labels is None:
            return
        labels = read_label_image(self.labels, self.background)
        check_size(labels, self.labels, size, self.image)
        for value in instance_values(labels, self.labels, _MAX_INSTANCES):
            yield labels == value

    def has_void(self) -> bool:
        """Whether a value seems to mark what is unknown, see :func:`.is_void`."""
        if self.labels is None or self.background != 0:
            return False
        return is_void(np.setdiff1d(read_label_image(self.labels), [0]))


@dataclass(frozen=True)
class MaskFiles:
    """An image with a mask file for each object, which is where the file isn't black."""

    image: Path
    files: tuple[Path, ...]

    def masks(self, size: tuple[int, int]) -> Iterator[NDArray]:
        """As of :class:`LabelImage`."""
        for path in self.files:
            mode, pixels = read_pixels(path)
            if pixels.ndim == 3:
                # The last channel of these modes is opacity; where all else is black and it differs, it is the mask.
                opacity = pixels[..., -1] if mode in ("RGBA", "LA", "PA") else None
                pixels = np.any(pixels if opacity is None else pixels[..., :-1], axis=2)
                if opacity is not None and not pixels.any() and not opacity.all():
                    pixels = opacity
            check_size(pixels, path, size, self.image)
            if not pixels.any():
                raise ValueError(f"Mask {path} is black: it shows no object. Remove it, or restore it.")
            yield pixels != 0

    def has_void(self) -> bool:
        """No mask marks what is unknown."""
        return False


Source = LabelImage | MaskFiles


@dataclass(frozen=True)
class Selection:
    """Which files of a folder count.

    Attributes:
        folder: the folder; its subfolders don't count.
        suffix: with which the name (without its ending) of a file must end; "" = any image file. The rest of the name
            says which image and label image belong together.
    """

    folder: Path
    suffix: str = ""

    def find(self) -> dict[str, Path]:
        """The files by the rest of their name, sorted.

        Raises:
            FileNotFoundError: there is no such folder.
            ValueError: there are no such files, or two of the same name.
        """
        if not self.folder.is_dir():
            raise FileNotFoundError(describe_contents(self.folder))
        found: dict[str, Path] = {}
        for path in sorted(self.folder.iterdir()):
            if not _is_image(path) or not path.stem.endswith(self.suffix):
                continue
            name = path.stem.removesuffix(self.suffix)
            if name in found:
                raise ValueError(f"{found[name]} and {path} have the same name. Remove or rename one of them.")
            found[name] = path
        if not found:
            pattern = f"*{self.suffix}{{{','.join(_IMAGE_ENDINGS)}}}"
            raise ValueError(f"There is no {pattern}. {describe_contents(self.folder)}")
        return found


def _is_image(path: Path) -> bool:
    return path.is_file() and not path.name.startswith(".") and path.suffix.lower() in _IMAGE_ENDINGS


def pair_files(images: Selection, labels: Selection, unlabeled: str, background: Background = 0) -> list[LabelImage]:
    """Pair images and label images whose names are equal, but for their suffixes.

    Args:
        images: files that are images. In a folder with both kinds those that are label images don't count.
        labels: files that are label images.
        unlabeled: one of ``UNLABELED``: what becomes of images without a label image. An error, images without
            objects, or nothing.
        background: of the label images.

    Returns:
        Sorted by their names.

    Raises:
        FileNotFoundError: a folder is missing.
        ValueError: a label image without image, an image without label image that is not allowed, files of one name, or
            label images that are JPEGs.
    """
    label_files = labels.find()
    taken = {path.resolve() for path in label_files.values()}
    image_files = {name: path for name, path in images.find().items() if path.resolve() not in taken}
    _check_lossless(list(label_files.values()))
    lonely = [path for name, path in label_files.items() if name not in image_files]
    if lonely:
        raise ValueError(
            f"{some_names(lonely)} of {len(label_files)} label images: no image of that name in {images.folder} "
            f"{_naming(images, labels)}. Add the images, or correct the suffixes (such as "
            "--image-suffix _img --label-suffix _mask)."
        )
    missing = [path for name, path in image_files.items() if name not in label_files]
    if missing and unlabeled == "refuse":
        raise ValueError(
            f"{some_names(missing)} of {len(image_files)} images: no label image of that name in {labels.folder} "
            f"{_naming(images, labels)}. Add them, or say by --unlabeled whether these images have no objects (empty) "
            "or are to be left out (skip)."
        )
    if unlabeled == "skip":
        image_files = {name: path for name, path in image_files.items() if name in label_files}
    return [LabelImage(path, label_files.get(name), background) for name, path in image_files.items()]


def _naming(images: Selection, labels: Selection) -> str:
    return f"(suffix of images '{images.suffix}', of label images '{labels.suffix}')"


def _check_lossless(label_files: Sequence[Path]) -> None:
    lossy = [path for path in label_files if path.suffix.lower() in _LOSSY_ENDINGS]
    if lossy:
        raise ValueError(
            f"{some_names(lossy)} of {len(label_files)} label images: JPEG changes values, so that edges become "
            "objects of their own. Export them as PNG or TIFF from where they were made; converting them does not help."
        )


def some_names(paths: Sequence[Path]) -> str:
    """The first ``paths``, and how many there are."""
    more = ", ..." if len(paths) > _NAMES_SHOWN else ""
    return f"{', '.join(map(str, paths[:_NAMES_SHOWN]))}{more} ({len(paths)})"


def unused_entries(pairs: Sequence[LabelImage], folders: Sequence[Path]) -> list[Path]:
    """What lies in ``folders`` besides the images and label images of ``pairs``; hidden files don't count."""
    used = {path.resolve() for pair in pairs for path in (pair.image, pair.labels) if path is not None}
    used |= {folder.resolve() for folder in folders}
    entries = {path.resolve(): path for folder in folders for path in sorted(folder.iterdir())}
    return [path for place, path in entries.items() if place not in used and not path.name.startswith(".")]


def find_mask_folders(root: Path) -> list[MaskFiles]:
    """The images of a folder with the layout of the Data Science Bowl 2018.

    Args:
        root: holds for each image ID/images with one image, and ID/masks with a mask file for each object.

    Returns:
        Sorted by ID. An image whose folder ID/masks is empty has no objects.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it is of another layout; the message names the folder.
    """
    if not root.is_dir():
        raise FileNotFoundError(describe_contents(root))
    folders = sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise ValueError(f"There is no folder for each image, ID/images and ID/masks. {describe_contents(root)}")
    return [_mask_folder(folder) for folder in folders]


def _mask_folder(folder: Path) -> MaskFiles:
    for part in ("images", "masks"):
        if not (folder / part).is_dir():
            raise ValueError(
                f"{folder} has no folder '{part}'. {describe_contents(folder)} Each folder needs 'images' with one "
                "image and 'masks' with a file for each object; for label images name their folder by --labels."
            )
    images, masks = (sorted(filter(_is_image, (folder / part).iterdir())) for part in ("images", "masks"))
    if len(images) != 1:
        raise ValueError(f"{folder / 'images'} holds {len(images)} images, but one is needed. Correct it.")
    _check_lossless(masks)
    return MaskFiles(images[0], tuple(masks))
