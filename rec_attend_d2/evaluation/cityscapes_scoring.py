"""Scores instance masks in Cityscapes' submission format with cityscapesscripts' own evaluator.

cityscapesscripts 2.3.0 averages over distances (AP100m, AP50m) once every true instance has a distance and the share
of its pixels where stereo matching found one, but has no code that measures them: that is done here, from the
disparity and camera files. Its main function is not called, because that writes files into the current folder and into
the installed package, and would take the true instances from there next time.

Shapes: `H, W` size of an image in pixels, `D` distances, `K` classes, `O` overlaps.
"""

import copy
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ..data.cityscapes_scripts import cityscapes_module
from ..data.datasets.cityscapes import FINE
from ..data.datasets.cityscapes_files import city_of, instance_ids_path, read_instance_ids, read_label_png

logger = logging.getLogger(__name__)

# Metric of the whole data set: its name in cityscapesscripts.
_AVERAGES = {"AP": "allAp", "AP50": "allAp50%"}
_DISTANCE_AVERAGES = {"AP100m": "allAp100m", "AP50m": "allAp50m"}


def score_predictions(text_files: Mapping[str, Path], gt_dir: Path) -> dict[str, float]:
    """Average precision of the predictions of a whole split.

    Args:
        text_files: of every image, by its stem; see :mod:`.submission_cityscapes`. All in one folder.
        gt_dir: of the split's true instances, for example ``cityscapes/gtFine/val``. With the folders
            ``cityscapes/disparity/val`` and ``cityscapes/camera/val`` there are AP100m and AP50m as well.

    Returns:
        Percentages: AP, AP50, AP100m, AP50m and, for every class, ``AP_<class>`` and ``AP50_<class>``. NaN where there
        is no true instance; as in the official scores, only those of at least 100 pixels count, 1000 for AP100m and
        AP50m.

    Raises:
        FileNotFoundError: truth, or the disparity or camera file of an image, is missing.
        ValueError: a file is damaged or of a wrong size.
        ImportError: cityscapesscripts is missing.
    """
    scorer = cityscapes_module("evaluation.evalInstanceLevelSemanticLabeling")
    args = copy.copy(scorer.args)
    has_distances = _beside(gt_dir, "disparity").is_dir() and _beside(gt_dir, "camera").is_dir()
    if not has_distances:
        logger.info("No AP100m and AP50m: there are no folders 'disparity' and 'camera' beside 'gtFine'.")
    args.quiet, args.JSONOutput, args.distanceAvailable = True, False, has_distances
    # The scorer reads masks below this folder only.
    args.predictionPath = os.path.abspath(next(iter(text_files.values())).parent)
    scorer.setInstanceLabels(args)
    with tempfile.TemporaryDirectory() as scratch:
        truth_files = [_truth_png(gt_dir, stem, Path(scratch)) for stem in text_files]
        true_instances = scorer.instances2dict([str(path) for path in truth_files])
        if args.distanceAvailable:
            for stem, path in zip(text_files, truth_files, strict=True):
                _add_distances(true_instances[os.path.abspath(path)], stem, gt_dir)
        matches = scorer.matchGtWithPreds(
            [str(path) for path in text_files.values()], [str(path) for path in truth_files], true_instances, args
        )
    precisions = _average_precisions(scorer, matches, args)
    with warnings.catch_warnings():
        # Classes without true instances are left out of the mean, and may be all there are.
        warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)
        averages = scorer.computeAverages(precisions, args)
    names = _AVERAGES | (_DISTANCE_AVERAGES if args.distanceAvailable else {})
    scores = {metric: averages[name] for metric, name in names.items()}
    for label, of_class in averages["classes"].items():
        scores[f"AP_{label}"], scores[f"AP50_{label}"] = of_class["ap"], of_class["ap50%"]
    return {metric: 100 * float(score) for metric, score in scores.items()}


def measure_distances(disparity: NDArray[np.uint16], camera: Mapping[str, Mapping[str, float]]) -> NDArray[np.float64]:
    """Metres from the camera along its axis, from a disparity image.

    Args:
        disparity: [H, W], 256 * disparity in pixels + 1, or 0 where it is unknown.
        camera: content of a camera file; "extrinsic" has the "baseline" (metres), "intrinsic" has "fx" (pixels).

    Returns:
        [H, W]; NaN where unknown, infinite for disparity 0.
    """
    pixels = (disparity.astype(np.float64) - 1) / 256
    with np.errstate(divide="ignore"):
        distances = camera["extrinsic"]["baseline"] * camera["intrinsic"]["fx"] / pixels
    distances[disparity == 0] = np.nan
    return distances


def _beside(gt_dir: Path, kind: str) -> Path:
    """The folder of another kind of files of the same split: .../gtFine/val -> .../KIND/val."""
    return gt_dir.parent.parent / kind / gt_dir.name


def _truth_png(gt_dir: Path, stem: str, scratch: Path) -> Path:
    """The PNG of an image's instance ids, after a check; drawn into ``scratch`` where there are polygons only."""
    ids = read_instance_ids(gt_dir, stem, FINE)
    path = instance_ids_path(gt_dir, stem, FINE)
    if not path.is_file():
        path = scratch / path.name
        cv2.imwrite(str(path), ids)
    return path


def _add_distances(instances: dict[str, list[dict]], stem: str, gt_dir: Path) -> None:
    """Enter the median distance of every instance and group of an image, and how much of it is known, in place."""
    city = city_of(stem)
    disparity_file = _beside(gt_dir, "disparity") / city / f"{stem}_disparity.png"
    ids, disparity = read_instance_ids(gt_dir, stem, FINE), read_label_png(disparity_file)
    if disparity.shape != ids.shape:
        raise ValueError(
            f"{disparity_file} is of shape {list(disparity.shape)}, but the true instances are of shape "
            f"{list(ids.shape)}. Restore it from the archive."
        )
    distances = measure_distances(disparity, _read_camera(_beside(gt_dir, "camera") / city / f"{stem}_camera.json"))
    for instance in (instance for of_label in instances.values() for instance in of_label):
        inside = distances[ids == instance["instID"]]
        known = inside[~np.isnan(inside)]
        # One of unknown distance takes part in AP (threshold infinity) but in no other.
        instance["medDist"] = float(np.median(known)) if known.size else float("inf")
        instance["distConf"] = known.size / inside.size


def _read_camera(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist. Restore it, or remove the folder 'camera': no AP100m, AP50m.")
    try:
        camera = json.loads(path.read_text(encoding="utf-8"))
        float(camera["extrinsic"]["baseline"]), float(camera["intrinsic"]["fx"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} is no camera file ({error!r}). It needs numbers extrinsic.baseline and intrinsic.fx; restore it "
            "from the archive."
        ) from error
    return camera


def _average_precisions(scorer: ModuleType, matches: dict, args: Any) -> NDArray[np.float64]:
    """[D, K, O] as of cityscapesscripts' ``evaluateMatches``, in [0, 1]; NaN: no true instance.

    Asked for one number at a time, because that function fails with an IndexError where all predictions of a class are
    to be ignored and no true instance is found. The precision is 0 then.
    """
    number_of_distances = len(args.distanceThs) if args.distanceAvailable else 1
    precisions = np.zeros((number_of_distances, len(args.instLabels), len(args.overlaps)))
    single = copy.copy(args)
    single.distanceAvailable = True  # it takes the thresholds given
    for distance, label, overlap in np.ndindex(precisions.shape):
        index = slice(distance, distance + 1)
        single.distanceThs, single.distanceConfs = args.distanceThs[index], args.distanceConfs[index]
        single.minRegionSizes = args.minRegionSizes[index]
        single.instLabels, single.overlaps = [args.instLabels[label]], args.overlaps[overlap : overlap + 1]
        try:
            precisions[distance, label, overlap] = scorer.evaluateMatches(matches, single).item()
        except IndexError:
            precisions[distance, label, overlap] = 0.0
    return precisions
