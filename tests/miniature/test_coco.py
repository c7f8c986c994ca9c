"""The miniature of COCO: the official layout and keys, and annotations that are true to the pictures."""

import json
from pathlib import Path

import cv2
import numpy as np
import pycocotools.mask as mask_util
import pytest
from pycocotools.coco import COCO

from miniature.coco import write_coco
from rec_attend_d2.data.datasets.coco_files import load_coco


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_coco(tmp_path_factory.mktemp("mini"), images=8, size=(96, 128))


@pytest.fixture(params=["train", "val"])
def split(request) -> str:
    return request.param


def read(folder: Path, split: str) -> dict:
    return json.loads((folder / "annotations" / f"instances_{split}2017.json").read_text())


def kinds_by_image(content: dict) -> dict[int, list[tuple[int, int]]]:
    """(category_id, iscrowd) of the annotations of each image."""
    kinds: dict[int, list[tuple[int, int]]] = {image["id"]: [] for image in content["images"]}
    for annotation in content["annotations"]:
        kinds[annotation["image_id"]].append((annotation["category_id"], annotation["iscrowd"]))
    return {image_id: sorted(found) for image_id, found in sorted(kinds.items())}


def test_official_keys_and_files(folder, split):
    content = read(folder, split)
    assert set(content) == {"info", "licenses", "images", "annotations", "categories"}
    assert set(content["images"][0]) == {
        *("license", "file_name", "coco_url", "height", "width", "date_captured", "flickr_url", "id")
    }
    assert all(
        set(a) == {"segmentation", "area", "iscrowd", "image_id", "bbox", "category_id", "id"}
        for a in content["annotations"]
    )
    assert {(c["id"], c["name"]) for c in content["categories"]} == {
        *((1, "person"), (2, "bicycle"), (3, "car"), (24, "zebra"))
    }
    names = {path.name for path in (folder / f"{split}2017").iterdir()}
    assert (
        names
        == {image["file_name"] for image in content["images"]}
        == {f"{i['id']:012d}.jpg" for i in content["images"]}
    )
    for image in content["images"]:
        path = folder / f"{split}2017" / image["file_name"]
        assert path.read_bytes()[:2] == b"\xff\xd8"  # a JPEG
        assert cv2.imread(str(path)).shape == (image["height"], image["width"], 3)
    ids = [a["id"] for a in content["annotations"]]
    assert len(set(ids)) == len(ids) and min(ids) > 0


def test_what_the_first_images_show(folder, split):
    kinds = list(kinds_by_image(read(folder, split)).values())
    assert kinds[:5] == [
        [(1, 0), (3, 0), (24, 0)],
        [(1, 0), (1, 0), (1, 1)],
        [],
        [(1, 1)],
        [(2, 0), (24, 0), (24, 0), (24, 0)],
    ]
    assert len(kinds) == 8


def test_segmentations_areas_and_boxes_agree(folder, split):
    coco = COCO(str(folder / "annotations" / f"instances_{split}2017.json"))
    for annotation in coco.anns.values():
        mask = coco.annToMask(annotation).astype(bool)
        ys, xs = np.nonzero(mask)
        assert annotation["area"] == mask.sum()
        assert annotation["bbox"] == [xs.min(), ys.min(), np.ptp(xs) + 1, np.ptp(ys) + 1]
        if annotation["iscrowd"]:
            assert isinstance(annotation["segmentation"]["counts"], list)
            assert sum(annotation["segmentation"]["counts"]) == mask.size
        else:
            assert isinstance(annotation["segmentation"], list)


def test_outlined_objects_do_not_overlap_and_differ_from_the_background(folder):
    coco = COCO(str(folder / "annotations" / "instances_train2017.json"))
    masks = [coco.annToMask(a).astype(int) for a in coco.imgToAnns[1]]
    assert np.sum(masks, axis=0).max() == 1
    image = cv2.imread(str(folder / "train2017" / "000000000001.jpg")).astype(float)
    for mask in masks:
        inside = mask.astype(bool)
        around = cv2.dilate(mask.astype(np.uint8), np.ones((7, 7))).astype(bool) & ~inside
        assert np.abs(image[inside].mean(0) - image[around].mean(0)).max() > 10


def test_it_passes_the_loaders_checks(folder, split):
    records = load_coco(str(folder / "annotations" / f"instances_{split}2017.json"), str(folder / f"{split}2017"))
    assert len(records) == 8


def test_splits_differ_and_the_seed_decides(folder, tmp_path):
    train, val = read(folder, "train"), read(folder, "val")
    assert not {i["id"] for i in train["images"]} & {i["id"] for i in val["images"]}
    again = write_coco(tmp_path / "again", images=8, size=(96, 128), seed=0)
    other = write_coco(tmp_path / "other", images=8, size=(96, 128), seed=1)
    assert read(again, "train") == train
    assert (again / "val2017" / "000000100001.jpg").read_bytes() == (folder / "val2017/000000100001.jpg").read_bytes()
    assert read(other, "train") != train


@pytest.mark.parametrize("size", [(64, 64), (48, 80)])
def test_other_sizes(tmp_path, size):
    content = read(write_coco(tmp_path, images=5, size=size), "val")
    assert {(i["height"], i["width"]) for i in content["images"]} == {size, size[::-1]}
    crowd = next(a for a in content["annotations"] if a["iscrowd"])
    rle = mask_util.frPyObjects(crowd["segmentation"], *crowd["segmentation"]["size"])
    assert mask_util.area(rle) == crowd["area"]


def test_too_few_images(tmp_path):
    with pytest.raises(ValueError, match="at least 5 images in each split, not 4"):
        write_coco(tmp_path, images=4)
    assert list(tmp_path.iterdir()) == []


def test_too_small_images(tmp_path):
    with pytest.raises(ValueError, match=r"\(4, 4\) is too small to show"):
        write_coco(tmp_path, size=(4, 4))
