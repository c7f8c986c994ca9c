"""Outlines, measurements and files of objects, read back by the libraries that know them."""

import json

import numpy as np
import pytest
import roifile
import tifffile
import torch
from detectron2.structures import Instances
from scipy import ndimage
from skimage.draw import polygon2mask
from skimage.measure import regionprops_table

from rec_attend_d2.prediction.measurements import measure
from rec_attend_d2.prediction.object_files import mask_outlines, write_geojson, write_label_image, write_rois
from rec_attend_d2.prediction.outlines import outlines, ring_area
from rec_attend_d2.prediction.pixel_size import PixelSize, Scale
from rec_attend_d2.structures import MaskCrops

RANDOM = np.random.default_rng(0)
RING = np.pad(np.pad([[0]], 1, constant_values=1), 1).astype(bool)
TWO_PARTS = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 1]], dtype=bool)
DOT = np.ones((1, 1), dtype=bool)


def instances(*crops: np.ndarray, pitch: int = 20) -> Instances:
    """Objects side by side from (3, 2) on in a picture of 30 x 200 pixels."""
    corners = [(3, 2 + pitch * number) for number in range(len(crops))]
    found = Instances((30, 200), pred_masks=MaskCrops(crops, corners, (30, 200)))
    found.scores = torch.linspace(0.9, 0.5, len(crops))
    found.pred_classes = torch.arange(len(crops)) % 2
    return found


def blobs(number: int) -> list[np.ndarray]:
    """Masks of irregular shape, also of several parts and with holes."""
    sizes = RANDOM.integers(1, 14, (number, 2))
    masks = [RANDOM.random(size) < RANDOM.uniform(0.3, 1) for size in sizes]
    return [mask for mask in masks if mask.any()]


def test_outlines_have_the_area_of_their_pixels():
    for mask in blobs(150):
        parts = outlines(mask)
        areas = [ring_area(part[0]) - sum(map(ring_area, part[1:])) for part in parts]
        labels, number = ndimage.label(mask)
        assert len(parts) == number and sorted(areas) == sorted(np.bincount(labels.ravel())[1:].tolist())
        _, background = ndimage.label(~np.pad(mask, 1), np.ones((3, 3)))
        assert sum(len(part) - 1 for part in parts) == background - 1  # a line for each hole


def test_outlines_lie_where_the_pixels_are():
    ((ring,),) = outlines(DOT, (5, 7))
    assert ring.tolist() == [[7, 5], [8, 5], [8, 6], [7, 6]]
    ((outer, hole),) = outlines(RING)
    assert sorted(outer.tolist()) == [[1, 1], [1, 4], [4, 1], [4, 4]]
    assert sorted(hole.tolist()) == [[2, 2], [2, 3], [3, 2], [3, 3]]
    assert outlines(np.zeros((0, 0), dtype=bool)) == []


def test_shapes_are_those_of_scikit_image():
    crops = [*blobs(8), DOT, np.ones((1, 6), dtype=bool), RING]
    found = instances(*crops, pitch=16)
    channels = RANDOM.integers(0, 60000, (30, 200, 2), dtype=np.uint16)
    columns, rows = measure(found, channels, ["a", "b"], PixelSize(0.5, 0.25))
    table = {name: np.array([row[columns.index(name)] for row in rows]) for name in columns}
    names = {
        "area": "area",
        "centroid-0": "centroid_y",
        "centroid-1": "centroid_x",
        **{f"bbox-{number}": f"box_{side}" for number, side in enumerate(("top", "left", "bottom", "right"))},
        "axis_major_length": "major_axis_length",
        "axis_minor_length": "minor_axis_length",
        "eccentricity": "eccentricity",
        **{f"intensity_{kind}-{c}": f"{kind}_intensity_{c + 1}" for kind in ("mean", "max") for c in (0, 1)},
    }
    labels = found.pred_masks.label_image()
    properties = {name.split("-")[0] for name in names}
    expected = regionprops_table(labels, channels, properties=list(properties))
    for theirs, ours in names.items():
        np.testing.assert_allclose(table[ours], expected[theirs], atol=1e-3, err_msg=ours)
    np.testing.assert_allclose(table["area_um2"], table["area"] / 8, rtol=1e-5)
    np.testing.assert_allclose(table["centroid_x_um"], table["centroid_x"] / 4, atol=1e-3)
    assert table["class"].tolist()[:3] == ["a", "b", "a"] and table["object"].tolist() == list(range(1, len(crops) + 1))


def test_pixels_that_are_no_number_do_not_count():
    channels = np.full((30, 200, 1), np.nan, np.float32)
    channels[3, 2:4, 0] = 1.5, np.inf
    columns, rows = measure(instances(np.ones((2, 2), dtype=bool), DOT), channels, ["a", "b"])
    assert [row[columns.index("mean_intensity_1")] for row in rows] == [1.5, ""]


def test_an_object_without_a_pixel(tmp_path):
    found = instances(np.zeros((0, 0), dtype=bool), DOT)
    columns, rows = measure(found, np.ones((30, 200, 1), np.uint8), ["a", "b"], PixelSize(1, 1))
    assert rows[0][1:3] == [0, ""] and len(rows[0]) == len(columns)
    write_rois(tmp_path / "a.zip", mask_outlines(found))
    write_geojson(tmp_path / "a.geojson", mask_outlines(found), columns, rows)
    assert [roi.name for roi in roifile.roiread(tmp_path / "a.zip")] == ["2"]
    (feature,) = json.loads((tmp_path / "a.geojson").read_text())["features"]
    assert feature["properties"]["name"] == "2" and feature["properties"]["classification"] == {"name": "b"}


def test_regions_cover_their_masks(tmp_path):
    crops = [np.ones((3, 5), dtype=bool), DOT, TWO_PARTS, RING]
    write_rois(tmp_path / "a.zip", mask_outlines(instances(*crops)), position=4)
    rois = roifile.roiread(tmp_path / "a.zip")
    assert [(roi.name, roi.position) for roi in rois] == [(str(number), 4) for number in (1, 2, 3, 4)]
    assert [roi.roitype for roi in rois][:2] == [roifile.ROI_TYPE.POLYGON] * 2 and rois[2].composite
    for number, (roi, crop) in enumerate(zip(rois, crops, strict=True)):
        drawn = np.zeros((30, 200), dtype=bool)
        for line in roi.coordinates(multi=True):
            drawn |= polygon2mask(drawn.shape, line[:, ::-1] - 0.5 + 1e-6)  # from edges to the centres of pixels
        expected = np.zeros((30, 200), dtype=bool)
        filled = ndimage.binary_fill_holes(crop)
        expected[3 : 3 + crop.shape[0], 2 + 20 * number : 2 + 20 * number + crop.shape[1]] = filled
        np.testing.assert_array_equal(drawn, expected)


def test_regions_have_a_largest_place(tmp_path):
    with pytest.raises(ValueError, match="cannot lie beyond 32767 pixels. Leave --rois out"):
        write_rois(tmp_path / "a.zip", [outlines(DOT, (0, 40000))])
    assert not list(tmp_path.iterdir())


def test_geojson_of_parts_and_holes(tmp_path):
    found = instances(TWO_PARTS, RING)
    columns, rows = measure(found, np.ones((30, 200, 1), np.uint8), ["cell", "nucleus"])
    write_geojson(tmp_path / "a.geojson", mask_outlines(found), columns, rows)
    content = json.loads((tmp_path / "a.geojson").read_text())
    assert content["type"] == "FeatureCollection"
    parts, ring = (feature["geometry"] for feature in content["features"])
    assert parts["type"] == "MultiPolygon" and len(parts["coordinates"]) == 2
    assert ring["type"] == "Polygon" and len(ring["coordinates"]) == 2
    assert content["features"][1]["properties"]["measurements"]["area"] == 8


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32])
def test_label_images_keep_the_scale(tmp_path, dtype):
    labels = np.arange(12, dtype=dtype).reshape(3, 4)
    path = tmp_path / "new" / "a.tif"
    for scale, expected in [
        (Scale(), None),
        (Scale(PixelSize(0.5, 0.25)), (4, 2) if dtype == np.uint16 else (40000, 20000)),
        (Scale(None, (300, 150, 2)), (300, 150)),
    ]:
        write_label_image(path, labels, scale)
        with tifffile.TiffFile(path) as file:
            page = file.pages[0]
            assert file.asarray().dtype == dtype and page.compression == tifffile.COMPRESSION.ADOBE_DEFLATE
            np.testing.assert_array_equal(file.asarray(), labels)
            found = [page.tags[name].value for name in ("XResolution", "YResolution")]
            if expected is not None:
                assert tuple(value / unit for value, unit in found) == pytest.approx(expected)
