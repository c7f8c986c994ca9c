"""What was counted, kept picture by picture, so that it goes on after a break and several processes can share a folder.

Each picture has LABEL.json in the records' folder, written last; beside it lie its rows of the tables of all pictures.
"""

import csv
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml
from detectron2.config import CfgNode

from ..version import __version__
from ..whole_files import written_at_once
from .image_files import ImageSource

# Keys of the config's parts below that change no result.
_WITHOUT_EFFECT = ("DEVICE", "WEIGHTS")


@dataclass(frozen=True)
class FileState:
    """Which file it was, to notice that another has taken its place: absolute path, bytes, time of the last change."""

    path: str
    size: int
    changed: int

    @classmethod
    def of(cls, path: str) -> "FileState":
        """Of a file. Raises an OSError if it is not there."""
        found = os.stat(path)
        return cls(os.path.abspath(path), found.st_size, found.st_mtime_ns)


@dataclass(frozen=True)
class Record:
    """A counted picture.

    Attributes:
        label: as of its ImageSource.
        file: the file that was counted.
        page: as of its ImageSource.
        fingerprint: of model and settings, see :func:`fingerprint_of`.
        outputs: kinds of results that were written.
        row: of the table of counts.
        size: (H, W) in pixels.
    """

    label: str
    file: FileState
    page: int | None
    fingerprint: str
    outputs: list[str]
    row: list
    size: list[int]

    @property
    def key(self) -> tuple[str, int | None]:
        """Which picture it is."""
        return self.file.path, self.page


def key_of(source: ImageSource) -> tuple[str, int | None]:
    """:attr:`Record.key` of a picture."""
    return os.path.abspath(source.file), source.page


def fingerprint_of(cfg: CfgNode, weights: str, settings: Any) -> str:
    """A text that differs where the results would: by the weights, the config, the version or other settings."""
    content = yaml.safe_load(cfg.dump())
    model = {key: value for key, value in content["MODEL"].items() if key not in _WITHOUT_EFFECT}
    digest = hashlib.sha256(json.dumps([__version__, model, content["INPUT"], settings], default=str).encode())
    with open(weights, "rb") as file:
        while part := file.read(2**20):
            digest.update(part)
    return digest.hexdigest()


class RecordFolder:
    """The records of a folder of results.

    Attributes:
        folder: where they lie.
    """

    def __init__(self, results: Path):
        self.folder = results / ".records"

    def read_all(self) -> dict[tuple[str, int | None], Record]:
        """All records by their key."""
        paths = sorted(self.folder.glob("*.json")) if self.folder.is_dir() else []
        records = [self._read(path) for path in paths]
        return {record.key: record for record in records if record is not None}

    @staticmethod
    def _read(path: Path) -> Record | None:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return Record(**{**content, "file": FileState(**content["file"])})
        except (OSError, ValueError, TypeError, KeyError):
            return None  # none, or of another version: the picture is counted again

    def write(self, record: Record) -> None:
        """Keep a record, once all results of its picture are written."""
        with written_at_once(self.folder / f"{record.label}.json") as partial:
            partial.write_text(json.dumps(asdict(record)), encoding="utf-8")

    def remove(self, label: str) -> None:
        """Forget a record, before results of its picture are written anew."""
        (self.folder / f"{label}.json").unlink(missing_ok=True)

    def write_objects(self, label: str, columns: Sequence[str], rows: Iterable[Sequence]) -> None:
        """Keep the objects of a picture."""
        with (
            written_at_once(self.objects_path(label)) as partial,
            partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file,
        ):
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows(rows)

    def objects_path(self, label: str) -> Path:
        """Of the objects of a picture."""
        return self.folder / f"{label}.objects.csv"

    def object_columns(self, label: str) -> list[str]:
        """Names of what was measured."""
        with self.objects_path(label).open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            return next(csv.reader(file))

    def objects(self, label: str) -> Iterator[dict[str, str]]:
        """What was measured of each object, by column."""
        with self.objects_path(label).open(newline="", encoding="utf-8", errors="surrogateescape") as file:
            yield from csv.DictReader(file)

    def coco_path(self, label: str) -> Path:
        """Of the COCO results of a picture."""
        return self.folder / f"{label}.coco"

    def write_coco(self, label: str, results: list[dict]) -> None:
        """Keep the COCO results of a picture."""
        with written_at_once(self.coco_path(label)) as partial:
            partial.write_text(json.dumps(results), encoding="utf-8")

    def coco(self, label: str) -> list[dict]:
        """The COCO results of a picture."""
        return json.loads(self.coco_path(label).read_text(encoding="utf-8"))
