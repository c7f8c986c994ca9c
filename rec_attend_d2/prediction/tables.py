"""The tables of all pictures, put together from the records of each."""

import csv
import os
import time
from collections.abc import Iterator, Sequence

from iopath.common.file_io import file_lock

from ..whole_files import written_at_once
from .counter import TABLES, Task
from .image_files import ImageSource
from .records import FileState, Record, RecordFolder, key_of
from .writers import COUNT_COLUMNS, CocoResults

# Seconds between two updates while counting, and what part of the time they may take.
_PERIOD, _SHARE = 5.0, 0.02


class Tables:
    """Writes counts.csv and what else was asked for, of all pictures that have valid records, in their order.

    Several processes may do so at a time: each takes turn, and reads what there is then, so that the last one writes
    the rows of all.
    """

    def __init__(self, task: Task, categories: Sequence[tuple[int, str]]):
        """
        Args:
            task: with a folder of results.
            categories: COCO's id and name of class 0, 1, ...
        """
        assert task.results is not None
        self._task = task
        self._categories = categories
        self._results = task.results
        self._records = RecordFolder(task.results)
        self._pause, self._last = _PERIOD, time.monotonic()

    def is_valid(self, record: Record | None, source: ImageSource) -> bool:
        """Whether a record is what counting the picture now would give, and all results are there."""
        if record is None or record.fingerprint != self._task.fingerprint:
            return False
        if not self._task.outputs <= set(record.outputs) or record.label != source.label:
            return False
        try:
            return record.file == FileState.of(source.file) and all(path.exists() for path in self._paths(source))
        except OSError:
            return False

    def _paths(self, source: ImageSource) -> Iterator:
        yield from self._task.paths(source)
        if "objects" in self._task.outputs:
            yield self._records.objects_path(source.label)
        if "coco" in self._task.outputs:
            yield self._records.coco_path(source.label)

    def update(self) -> None:
        """Write the counts, if that was not done just now."""
        if time.monotonic() - self._last > self._pause:
            start = time.monotonic()
            with self._lock():
                self._write_counts(self._valid())
            self._last = time.monotonic()
            self._pause = max(_PERIOD, (self._last - start) / _SHARE)

    def write(self) -> tuple[int, int]:
        """Write all tables; returns the numbers of pictures and objects in them."""
        with self._lock():
            found = self._valid()
            self._write_counts(found)
            if "objects" in self._task.outputs:
                self._write_objects(found)
            if "coco" in self._task.outputs:
                self._write_coco(found)
        return len(found), sum(int(record.row[2]) for _, record in found)

    def _lock(self):  # type: ignore[no-untyped-def]
        self._records.folder.mkdir(parents=True, exist_ok=True)
        return file_lock(os.fspath(self._records.folder / "tables"))

    def _valid(self) -> list[tuple[ImageSource, Record]]:
        records = self._records.read_all()
        pairs = ((source, records.get(key_of(source))) for source in self._task.sources)
        return [(source, record) for source, record in pairs if record is not None and self.is_valid(record, source)]

    def _write_counts(self, found: Sequence[tuple[ImageSource, Record]]) -> None:
        with written_at_once(self._results / "counts.csv") as partial:
            with partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
                writer = csv.writer(file, lineterminator="\n")
                writer.writerow(COUNT_COLUMNS)
                # Named as it is now; it may have been named by another path before.
                writer.writerows([source.file, *record.row[1:]] for source, record in found)

    def _write_objects(self, found: Sequence[tuple[ImageSource, Record]]) -> None:
        columns: dict[str, None] = {}
        for source, _ in found:
            columns.update(dict.fromkeys(self._records.object_columns(source.label)))
        with written_at_once(self._results / TABLES["objects"]) as partial:
            with partial.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
                writer = csv.DictWriter(file, ["file", "frame", *columns], lineterminator="\n")
                writer.writeheader()
                for source, record in found:
                    place = {"file": source.file, "frame": record.row[1]}
                    writer.writerows({**place, **row} for row in self._records.objects(source.label))

    def _write_coco(self, found: Sequence[tuple[ImageSource, Record]]) -> None:
        writer = CocoResults(self._results / TABLES["coco"], self._categories)
        for source, record in found:
            writer.add_results(source.file, source.page, record.size, self._records.coco(source.label))
        writer.close()
