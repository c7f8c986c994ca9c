"""Masks kept as crops: the same as dense ones in every respect, at the price of the objects' pixels."""

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.evaluation.coco_evaluation import instances_to_coco_json
from detectron2.structures import BitMasks, Boxes, Instances

from rec_attend_d2.structures import MaskCrops, as_crops, crop_of_runs, crop_runs, intersections

SIZE = (23, 31)


def random_masks(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Overlapping masks: sparse pixels, whole columns, single pixels in the corners, an empty and a full one."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((12, *size), dtype=bool)
    for mask in masks[:7]:
        y, x = rng.integers(0, size[0] - 2), rng.integers(0, size[1] - 2)
        height, width = rng.integers(1, 14, 2)
        part = mask[y : y + height, x : x + width]
        part[...] = rng.random(part.shape) < rng.choice([0.3, 0.8, 1.0])
    masks[7, :, 4:9] = True
    masks[8, 0, 0] = masks[9, -1, -1] = True
    masks[11] = True
    return rng.permutation(masks)


@pytest.fixture(params=[0, 1, 2], name="dense")
def dense_masks(request) -> np.ndarray:
    return random_masks(request.param)


def test_there_and_back(dense):
    masks = MaskCrops.from_masks(dense)
    assert masks.shape == dense.shape and max(crop.size for crop in masks.crops[:3]) <= dense[0].size
    for again in (masks.numpy(), np.asarray(masks), masks.tensor.numpy(), torch.stack(list(masks)).numpy()):
        assert again.dtype == bool
        np.testing.assert_array_equal(again, dense)
    np.testing.assert_array_equal(MaskCrops.from_masks(torch.from_numpy(dense).float()).numpy(), dense)
    assert as_crops(masks) is masks.to("cpu") is masks


def test_areas_and_boxes_are_those_of_bit_masks(dense):
    masks = MaskCrops.from_masks(dense)
    np.testing.assert_array_equal(masks.areas(), dense.sum((1, 2)))
    np.testing.assert_array_equal(masks.boxes(), BitMasks(dense).get_bounding_boxes().tensor.numpy())
    np.testing.assert_array_equal(masks.union(), dense.any(axis=0))
    np.testing.assert_array_equal(masks.areas_inside(dense[3]), (dense & dense[3]).sum((1, 2)))


def test_boxes_are_tight_though_crops_are_not():
    crop = np.zeros((6, 7), dtype=bool)
    crop[2:4, 3] = True
    assert MaskCrops([crop], [[10, 20]], SIZE).boxes().tolist() == [[23, 12, 24, 14]]


def test_run_length_codes_are_those_of_pycocotools(dense):
    for code, mask in zip(MaskCrops.from_masks(dense).rles(), dense, strict=True):
        expected = mask_util.encode(np.asfortranarray(mask, dtype=np.uint8))
        assert code == {"size": expected["size"], "counts": expected["counts"].decode("ascii")}
    assert MaskCrops.from_masks(dense[:0]).rles() == []


def test_runs_there_and_back(dense):
    masks = MaskCrops.from_masks(dense)
    for crop, corner in zip(masks.crops, masks.corners.tolist(), strict=True):
        runs = crop_runs(crop, corner, SIZE)
        again, place = crop_of_runs(runs, SIZE[0])
        np.testing.assert_array_equal(again, crop)
        assert list(place) == corner or not crop.size
        # Others write runs of no pixel too.
        np.testing.assert_array_equal(crop_of_runs(np.insert(runs, [1, 1], 0), SIZE[0])[0], crop)


def test_intersections_are_those_of_the_pixels(dense):
    first, second = MaskCrops.from_masks(dense), MaskCrops.from_masks(random_masks(7)[:5])
    expected = np.einsum("phw,nhw->pn", dense.astype(np.int64), second.numpy().astype(np.int64))
    found = intersections(first, second)
    assert found.dtype == np.int64 and found.nnz == np.count_nonzero(expected)
    np.testing.assert_array_equal(found.toarray(), expected)
    assert intersections(first[:0], second).shape == (0, 5) and intersections(first, second[:0]).shape == (12, 0)
    with pytest.raises(ValueError, match=r"\(1, 2, 3\)"):
        intersections(MaskCrops([np.ones((1, 1), bool)], [[0, 0]], (2, 3)), second)


def test_of_overlapping_masks_the_first_is_labelled(dense):
    labels = MaskCrops.from_masks(dense).label_image()
    expected = np.where(dense.any(axis=0), dense.argmax(axis=0) + 1, 0)
    np.testing.assert_array_equal(labels, expected)
    assert labels.dtype == np.uint16
    apart = MaskCrops.from_labels(labels, len(dense))
    np.testing.assert_array_equal(apart.numpy(), expected == np.arange(1, 13)[:, None, None])
    assert len(MaskCrops.from_labels(np.zeros(SIZE, np.int32), 0)) == 0


def test_many_labels_take_more_bits():
    count = 65536
    dot = np.ones((1, 1), dtype=bool)
    masks = MaskCrops([dot] * count, np.stack(np.divmod(np.arange(count), 256), axis=1), (256, 256))
    labels = masks.label_image()
    assert labels.dtype == np.uint32 and labels.max() == count and masks[:-1].label_image().dtype == np.uint16
    with pytest.raises(ValueError, match="uint16 cannot hold 65536"):
        masks.label_image(np.uint16)


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (slice(2, 9, 3), [2, 5, 8]),
        ([3, 1], [3, 1]),
        ([], slice(0)),
        ([True, False] * 6, [0, 2, 4, 6, 8, 10]),
        (np.array([0, -1]), [0, 11]),
        (torch.tensor([5]), [5]),
        (torch.arange(12) > 9, [10, 11]),
    ],
)
def test_a_selection_is_again_crops(dense, index, expected):
    selected = MaskCrops.from_masks(dense)[index]
    assert isinstance(selected, MaskCrops)
    np.testing.assert_array_equal(selected.numpy(), dense[expected])


def test_a_single_mask_is_dense(dense):
    masks = MaskCrops.from_masks(dense)
    for index in (0, -1, np.int64(3), torch.tensor(4)):
        assert masks[index].dtype == torch.bool
        np.testing.assert_array_equal(masks[index].numpy(), dense[int(index)])
    with pytest.raises(IndexError):
        masks[12]


def test_detectron2_takes_them(dense):
    def instances(masks) -> Instances:
        fields = {"scores": torch.linspace(0, 1, 12), "pred_classes": torch.zeros(12, dtype=torch.int64)}
        return Instances(SIZE, pred_masks=masks, pred_boxes=Boxes(torch.zeros(12, 4)), **fields)

    crops, tensors = instances(MaskCrops.from_masks(dense)), instances(torch.from_numpy(dense))
    assert instances_to_coco_json(crops, 1) == instances_to_coco_json(tensors, 1)
    chosen = Instances.cat([crops, crops[2]]).to("cpu")[torch.arange(13) > 10]
    np.testing.assert_array_equal(chosen.pred_masks.numpy(), dense[[11, 2]])


def test_wrong_crops_are_refused():
    dot = np.ones((2, 2), dtype=bool)
    with pytest.raises(ValueError, match=r"Crop 1 reaches from \[22, 3\] to \[24, 5\]"):
        MaskCrops([dot, dot], [[0, 0], [22, 3]], SIZE)
    with pytest.raises(ValueError, match="1 crops but 2 corners"):
        MaskCrops([dot], [[0, 0], [1, 1]], SIZE)
    with pytest.raises(TypeError, match="not of bool"):
        MaskCrops([dot * 0.5], [[0, 0]], SIZE)
    with pytest.raises(ValueError, match=r"\[n, H, W\], got \(23, 31\)"):
        MaskCrops.from_masks(np.zeros(SIZE, bool))
    with pytest.raises(ValueError, match="images of"):
        MaskCrops.cat([MaskCrops([], [], SIZE), MaskCrops([], [], (1, 2))])
