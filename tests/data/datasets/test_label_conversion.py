"""Label images become COCO annotations; what does not look like label images is refused."""

import json
from pathlib import Path

import numpy as np
import pycocotools.mask as mask_util
import pytest
from PIL import Image

from rec_attend_d2.data.datasets.coco_files import load_coco
from rec_attend_d2.data.datasets.label_conversion import (
    ConvertedImage,
    components,
    convert_images,
    split_images,
    summary,
    write_coco,
)
from rec_attend_d2.data.datasets.label_doubts import LabelFacts, check_pieces
from rec_attend_d2.data.datasets.label_images import coco_object
from rec_attend_d2.data.datasets.label_sources import LabelImage
from rec_attend_d2.data.segmentation import annotation_mask

# Object 5 is in two pieces, one of which is joined at a corner.
LABELS = np.zeros((8, 10), np.uint8)
LABELS[0, 0] = LABELS[1, 1] = LABELS[7, 9] = 5
LABELS[3:6, 2:6] = 9


def source(folder: Path, name: str, labels: np.ndarray, image: np.ndarray | None = None) -> LabelImage:
    folder.mkdir(exist_ok=True)
    image = np.zeros((*labels.shape, 3), np.uint8) if image is None else image
    Image.fromarray(image).save(folder / f"{name}.tif")
    Image.fromarray(labels).save(folder / f"{name}_label.png")
    return LabelImage(folder / f"{name}.tif", folder / f"{name}_label.png")


def images_with(*counts: tuple[int, int]) -> list[ConvertedImage]:
    """Images with so many objects, of which so many are in two pieces."""
    return [
        ConvertedImage(
            f"{index}.png",
            (8, 10),
            "uint8",
            [{"bbox": [0, 0, 5, 2]}] * objects,
            LabelFacts(f"{index}.png", [(3, 4)] * in_pieces, objects + in_pieces, objects=objects),
        )
        for index, (objects, in_pieces) in enumerate(counts)
    ]


def test_an_object_in_pieces_stays_one(tmp_path):
    (image,) = convert_images([source(tmp_path, "a", LABELS)], tmp_path)
    assert (image.file_name, image.size, image.depth) == ("a.tif", (8, 10), "uint8")
    assert image.facts.in_pieces == [(0, 0)] and image.facts.pieces == 3
    first, second = image.objects
    np.testing.assert_array_equal(mask_util.decode(first["segmentation"]), LABELS == 5)
    assert (second["area"], second["bbox"], second["iscrowd"]) == (12, [2, 3, 4, 3], 0)


def test_splitting_makes_an_object_of_every_piece(tmp_path):
    (image,) = convert_images([source(tmp_path, "a", LABELS)], tmp_path, "split")
    assert [item["area"] for item in image.objects] == [2, 1, 12]
    assert [int(part.sum()) for part in components(LABELS == 5)] == [2, 1]


def test_what_is_written_loads_again(tmp_path):
    folder = tmp_path / "images"
    sources = [source(folder, "a", LABELS), source(folder, "b", np.zeros((4, 4), np.uint16))]
    write_coco(convert_images(sources, tmp_path), "leaf", tmp_path / "new" / "train.json")
    first, second = load_coco(str(tmp_path / "new" / "train.json"), str(tmp_path))
    assert first["file_name"] == str(folder / "a.tif") and (second["height"], second["annotations"]) == (4, [])
    masks = [annotation_mask(annotation, (8, 10), "") for annotation in first["annotations"]]
    np.testing.assert_array_equal(masks, [LABELS == 5, LABELS == 9])


def test_ids_count_through_the_images(tmp_path):
    objects = [coco_object(LABELS == 5), coco_object(LABELS == 9)]
    images = [ConvertedImage("a", (8, 10), "uint8", objects), ConvertedImage("b", (8, 10), "uint8", objects[:1])]
    write_coco(images, "leaf", tmp_path / "a.json")
    content = json.loads((tmp_path / "a.json").read_text())
    assert [(item["id"], item["image_id"]) for item in content["annotations"]] == [(1, 1), (2, 1), (3, 2)]
    assert content["categories"] == [{"id": 1, "name": "leaf"}]


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        (
            [(1, 0), (1, 1), (0, 0)],
            r"like binary masks: .* and 1 of 3 .* such as that at x 3, y 4 in the one of 1\.png\. Add --split",
        ),
        (
            [(4, 3), (2, 1)],
            r"like classes or smoothed drawings .* 4 of 6 values .* such as that at .* in the one of 0\.png",
        ),
        ([(255, 3)], r"all 255 values of 8 bits .*3 of 255 in the one of 0\.png\): numbers seem to have begun anew"),
    ],
)
def test_labels_that_are_none_are_refused(counts, message):
    with pytest.raises(ValueError, match=message):
        check_pieces([image.facts for image in images_with(*counts)])


@pytest.mark.parametrize("counts", [[(1, 0), (0, 0)], [(6, 1), (1, 1), (3, 0)], [(255, 2)], [(30, 14)]])
def test_some_objects_may_be_in_pieces(counts):
    check_pieces([image.facts for image in images_with(*counts)])


def test_binary_masks_pass_when_it_is_said_what_they_mean(tmp_path):
    binary = source(tmp_path, "a", LABELS > 0)
    with pytest.raises(ValueError, match="binary masks"):
        convert_images([binary], tmp_path)
    assert [len(convert_images([binary], tmp_path, pieces)[0].objects) for pieces in ("keep", "split")] == [1, 3]


def test_labels_without_objects_are_refused(tmp_path):
    with pytest.raises(ValueError, match="No label image has an object"):
        convert_images([source(tmp_path, "a", LABELS * 0)], tmp_path)


def test_depth_and_pages_of_images(tmp_path):
    deep = source(tmp_path, "a", LABELS, np.zeros((8, 10), np.float32))
    assert convert_images([deep], tmp_path)[0].depth == "float32"
    page = Image.fromarray(LABELS)
    page.save(deep.image, save_all=True, append_images=[page])
    with pytest.raises(ValueError, match=r"a\.tif has 2 pages"):
        convert_images([deep], tmp_path)


def test_splits_depend_on_the_seed_alone():
    images = images_with(*[(1, 0)] * 10)
    training, validation = split_images(images, 0.3, seed=1)
    assert (len(training), len(validation)) == (7, 3)
    assert sorted([*training, *validation], key=images.index) == images
    assert split_images(images, 0.3, seed=1) == (training, validation)
    assert split_images(images, 0.3, seed=2)[1] != validation
    assert [len(part) for part in split_images(images[:2], 0.01, 0)] == [1, 1]
    with pytest.raises(ValueError, match="one image only"):
        split_images(images[:1], 0.5, 0)


def test_the_summary_counts_and_measures():
    words = summary(images_with((3, 0), (0, 0), (1, 0)))
    assert words == (
        "3 images (1 without objects), 4 objects: median 1 and at most 3 per image, median size 0.25 x 0.50 of the "
        "image's height and width"
    )
    assert summary(images_with((0, 0))) == "1 images without objects"
