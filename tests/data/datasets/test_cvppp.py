"""CVPPP's data sets from PNG folders and from h5 files, and what is said about wrong trees."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image

from miniature.cvppp import (
    TEST_PLANTS,
    TRAINING_PLANTS,
    draw_plants,
    write_cvppp_h5,
    write_cvppp_png,
)
from rec_attend_d2.data.datasets.builtin import register_builtin_datasets
from rec_attend_d2.data.datasets.cvppp import register_cvppp, split_plants
from rec_attend_d2.data.image_io import read_image
from rec_attend_d2.data.segmentation import annotation_mask

TRAINING = Path("cvppp", "CVPPP2017_LSC_training", "training")
TEST = Path("cvppp", "CVPPP2017_testing", "testing")


@pytest.fixture(autouse=True)
def _registered_as_before():
    yield
    register_builtin_datasets()


@pytest.fixture(scope="module")
def png_root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("png")
    write_cvppp_png(root)
    return root


@pytest.fixture(scope="module")
def h5_root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("h5")
    write_cvppp_h5(root)
    return root


@pytest.fixture
def root(png_root: Path, tmp_path: Path) -> Path:
    """A copy of the PNG folders that a test may damage."""
    shutil.copytree(png_root / "cvppp", tmp_path / "cvppp")
    return tmp_path


def load(root: Path, name: str) -> list[dict]:
    register_cvppp(root)
    return DatasetCatalog.get(name)


def test_names_and_metadata(tmp_path):
    register_cvppp(tmp_path)
    register_cvppp(tmp_path)
    subsets = ["A1", "A2", "A3", "A4"]
    expected = {"cvppp_A1_train", "cvppp_A1_val", "cvppp_all_trainval", "cvppp_all_test", "cvppp_A5_test"}
    expected |= {f"cvppp_{subset}_{split}" for subset in subsets for split in ("trainval", "test")}
    assert {name for name in DatasetCatalog.list() if name.startswith("cvppp_")} == expected
    for name in expected:
        metadata = MetadataCatalog.get(name)
        assert (metadata.thing_classes, metadata.evaluator_type) == (["leaf"], "cvppp")
        assert metadata.image_root == str(tmp_path / "cvppp")
    assert MetadataCatalog.get("cvppp_all_test").subsets == ("A1", "A2", "A3", "A4", "A5")
    assert MetadataCatalog.get("cvppp_A1_val").subsets == ("A1",)
    assert list(tmp_path.iterdir()) == []


def test_dicts_are_what_was_drawn(png_root):
    records = load(png_root, "cvppp_all_trainval")
    plants = draw_plants(TRAINING_PLANTS, TEST_PLANTS, seed=0)[0]
    for record, plant in zip(records, plants, strict=True):
        assert record["file_name"] == str(png_root / TRAINING / plant.subset / f"{plant.name}_rgb.png")
        assert (record["subset"], record["plant"]) == (plant.subset, plant.name)
        assert (record["height"], record["width"]) == plant.labels.shape
        np.testing.assert_array_equal(read_image(record["file_name"]), plant.image[..., 2::-1])
        assert len(record["annotations"]) == plant.labels.max()
        for number, annotation in enumerate(record["annotations"], start=1):
            mask = annotation_mask(annotation, plant.labels.shape, plant.name)
            np.testing.assert_array_equal(mask, plant.labels == number)
            ys, xs = np.nonzero(mask)
            assert annotation["bbox"] == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
    assert len({record["image_id"] for record in records}) == len(records)


@pytest.mark.parametrize("name", ["cvppp_all_trainval", "cvppp_A1_train", "cvppp_A1_val", "cvppp_all_test"])
def test_h5_gives_the_same_dicts(png_root, h5_root, name):
    from_png, from_h5 = load(png_root, name), load(h5_root, name)
    for record, other in zip(from_png, from_h5, strict=True):
        np.testing.assert_array_equal(read_image(other["file_name"]), read_image(record["file_name"]))
        assert {**record, "file_name": ""} == {**other, "file_name": ""}
    assert all(".h5" not in other["file_name"] and "_images_png" in other["file_name"] for other in from_h5)


def test_h5_in_a_folder_of_its_own_name(h5_root, tmp_path):
    for path in (h5_root / "cvppp").glob("*.h5"):
        (tmp_path / "cvppp" / path.stem).mkdir(parents=True)
        shutil.copy(path, tmp_path / "cvppp" / path.stem)
    assert len(load(tmp_path, "cvppp_all_trainval")) == sum(TRAINING_PLANTS.values())


@pytest.mark.parametrize(
    ("split", "source", "folder"),
    [
        ("trainval", TRAINING, "CVPPP2017_LSC_training"),
        ("trainval", TRAINING, "CVPPP2014_LSC_training_data"),
        ("test", TEST, "CVPPP2017_testing"),
        ("test", TEST, "CVPPP2014_LSC_testing_data"),
    ],
)
def test_other_folders(png_root, tmp_path, split, source, folder):
    shutil.copytree(png_root / source, tmp_path / "cvppp" / folder)
    expected = load(png_root, f"cvppp_A4_{split}")
    found = load(tmp_path, f"cvppp_A4_{split}")
    assert [record["plant"] for record in found] == [record["plant"] for record in expected]


class TestSplit:
    def test_of_the_real_number_of_plants(self):
        plants = [f"plant{number:03d}" for number in range(1, 129)]
        train, val = split_plants(plants)
        # 80 % rounded up, chosen by the reference's seed.
        order = np.random.RandomState(2).permutation(128)
        assert len(train) == 103
        assert set(train) == {plants[index] for index in order[:103]}
        assert set(val) == {plants[index] for index in order[103:]}

    def test_does_not_depend_on_the_order_of_the_files(self):
        plants = [f"plant{number:03d}" for number in (3, 10, 11, 40, 100, 7, 161)]
        assert split_plants(plants) == split_plants(plants[::-1]) == split_plants(sorted(plants))

    def test_of_the_miniature(self, png_root):
        everything = load(png_root, "cvppp_A1_trainval")
        train, val = load(png_root, "cvppp_A1_train"), load(png_root, "cvppp_A1_val")
        assert (len(train), len(val)) == (8, 2)
        # RandomState(2) puts positions 9 and 8 of ten last.
        assert val == everything[8:]
        assert train == everything[:8]


class TestTestSets:
    def test_have_no_annotations(self, png_root):
        records = load(png_root, "cvppp_all_test")
        assert not any("annotations" in record for record in records)
        counts = [sum(record["subset"] == subset for record in records) for subset in ("A1", "A2", "A3", "A4", "A5")]
        assert counts == [*TEST_PLANTS.values(), sum(TEST_PLANTS.values())]
        assert load(png_root, "cvppp_A5_test") == records[-counts[-1] :]

    def test_labels_are_read_where_all_images_have_some(self, root):
        (plant,) = (plant for plant in draw_plants(TRAINING_PLANTS, TEST_PLANTS, 0)[1] if plant.subset == "A2")
        Image.fromarray(plant.labels).save(root / TEST / "A2" / f"{plant.name}_label.png")
        (record,) = load(root, "cvppp_A2_test")
        assert len(record["annotations"]) == plant.labels.max()

    def test_labels_of_a_part_are_reported(self, root):
        first = load(root, "cvppp_A1_test")[0]
        shape = (first["height"], first["width"])
        Image.fromarray(np.ones(shape, np.uint8)).save(root / TEST / "A1" / f"{first['plant']}_label.png")
        with pytest.raises(FileNotFoundError, match=r"_rgb\.png has no label image .* 2 of 3 images have none"):
            load(root, "cvppp_A1_test")


class TestBadInput:
    def test_no_folder(self, tmp_path):
        (tmp_path / "kitti").mkdir()
        with pytest.raises(FileNotFoundError) as error:
            load(tmp_path, "cvppp_A1_train")
        message = str(error.value)
        assert f"'cvppp_A1_train' expects the folder {tmp_path / TRAINING / 'A1'}" in message
        assert f"or CVPPP2017_training_images.h5 with A1 in {tmp_path / 'cvppp'}" in message
        assert f"{tmp_path / 'cvppp'} does not exist. {tmp_path} holds kitti/." in message
        assert f"DETECTRON2_DATASETS to the folder that holds 'cvppp' (now {tmp_path})" in message

    @pytest.mark.parametrize("name", ["CVPPP2017_LSC_training.zip", "CVPPP2017_LSC_training.tar.gz"])
    def test_archive_instead_of_its_folder(self, tmp_path, name):
        (tmp_path / "cvppp").mkdir()
        (tmp_path / "cvppp" / name).write_bytes(b"")
        with pytest.raises(FileNotFoundError, match=rf"expects the folder .*{name} is an archive: unpack it there"):
            load(tmp_path, "cvppp_A1_trainval")

    def test_a_subset_is_missing(self, root):
        shutil.rmtree(root / TRAINING / "A4")
        with pytest.raises(FileNotFoundError, match=r"training/A4, or .*training holds A1/, A2/, A3/\."):
            load(root, "cvppp_all_trainval")
        assert len(load(root, "cvppp_A1_trainval")) == TRAINING_PLANTS["A1"]

    def test_a_subset_is_missing_in_the_h5(self, tmp_path):
        write_cvppp_h5(tmp_path, {"A1": 2}, {"A1": 1})
        with pytest.raises(FileNotFoundError, match=r"testing_images\.h5 with A2 in .*_images_png holds A1/, A5/, "):
            load(tmp_path, "cvppp_A2_test")

    def test_a_folder_without_images(self, root):
        for path in (root / TRAINING / "A2").iterdir():
            path.rename(path.with_suffix(".tif"))
        with pytest.raises(FileNotFoundError, match=r"A2 has no image of the form plant001_rgb\.png\. .*_fg\.tif"):
            load(root, "cvppp_A2_trainval")

    def test_an_image_without_label(self, root):
        name = next((root / TRAINING / "A2").glob("*_label.png"))
        name.unlink()
        plant = name.name.removesuffix("_label.png")
        with pytest.raises(
            FileNotFoundError,
            match=rf"{plant}_rgb\.png has no label image {plant}_label\.png beside it; 1 of 3 .*Restore",
        ):
            load(root, "cvppp_A2_trainval")

    def test_a_label_without_image(self, root):
        name = next((root / TRAINING / "A2").glob("*_rgb.png"))
        name.unlink()
        plant = name.name.removesuffix("_rgb.png")
        with pytest.raises(
            FileNotFoundError, match=rf"{plant}_label\.png has no image {plant}_rgb\.png beside it; 1 of"
        ):
            load(root, "cvppp_A2_trainval")

    def test_h5_without_its_truth(self, tmp_path):
        write_cvppp_h5(tmp_path, {"A1": 2}, {})
        truth = tmp_path / "cvppp" / "CVPPP2017_training_truth.h5"
        truth.rename(tmp_path / "truth.h5")
        with pytest.raises(
            FileNotFoundError, match=r"2 of 2 images have none\. .*put CVPPP2017_training_truth\.h5 beside"
        ):
            load(tmp_path, "cvppp_A1_trainval")
        (tmp_path / "truth.h5").rename(truth)
        assert len(load(tmp_path, "cvppp_A1_trainval")) == 2

    @pytest.mark.parametrize("kind", ["rgb", "label"])
    def test_a_corrupt_png(self, root, kind):
        path = sorted((root / TRAINING / "A3").glob(f"*_{kind}.png"))[1]
        path.write_bytes(path.read_bytes()[:20])
        with pytest.raises(ValueError, match=rf"A3/{path.name} cannot be decoded .*restore it"):
            load(root, "cvppp_A3_trainval")

    def test_a_photograph_instead_of_labels(self, root):
        path = sorted((root / TRAINING / "A2").glob("*_label.png"))[0]
        height, width = np.asarray(Image.open(path)).shape
        Image.fromarray(np.arange(height * width, dtype=np.uint16).reshape(height, width)).save(path)
        with pytest.raises(ValueError, match=rf"A2/{path.name} has {height * width - 1} values .*check the file"):
            load(root, "cvppp_A2_trainval")

    def test_gaps_in_the_numbering_are_a_warning(self, root, caplog):
        path = sorted((root / TRAINING / "A2").glob("*_label.png"))[0]
        labels = np.asarray(Image.open(path))
        Image.fromarray(np.where(labels == labels.max(), 27, labels)).save(path)
        with caplog.at_level(logging.WARNING):
            records = load(root, "cvppp_A2_trainval")
        assert len(records[0]["annotations"]) == labels.max()
        assert f"{path} (without {labels.max()})" in caplog.text


def test_names_are_sorted_by_their_numbers(png_root, tmp_path):
    source = next((png_root / TRAINING / "A2").glob("*_rgb.png"))
    folder = tmp_path / TEST / "A1"
    folder.mkdir(parents=True)
    for name in ("ara2012_plant10", "ara2012_plant9"):
        shutil.copy(source, folder / f"{name}_rgb.png")
    assert [record["plant"] for record in load(tmp_path, "cvppp_A1_test")] == ["ara2012_plant9", "ara2012_plant10"]
