"""Files for Cityscapes' test server: writes, packs, checks and scores them.

A submission is a zip archive. For each image there is one text file at its root, ``STEM_pred.txt`` with the stem
CITY_SEQUENCE_FRAME, even if nothing was found. Each of its lines is one instance, ``MASK LABEL CONFIDENCE``: path of a
PNG, relative to the root, that is non-zero inside; label id; any number.

Shapes: `N` instances, `h, w` image size in pixels.
"""

import io
import math
import os
import posixpath
import re
import tempfile
import zipfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from detectron2.structures import Instances
from PIL import Image

from ..data.datasets.cityscapes import FINE, LABEL_IDS
from ..data.datasets.cityscapes_files import list_truth, read_instance_ids
from ..whole_files import written_at_once
from .cityscapes_scoring import score_predictions
from .label_images import raise_problems

_LABELS = tuple(LABEL_IDS.values())
_MASK_FOLDER = "masks"


def text_file(folder: Path, stem: str) -> Path:
    """Where the text file of an image is written to."""
    return folder / f"{stem}_pred.txt"


def write_image(folder: Path, stem: str, instances: Instances) -> None:
    """Write the text file and the masks of one image.

    Args:
        folder: root of the submission; made if missing.
        stem: CITY_SEQUENCE_FRAME.
        instances: on the CPU, at the image's original size: ``pred_masks`` bool [N, h, w], ``scores`` [N] and
            ``pred_classes`` [N], 0 to 7. One without pixels is left out, as the scorer does.

    Raises:
        ValueError: a class beyond 7, a score that is no finite number, or masks of another size than the image.
    """
    masks, classes, scores = instances.pred_masks.numpy(), instances.pred_classes.numpy(), instances.scores.numpy()
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
    (folder / _MASK_FOLDER).mkdir(parents=True, exist_ok=True)
    lines = []
    for index in np.flatnonzero(masks.any(axis=(1, 2))).tolist():
        name = f"{_MASK_FOLDER}/{stem}_{index:04d}.png"
        # imwrite answers a path it cannot write to by returning false only.
        if not cv2.imwrite(str(folder / name), masks[index].astype(np.uint8) * 255):
            raise OSError(f"Cannot write {folder / name}.")
        lines.append(f"{name} {_LABELS[classes[index]]} {float(scores[index])!r}\n")
    text_file(folder, stem).write_text("".join(lines), encoding="ascii")


def pack(folder: Path, zip_path: Path) -> None:
    """Pack what :func:`write_image` wrote into an archive; one that exists is replaced once the new one is complete.

    Raises:
        FileNotFoundError: ``folder`` has no text file.
    """
    texts = sorted(folder.glob("*_pred.txt"))
    if not texts:
        raise FileNotFoundError(f"{folder.absolute()} has no predictions *_pred.txt. Run the model on a split first.")
    with written_at_once(zip_path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for text in texts:
            archive.write(text, text.name)
            # Only masks that a line names: an earlier run may have left others.
            for line in text.read_text(encoding="ascii").splitlines():
                name = line.split(" ")[0]
                archive.write(folder / name, name)


def check(zip_path: Path, image_sizes: Mapping[str, tuple[int, int]]) -> list[str]:
    """What is wrong with a finished submission.

    Args:
        zip_path: the archive.
        image_sizes: (h, w) of every image of the split, by its stem.

    Returns:
        One sentence for each problem; empty: the submission is valid.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no zip archive.
    """
    with _open(zip_path) as archive:
        names = [info.filename for info in archive.infolist() if not info.is_dir()]
        problems = [f"{name} is in the archive {n} times." for name, n in sorted(Counter(names).items()) if n > 1]
        used: set[str] = set()
        for stem, size in image_sizes.items():
            texts = _texts_of(stem, names)
            used.update(texts)
            if len(texts) == 1:
                problems += _check_text(archive, texts[0], size, used)
            else:
                found = f"several text files: {', '.join(texts)}" if texts else f"no text file {stem}*.txt at the root"
                problems.append(f"Image {stem} has {found}. There has to be one, even if it is empty.")
        surplus = sorted(set(names) - used)
    return problems + [f"{name} belongs to no image of the split. Leave it out." for name in surplus]


def score(zip_path: Path, gt_dir: Path) -> dict[str, float]:
    """Score a finished submission for a split with labels; same numbers as the evaluator gives.

    Args:
        zip_path: the archive.
        gt_dir: of the split's true instances, for example ``cityscapes/gtFine/val``.

    Returns:
        See :func:`.cityscapes_scoring.score_predictions`.

    Raises:
        FileNotFoundError: the archive, or truth, is missing.
        ValueError: the archive is not valid; the message lists what is wrong.
    """
    stems = list_truth(gt_dir, FINE)
    if not stems:
        raise FileNotFoundError(f"{gt_dir} has no files CITY/*_{FINE}_instanceIds.png. Give the folder of a split.")
    problems = check(zip_path, {stem: read_instance_ids(gt_dir, stem, FINE).shape for stem in stems})
    raise_problems(zip_path, problems)
    with tempfile.TemporaryDirectory() as folder, _open(zip_path) as archive:
        archive.extractall(folder)
        texts = {stem: Path(folder, *_texts_of(stem, archive.namelist())) for stem in stems}
        return score_predictions(texts, gt_dir)


def _open(zip_path: Path) -> zipfile.ZipFile:
    if not os.path.isfile(zip_path):
        raise FileNotFoundError(f"Submission {zip_path} does not exist. Write it with tools/make_submission.py.")
    try:
        return zipfile.ZipFile(zip_path)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{zip_path} is no zip archive ({error}). Write it again.") from error


def _texts_of(stem: str, names: list[str]) -> list[str]:
    """Text files at the archive's root that the test server takes for an image's."""
    pattern = re.compile(re.escape(stem) + r"[^/]*\.txt")
    return [name for name in names if pattern.fullmatch(name)]


def _check_text(archive: zipfile.ZipFile, text: str, size: tuple[int, int], used: set[str]) -> list[str]:
    """Problems of one text file and its masks, whose names are added to ``used``."""
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
        with Image.open(io.BytesIO(archive.read(name))) as image:
            # As the scorer reads it.
            is_png, mask = image.format == "PNG", np.array(image.convert("L"))
    except KeyError:
        return [f"mask {name} is not in the archive."]
    # Pillow raises a SyntaxError for some broken PNG files.
    except (OSError, SyntaxError, ValueError, RuntimeError, zipfile.BadZipFile) as error:
        return [f"mask {name} cannot be decoded ({error})."]
    problems = [] if is_png else [f"mask {name} is no PNG."]
    if mask.shape != tuple(size):
        problems.append(f"mask {name} is {mask.shape[0]} x {mask.shape[1]}, but the image is {size[0]} x {size[1]}.")
    if not mask.any():
        problems.append(f"mask {name} is empty. Leave its line out.")
    return problems
