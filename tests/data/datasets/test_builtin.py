"""Data sets that are known by name."""

import os
import shutil
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from miniature.coco import write_coco as write_miniature
from rec_attend_d2.data.datasets import rosettes
from rec_attend_d2.data.datasets.builtin import register_builtin_datasets, register_coco_subsets

# Data sets by microscopes and their class.
MICROSCOPY = {"nuclei": "nucleus", "fields": "nucleus", "cells": "cell"}
NAMES = [f"{name}_{split}" for name in [*MICROSCOPY, "rosettes"] for split in ("train", "val")]


@pytest.fixture(autouse=True)
def _register_as_at_import():
    yield
    register_builtin_datasets()


def test_registered_by_the_import():
    assert set(NAMES) <= set(DatasetCatalog.list())
    root = os.environ.get("DETECTRON2_DATASETS", "datasets")
    for name in NAMES:
        metadata = MetadataCatalog.get(name)
        assert metadata.evaluator_type == "coco"
        assert metadata.json_file.startswith(os.path.expanduser(root))
        assert len(metadata.thing_classes) == 1


def test_registering_reads_and_writes_nothing(tmp_path):
    for _ in range(2):
        register_builtin_datasets(str(tmp_path / "nowhere"))
    assert list(tmp_path.iterdir()) == []
    assert MetadataCatalog.get("nuclei_val").json_file == str(tmp_path / "nowhere" / "nuclei" / "val.json")


def test_environment_variable(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    register_builtin_datasets()
    assert MetadataCatalog.get("rosettes_val").image_root == str(tmp_path / "rosettes" / "val")


def test_rosettes_are_drawn_on_first_use(tmp_path, monkeypatch):
    monkeypatch.setattr(rosettes, "IMAGES_PER_SPLIT", {"train": 3, "val": 2})
    register_builtin_datasets(str(tmp_path))
    assert len(DatasetCatalog.get("rosettes_val")) == 2
    assert len(DatasetCatalog.get("rosettes_train")) == 3
    assert os.path.isfile(MetadataCatalog.get("rosettes_train").json_file)
    assert MetadataCatalog.get("rosettes_train").thing_classes == ["leaf"]


@pytest.mark.parametrize(("name", "class_name"), MICROSCOPY.items())
def test_microscopy(tmp_path, coco_content, write_coco, name: str, class_name: str):
    coco_content["categories"] = [{"id": 1, "name": class_name}]
    for annotation in coco_content["annotations"]:
        annotation["category_id"] = 1
    json_file, folder = write_coco(coco_content)
    (tmp_path / name).mkdir()
    shutil.move(json_file, tmp_path / name / "train.json")
    shutil.move(folder, tmp_path / name / "images")
    register_builtin_datasets(str(tmp_path))
    assert [record["image_id"] for record in DatasetCatalog.get(f"{name}_train")] == [7, 9]
    assert MetadataCatalog.get(f"{name}_val").thing_classes == [class_name]


@pytest.mark.parametrize("name", MICROSCOPY)
def test_missing_microscopy(tmp_path, name: str):
    register_builtin_datasets(str(tmp_path))
    (tmp_path / f"{name}.zip").write_bytes(b"")
    found = rf"{tmp_path} holds {name}\.zip\. {name}\.zip is an archive: unpack it there\."
    remedy = rf"DETECTRON2_DATASETS to the folder that holds '{name}' \(now {tmp_path}\)"
    expected = tmp_path / name / "val.json"
    with pytest.raises(FileNotFoundError, match=rf"'{name}_val' expects {expected}, .*{found} .*{remedy}"):
        DatasetCatalog.get(f"{name}_val")
    (tmp_path / name).mkdir()
    (tmp_path / name / "val.json").write_text("{}")
    expected = tmp_path / name / "images"
    with pytest.raises(FileNotFoundError, match=rf"expects {expected}, .*{name} holds val\.json\. .*{remedy}"):
        DatasetCatalog.get(f"{name}_val")


COCO_NAMES = [f"coco_2017_{split}_{category}" for split in ("train", "val") for category in ("person", "zebra")]


@pytest.fixture(scope="module")
def coco_root(tmp_path_factory) -> Path:
    """Folder of all data sets with the miniature of COCO."""
    return write_miniature(tmp_path_factory.mktemp("datasets"), images=5).parent


def test_coco_is_registered_lazily_and_moved_by_a_repeated_call(coco_root, tmp_path):
    register_coco_subsets(tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []
    assert set(COCO_NAMES) <= set(DatasetCatalog.list())
    metadata = MetadataCatalog.get("coco_2017_val_zebra")
    assert (metadata.thing_classes, metadata.subset_categories) == (["zebra"], ("zebra",))
    assert metadata.evaluator_type == "coco"

    register_coco_subsets(str(coco_root))
    assert {name: len(DatasetCatalog.get(name)) for name in COCO_NAMES} == {
        "coco_2017_train_person": 3,
        "coco_2017_train_zebra": 2,
        "coco_2017_val_person": 3,
        "coco_2017_val_zebra": 2,
    }
    metadata = MetadataCatalog.get("coco_2017_val_zebra")
    assert metadata.json_file == str(coco_root / "coco" / "annotations" / "instances_val2017.json")
    assert metadata.image_root == str(coco_root / "coco" / "val2017")
    assert metadata.thing_dataset_id_to_contiguous_id == {24: 0}


def test_missing_coco_json_says_what_is_there(coco_root, tmp_path):
    copy = shutil.copytree(coco_root, tmp_path / "copy")
    register_coco_subsets(copy)
    shutil.rmtree(copy / "coco" / "annotations")
    (copy / "coco" / "annotations_trainval2017.zip").write_bytes(b"")
    message = (
        r"annotations.instances_val2017\.json, which does not exist\. .*coco.annotations does not exist\. .*"
        r"train2017/, val2017/.*annotations_trainval2017\.zip is an archive: unpack it there.*DETECTRON2_DATASETS"
    )
    with pytest.raises(FileNotFoundError, match=message):
        DatasetCatalog.get("coco_2017_val_person")


def test_missing_coco_image_folder_says_what_is_there(coco_root, tmp_path):
    copy = shutil.copytree(coco_root, tmp_path / "copy")
    register_coco_subsets(copy)
    shutil.rmtree(copy / "coco" / "val2017")
    message = (
        r"coco.val2017, which does not exist\. .*coco holds annotations/, train2017/\. Unpack COCO's .*val2017\.zip"
    )
    with pytest.raises(FileNotFoundError, match=message):
        DatasetCatalog.get("coco_2017_val_person")
    (copy / "coco" / "val2017.zip").write_bytes(b"")
    message = r"coco.val2017, which does not exist\. .*val2017\.zip is an archive: unpack it there.*DETECTRON2_DATASETS"
    with pytest.raises(FileNotFoundError, match=message):
        DatasetCatalog.get("coco_2017_val_person")
