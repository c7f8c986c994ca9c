"""Polygons, RLE and bitmaps become masks; malformed ones are reported."""

import numpy as np
import pytest

from rec_attend_d2.data.segmentation import annotation_crop, annotation_mask, check_polygons, rle_crop, rle_runs
from rec_attend_d2.structures import MaskCrops

SIZE = (20, 30)


@pytest.fixture
def mask() -> np.ndarray:
    mask = np.zeros(SIZE, dtype=bool)
    mask[3:9, 5:21] = True
    mask[7, 7] = False
    return mask


def _runs(mask: np.ndarray) -> list[int]:
    """Run lengths, counted one pixel after the other."""
    runs, value = [0], False
    for pixel in mask.T.ravel():
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    return runs


def test_every_kind_gives_the_same_mask(mask, rle):
    uncompressed = {"size": list(SIZE), "counts": _runs(mask)}
    compressed = rle(mask)
    as_bytes = {**compressed, "counts": compressed["counts"].encode()}
    for segmentation in (compressed, as_bytes, uncompressed, mask, mask.astype(np.uint8), mask * 255.0):
        result = annotation_mask({"segmentation": segmentation}, SIZE, "a.png")
        assert result.dtype == bool
        np.testing.assert_array_equal(result, mask)


def test_a_crop_is_tight(mask, rle):
    polygon = [5.0, 3.0, 21.0, 3.0, 21.0, 9.0, 5.0, 9.0]
    for segmentation in (rle(mask), mask, [polygon]):
        crop, corner = annotation_crop({"segmentation": segmentation}, SIZE, "a.png")
        assert crop.shape == (6, 16) and corner == (3, 5)


def test_polygon_fills_its_pixels():
    square, triangle = [2, 3, 6, 3, 6, 8, 2, 8], [20.0, 10.0, 28.0, 10.0, 20.0, 18.0]
    mask = annotation_mask({"segmentation": [square, triangle]}, SIZE, "a.png")
    expected = np.zeros(SIZE, dtype=bool)
    expected[3:8, 2:6] = True
    np.testing.assert_array_equal(mask[:, :15], expected[:, :15])
    assert abs(mask[:, 15:].sum() - 32) <= 8  # area of the triangle, within its diagonal
    assert mask[11, 21] and not mask[17, 27]


def test_polygon_smaller_than_a_pixel_gives_one_pixel():
    mask = annotation_mask({"segmentation": [[4.1, 6.1, 4.2, 6.1, 4.2, 6.3]]}, SIZE, "a.png")
    assert np.argwhere(mask).tolist() == [[6, 4]]


def test_sliver_at_the_border_gives_one_pixel():
    mask = annotation_mask({"segmentation": [[-9, 7.2, 0.2, 7.2, 0.2, 7.9]]}, SIZE, "a.png")
    assert np.argwhere(mask).tolist() == [[7, 0]]


def test_runs_of_random_masks(rle):
    rng = np.random.default_rng(0)
    for density in (0.0, 0.01, 0.5, 0.99, 1.0):
        mask = rng.random((61, 83)) < density
        assert rle_runs(rle(mask), "a.png").tolist() == _runs(mask)
        found = MaskCrops.from_crops([rle_crop(rle(mask), "a.png")], mask.shape)
        np.testing.assert_array_equal(found[0].numpy(), mask)


def test_long_runs(rle):
    mask = np.zeros((3000, 2000), dtype=bool)
    mask[1500:, 700] = True
    assert rle_runs(rle(mask), "a.png").tolist() == [700 * 3000 + 1500, 1500, 1299 * 3000]


@pytest.mark.parametrize(
    "counts", ["xyz", "", "0", "é", "P" * 30, b"\xff", [-10, 610], [300, 299], [30.5, 569.5], ["a"], None, 5]
)
def test_malformed_rle(counts):
    with pytest.raises(ValueError, match=r"a\.png: annotation 3 has no valid RLE.*encode"):
        annotation_mask({"segmentation": {"size": list(SIZE), "counts": counts}}, SIZE, "a.png: annotation 3")


@pytest.mark.parametrize("rle_without", [{"counts": "abc"}, {"size": [20, 30]}, {"size": 5, "counts": "abc"}, {}])
def test_incomplete_rle(rle_without):
    with pytest.raises(ValueError, match=r"a\.png has no valid RLE"):
        annotation_mask({"segmentation": rle_without}, SIZE, "a.png")


@pytest.mark.parametrize(
    "polygons",
    [
        [],
        [[]],
        [[1, 2, 3, 4]],
        [[1, 2, 3, 4, 5, 6, 7]],
        [1, 2, 3, 4, 5, 6],
        [["a"] * 6],
        [[1, 2, 3, 4, 5, float("nan")]],
    ],
)
def test_malformed_polygons(polygons):
    with pytest.raises(ValueError, match=r"a\.png has malformed polygons"):
        check_polygons(polygons, "a.png")


@pytest.mark.parametrize("segmentation", [None, 3, "polygon"])
def test_no_segmentation(segmentation):
    with pytest.raises(ValueError, match=r"a\.png has a segmentation of type"):
        annotation_mask({"segmentation": segmentation}, SIZE, "a.png")


def test_other_size(mask, rle):
    for segmentation in (mask.T, rle(mask.T)):
        with pytest.raises(ValueError, match=r"a\.png has a mask of shape \[30, 20\].*\[20, 30\]"):
            annotation_mask({"segmentation": segmentation}, SIZE, "a.png")


@pytest.mark.parametrize(
    "segmentation",
    [
        np.zeros(SIZE, dtype=bool),
        {"size": list(SIZE), "counts": [600]},
        [[40, 5, 45, 5, 45, 9]],
        [[-9, 2, -2, 2, -2, 9]],
    ],
)
def test_nothing_inside_the_image(segmentation):
    with pytest.raises(ValueError, match=r"a\.png has no pixel inside the image"):
        annotation_mask({"segmentation": segmentation}, SIZE, "a.png")
