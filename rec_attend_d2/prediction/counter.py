"""Counts pictures one after another and writes their results: what each of the counting processes does."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

from PIL import Image

from ..visualization import save_steps
from ..whole_files import written_at_once
from .image_files import ImageReader, ImageSource, Picture
from .measurements import measure
from .object_files import mask_outlines, write_geojson, write_label_image, write_rois
from .pixel_size import PixelSize, Scale
from .predictor import Prediction, Predictor
from .records import FileState, Record, RecordFolder
from .sources import Frame
from .writers import class_results, count_row, draw_prediction

# Files of a picture by kind of result; those of the other kinds are part of a table.
PICTURE_FILES = {
    "labels": ("labels/{}_labels.tif",),
    "rois": ("rois/{}_rois.zip",),
    "geojson": ("geojson/{}.geojson",),
    "pictures": ("pictures/{}.png",),
    "steps": ("steps/{}_steps.png", "steps/{}_steps.gif"),
}
TABLES = {"objects": "objects.csv", "coco": "found.json"}


@dataclass(frozen=True)
class Task:
    """What is to be counted, and what is to be written.

    Attributes:
        sources: all pictures.
        reader: reads them.
        results: folder; None = nothing is written.
        outputs: kinds of results: keys of PICTURE_FILES and TABLES.
        fingerprint: of model and settings.
        class_names: of class 0, 1, ...; further classes get numbers.
        pixel_size: instead of that of the files.
    """

    sources: Sequence[ImageSource]
    reader: ImageReader
    results: Path | None
    outputs: frozenset[str]
    fingerprint: str
    class_names: Sequence[str] = ()
    pixel_size: PixelSize | None = None

    def paths(self, source: ImageSource) -> list[Path]:
        """Files of a picture's own that are written."""
        if self.results is None:
            return []
        names = [name for kind in PICTURE_FILES if kind in self.outputs for name in PICTURE_FILES[kind]]
        return [self.results / name.format(source.label) for name in names]


@dataclass(frozen=True)
class Outcome:
    """What became of a picture.

    Attributes:
        number: its place in Task.sources.
        row: of the table of counts.
        error: why there is no row.
    """

    number: int
    row: list | None = None
    error: str = ""


class PictureCounter:
    """Counts pictures of a task, given their numbers."""

    def __init__(self, predictor: Predictor, task: Task):
        self._predictor = predictor
        self._task = task
        self._records = RecordFolder(task.results) if task.results is not None else None

    def __call__(self, numbers: Iterable[int]) -> list[Outcome]:
        """Count these pictures in one batch; what cannot be counted is an error of its outcome."""
        outcomes: list[Outcome] = []
        loaded: list[tuple[int, FileState, Picture, Frame]] = []
        for number in numbers:
            source = self._task.sources[number]
            try:
                state = FileState.of(source.file)
                picture = self._task.reader.read(source)
                image = self._predictor.prepare(picture.image, f"Image {source.name}")
            except FileNotFoundError:
                outcomes.append(Outcome(number, error=f"Image {source.file} does not exist."))
            except (OSError, ValueError) as error:
                outcomes.append(Outcome(number, error=str(error)))
            else:
                loaded.append((number, state, picture, Frame(image, source.file, source.label, source.page)))
        if loaded:
            start = perf_counter()
            try:
                predictions = self._predictor.predict(frame.image for *_, frame in loaded)
            except (MemoryError, RuntimeError) as error:
                if isinstance(error, RuntimeError) and "memory" not in str(error):
                    raise
                reason = "the memory is too small for it: try a smaller --batch-size, --tile 1024 or less --processes"
                return outcomes + [Outcome(number, error=f"{frame.file}: {reason}.") for number, _, _, frame in loaded]
            seconds = (perf_counter() - start) / len(loaded)
            for (number, state, picture, frame), prediction in zip(loaded, predictions, strict=True):
                outcomes.append(self._finish(number, state, picture, frame, prediction, seconds))
        return outcomes

    def _finish(
        self, number: int, state: FileState, picture: Picture, frame: Frame, prediction: Prediction, seconds: float
    ) -> Outcome:
        row = count_row(frame, prediction, seconds)
        if self._records is not None:
            try:
                # Without a record nobody takes results of which some are new and some are not for whole.
                self._records.remove(frame.label)
                self._write(picture, frame, prediction)
            except ValueError as error:
                return Outcome(number, error=str(error))
            size = [int(length) for length in picture.channels.shape[:2]]
            outputs = sorted(self._task.outputs)
            self._records.write(Record(frame.label, state, frame.number, self._task.fingerprint, outputs, row, size))
        return Outcome(number, row)

    def _write(self, picture: Picture, frame: Frame, prediction: Prediction) -> None:
        """Write the results of a picture. Raises a ValueError if one of them cannot be made."""
        assert self._records is not None and self._task.results is not None
        outputs, results, label = self._task.outputs, self._task.results, frame.label
        instances, scale = prediction.instances, picture.scale
        if self._task.pixel_size is not None:
            scale = Scale(self._task.pixel_size)
        if outputs & {"objects", "rois", "geojson", "labels"} and not instances.has("pred_masks"):
            raise ValueError(f"{frame.file}: the model finds boxes without masks, which can be counted and no more.")
        if "labels" in outputs:
            write_label_image(results / f"labels/{label}_labels.tif", prediction.labels, scale)
        if outputs & {"objects", "geojson"}:
            columns, rows = measure(instances, picture.channels, self._names(prediction), scale.size)
            if "objects" in outputs:
                self._records.write_objects(label, columns, rows)
        if outputs & {"rois", "geojson"}:
            lines = mask_outlines(instances)
            if "rois" in outputs:
                # Where channels are chosen from, ImageJ numbers each channel of a page.
                is_page = picture.image.ndim == 3 or picture.channels.shape[2] == 1
                write_rois(results / f"rois/{label}_rois.zip", lines, (frame.number or 0) if is_page else 0)
            if "geojson" in outputs:
                write_geojson(results / f"geojson/{label}.geojson", lines, columns, rows)
        if "coco" in outputs:
            self._records.write_coco(label, class_results(instances))
        if "pictures" in outputs:
            with written_at_once(results / f"pictures/{label}.png") as partial:
                Image.fromarray(draw_prediction(frame, prediction)).save(partial, format="PNG")
        if "steps" in outputs:
            self._write_steps(results / "steps", frame)

    def _write_steps(self, folder: Path, frame: Frame) -> None:
        paths = [folder / f"{frame.label}_steps{ending}" for ending in (".png", ".gif")]
        with written_at_once(paths[0]) as picture, written_at_once(paths[1]) as animation:
            made = save_steps(picture, self._predictor.trace(frame.image))
            for path, partial in zip(made, (picture, animation), strict=True):
                Path(path).replace(partial)

    def _names(self, prediction: Prediction) -> list[str]:
        """A name for every class."""
        names = list(self._task.class_names)
        highest = max(prediction.instances.pred_classes.tolist(), default=0)
        return [*names, *(f"class {number + 1}" for number in range(len(names), highest + 1))]
