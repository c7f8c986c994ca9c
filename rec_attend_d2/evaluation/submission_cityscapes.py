"""Files for Cityscapes' test server: writes, packs, checks and scores them.

A submission is a zip archive. For each image there is one text file at its root, ``STEM_pred.txt`` with the stem
CITY_SEQUENCE_FRAME, even if nothing was found. Each of its lines is one instance, ``MASK LABEL CONFIDENCE``: path of a
PNG, relative to the root, that is non-zero inside; label id; any number.

Shapes: `N` instances, `h, w` image size in pixels.
"""

import io
import math
import posixpath
import re
import tempfile
import zipfile
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Instances
from PIL import Image

from ..data.datasets.cityscapes import LABEL_IDS
from ..structures import as_crops
from ..whole_files import written_at_once
from .cityscapes_scoring import score_predictions
from .submission import PathLike, Predictions, matched, opened_zip, raise_problems, size_problem

SUFFIX = ".zip"
_LABELS = tuple(LABEL_IDS.values())


def text_name(stem: str) -> str:
    """Name of the text file of an image."""
    return f"{stem}_pred.txt"


def image_files(stem: str, instances: Instances) -> dict[str, bytes]:
    """The text file and the masks of one image, by their names in the submission.

    Args:
        stem: CITY_SEQUENCE_FRAME.
        instances: on the CPU, at the image's original size: ``pred_masks``, ``scores`` [N] and ``pred_classes`` [N],
            0 to 7. One without pixels is left out, as the scorer does.

    Raises:
        ValueError: a class beyond 7, a score that is no finite number, or masks of another size than the image.
    """
    masks, classes, scores = as_crops(instances.pred_masks), instances.pred_classes.numpy(), instances.scores.numpy()
    if masks.shape[1:] != tuple(instances.image_size):
        raise ValueError(
            f"{stem}: masks of shape {list(masks.shape[1:])}, but the image's height and width are "
            f"{list(instances.image_size)}. Resize the masks first."
        )
    unknown = classes[(classes < 0) | (classes >= len(_LABELS))]
    if unknown.size:
        raise ValueError(f"{stem}: class {unknown[0]} is not one of 0 to {len(_LABELS) - 1}: {', '.join(LABEL_IDS)}.")
    if not np.isfinite(scores).all():
        raise ValueError(
            f"{stem}: a score is {scores[~np.isfinite(scores)][0]}. Confidences have to be finite numbers."
        )
    files, lines = {}, []
    for index in np.flatnonzero(masks.areas()).tolist():
        name = f"masks/{stem}_{index:04d}.png"
        files[name] = cv2.imencode(".png", masks[index].numpy().astype(np.uint8) * 255)[1].tobytes()
        lines.append(f"{name} {_LABELS[classes[index]]} {float(scores[index])!r}\n")
    return {text_name(stem): "".join(lines).encode("ascii"), **files}


def pack(path: PathLike, dataset_name: str, predictions: Predictions) -> None:
    """Write a submission. A file that is there is replaced once the new one is complete.

    Args:
        path: zip to write; its folder is made where there is none.
        dataset_name: a registered data set of Cityscapes.
        predictions: with what :func:`image_files` needs.

    Raises:
        ValueError: the predictions do not fit the images.
    """
    with written_at_once(Path(path)) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for record, instances in matched(dataset_name, predictions):
            for name, content in image_files(record["image_id"], instances).items():
                archive.writestr(name, content)


def check(path: PathLike, dataset_name: str) -> list[str]:
    """What is wrong with a submission for a data set, a sentence for each problem; empty if it is valid."""
    sizes = {record["image_id"]: (record["height"], record["width"]) for record in DatasetCatalog.get(dataset_name)}
    try:
        archive = opened_zip(path)
    except ValueError as error:
        return [str(error)]
    with archive:
        names = [info.filename for info in archive.infolist() if not info.is_dir()]
        problems = [f"{name} is in the archive {n} times." for name, n in sorted(Counter(names).items()) if n > 1]
        used: set[str] = set()
        for stem, size in sizes.items():
            texts = _texts_of(stem, names)
            used.update(texts)
            if len(texts) == 1:
                problems += _check_text(archive, texts[0], size, used)
            else:
                found = f"several text files: {', '.join(texts)}" if texts else f"no text file {stem}*.txt at the root"
                problems.append(f"Image {stem} has {found}. There has to be one, even if it is empty.")
        surplus = sorted(set(names) - used)
    return problems + [f"{name} belongs to no image of the split. Leave it out." for name in surplus]


def score(path: PathLike, dataset_name: str) -> dict[str, float]:
    """Score a submission for a data set with labels; the numbers are those of the evaluator.

    Returns:
        See :func:`.cityscapes_scoring.score_predictions`.

    Raises:
        ValueError: the submission is not valid, the message lists what is wrong; or the data set has no labels.
    """
    raise_problems(path, check(path, dataset_name))
    gt_dir = MetadataCatalog.get(dataset_name).gt_dir
    if gt_dir is None:
        raise ValueError(f"Data set '{dataset_name}' has no labels: only its test server can score {path}.")
    with tempfile.TemporaryDirectory() as folder, opened_zip(path) as archive:
        archive.extractall(folder)
        stems = [record["image_id"] for record in DatasetCatalog.get(dataset_name)]
        texts = {stem: Path(folder, *_texts_of(stem, archive.namelist())) for stem in stems}
        return score_predictions(texts, Path(gt_dir))


def _texts_of(stem: str, names: list[str]) -> list[str]:
    """Text files at the archive's root that the test server takes for an image's."""
    pattern = re.compile(re.escape(stem) + r"[^/]*\.txt")
    return [name for name in names if pattern.fullmatch(name)]


def _check_text(archive: zipfile.ZipFile, text: str, size: tuple[int, int], used: set[str]) -> list[str]:
    """Problems of one text file and its masks, whose names are added to ``used``."""
    problem = size_problem(archive.getinfo(text), size[0] * size[1])
    if problem:
        return [f"{text} {problem}."]
    try:
        lines = archive.read(text).decode("utf-8").splitlines()
    # RuntimeError: encrypted, or packed by an unknown method.
    except (zipfile.BadZipFile, RuntimeError, UnicodeDecodeError) as error:
        return [f"{text} cannot be read ({error})."]
    problems = []
    seen: set[str] = set()
    for number, line in enumerate(lines, start=1):
        where = f"{text}, line {number}"
        parts = line.split(" ")
        if len(parts) != 3:
            problems.append(f"{where} is {line!r}. It has to be 'MASK LABEL CONFIDENCE', with one space between.")
            continue
        label, confidence = parts[1:]
        mask = posixpath.normpath(parts[0])
        if mask in seen:
            problems.append(f"{where}: mask {mask} is named a second time; only its last line would count.")
        seen.add(mask)
        if label not in map(str, _LABELS):
            problems.append(f"{where}: label {label} is not one of {', '.join(map(str, _LABELS))}.")
        if not _is_finite_number(confidence):
            problems.append(f"{where}: confidence {confidence} is no finite number.")
        problems += [f"{where}: {problem}" for problem in _check_mask(archive, mask, size)]
    used.update(seen)
    return problems


def _is_finite_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _check_mask(archive: zipfile.ZipFile, name: str, size: tuple[int, int]) -> list[str]:
    if name.startswith(("/", "..")):
        return [f"mask {name} is not inside the archive. Paths have to be relative to its root."]
    try:
        problem = size_problem(archive.getinfo(name), size[0] * size[1])
        if problem:
            return [f"mask {name} {problem}."]
        with Image.open(io.BytesIO(archive.read(name))) as image:
            if (image.height, image.width) != tuple(size):  # before anything of a huge one is decoded
                return [f"mask {name} is {image.height} x {image.width}, but the image is {size[0]} x {size[1]}."]
            # As the scorer reads it.
            is_png, mask = image.format == "PNG", np.array(image.convert("L"))
    except KeyError:
        return [f"mask {name} is not in the archive."]
    # Pillow raises a SyntaxError for some broken PNG files.
    except (OSError, SyntaxError, ValueError, RuntimeError, zipfile.BadZipFile, Image.DecompressionBombError) as error:
        return [f"mask {name} cannot be decoded ({error})."]
    problems = [] if is_png else [f"mask {name} is no PNG."]
    if not mask.any():
        problems.append(f"mask {name} is empty. Leave its line out.")
    return problems
