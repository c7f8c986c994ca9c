"""Data sets in COCO format: what is kept, and what is reported."""

import os
import shutil
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from pycocotools.coco import COCO

from miniature.coco import write_coco as write_miniature
from rec_attend_d2.data.datasets.coco_files import keep_categories, load_coco, register_coco_files
from rec_attend_d2.data.segmentation import annotation_mask


def test_everything_is_kept(coco_content, write_coco):
    json_file, folder = write_coco(coco_content)
    full, empty = load_coco(json_file, folder)
    assert (full["image_id"], full["height"], full["width"]) == (7, 20, 30)
    assert full["file_name"] == os.path.join(folder, "full.png")
    assert (empty["image_id"], empty["annotations"]) == (9, [])
    annotations = full["annotations"]
    assert [a["id"] for a in annotations] == [1, 2, 3]
    assert [a["iscrowd"] for a in annotations] == [0, 0, 1]
    # Category ids 2 and 4 are classes 0 and 1.
    assert [a["category_id"] for a in annotations] == [1, 1, 0]
    assert {a["bbox_mode"] for a in annotations} == {BoxMode.XYWH_ABS}
    areas = [int(annotation_mask(a, (20, 30), "full.png").sum()) for a in annotations]
    assert areas == [12, 10, 600]


def test_registering(coco_content, write_coco, clean_catalog):
    json_file, folder = write_coco(coco_content)
    register_coco_files([["own_cells", json_file, folder]])
    assert len(DatasetCatalog.get("own_cells")) == 2
    metadata = MetadataCatalog.get("own_cells")
    assert metadata.evaluator_type == "coco"
    assert (metadata.json_file, metadata.image_root) == (json_file, folder)
    assert metadata.thing_classes == ["debris", "cell"]
    assert metadata.thing_dataset_id_to_contiguous_id == {2: 0, 4: 1}


def test_registering_twice(coco_content, write_coco, clean_catalog):
    json_file, folder = write_coco(coco_content)
    for _ in range(2):
        register_coco_files([["own_cells", json_file, folder]])
    assert len(DatasetCatalog.get("own_cells")) == 2
    with pytest.raises(ValueError, match=r"DATASETS\.COCO_FILES names the data set 'own_cells'.*Choose another name"):
        register_coco_files([["own_cells", json_file, folder + "2"]])


def test_fourth_part_restricts_to_categories(coco_content, write_coco, clean_catalog):
    json_file, folder = write_coco(coco_content)
    register_coco_files([["own_debris", json_file, folder, "debris"], ["own_both", json_file, folder, "cell, debris"]])
    (record,) = DatasetCatalog.get("own_debris")
    assert [(a["id"], a["category_id"], a["iscrowd"]) for a in record["annotations"]] == [(3, 0, 1)]
    metadata = MetadataCatalog.get("own_debris")
    assert metadata.thing_classes == ["debris"]
    assert metadata.thing_dataset_id_to_contiguous_id == {2: 0}
    assert metadata.subset_categories == ("debris",)
    # The image without annotations is no image of a subset, even of all categories.
    assert [record["image_id"] for record in DatasetCatalog.get("own_both")] == [7]
    assert MetadataCatalog.get("own_both").thing_classes == ["debris", "cell"]


def test_same_name_with_other_categories(coco_content, write_coco, clean_catalog):
    json_file, folder = write_coco(coco_content)
    for _ in range(2):
        register_coco_files([["own_cells", json_file, folder, "cell"]])
    for entry in (["own_cells", json_file, folder], ["own_cells", json_file, folder, "debris"]):
        with pytest.raises(ValueError, match=r"'own_cells'.*registered already.*categories cell.*Choose another name"):
            register_coco_files([entry])


@pytest.mark.parametrize("categories", ["cells", "cell,", "", "cell,cell"])
def test_wrong_fourth_part(coco_content, write_coco, clean_catalog, categories):
    with pytest.raises(ValueError, match=r"annotations\.json is to be restricted to .*choose from: cell, debris"):
        register_coco_files([["own_cells", *write_coco(coco_content), categories]])
    assert "own_cells" not in DatasetCatalog


@pytest.mark.parametrize(
    "entry", [["name", "a.json"], ["name", "a.json", 3], "abcd", ["n", "j", "f", 1], list("abcde")]
)
def test_malformed_entry(entry):
    with pytest.raises(ValueError, match=r"DATASETS\.COCO_FILES has the entry.*Give \[name"):
        register_coco_files([entry])


def test_missing_files(coco_content, write_coco, clean_catalog):
    json_file, folder = write_coco(coco_content)
    found = r"holds annotations\.json, images/\. Correct the path \(DATASETS\.COCO_FILES\)"
    with pytest.raises(FileNotFoundError, match=rf"Annotation file .*annotations\.jsonx does not exist\. .*{found}"):
        register_coco_files([["own_cells", json_file + "x", folder]])
    with pytest.raises(FileNotFoundError, match=rf"image folder is expected at .*imagesx\. .*{found}"):
        register_coco_files([["own_cells", json_file, folder + "x"]])
    os.remove(os.path.join(folder, "empty.png"))
    with pytest.raises(FileNotFoundError, match=r"empty\.png, listed in .*annotations\.json, does not exist\. Correct"):
        register_coco_files([["own_cells", json_file, folder]])
    assert "own_cells" not in DatasetCatalog


def test_an_archive_instead_of_the_image_folder(coco_content, write_coco, tmp_path):
    json_file, _ = write_coco(coco_content)
    (tmp_path / "images.zip").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"images\.zip is a file, not a folder\. It is an archive: unpack it"):
        register_coco_files([["own_cells", json_file, str(tmp_path / "images.zip")]])


def test_broken_json(coco_content, write_coco):
    json_file, folder = write_coco(coco_content)
    with open(json_file, "a") as file:
        file.write("]")
    with pytest.raises(ValueError, match=r"annotations\.json is not valid JSON"):
        load_coco(json_file, folder)


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
def test_missing_list(coco_content, write_coco, key):
    json_file, folder = write_coco({k: v for k, v in coco_content.items() if k != key})
    with pytest.raises(ValueError, match=rf"annotations\.json has no list '{key}'"):
        load_coco(json_file, folder)


def test_no_annotations_at_all(coco_content, write_coco):
    coco_content["annotations"] = []
    assert [len(record["annotations"]) for record in load_coco(*write_coco(coco_content))] == [0, 0]


@pytest.mark.parametrize("key", ["images", "categories"])
def test_empty_list(coco_content, write_coco, key):
    coco_content[key] = []
    with pytest.raises(ValueError, match=rf"annotations\.json has an empty list '{key}'"):
        load_coco(*write_coco(coco_content))


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        ("images", "height"),
        ("images", "id"),
        ("annotations", "segmentation"),
        ("annotations", "area"),
        ("categories", "name"),
    ],
)
def test_missing_key(coco_content, write_coco, kind, key):
    paths = write_coco(coco_content)
    del coco_content[kind][1][key]
    write_coco(coco_content)
    with pytest.raises(ValueError, match=rf"annotations\.json: .* number 1 has no '{key}'.*add it"):
        load_coco(*paths)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"segmentation": []}, "has no outline, only a box"),
        ({"segmentation": [[1, 2, 3, 4]]}, "has malformed polygons"),
        ({"segmentation": None}, "has no outline, only a box"),
        ({"segmentation": "text"}, "neither polygons nor RLE"),
        ({"segmentation": {"size": [20, 30], "counts": "xyz"}}, "has no valid RLE"),
        ({"segmentation": {"size": [30, 20], "counts": [45, 10, 545]}}, r"RLE of size \[30, 20\]"),
        ({"segmentation": {"size": [20, 30], "counts": [600]}}, "no pixel inside the image"),
        ({"segmentation": [[30, 2, 33, 2, 33, 9]]}, "no pixel inside the image"),
        ({"category_id": 3}, r"category_id 3, which is not in 'categories'\. Add the category"),
        ({"image_id": 8}, r"image_id 8, which no image has\. Add the image"),
        ({"id": 1}, "two annotation entries have the id 1"),
    ],
)
def test_wrong_annotation(coco_content, write_coco, change, message):
    coco_content["annotations"][1].update(change)
    with pytest.raises(ValueError, match=rf"annotations\.json.*{message}"):
        load_coco(*write_coco(coco_content))


def test_annotation_id_0_is_kept_with_a_warning(coco_content, write_coco, caplog):
    coco_content["annotations"][0]["id"] = 0
    full, _ = load_coco(*write_coco(coco_content))
    assert [a["id"] for a in full["annotations"]] == [0, 2, 3]
    assert any("annotation id 0" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize("height", [0, 20.5, "20"])
def test_wrong_image_size(coco_content, write_coco, height):
    coco_content["images"][0]["height"] = height
    with pytest.raises(ValueError, match=r"annotations\.json: image empty\.png has height"):
        load_coco(*write_coco(coco_content))


# ---------------------------------------------------------------- some categories, on the miniature of COCO


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Folder of all data sets."""
    return write_miniature(tmp_path_factory.mktemp("datasets"), images=5).parent


def paths(root: Path, split: str = "val") -> tuple[str, str]:
    return str(root / "coco" / "annotations" / f"instances_{split}2017.json"), str(root / "coco" / f"{split}2017")


def shown(records: list[dict]) -> list[list[tuple[int, int]]]:
    """(category_id, iscrowd) of the annotations of each record, in order."""
    return [sorted((a["category_id"], a["iscrowd"]) for a in record["annotations"]) for record in records]


def test_person(root):
    # The images without object and with zebras only are left out, that with nothing but a crowd is not.
    records = load_coco(*paths(root), categories=["person"])
    assert [record["image_id"] for record in records] == [100001, 100002, 100004]
    assert shown(records) == [[(0, 0)], [(0, 0), (0, 0), (0, 1)], [(0, 1)]]


@pytest.mark.parametrize("category", ["person", "zebra", "bicycle"])
def test_images_are_those_of_pycocotools(root, category):
    coco = COCO(paths(root)[0])
    expected = sorted(coco.getImgIds(catIds=coco.getCatIds(catNms=[category])))
    assert [record["image_id"] for record in load_coco(*paths(root), categories=[category])] == expected != []


def test_several_categories_in_the_order_of_their_ids(root):
    records = load_coco(*paths(root), categories=["zebra", "person"])
    assert [record["image_id"] for record in records] == [100001, 100002, 100004, 100005]
    assert shown(records)[0] == [(0, 0), (1, 0)]
    assert shown(records)[3] == [(1, 0), (1, 0), (1, 0)]


def test_annotations_are_those_of_the_whole_file(root):
    everything = {a["id"]: a for record in load_coco(*paths(root)) for a in record["annotations"]}
    for record in load_coco(*paths(root), categories=["zebra"]):
        for annotation in record["annotations"]:
            assert {**annotation, "category_id": 3} == everything[annotation["id"]]


def test_images_of_other_categories_may_be_missing(root, tmp_path):
    copy = shutil.copytree(root, tmp_path / "copy")
    for record in load_coco(*paths(root)):
        if record["image_id"] not in (100001, 100005):
            (copy / "coco" / "val2017" / Path(record["file_name"]).name).unlink()
    assert len(load_coco(*paths(copy), categories=["zebra"])) == 2
    with pytest.raises(FileNotFoundError, match=r"000000100002\.jpg, listed in .*instances_val2017\.json"):
        load_coco(*paths(copy), categories=["person"])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["zebra", "unicorn"], r"instances_val2017\.json .*'unicorn'.*choose from: bicycle, car, person, zebra"),
        (["zebra", "zebra"], "Name each once"),
    ],
)
def test_wrong_categories(root, names, message):
    with pytest.raises(ValueError, match=message):
        load_coco(*paths(root), categories=names)


def test_category_without_annotations(root):
    content = {"images": [{"id": 1}], "annotations": [], "categories": [{"id": 1, "name": "person"}]}
    with pytest.raises(ValueError, match=r"some\.json has no annotation of the categories person"):
        keep_categories(content, ["person"], "some.json")


def test_annotation_of_an_unknown_category_is_not_skipped(coco_content, write_coco):
    coco_content["annotations"][2]["category_id"] = 9
    json_file, folder = write_coco(coco_content)
    with pytest.raises(ValueError, match=r"annotation 3 has category_id 9, which is not in 'categories'"):
        load_coco(json_file, folder, categories=["cell"])
