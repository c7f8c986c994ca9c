"""COCO restricted to some of its categories, on the miniature of COCO."""

import shutil
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from pycocotools.coco import COCO

from miniature.coco import write_coco
from rec_attend_d2.data.datasets.coco_files import keep_categories, load_coco
from rec_attend_d2.data.datasets.coco_subsets import load_coco_subset, register_coco_subsets

NAMES = [f"coco_2017_{split}_{category}" for split in ("train", "val") for category in ("person", "zebra")]


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Folder of all data sets."""
    return write_coco(tmp_path_factory.mktemp("datasets"), images=5).parent


def paths(root: Path, split: str = "val") -> tuple[str, str]:
    return str(root / "coco" / "annotations" / f"instances_{split}2017.json"), str(root / "coco" / f"{split}2017")


def shown(records: list[dict]) -> list[list[tuple[int, int]]]:
    """(category_id, iscrowd) of the annotations of each record, in order."""
    return [sorted((a["category_id"], a["iscrowd"]) for a in record["annotations"]) for record in records]


def test_person(root):
    # The images without object and with zebras only are left out, that with nothing but a crowd is not.
    records = load_coco_subset(*paths(root), ["person"])
    assert [record["image_id"] for record in records] == [100001, 100002, 100004]
    assert shown(records) == [[(0, 0)], [(0, 0), (0, 0), (0, 1)], [(0, 1)]]


@pytest.mark.parametrize("category", ["person", "zebra", "bicycle"])
def test_images_are_those_of_pycocotools(root, category):
    coco = COCO(paths(root)[0])
    expected = sorted(coco.getImgIds(catIds=coco.getCatIds(catNms=[category])))
    assert [record["image_id"] for record in load_coco_subset(*paths(root), [category])] == expected != []


def test_several_categories_in_the_order_of_their_ids(root):
    records = load_coco_subset(*paths(root), ["zebra", "person"])
    assert [record["image_id"] for record in records] == [100001, 100002, 100004, 100005]
    assert shown(records)[0] == [(0, 0), (1, 0)]
    assert shown(records)[3] == [(1, 0), (1, 0), (1, 0)]


def test_annotations_are_those_of_the_whole_file(root):
    everything = {a["id"]: a for record in load_coco(*paths(root)) for a in record["annotations"]}
    for record in load_coco_subset(*paths(root), ["zebra"]):
        for annotation in record["annotations"]:
            assert {**annotation, "category_id": 3} == everything[annotation["id"]]


def test_images_of_other_categories_may_be_missing(root, tmp_path):
    copy = shutil.copytree(root, tmp_path / "copy")
    for record in load_coco(*paths(root)):
        if record["image_id"] not in (100001, 100005):
            (copy / "coco" / "val2017" / Path(record["file_name"]).name).unlink()
    assert len(load_coco_subset(*paths(copy), ["zebra"])) == 2
    with pytest.raises(FileNotFoundError, match=r"000000100002\.jpg, listed in .*instances_val2017\.json"):
        load_coco_subset(*paths(copy), ["person"])


def test_registered_lazily_and_moved_by_a_repeated_call(root, tmp_path, clean_catalog):
    register_coco_subsets(tmp_path / "nowhere")
    assert list(tmp_path.iterdir()) == []
    assert set(NAMES) <= set(DatasetCatalog.list())
    metadata = MetadataCatalog.get("coco_2017_val_zebra")
    assert (metadata.thing_classes, metadata.subset_categories) == (["zebra"], ("zebra",))
    assert metadata.evaluator_type == "coco"

    register_coco_subsets(str(root))
    assert {name: len(DatasetCatalog.get(name)) for name in NAMES} == {
        "coco_2017_train_person": 3,
        "coco_2017_train_zebra": 2,
        "coco_2017_val_person": 3,
        "coco_2017_val_zebra": 2,
    }
    metadata = MetadataCatalog.get("coco_2017_val_zebra")
    assert (metadata.json_file, metadata.image_root) == paths(root)
    assert metadata.thing_dataset_id_to_contiguous_id == {24: 0}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["zebra", "unicorn"], r"instances_val2017\.json .*'unicorn'.*choose from: bicycle, car, person, zebra"),
        (["zebra", "zebra"], "Name each once"),
        ([], "No category of .* is named"),
    ],
)
def test_wrong_categories(root, names, message):
    with pytest.raises(ValueError, match=message):
        load_coco_subset(*paths(root), names)


def test_category_without_annotations(root):
    content = {"images": [{"id": 1}], "annotations": [], "categories": [{"id": 1, "name": "person"}]}
    with pytest.raises(ValueError, match=r"some\.json has no annotation of the categories person"):
        keep_categories(content, ["person"], "some.json")


def test_annotation_of_an_unknown_category_is_not_skipped():
    content = {
        "images": [{"id": 1}],
        "annotations": [{"id": 5, "image_id": 1, "category_id": 1}, {"id": 6, "image_id": 1, "category_id": 9}],
        "categories": [{"id": 1, "name": "person"}],
    }
    with pytest.raises(ValueError, match=r"some\.json: annotation 6 has category_id 9, which is not in 'categories'"):
        keep_categories(content, ["person"], "some.json")


def test_missing_json_says_what_is_there(root, tmp_path):
    copy = shutil.copytree(root, tmp_path / "copy")
    shutil.rmtree(copy / "coco" / "annotations")
    (copy / "coco" / "annotations_trainval2017.zip").write_bytes(b"")
    message = (
        r"annotations.instances_val2017\.json does not exist\. .*coco.annotations does not exist\. .*"
        r"train2017/, val2017/.*annotations_trainval2017\.zip is an archive: unpack it there.*DETECTRON2_DATASETS"
    )
    with pytest.raises(FileNotFoundError, match=message):
        load_coco_subset(*paths(copy), ["person"])


def test_missing_image_folder_says_what_is_there(root, tmp_path):
    copy = shutil.copytree(root, tmp_path / "copy")
    shutil.rmtree(copy / "coco" / "val2017")
    message = r"coco.val2017 does not exist\. .*coco holds annotations/, train2017/\. Unpack COCO's val2017\.zip"
    with pytest.raises(FileNotFoundError, match=message):
        load_coco_subset(*paths(copy), ["person"])
    (copy / "coco" / "val2017.zip").write_bytes(b"")
    message = r"coco.val2017 does not exist\. .*val2017\.zip is an archive: unpack it there.*DETECTRON2_DATASETS"
    with pytest.raises(FileNotFoundError, match=message):
        load_coco_subset(*paths(copy), ["person"])
