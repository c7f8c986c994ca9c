"""The drawn plants in the challenge's file formats."""

import filecmp
from pathlib import Path

import h5py
import numpy as np
import pytest
from PIL import Image

from miniature.cvppp import SIZES, TEST_PLANTS, TRAINING_PLANTS, draw_plants, write_cvppp

TRAINING = Path("cvppp", "CVPPP2017_LSC_training", "training")
TEST = Path("cvppp", "CVPPP2017_testing", "testing")


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("cvppp")
    write_cvppp(root)
    return root


def keys(path: Path) -> dict[str, tuple]:
    """Shape and type of everything in an h5 file."""
    found = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: (
                found.update({name: (item.shape, item.dtype)}) if isinstance(item, h5py.Dataset) else None
            )
        )
    return found


def test_png_tree(root):
    for folder, plants, suffixes in [
        (TRAINING, TRAINING_PLANTS, {"rgb", "fg", "label"}),
        (TEST, {**TEST_PLANTS, "A5": sum(TEST_PLANTS.values())}, {"rgb", "fg"}),
    ]:
        assert {path.name for path in (root / folder).iterdir()} == set(plants)
        for subset, count in plants.items():
            files = [path.stem.split("_") for path in (root / folder / subset).iterdir()]
            names = {name for name, _ in files}
            assert len(names) == count and len(files) == count * len(suffixes)
            assert {suffix for _, suffix in files} == suffixes
            assert {len(name) for name in names} == {len("plant001") + (subset in ("A4", "A5"))}


def test_training_and_test_are_different_plants(root):
    for subset in SIZES:
        training, test = ({path.name for path in (root / part / subset).iterdir()} for part in (TRAINING, TEST))
        assert not training & test


@pytest.mark.parametrize(("subset", "mode"), [("A1", "P"), ("A2", "L"), ("A3", "I;16"), ("A4", "P")])
def test_encodings(root, subset, mode):
    for path in (root / TRAINING / subset).glob("*_label.png"):
        label = Image.open(path)
        values = np.asarray(label)
        assert label.mode == mode
        assert values.shape == SIZES[subset]
        assert np.unique(values).tolist() == list(range(values.max() + 1)) and values.max() >= 1
        rgb = Image.open(path.with_name(path.name.replace("label", "rgb")))
        assert rgb.mode == ("RGBA" if subset == "A1" else "RGB")
        assert rgb.size == label.size
        foreground = np.asarray(Image.open(path.with_name(path.name.replace("label", "fg"))))
        np.testing.assert_array_equal(foreground, (values > 0) * 255)


def test_leaves_are_greener_than_the_rest():
    for plant in sum(draw_plants(TRAINING_PLANTS, TEST_PLANTS, 0), []):
        red, green, blue = (plant.image[..., channel].astype(float) for channel in range(3))
        greenness = 2 * green - red - blue
        assert greenness[plant.labels > 0].mean() > greenness[plant.labels == 0].mean() + 10


def test_h5_layout(root):
    text = ((), np.dtype("O"))
    for name, folder in [("CVPPP2017_training_images.h5", TRAINING), ("CVPPP2017_testing_images.h5", TEST)]:
        expected = {}
        for path in (root / folder).glob("A*/*_rgb.png"):
            image = np.asarray(Image.open(path))
            group = f"{path.parent.name}/{path.name.removesuffix('_rgb.png')}"
            expected[f"{group}/rgb"] = (image.shape, np.uint8)
            expected[f"{group}/fg"] = (image.shape[:2], np.uint8)
            expected[f"{group}/rgb_filename"] = expected[f"{group}/fg_filename"] = text
        assert keys(root / "cvppp" / name) == expected


def test_h5_truth(root):
    with h5py.File(root / "cvppp" / "CVPPP2017_training_truth.h5") as file:
        assert {subset: len(plants) for subset, plants in file.items()} == TRAINING_PLANTS
        for plants in file.values():
            for name, plant in plants.items():
                assert set(plant) == {"label", "label_filename", "count"}
                assert plant["label"][()].max() == plant["count"][()]
                assert plant["label_filename"][()].decode() == f"{name}_label.png"


def test_a5_repeats_the_other_test_images():
    test = draw_plants(TRAINING_PLANTS, TEST_PLANTS, 0)[1]
    others, mixed = ([p for p in test if (p.subset == "A5") == fifth] for fifth in (False, True))
    for plant, again in zip(others, mixed, strict=True):
        np.testing.assert_array_equal(plant.image, again.image)
    assert len({plant.name for plant in mixed}) == len(mixed)


def test_the_same_arguments_give_the_same_files(root, tmp_path):
    write_cvppp(tmp_path)
    names = [path.relative_to(root) for path in root.rglob("*.*")]
    assert filecmp.cmpfiles(root, tmp_path, names, shallow=False) == ([*names], [], [])


def test_another_seed_gives_other_plants():
    one, other = (draw_plants({"A1": 1}, {}, seed)[0][0] for seed in (0, 1))
    assert not np.array_equal(one.image, other.image)
