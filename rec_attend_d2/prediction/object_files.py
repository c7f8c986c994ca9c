"""The objects of a picture as files that other programs open: label images, ImageJ's regions, GeoJSON.

Shapes: `N` objects, `H, W` picture in pixels.
"""

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tifffile
from detectron2.structures import Instances
from numpy.typing import NDArray
from roifile import ROI_TYPE, ImagejRoi

from ..structures import as_crops
from ..whole_files import written_at_once
from .measurements import Value
from .outlines import Part, Ring, outlines
from .pixel_size import Scale

# ImageJ's header of a region has 16 bits for its place.
_LARGEST_PLACE = 2**15 - 1
# Steps of the path of a region with several lines, as java.awt.geom.PathIterator numbers them.
_MOVE, _LINE, _CLOSE = 0.0, 1.0, 4.0
_CENTIMETER = 3


def write_label_image(path: Path, labels: NDArray[np.integer], scale: Scale) -> None:
    """Write a label image [H, W] of uint16 or uint32 as a compressed TIFF with the scale of its picture."""
    options: dict = {}
    if scale.size is not None and labels.dtype == np.uint16:
        # ImageJ's own kind of TIFF, which has no uint32.
        options = {"imagej": True, "resolution": (1 / scale.size.x, 1 / scale.size.y)}
        options["metadata"] = {"unit": "um", "axes": "YX"}
    elif scale.size is not None:
        options = {"resolution": (1e4 / scale.size.x, 1e4 / scale.size.y), "resolutionunit": _CENTIMETER}
    elif scale.resolution is not None:
        options = {"resolution": scale.resolution[:2], "resolutionunit": scale.resolution[2]}
    with written_at_once(path) as partial:
        tifffile.imwrite(partial, labels, photometric="minisblack", compression="zlib", **options)


def mask_outlines(instances: Instances) -> list[list[Part]]:
    """Outlines of each of the N objects, see :func:`.outlines.outlines`."""
    masks = as_crops(instances.pred_masks)
    corners = [(top, left) for top, left in masks.corners.tolist()]
    return [outlines(crop, corner) for crop, corner in zip(masks.crops, corners, strict=True)]


def write_rois(path: Path, lines: Sequence[list[Part]], position: int = 0) -> None:
    """Write a zip of ImageJ's regions, which its ROI Manager opens: of every object the outer outline, by its number.

    Args:
        path: of the zip.
        lines: of :func:`mask_outlines`; an object without a pixel has no region.
        position: of the picture in its stack, from 1; 0 = it has none.

    Raises:
        ValueError: an object lies where ImageJ's format has no numbers for.
    """
    digits = len(str(len(lines)))
    with written_at_once(path) as partial, zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, parts in enumerate(lines, start=1):
            if not parts:
                continue
            roi = _roi([part[0] for part in parts], f"{number:0{digits}d}", path)
            roi.position = position
            archive.writestr(f"{roi.name}.roi", roi.tobytes())


def _roi(rings: Sequence[Ring], name: str, path: Path) -> ImagejRoi:
    points = np.concatenate(rings)
    if points.max() > _LARGEST_PLACE:
        raise ValueError(
            f"{path}: ImageJ's regions cannot lie beyond {_LARGEST_PLACE} pixels. Leave --rois out; --geojson can."
        )
    roi = ImagejRoi.frompoints(rings[0], name=name)
    roi.roitype = ROI_TYPE.POLYGON
    (roi.left, roi.top), (roi.right, roi.bottom) = points.min(axis=0).tolist(), points.max(axis=0).tolist()
    if len(rings) > 1:  # a composite, in places of the whole picture
        steps = [step for ring in rings for step in _path(ring)]
        roi.roitype, roi.n_coordinates, roi.integer_coordinates = ROI_TYPE.RECT, 0, None
        roi.multi_coordinates = np.array(steps, dtype=np.float32)
        roi.shape_roi_size = len(steps)
    return roi


def _path(ring: Ring) -> list[float]:
    kinds = [_MOVE] + [_LINE] * (len(ring) - 1)
    steps = [value for kind, (x, y) in zip(kinds, ring.tolist(), strict=True) for value in (kind, x, y)]
    return [*steps, _CLOSE]


def write_geojson(
    path: Path, lines: Sequence[list[Part]], columns: Sequence[str], rows: Sequence[Sequence[Value]]
) -> None:
    """Write the outlines as GeoJSON in pixels, each a detection with its measurements, as QuPath imports it.

    Args:
        path: of the file.
        lines: of :func:`mask_outlines`; an object without a pixel is left out.
        columns, rows: of :func:`.measurements.measure`.
    """
    features = []
    for parts, row in zip(lines, rows, strict=True):
        if not parts:
            continue
        values = dict(zip(columns, row, strict=True))
        number, class_ = values.pop("object"), values.pop("class")
        properties = {
            "objectType": "detection",
            "name": str(number),
            "classification": {"name": class_},
            "measurements": {name: value for name, value in values.items() if isinstance(value, (int, float))},
        }
        features.append({"type": "Feature", "geometry": _geometry(parts), "properties": properties})
    with written_at_once(path) as partial:
        partial.write_text(json.dumps({"type": "FeatureCollection", "features": features}), encoding="utf-8")


def _geometry(parts: Sequence[Part]) -> dict:
    """Polygon, or MultiPolygon of several parts; lines end where they begin."""
    polygons = [[[*ring.tolist(), ring[0].tolist()] for ring in part] for part in parts]
    if len(polygons) == 1:
        return {"type": "Polygon", "coordinates": polygons[0]}
    return {"type": "MultiPolygon", "coordinates": polygons}
