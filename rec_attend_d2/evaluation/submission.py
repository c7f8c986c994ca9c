"""What the formats of the test servers have in common.

Each format is a module with ``SUFFIX`` of its files and three functions: ``pack(path, data set, predictions)`` writes a
file, ``check(path, data set)`` says what is wrong with one, and ``score(path, data set)`` gives its official metrics.
"""

import os
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from detectron2.data import DatasetCatalog
from detectron2.structures import Instances

from .per_image_evaluator import Record, checked_instances

Predictions = Iterable[tuple[Any, Instances]]
"""(image_id, Instances at the image's original size with ``pred_masks`` of N objects, ``scores`` and what the format
needs besides) of every image once, in any order; an image without objects has Instances of length 0."""
PathLike = str | os.PathLike

_LISTED_PROBLEMS = 20
# Bytes that all files of an archive may have unpacked; what a test server takes has a few hundred megabytes.
_LARGEST_ARCHIVE = 32 * 2**30
# Bytes of a file besides its pixels, of which none has more than eight.
_OVERHEAD, _BYTES_EACH = 2**20, 8


def matched(dataset_name: str, predictions: Predictions) -> Iterator[tuple[Record, Instances]]:
    """The image of each prediction, which is moved to the CPU; only one is held in memory at a time.

    Raises:
        ValueError: an image is unknown, missing or given twice, or its prediction has no masks or another size.
    """
    waiting = {record["image_id"]: record for record in DatasetCatalog.get(dataset_name)}
    known = set(waiting)
    for image_id, instances in predictions:
        record = waiting.pop(image_id, None)
        if record is None:
            fault = "given twice" if image_id in known else "not an image of the data set"
            raise ValueError(f"The prediction for image_id {image_id!r} is {fault}. Give one for each image.")
        instances = checked_instances(record, {"instances": instances})
        if not instances.has("pred_masks"):
            raise ValueError(
                f"The predictions for '{record['file_name']}' have no pred_masks, only "
                f"{sorted(instances.get_fields())}: only a model with masks has something to submit."
            )
        yield record, instances
    if waiting:
        first = next(iter(waiting.values()))
        raise ValueError(
            f"{len(waiting)} of {len(known)} images have no prediction, first '{first['file_name']}'. An image without "
            "objects needs Instances of length 0."
        )


def opened_zip(path: PathLike) -> zipfile.ZipFile:
    """A submission's archive. Raises a ValueError if it cannot be read, or would be far too large unpacked."""
    if not os.path.isfile(path):
        raise ValueError(f"{os.fspath(path)} does not exist.")
    try:
        archive = zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:
        raise ValueError(f"{os.fspath(path)} is no zip archive ({error}). Write it again.") from error
    size = sum(info.file_size for info in archive.infolist())
    if size > _LARGEST_ARCHIVE:
        archive.close()
        raise ValueError(
            f"{os.fspath(path)} would be {size / 2**30:.0f} GiB unpacked, and is not: no submission needs more than "
            f"{_LARGEST_ARCHIVE / 2**30:.0f}. Write it again."
        )
    return archive


def size_problem(info: zipfile.ZipInfo, pixels: int) -> str:
    """What is wrong with the size of an archive's file that shows so many pixels; "" if nothing is."""
    if info.file_size <= pixels * _BYTES_EACH + _OVERHEAD:
        return ""
    return f"has {info.file_size / 2**20:.0f} MiB unpacked, far more than its {pixels} pixels need, and is not read"


def listed(problems: Sequence[str]) -> str:
    """The first ``problems``, a line each, and how many more there are."""
    more = [f"{len(problems) - _LISTED_PROBLEMS} more."] if len(problems) > _LISTED_PROBLEMS else []
    return "\n".join(f"  {line}" for line in [*problems[:_LISTED_PROBLEMS], *more])


def raise_problems(path: PathLike, problems: Sequence[str]) -> None:
    """Raise a ValueError that lists ``problems`` of the submission ``path``, if there are any."""
    if problems:
        raise ValueError(f"{os.fspath(path)} is no valid submission; {len(problems)} problem(s):\n{listed(problems)}")
