"""Counts the pictures of files in several processes, and goes on where it was stopped."""

import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from detectron2.config import CfgNode
from tqdm import tqdm

from ..data import sees_windows
from ..threads import usable_cores
from ..whole_files import Held, hold
from .counter import PICTURE_FILES, TABLES, Outcome, PictureCounter, Task
from .image_files import Choice, ImageReader, list_pictures
from .pixel_size import PixelSize
from .predictor import Predictor, batches
from .records import Record, RecordFolder, fingerprint_of, key_of
from .running import build_predictor
from .sources import plural
from .tables import Tables
from .worker_pool import Lost, can_fork, use_one_thread, work_in_processes
from .writers import CocoResults, check_inputs_stay, known_categories

# Pictures that go through the model at a time where nobody says. On a CPU more are no faster.
_USUAL_BATCH = {"cpu": 1, "cuda": 8}


@dataclass(frozen=True)
class Shard:
    """A part of the pictures: every ``parts``-th from the ``number``-th on, which is from 1 to ``parts``."""

    number: int = 1
    parts: int = 1


@dataclass(frozen=True)
class Settings:
    """How pictures are counted.

    Attributes:
        cfg: the model's config.
        weights: its checkpoint.
        object_size, tile, overlapping: see Predictor.
        batch_size: pictures at a time; None = as is usual on the device.
        choice: which pictures of stacks.
        pixel_size: instead of that of the files.
        processes: None = one for each core that may be used, on CUDA one.
        shard: what is counted here.
    """

    cfg: CfgNode
    weights: str
    object_size: float | None = None
    tile: int = 0
    overlapping: bool = False
    batch_size: int | None = None
    choice: Choice = field(default_factory=Choice)
    pixel_size: PixelSize | None = None
    processes: int | None = None
    shard: Shard = field(default_factory=Shard)

    def fingerprint(self) -> str:
        """See :func:`.records.fingerprint_of`."""
        size = None if self.pixel_size is None else [self.pixel_size.y, self.pixel_size.x]
        others = [self.object_size, self.tile, self.overlapping, self.choice.channel, size]
        return fingerprint_of(self.cfg, self.weights, others)

    @property
    def is_on_cpu(self) -> bool:
        """Whether the model runs on the CPU."""
        return self.cfg.MODEL.DEVICE.startswith("cpu")

    def predictor(self, chooses_threads: bool = False, shows_tiles: bool = False) -> Predictor:
        """The model; see :func:`.running.build_predictor`."""
        size = _USUAL_BATCH["cpu" if self.is_on_cpu else "cuda"] if self.batch_size is None else self.batch_size
        sizes = (size, self.object_size, self.tile, self.overlapping)
        return build_predictor(self.cfg, self.weights, *sizes, chooses_threads, shows_tiles)


@dataclass
class Summary:
    """What was done.

    Attributes:
        pictures: in the tables: those counted now or before, here or by other shards.
        objects: in all of them.
        missing: pictures that are not in the tables and were not tried here.
        rows: of the table of counts, where there is no folder of results.
        failures: why pictures could not be counted.
        interrupted: the user stopped it (Ctrl-C).
    """

    pictures: int = 0
    objects: int = 0
    missing: int = 0
    rows: list[list] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    interrupted: bool = False


def count_pictures(
    files: Sequence[str],
    settings: Settings,
    results: Path | None,
    outputs: frozenset[str],
    overwrite: bool,
    say: Callable[[str], object],
) -> Summary:
    """Count pictures, picture by picture; with a folder of results those that are there already are left out.

    Args:
        files: paths of image files.
        settings: how.
        results: folder; None = only rows are returned.
        outputs: kinds of results, see Task.
        overwrite: count those again that are there.
        say: is told in a line what is left out.

    Raises:
        OSError, ValueError: something is wrong with the model, the settings or the files, before anything is counted.
    """
    with _held(results, settings.shard):
        records = RecordFolder(results).read_all() if results is not None else {}
        task, failures = _plan(files, settings, results, outputs, records)
        sources = task.sources
        todo = list(range(settings.shard.number - 1, len(sources), settings.shard.parts))
        tables = Tables(task, known_categories(settings.cfg)) if results is not None else None
        if tables is not None and not overwrite:
            done = [n for n in todo if tables.is_valid(records.get(key_of(sources[n])), sources[n])]
            _say_what_is_there(len(done), sum(key_of(sources[n]) in records for n in todo) - len(done), say)
            todo = sorted(set(todo) - set(done))
        unreadable = len(failures)
        if results is not None and todo:
            _say_what_is_old(results, outputs, say)
        summary = Summary(failures=failures)
        try:
            _count(todo, settings, task, tables, summary)
        except Exception:
            with suppress(OSError):  # such as a full disk, which is said already
                if tables is not None:
                    tables.write()
            raise
        if tables is None:
            summary.pictures, summary.objects = len(summary.rows), sum(int(row[2]) for row in summary.rows)
        else:
            summary.pictures, summary.objects = tables.write()
            others = len(records.keys() - set(map(key_of, sources)))
            if others:
                say(
                    f"{results} also has results of {plural(others, 'other picture')}, which are not in its tables now."
                )
        tried = len(summary.failures) - unreadable
        summary.missing = max(0, len(sources) - summary.pictures - tried)
        return summary


@contextmanager
def _held(results: Path | None, shard: Shard) -> Iterator[None]:
    """Within it no other process counts the same part into a folder of results. Raises a ValueError where one does."""
    if results is None:
        yield
        return
    folder = RecordFolder(results).folder
    folder.mkdir(parents=True, exist_ok=True)
    try:
        file = hold(folder / f".lock_{shard.number}_of_{shard.parts}")
    except Held as holder:
        raise ValueError(
            f"{holder} is counting into '{results}': wait for its end, or name another --output (on several machines "
            "give each its --shard)."
        ) from None
    try:
        yield
    finally:
        file.close()
        if not any(folder.glob("*.json")):  # nothing was counted: leave no folder behind
            with suppress(OSError):
                Path(file.name).unlink()
                folder.rmdir()
                results.rmdir()


def _plan(
    files: Sequence[str],
    settings: Settings,
    results: Path | None,
    outputs: frozenset[str],
    records: Mapping[tuple[str, int | None], Record],
) -> tuple[Task, list[str]]:
    """What is to be counted and written, and why some files cannot be; see :func:`count_pictures`."""
    any_type = len(settings.cfg.INPUT.CONTRAST_PERCENTILES) > 0
    known = {key: record.label for key, record in records.items()}
    sources, failures = list_pictures(files, settings.choice, any_type, known)
    reader = ImageReader(settings.choice.channel, sees_windows(settings.cfg))
    names = [name for _, name in known_categories(settings.cfg)]
    task = Task(sources, reader, results, outputs, settings.fingerprint(), names, settings.pixel_size)
    _check_outputs(task, files)
    return task, failures


def _check_outputs(task: Task, files: Sequence[str]) -> None:
    """Raise a ValueError where a result would replace an input."""
    if task.results is None:
        return
    found = task.results / TABLES["coco"]
    tables = [task.results / name for name in ("counts.csv", *TABLES.values(), CocoResults(found).images_path.name)]
    check_inputs_stay([*tables, *(path for source in task.sources for path in task.paths(source))], files)


def _say_what_is_there(done: int, outdated: int, say: Callable[[str], object]) -> None:
    if done:
        say(f"Counted before and left as they are: {plural(done, 'picture')} (--overwrite counts them again).")
    if outdated:
        say(f"Counted again, since they, the model or what is asked for have changed: {plural(outdated, 'picture')}.")


def _say_what_is_old(results: Path, outputs: frozenset[str], say: Callable[[str], object]) -> None:
    names = {**{kind: f"{kind}/" for kind in PICTURE_FILES}, **TABLES}
    old = [f"{name} (--{kind})" for kind, name in names.items() if kind not in outputs and (results / name).exists()]
    if old:
        say(f"Not asked for now, so that it stays as an earlier run wrote it: {', '.join(old)}.")


def _count(todo: list[int], settings: Settings, task: Task, tables: Tables | None, summary: Summary) -> None:
    """Count the pictures ``todo`` and enter into the summary what became of them."""
    if not todo:
        return
    rows: dict[int, list] = {}
    try:
        with closing(_results(todo, settings, task)) as results, tqdm(total=len(todo), unit="picture") as bar:
            for result in results:
                if isinstance(result, Lost):
                    names = (task.sources[number].name for number in result.items)
                    summary.failures += [f"{name} was not counted: {result.reason}" for name in names]
                    bar.update(len(result.items))
                    continue
                for outcome in result:
                    if outcome.row is None:
                        summary.failures.append(outcome.error)
                    elif tables is None:
                        rows[outcome.number] = outcome.row
                    bar.update()
                if tables is not None:
                    tables.update()
    except KeyboardInterrupt:
        summary.interrupted = True
    summary.rows = [rows[number] for number in sorted(rows)]


def _results(todo: list[int], settings: Settings, task: Task) -> Generator[list[Outcome] | Lost[int], None, None]:
    """Loads the model; then gives what became of the pictures, as they are done. Closed early, it ends its processes.

    Raises:
        OSError, ValueError: something is wrong with the model.
    """
    processes = settings.processes
    if processes is None:
        beside = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
        processes = max(1, usable_cores() // beside) if settings.is_on_cpu else 1
    if min(processes, len(todo)) == 1:
        if settings.processes is not None:
            use_one_thread()
        predictor = settings.predictor(chooses_threads=settings.processes is None, shows_tiles=True)
        work = PictureCounter(predictor, task)
        return (work(batch) for batch in batches(todo, predictor.batch_size))
    if settings.is_on_cpu:
        use_one_thread()
    # Also where each process loads its own: what is wrong with it is said once.
    predictor = settings.predictor()
    fork = settings.is_on_cpu and can_fork()
    start = partial(PictureCounter, predictor, task) if fork else partial(_start, settings, task)
    return work_in_processes(list(batches(todo, predictor.batch_size)), start, processes, fork)


def _start(settings: Settings, task: Task) -> PictureCounter:
    return PictureCounter(settings.predictor(), task)
