"""Data sets that are known by name."""

import os
import shutil

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from rec_attend_d2.data.datasets import rosettes
from rec_attend_d2.data.datasets.builtin import register_builtin_datasets

NAMES = ["nuclei_train", "nuclei_val", "rosettes_train", "rosettes_val"]


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


def test_nuclei(tmp_path, coco_content, write_coco):
    coco_content["categories"] = [{"id": 1, "name": "nucleus"}]
    for annotation in coco_content["annotations"]:
        annotation["category_id"] = 1
    json_file, folder = write_coco(coco_content)
    (tmp_path / "nuclei").mkdir()
    shutil.move(json_file, tmp_path / "nuclei" / "train.json")
    shutil.move(folder, tmp_path / "nuclei" / "images")
    register_builtin_datasets(str(tmp_path))
    assert [record["image_id"] for record in DatasetCatalog.get("nuclei_train")] == [7, 9]


def test_missing_nuclei(tmp_path):
    register_builtin_datasets(str(tmp_path))
    (tmp_path / "nuclei.zip").write_bytes(b"")
    found = rf"{tmp_path} holds nuclei\.zip\. nuclei\.zip is an archive: unpack it there\."
    remedy = rf"DETECTRON2_DATASETS to the folder that holds 'nuclei' \(now {tmp_path}\)"
    expected = tmp_path / "nuclei" / "val.json"
    with pytest.raises(FileNotFoundError, match=rf"'nuclei_val' expects {expected}, .*{found} .*{remedy}"):
        DatasetCatalog.get("nuclei_val")
    (tmp_path / "nuclei").mkdir()
    (tmp_path / "nuclei" / "val.json").write_text("{}")
    expected = tmp_path / "nuclei" / "images"
    with pytest.raises(FileNotFoundError, match=rf"expects {expected}, .*nuclei holds val\.json\. .*{remedy}"):
        DatasetCatalog.get("nuclei_val")
