"""Where predictions go: pictures, videos, label images, counts, COCO results, pictures of the steps.

Shapes: `N` instances, `H, W` image in pixels.
"""

import csv
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import cv2
import numpy as np
from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.structures import Instances
from numpy.typing import NDArray
from PIL import Image
from tabulate import tabulate
from tqdm import tqdm

from ..evaluation.coco_evaluator import coco_results
from ..visualization import draw_instances, save_steps
from ..whole_files import written_at_once
from .predictor import Prediction, Predictor, batches
from .sources import Frame, is_image_name

COUNT_COLUMNS = ("file", "frame", "count", "mean_score", "seconds", "note")
# Seconds after which a file that is written as a whole is written again while results come.
_PAUSE = 10.0
# Codec by the video's ending; OpenCV's own build has these.
_CODECS = {".mp4": "mp4v", ".mov": "mp4v", ".mkv": "mp4v", ".avi": "MJPG"}


class Writer:
    """Takes predictions one after another."""

    def add(self, frame: Frame, prediction: Prediction, seconds: float) -> None:
        """Take the prediction of the next image, which took so many seconds."""
        raise NotImplementedError

    def close(self) -> None:
        """All predictions were given."""


@dataclass(frozen=True)
class Totals:
    """What was done.

    Attributes:
        images: number of images or frames.
        objects: found in all of them.
        interrupted: the user stopped it (Ctrl-C).
    """

    images: int
    objects: int
    interrupted: bool


def write_predictions(predictor: Predictor, frames: Iterable[Frame], writers: Sequence[Writer], bar: tqdm) -> Totals:
    """Predict all frames, batch by batch, give each to every writer and move the progress bar on.

    Ctrl-C ends it early, with what was predicted before written.
    """
    images = objects = 0
    interrupted = False
    try:
        for batch in batches(frames, predictor.batch_size):
            start = perf_counter()
            predictions = predictor.predict(frame.image for frame in batch)
            seconds = (perf_counter() - start) / len(batch)
            for frame, prediction in zip(batch, predictions, strict=True):
                for writer in writers:
                    writer.add(frame, prediction, seconds)
                images, objects = images + 1, objects + prediction.count
                bar.update()
    except KeyboardInterrupt:
        interrupted = True
    bar.close()
    for writer in writers:
        writer.close()
    return Totals(images, objects, interrupted)


def draw_prediction(frame: Frame, prediction: Prediction) -> NDArray[np.uint8]:
    """Instances in colours, the count in the corner: uint8 RGB, a whole multiple of the image's size.

    Raises:
        ValueError: the image is too large to be read, and so to be drawn.
    """
    if isinstance(frame.image, np.memmap):
        height, width = frame.image.shape[:2]
        raise ValueError(f"{frame.file} is too large to be drawn ({height} x {width}): do not ask for its picture.")
    return draw_instances(frame.image[:, :, ::-1], prediction.instances)


def picture_paths(output: Path, files: Sequence[str], labels: Sequence[str]) -> dict[str, Path]:
    """Where the picture of each label goes: ``output`` is their folder or, of a single image, maybe the file itself.

    Raises:
        ValueError: ``output`` is one file for several images, or a picture would replace an image of the input.
    """
    if is_image_name(output) and not output.is_dir():
        if len(files) > 1:
            raise ValueError(f"The output '{output}' is one file, but there are {len(files)} images: name a folder.")
        paths = dict.fromkeys(labels, output)
    else:
        paths = {label: output / f"{label}.png" for label in labels}
    check_inputs_stay(paths.values(), files)
    return paths


def check_label_paths(folder: Path, files: Sequence[str], labels: Sequence[str]) -> None:
    """Raise a ValueError where :class:`LabelImages` of the ``labels`` in ``folder`` would replace an input image."""
    check_inputs_stay([folder / f"{label}_labels{ending}" for label in labels for ending in (".png", ".tif")], files)


def video_path(output: Path, file: str) -> Path:
    """Where the drawn video of ``file`` goes: ``output`` is that file or, without an ending, its folder.

    Raises:
        ValueError: it would replace ``file``.
    """
    path = output if output.suffix and not output.is_dir() else output / f"{Path(file).stem}.mp4"
    check_inputs_stay([path], [file])
    return path


def check_inputs_stay(outputs: Iterable[Path], files: Sequence[str]) -> None:
    """Raise a ValueError where one of the ``outputs`` would replace one of the ``files`` of the input."""
    given = {Path(file).resolve() for file in files}
    for path in outputs:
        if path.resolve() in given:
            raise ValueError(f"The output '{path}' would replace the input of this name: name another folder.")


class Pictures(Writer):
    """Draws the instances of each image into a file of its own."""

    def __init__(self, paths: dict[str, Path]):
        """
        Args:
            paths: of the picture of each label; the ending says the format. Folders are made where there are none.
        """
        self._paths = paths

    def add(self, frame: Frame, prediction: Prediction, seconds: float) -> None:
        path = self._paths[frame.label]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw_prediction(frame, prediction)).save(path)


class Video(Writer):
    """Draws the instances of each frame into a video."""

    def __init__(self, path: Path, frames_per_second: float):
        """
        Raises:
            ValueError: the file's ending is of no video format that can be written.
        """
        if path.suffix.lower() not in _CODECS:
            raise ValueError(f"The video '{path}' should end in {', '.join(_CODECS)}.")
        self._path = path
        self._frames_per_second = frames_per_second
        self._video: cv2.VideoWriter | None = None

    def add(self, frame: Frame, prediction: Prediction, seconds: float) -> None:
        picture = draw_prediction(frame, prediction)
        if self._video is None:
            self._video = self._open(picture.shape[0], picture.shape[1])
        self._video.write(np.ascontiguousarray(picture[:, :, ::-1]))

    def _open(self, height: int, width: int) -> cv2.VideoWriter:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        codec = cv2.VideoWriter_fourcc(*_CODECS[self._path.suffix.lower()])  # type: ignore[attr-defined]
        video = cv2.VideoWriter(str(self._path), codec, self._frames_per_second, (width, height))
        if not video.isOpened():
            raise ValueError(f"OpenCV cannot write the video '{self._path}'. Try another ending, such as .avi.")
        return video

    def close(self) -> None:
        if self._video is not None:
            self._video.release()


class LabelImages(Writer):
    """Writes the objects of each image as a label image: LABEL_labels.png of 16 bits.

    More than 65,535 objects do not fit into one; theirs is a TIFF of 32 bits, LABEL_labels.tif.
    """

    def __init__(self, folder: Path):
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    def add(self, frame: Frame, prediction: Prediction, seconds: float) -> None:
        labels = prediction.labels
        if labels.dtype == np.uint16:
            Image.fromarray(labels).save(self._folder / f"{frame.label}_labels.png", compress_level=1)
        else:
            # Pillow's pixels of 32 bits have a sign, which no number of objects needs.
            picture = Image.fromarray(labels.astype(np.int32))
            picture.save(self._folder / f"{frame.label}_labels.tif", compression="tiff_adobe_deflate")


class StepPictures(Writer):
    """Draws the recurrent steps of each image: LABEL_steps.png (a column per step) and LABEL_steps.gif."""

    def __init__(self, folder: Path, predictor: Predictor):
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._predictor = predictor

    def add(self, frame: Frame, prediction: Prediction, seconds: float) -> None:
        save_steps(self._folder / frame.label, self._predictor.trace(frame.image))


def count_row(frame: Frame, prediction: Prediction, seconds: float) -> list:
    """A row of COUNT_COLUMNS; empty where there is no frame number, no object to have a score, or nothing to note."""
    number = "" if frame.number is None else frame.number
    mean_score = f"{prediction.instances.scores.mean().item():.4f}" if prediction.count else ""
    return [frame.file, number, prediction.count, mean_score, f"{seconds:.4f}", "; ".join(prediction.notes)]


class CountFile(Writer):
    """A CSV file with a row per image: COUNT_COLUMNS. It is readable while more are added."""

    def __init__(self, path: Path):
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("w", newline="", encoding="utf-8")
        self._rows = csv.writer(self._file, lineterminator="\n")
        self._rows.writerow(COUNT_COLUMNS)

    def add(self, frame: Frame, prediction: Prediction, seconds: float) -> None:
        self._rows.writerow(count_row(frame, prediction, seconds))
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class CountTable(Writer):
    """Prints the counts as a table once all are known."""

    def __init__(self) -> None:
        self._rows: list[list] = []

    def add(self, frame: Frame, prediction: Prediction, seconds: float) -> None:
        self._rows.append(count_row(frame, prediction, seconds))

    def close(self) -> None:
        if self._rows:  # tabulate fails without any
            print(tabulate(self._rows, headers=COUNT_COLUMNS, disable_numparse=[0]))


class CocoResults(Writer):
    """COCO's results format, and the images it is about: ``COCO("NAME_images.json").loadRes("NAME.json")``.

    The results are a list as a test server takes it, which has no room for the images; these and the categories stand
    in the second file, in the format of COCO's annotations. Images are numbered from 1. Both are written again every
    ten seconds while results come.
    """

    def __init__(self, path: Path, categories: Sequence[tuple[int, str]] = ()):
        """
        Args:
            path: of the results; the images' file gets ``_images`` behind its name.
            categories: id and name of class 0, 1, ...; further classes get the next higher ids.
        """
        self._path = path
        self._categories = list(categories)
        self._images: list[dict] = []
        self._results: list[dict] = []
        self._written = perf_counter()

    @property
    def images_path(self) -> Path:
        """Path of the images' file."""
        return self._path.with_name(f"{self._path.stem}_images.json")

    def add(self, frame: Frame, prediction: Prediction, seconds: float) -> None:
        self.add_results(frame.file, frame.number, frame.image.shape[:2], class_results(prediction.instances))

    def add_results(self, file: str, number: int | None, size: Sequence[int], results: Iterable[dict]) -> None:
        """Take what :func:`class_results` gives of the next image, of ``size`` (H, W)."""
        image = {"id": len(self._images) + 1, "file_name": file, "height": size[0], "width": size[1]}
        self._images.append(image if number is None else {**image, "frame": number})
        for result in results:
            category = self._category(result["category_id"])
            self._results.append({"image_id": image["id"], **result, "category_id": category})
        if perf_counter() - self._written > _PAUSE:
            self.close()
            self._written = perf_counter()

    def _category(self, number: int) -> int:
        """Id of the class ``number``, which is entered if it is new."""
        while len(self._categories) <= number:
            new = max((id_ for id_, _ in self._categories), default=0) + 1
            self._categories.append((new, f"class {new}"))
        return self._categories[number][0]

    def close(self) -> None:
        """Write what there is."""
        self._category(0)
        categories = [{"id": id_, "name": name} for id_, name in self._categories]
        content = {"images": self._images, "categories": categories, "annotations": []}
        for path, part in ((self._path, self._results), (self.images_path, content)):
            with written_at_once(path) as partial:
                partial.write_text(json.dumps(part), encoding="utf-8")


def class_results(instances: Instances) -> list[dict]:
    """COCO's results of an image without its id; ``category_id`` is the number of the class."""
    # Of a mask pycocotools computes the box; given a box too, it would take the box's area for the mask's.
    shape = "segmentation" if instances.has("pred_masks") else "bbox"
    return [
        {key: result[key] for key in (shape, "score", "category_id")} for result in coco_results(instances, image_id=0)
    ]


def known_categories(cfg: CfgNode) -> list[tuple[int, str]]:
    """Category id and name of class 0, 1, ... by the config or its data sets; empty where neither tells."""
    if cfg.MODEL.REC_ATTEND.CLASS_NAMES:
        return list(enumerate(cfg.MODEL.REC_ATTEND.CLASS_NAMES, start=1))
    for name in (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN):
        metadata = MetadataCatalog.get(name) if name in MetadataCatalog.list() else None
        if metadata is not None and metadata.get("thing_classes"):
            ids = metadata.get("thing_dataset_id_to_contiguous_id") or {
                number + 1: number for number in range(len(metadata.thing_classes))
            }
            return [(id_, metadata.thing_classes[ids[id_]]) for id_ in sorted(ids, key=lambda id_: ids[id_])]
    return []
