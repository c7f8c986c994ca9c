"""Looks at all picture files of data sets before a training, and says everything that is wrong with them at once.

What was found of a file is remembered until the file changes: decoding thousands of pictures takes minutes.

Shapes: `H, W` picture in pixels.
"""

import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..threads import usable_cores
from ..whole_files import user_cache, write_json
from .dataset_mapper import check_size
from .datasets.problems import listed, raise_problems
from .image_io import count_pages, decode_image, is_dark

logger = logging.getLogger(__name__)

# What was found is void when it is found in another way.
_VERSION = f"1, OpenCV {cv2.__version__}"
# Seconds. A file that was changed so lately may change again without its time showing it.
_SETTLED = 5.0

Progress = Callable[[Iterable], Iterable]
# Marks and facts of what this process has looked at, by path.
_looked_at: dict[str, tuple[list[int], "FileFacts"]] = {}


@dataclass(frozen=True)
class FileFacts:
    """What a picture file is.

    Attributes:
        problem: why it cannot be used, a sentence; "" if it can.
        size: (H, W), after its EXIF orientation.
        depth: type of its pixels, such as "uint8".
        is_dark: whether its pixels have 16 bits of which few are used, see :func:`.image_io.is_dark`.
        digest: of the file; equal files have the same.
    """

    problem: str
    size: tuple[int, int] = (0, 0)
    depth: str = ""
    is_dark: bool = False
    digest: str = ""


def look_at_file(path: str) -> FileFacts:
    """Decode a picture file; what is wrong with it is in the facts."""
    try:
        pages = count_pages(path)
        if pages > 1:
            return FileFacts(
                f"Image {path} has {pages} pages, of which one can be used. Save each in a file of its own."
            )
        image = decode_image(path)
        digest = hashlib.sha1(Path(path).read_bytes()).hexdigest()
    except (OSError, ValueError) as error:
        return FileFacts(str(error))
    return FileFacts(
        "", (image.shape[0], image.shape[1]), str(image.dtype), image.dtype == np.uint16 and is_dark(image), digest
    )


def check_pictures(
    data_sets: Mapping[str, Sequence[dict[str, Any]]], any_depth: bool, progress: Progress = lambda items: items
) -> dict[str, FileFacts]:
    """Look at every picture file of data sets once.

    Args:
        data_sets: dataset dicts by the name of the data set.
        any_depth: pixels may be of any type, since the contrast is stretched.
        progress: goes over the pictures, such as ``tqdm``.

    Returns:
        The facts of each file.

    Raises:
        FileNotFoundError: pictures are missing.
        ValueError: pictures are damaged, of another size than their data set says, or of a type whose range is
            unknown; the message counts them and names the first ten.
    """
    names = list(dict.fromkeys(record["file_name"] for part in data_sets.values() for record in part))
    what = f"the {len(names)} pictures of {', '.join(data_sets)}"
    missing = [name for name in names if not os.path.isfile(name)]
    if missing:
        lines = [f"Image {name} does not exist. Check the image folder and the file names." for name in missing]
        raise FileNotFoundError(listed(lines, what))
    facts = read_facts(names, progress)
    problems = [
        problem
        for part in data_sets.values()
        for record in part
        for problem in _problems_of(record, facts[record["file_name"]], any_depth)
    ]
    raise_problems(list(dict.fromkeys(problems)), what)
    return facts


def _problems_of(record: dict[str, Any], facts: FileFacts, any_depth: bool) -> list[str]:
    if facts.problem:
        return [facts.problem]
    try:
        check_size(record, facts.size)
    except ValueError as error:
        return [str(error)]
    if facts.depth not in ("uint8", "uint16") and not any_depth:
        return [
            f"Image {record['file_name']} has {facts.depth} pixels, whose range is unknown. Set "
            "INPUT.CONTRAST_PERCENTILES, for example to [0.1, 99.9], or convert it to 8 or 16 bit."
        ]
    return []


def depth_hints(facts: Mapping[str, FileFacts]) -> list[str]:
    """What is odd with pictures whose contrast is not stretched, in sentences."""
    dark = [name for name, found in facts.items() if found.is_dark]
    depths = {found.depth: name for name, found in facts.items()}
    hints = []
    if dark:
        hints.append(
            f"{len(dark)} of {len(facts)} pictures use less than an eighth of their 16 bits (first: {dark[0]}), so "
            "that the model sees them nearly black. Set INPUT.CONTRAST_PERCENTILES, for example to [0.1, 99.9]."
        )
    if len(depths) > 1:
        some = ", ".join(f"{depth} as {name}" for depth, name in depths.items())
        hints.append(f"Pictures have pixels of several types ({some}): their brightness may differ.")
    return hints


def equal_files(
    facts: Mapping[str, FileFacts], first: Sequence[dict[str, Any]], second: Sequence[dict[str, Any]]
) -> list[tuple[str, str]]:
    """Pictures of the ``second`` dataset dicts that are among the ``first``, under the same name or as an equal file.

    Args:
        facts: of all of them.
        first, second: dataset dicts.

    Returns:
        The name in the second and that in the first.
    """
    known = {facts[record["file_name"]].digest: record["file_name"] for record in first}
    names = [record["file_name"] for record in second]
    return [(name, known[facts[name].digest]) for name in names if facts[name].digest in known]


def read_facts(paths: Sequence[str], progress: Progress = lambda items: items) -> dict[str, FileFacts]:
    """Facts of picture files, by path; several files are read at a time, and only those that have changed."""
    memory = _Memory(paths)
    marks = {path: _mark(path) for path in dict.fromkeys(paths)}
    found = {path: facts for path, mark in marks.items() if (facts := memory.recall(path, mark)) is not None}
    unknown = [path for path in marks if path not in found]
    if unknown:
        with ThreadPoolExecutor(usable_cores()) as threads:
            found |= zip(unknown, progress(threads.map(look_at_file, unknown)), strict=True)
        # A file that was changed meanwhile is looked at again next time.
        memory.keep({path: (marks[path], found[path]) for path in unknown if _mark(path) == marks[path]})
    return found


def _mark(path: str) -> list[int]:
    """What differs when a file has changed: its number, size and times; [] where it cannot be asked."""
    try:
        status = os.stat(path)
    except OSError:
        return []
    return [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


class _Memory:
    """Facts of earlier trainings, in a file of the user's cache for the folder that holds all of some pictures."""

    def __init__(self, paths: Sequence[str]):
        try:
            common = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])
        except ValueError:  # there are none, or they are on several drives
            common = ""
        name = hashlib.sha1(common.encode("utf-8", "surrogateescape")).hexdigest()[:16]
        self._file = user_cache() / "pictures" / f"{name}.json"
        self._entries = self._read()

    def _read(self) -> dict[str, list]:
        """Marks and facts by absolute path; none where the file is missing or damaged."""
        try:
            content = json.loads(self._file.read_text(encoding="utf-8"))
            entries = content["entries"] if content["version"] == _VERSION else {}
            return entries if isinstance(entries, dict) else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def recall(self, path: str, mark: list[int]) -> FileFacts | None:
        """What was found of a file that is unchanged since."""
        if mark and _looked_at.get(path, ([],))[0] == mark:
            return _looked_at[path][1]
        entry = self._entries.get(os.path.abspath(path))
        try:
            if not mark or entry is None or entry[0] != mark:
                return None
            facts = FileFacts(**entry[1])
            return FileFacts(**{**asdict(facts), "size": (int(facts.size[0]), int(facts.size[1]))})
        except (TypeError, IndexError, ValueError, KeyError):
            return None

    def keep(self, found: Mapping[str, tuple[list[int], FileFacts]]) -> None:
        """Remember usable files that have not been changed just now; others are looked at anew."""
        _looked_at.update({path: entry for path, entry in found.items() if not entry[1].problem})
        latest = time.time() - _SETTLED
        new = {
            os.path.abspath(path): [mark, asdict(facts)]
            for path, (mark, facts) in found.items()
            if mark and not facts.problem and max(mark[2:]) < latest * 1e9
        }
        if not new:
            return
        try:
            # Another process may have added to it.
            write_json(self._file, {"version": _VERSION, "entries": {**self._read(), **new}}, indent=None)
        except OSError as error:
            logger.info("What was found of the pictures cannot be kept in %s (%s).", self._file, error)
