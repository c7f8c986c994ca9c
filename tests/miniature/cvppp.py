"""A miniature of the leaf segmentation challenge's data (CVPPP LSC): drawn plants as PNG folders and as h5 files.

Shapes: `H, W` image in pixels.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import h5py
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rec_attend_d2.data.datasets.rosettes import render_plant

TRAINING_PLANTS = {"A1": 10, "A2": 3, "A3": 3, "A4": 4}
# A5 has the images of the other subsets again, under names of its own.
TEST_PLANTS = {"A1": 3, "A2": 1, "A3": 2, "A4": 2}
# (H, W); the real images are 500 x 530, 530 x 565, 2448 x 2048 and 441 x 441.
SIZES = {"A1": (80, 84), "A2": (84, 90), "A3": (108, 90), "A4": (72, 72)}
_DIGITS = {"A1": 3, "A2": 3, "A3": 3, "A4": 4, "A5": 4}
# Images with an alpha channel.
_WITH_ALPHA = ("A1",)


@dataclass(frozen=True)
class Plant:
    """One image of the data set.

    Attributes:
        subset: A1 to A5.
        name: such as "plant001".
        image: uint8 [H, W, 3 or 4], RGB(A).
        labels: uint8 [H, W], 0 = background, leaves 1 to n, n >= 1.
    """

    subset: str
    name: str
    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]


def write_cvppp(
    root: str | os.PathLike,
    training_plants: Mapping[str, int] = TRAINING_PLANTS,
    test_plants: Mapping[str, int] = TEST_PLANTS,
    seed: int = 0,
) -> None:
    """Write ROOT/cvppp with the PNG folders and the h5 files, which show the same plants.

    Args:
        root: folder that will hold "cvppp".
        training_plants: number of images of each subset.
        test_plants: likewise; A5 is made of them.
        seed: of all randomness; the same arguments give the same plants.
    """
    plants = draw_plants(training_plants, test_plants, seed)
    _write_png(Path(root) / "cvppp", *plants)
    _write_h5(Path(root) / "cvppp", *plants)


def write_cvppp_png(
    root: str | os.PathLike,
    training_plants: Mapping[str, int] = TRAINING_PLANTS,
    test_plants: Mapping[str, int] = TEST_PLANTS,
    seed: int = 0,
) -> None:
    """Write the PNG folders alone; arguments of :func:`write_cvppp`. Test images get no labels.

    Label images have a palette in A1 and A4, 8-bit grey values in A2 and 16-bit ones in A3.
    """
    _write_png(Path(root) / "cvppp", *draw_plants(training_plants, test_plants, seed))


def write_cvppp_h5(
    root: str | os.PathLike,
    training_plants: Mapping[str, int] = TRAINING_PLANTS,
    test_plants: Mapping[str, int] = TEST_PLANTS,
    seed: int = 0,
) -> None:
    """Write the h5 files alone: training images, their truth, test images; arguments of :func:`write_cvppp`."""
    _write_h5(Path(root) / "cvppp", *draw_plants(training_plants, test_plants, seed))


def draw_plants(
    training_plants: Mapping[str, int], test_plants: Mapping[str, int], seed: int
) -> tuple[list[Plant], list[Plant]]:
    """All plants of the training and of the test set; arguments of :func:`write_cvppp`."""
    training: list[Plant] = []
    test: list[Plant] = []
    rng = np.random.default_rng(seed)
    for number, (subset, size) in enumerate(SIZES.items()):
        total = training_plants.get(subset, 0) + test_plants.get(subset, 0)
        plants = _draw_subset(subset, size, total, seed * len(SIZES) + number)
        # As in the real data, the numbers of the test set lie between those of the training set.
        tested = set(rng.choice(total, test_plants.get(subset, 0), replace=False).tolist())
        training += [plant for index, plant in enumerate(plants) if index not in tested]
        test += [plant for index, plant in enumerate(plants) if index in tested]
    mixed = [replace(plant, subset="A5", name=_name("A5", index)) for index, plant in enumerate(test)]
    return training, test + mixed


def _name(subset: str, index: int) -> str:
    return f"plant{index + 1:0{_DIGITS[subset]}d}"


def _draw_subset(subset: str, size: tuple[int, int], total: int, seed: int) -> list[Plant]:
    plants: list[Plant] = []
    for index in count():
        if len(plants) == total:
            break
        image, labels = _draw_plant(size, seed, index)
        if labels.max() == 0:
            continue
        if subset in _WITH_ALPHA:
            image = np.dstack([image, np.full(size, 255, dtype=np.uint8)])
        plants.append(Plant(subset, _name(subset, len(plants)), image, labels))
    return plants


def _draw_plant(size: tuple[int, int], seed: int, index: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Image [H, W, 3] RGB and labels [H, W] of the middle of a drawn plant."""
    side = max(size)
    image, masks = render_plant(seed, index, side)
    top, left = (side - size[0]) // 2, (side - size[1]) // 2
    window = (slice(top, top + size[0]), slice(left, left + size[1]))
    labels = np.zeros(size, dtype=np.uint8)
    for mask in masks:
        if mask[window].any():
            labels[mask[window]] = labels.max() + 1
    return np.ascontiguousarray(image[window][..., ::-1]), labels


def _foreground(plant: Plant) -> NDArray[np.uint8]:
    return np.where(plant.labels > 0, 255, 0).astype(np.uint8)


def _write_png(folder: Path, training: Sequence[Plant], test: Sequence[Plant]) -> None:
    for plant in training:
        path = _write_image(folder / "CVPPP2017_LSC_training" / "training", plant)
        _label_picture(plant).save(path.with_name(f"{plant.name}_label.png"))
    for plant in test:
        _write_image(folder / "CVPPP2017_testing" / "testing", plant)


def _write_image(folder: Path, plant: Plant) -> Path:
    """Write picture and foreground; returns the picture's path."""
    path = folder / plant.subset / f"{plant.name}_rgb.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(plant.image).save(path)
    Image.fromarray(_foreground(plant)).save(path.with_name(f"{plant.name}_fg.png"))
    return path


def _label_picture(plant: Plant) -> Image.Image:
    if plant.subset == "A3":
        return Image.fromarray(plant.labels.astype(np.uint16))
    picture = Image.fromarray(plant.labels)
    if plant.subset != "A2":
        colours = np.random.default_rng(0).integers(40, 256, (256, 3), dtype=np.uint8)
        colours[0] = 0
        picture.putpalette(colours.tobytes())
    return picture


def _write_h5(folder: Path, training: Sequence[Plant], test: Sequence[Plant]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _write_h5_images(folder / "CVPPP2017_training_images.h5", training)
    _write_h5_images(folder / "CVPPP2017_testing_images.h5", test)
    with h5py.File(folder / "CVPPP2017_training_truth.h5", "w") as file:
        for plant in training:
            group = file.create_group(f"{plant.subset}/{plant.name}")
            group["label"] = plant.labels
            group["label_filename"] = f"{plant.name}_label.png"
            group["count"] = int(plant.labels.max())


def _write_h5_images(path: Path, plants: Sequence[Plant]) -> None:
    with h5py.File(path, "w") as file:
        for plant in plants:
            group = file.create_group(f"{plant.subset}/{plant.name}")
            group["rgb"] = plant.image
            group["rgb_filename"] = f"{plant.name}_rgb.png"
            group["fg"] = _foreground(plant)
            group["fg_filename"] = f"{plant.name}_fg.png"
