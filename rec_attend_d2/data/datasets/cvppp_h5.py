"""Unpacks the h5 files of the leaf segmentation challenge (CVPPP LSC) to PNG files, which the rest of the code reads.

Layout of the files as published:

* images (``CVPPP2017_training_images.h5``, ``CVPPP2017_testing_images.h5``): ``A1/plant001/rgb`` uint8 [H, W, 3 or 4]
  in the order RGB(A), and more that is not used here: ``fg``, ``centers``, ``rgb_filename``, ...
* truth (``CVPPP2017_training_truth.h5``): ``A1/plant001/label`` [H, W], 0 = background, and ``count``.

A label that lies beside the rgb in the images' file is read as well.
"""

import logging
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

from .file_trees import write_folder_once

logger = logging.getLogger(__name__)


def extract_h5(images: Path, truth: Path | None) -> Path:
    """Write the plants of an h5 file to ``<name without .h5>_png`` beside it, unless that was done before.

    The files are ``A1/plant001_rgb.png`` and, where there are labels, ``A1/plant001_label.png``. They are written again
    when an h5 file has changed. Safe when several processes call it.

    Args:
        images: h5 file with the images.
        truth: h5 file with the labels; None: labels are taken from ``images``, if it has any.

    Returns:
        The folder written.

    Raises:
        ValueError: a file is not of the layout above; the message names the file and the key.
        OSError: the folder cannot be written.
    """
    folder = images.with_name(f"{images.stem}_png")
    # Name, bytes and time of the files, by which a change is found.
    states = {path.name: path.stat() for path in (images, truth) if path is not None}
    marker = {name: [state.st_size, state.st_mtime_ns] for name, state in states.items()}

    def write(fresh: Path) -> None:
        logger.info(f"Unpacking {images} to {folder}, once.")
        count = _write_plants(fresh, images, truth)
        logger.info(f"Unpacked {count} images to {folder}.")

    write_folder_once(folder, "extracted_from.json", marker, write)
    return folder


def _write_plants(folder: Path, images: Path, truth: Path | None) -> int:
    """Number of plants written."""
    count = 0
    with _open(images) as image_file, _open(truth or images) as truth_file:
        for subset, plants in image_file.items():
            if not isinstance(plants, h5py.Group):
                raise ValueError(f"{images}: '{subset}' is no group of plants. Groups A1 to A5 are expected.")
            (folder / subset).mkdir()
            for plant in plants:
                key = f"{subset}/{plant}"
                rgb = _read(image_file, f"{key}/rgb")
                if rgb.dtype != np.uint8 or rgb.ndim != 3 or rgb.shape[2] not in (3, 4):
                    raise _wrong_array(images, f"{key}/rgb", rgb, "uint8 [H, W, 3 or 4] is")
                Image.fromarray(rgb).save(folder / subset / f"{plant}_rgb.png")
                if f"{key}/label" in truth_file:
                    label = _read(truth_file, f"{key}/label")
                    if label.ndim != 2 or label.dtype.kind not in "iu" or label.min() < 0 or label.max() > 65535:
                        expected = "whole numbers from 0 to 65535 of shape [H, W] are"
                        raise _wrong_array(truth or images, f"{key}/label", label, expected)
                    depth = np.uint8 if label.max() < 256 else np.uint16
                    Image.fromarray(label.astype(depth)).save(folder / subset / f"{plant}_label.png")
                count += 1
    return count


def _open(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except OSError as error:
        raise ValueError(f"{path} cannot be read as HDF5 ({error}). The file is damaged; download it again.") from error


def _read(file: h5py.File, key: str) -> np.ndarray:
    try:
        return np.asarray(file[key])
    except (KeyError, OSError) as error:
        raise ValueError(f"{file.filename}: '{key}' cannot be read ({error}). Download the file again.") from error


def _wrong_array(source: Path, key: str, array: np.ndarray, expected: str) -> ValueError:
    return ValueError(f"{source}: '{key}' is {array.dtype} of shape {array.shape}, but {expected} expected.")
