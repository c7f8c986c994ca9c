"""Files of predictions."""

import csv
import json

import cv2
import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.structures import Boxes, Instances
from PIL import Image
from pycocotools.coco import COCO
from tqdm import tqdm

from rec_attend_d2.config import load_config
from rec_attend_d2.data.datasets.label_images import read_label_image
from rec_attend_d2.prediction import Prediction
from rec_attend_d2.prediction.sources import Frame
from rec_attend_d2.prediction.writers import (
    CocoResults,
    CountFile,
    CountTable,
    LabelImages,
    Pictures,
    StepPictures,
    Video,
    Writer,
    check_label_paths,
    draw_prediction,
    known_categories,
    picture_paths,
    video_path,
    write_predictions,
)
from rec_attend_d2.structures import MaskCrops

HEIGHT, WIDTH = 321, 401  # odd, and large enough not to be magnified


def frame(label: str = "plant", number: int | None = None) -> Frame:
    return Frame(np.full((HEIGHT, WIDTH, 3), 30, np.uint8), f"folder/{label}.png", label, number)


def prediction(classes: list[int], has_masks: bool = True) -> Prediction:
    """A square of 10 x 10 pixels per class, side by side, with scores 0.9, 0.8, ..."""
    masks = torch.zeros(len(classes), HEIGHT, WIDTH, dtype=torch.bool)
    for index, mask in enumerate(masks):
        mask[100:110, 50 * index : 50 * index + 10] = True
    instances = Instances((HEIGHT, WIDTH))
    if has_masks:
        instances.pred_masks = masks
    corners = [[50.0 * index, 100.0, 50.0 * index + 10, 110.0] for index in range(len(classes))]
    instances.pred_boxes = Boxes(torch.tensor(corners).reshape(-1, 4))
    instances.scores = torch.tensor([0.9 - 0.1 * index for index in range(len(classes))])
    instances.pred_classes = torch.tensor(classes, dtype=torch.int64)
    return Prediction(instances)


def test_counts_are_a_csv_file(tmp_path):
    writer = CountFile(tmp_path / "new" / "counts.csv")
    writer.add(frame("a,b"), prediction([0, 0]), 0.25)
    assert (tmp_path / "new" / "counts.csv").read_text().count("\n") == 2  # readable while it is written
    writer.add(frame("clip", 7), Prediction(prediction([]).instances, ("stopped at 21 steps",)), 0.5)
    writer.close()
    with open(tmp_path / "new" / "counts.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    first = {"file": "folder/a,b.png", "frame": "", "count": "2", "mean_score": "0.8500", "seconds": "0.2500"}
    second = {"file": "folder/clip.png", "frame": "7", "count": "0", "mean_score": "", "seconds": "0.5000"}
    assert rows == [{**first, "note": ""}, {**second, "note": "stopped at 21 steps"}]


def test_counts_are_a_table(capsys):
    writer = CountTable()
    writer.add(frame(), prediction([0, 0, 0]), 0.25)
    assert capsys.readouterr().out == ""
    writer.close()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["file", "frame", "count", "mean_score", "seconds", "note"]
    assert lines[2].split() == ["folder/plant.png", "3", "0.8", "0.25"]


@pytest.mark.parametrize("has_masks", [True, False])
def test_coco_reads_the_results(tmp_path, has_masks):
    writer = CocoResults(tmp_path / "new" / "found.json", [(24, "zebra")])
    writer.add(frame("none"), prediction([], has_masks), 0.1)
    writer.add(frame("some"), prediction([0, 2], has_masks), 0.1)
    writer.add(frame("clip", 3), prediction([0], has_masks), 0.1)
    writer.close()

    images = COCO(str(writer.images_path))
    assert writer.images_path.name == "found_images.json"
    assert [image["file_name"] for image in images.loadImgs([1, 2, 3])] == [
        f"folder/{name}.png" for name in ("none", "some", "clip")
    ]
    assert "frame" not in images.imgs[1] and images.imgs[3]["frame"] == 3
    # Class 2, which the data set does not have, gets an id that is free, and so does class 1 before it.
    assert {id_: category["name"] for id_, category in images.cats.items()} == {
        24: "zebra",
        25: "class 25",
        26: "class 26",
    }
    results = images.loadRes(str(tmp_path / "new" / "found.json"))
    assert results.getImgIds() == [1, 2, 3] and results.getAnnIds(imgIds=[1]) == []
    first, second = results.loadAnns(results.getAnnIds(imgIds=[2]))
    assert [first["category_id"], second["category_id"]] == [24, 26]
    assert second["score"] == pytest.approx(0.8) and second["area"] == 100
    assert list(second["bbox"]) == [50, 100, 10, 10]
    if has_masks:
        expected = prediction([0, 2]).instances.pred_masks[1].numpy()
        np.testing.assert_array_equal(mask_util.decode(second["segmentation"]), expected)
    # A test server takes the list as it is, without boxes that would stand for masks.
    shape = "segmentation" if has_masks else "bbox"
    for entry in json.loads((tmp_path / "new" / "found.json").read_text()):
        assert set(entry) == {"image_id", "category_id", "score", shape}


def test_categories_are_those_of_the_data_set():
    def of(name: str) -> list[tuple[int, str]]:
        return known_categories(load_config("", ["DATASETS.TEST", f"('{name}',)"]))

    assert of("rosettes_val") == [(1, "leaf")]
    assert of("rec_attend_cityscapes_val")[:2] == [(24, "person"), (25, "rider")]
    assert of("cvppp_A1_val") == [(1, "leaf")]
    assert of("never_heard_of") == []


def test_without_any_object_there_is_a_category(tmp_path):
    writer = CocoResults(tmp_path / "found.json")
    writer.add(frame(), prediction([]), 0.1)
    writer.close()
    assert list(COCO(str(writer.images_path)).cats) == [1]
    assert json.loads((tmp_path / "found.json").read_text()) == []


def test_pictures_have_instances_and_count(tmp_path):
    paths = {"plant": tmp_path / "new" / "plant.png", "other": tmp_path / "other.png"}
    writer = Pictures(paths)
    writer.add(frame(), prediction([0, 0]), 0.1)
    writer.add(frame("other"), prediction([]), 0.1)
    writer.close()
    found, empty = (np.array(Image.open(path)) for path in paths.values())
    np.testing.assert_array_equal(found, draw_prediction(frame(), prediction([0, 0])))
    assert (found[105, [5, 55]] != 30).any(axis=1).all() and (found[60:, 70:] == 30).all()
    assert (empty[60:] == 30).all() and (empty[:20, :20] != 30).any()  # "0 objects"


def test_label_images_number_the_objects(tmp_path):
    writer = LabelImages(tmp_path / "new")
    writer.add(frame(), prediction([0, 3]), 0.1)
    dot = np.ones((1, 1), dtype=bool)
    places = np.stack(np.divmod(np.arange(70000), WIDTH), axis=1)
    many = Prediction(Instances((HEIGHT, WIDTH), pred_masks=MaskCrops([dot] * 70000, places, (HEIGHT, WIDTH))))
    writer.add(frame("many"), many, 0.1)
    writer.close()
    expected = np.zeros((HEIGHT, WIDTH), int)
    expected[100:110, :10], expected[100:110, 50:60] = 1, 2
    assert Image.open(tmp_path / "new" / "plant_labels.png").mode == "I;16"
    np.testing.assert_array_equal(read_label_image(tmp_path / "new" / "plant_labels.png"), expected)
    labels = read_label_image(tmp_path / "new" / "many_labels.tif")
    assert labels.ravel()[:70000].tolist() == list(range(1, 70001)) and labels.max() == 70000
    with pytest.raises(ValueError, match="no masks"):
        writer.add(frame(), prediction([0], has_masks=False), 0.1)


def test_where_pictures_go(tmp_path):
    files, labels = ["a/x.png", "b/x.png"], ["x", "b_x"]
    assert picture_paths(tmp_path, files, labels) == {"x": tmp_path / "x.png", "b_x": tmp_path / "b_x.png"}
    assert picture_paths(tmp_path / "one.jpg", files[:1], ["x"]) == {"x": tmp_path / "one.jpg"}
    assert picture_paths(tmp_path / "v1.2", files[:1], ["x"]) == {"x": tmp_path / "v1.2" / "x.png"}
    with pytest.raises(ValueError, match=r"one\.jpg' is one file, but there are 2 images"):
        picture_paths(tmp_path / "one.jpg", files, labels)
    with pytest.raises(ValueError, match=r"x\.png' would replace the input"):
        picture_paths(tmp_path, [str(tmp_path / "a" / ".." / "x.png")], ["x"])
    check_label_paths(tmp_path, [str(tmp_path / "x.png")], ["x"])
    with pytest.raises(ValueError, match=r"x_labels\.png' would replace the input"):
        check_label_paths(tmp_path, [str(tmp_path / "x.png"), str(tmp_path / "x_labels.png")], ["x", "x_labels"])
    assert video_path(tmp_path, "a/clip.avi") == tmp_path / "clip.mp4"
    assert video_path(tmp_path / "out.mkv", "clip.avi") == tmp_path / "out.mkv"
    with pytest.raises(ValueError, match=r"clip\.mp4' would replace the input"):
        video_path(tmp_path, str(tmp_path / "clip.mp4"))


@pytest.mark.parametrize("ending", ["mp4", "avi", "mkv", "mov"])
def test_a_video_of_odd_size_is_written(tmp_path, ending):
    path = tmp_path / "new" / f"drawn.{ending}"
    writer = Video(path, 12.0)
    for number in range(3):
        writer.add(frame("clip", number), prediction([0] * number), 0.1)
    writer.close()
    capture = cv2.VideoCapture(str(path))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(12)
    frames = []
    while (read := capture.read())[0]:
        frames.append(read[1])
    assert [shape[:2] for shape in {image.shape for image in frames}] == [(HEIGHT - 1, WIDTH - 1)] and len(frames) == 3
    expected = draw_prediction(frame(), prediction([0, 0]))[:-1, :-1, ::-1].astype(float)
    assert np.abs(frames[2] - expected).mean() < 4  # compressed
    assert np.abs(frames[2][102:108, 52:58] - expected[102:108, 52:58]).mean() < 30


def test_a_video_of_another_kind_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"drawn\.txt' should end in \.mp4"):
        Video(tmp_path / "drawn.txt", 30)


def test_steps_are_drawn(tmp_path, predictor, images):
    writer = StepPictures(tmp_path / "new", predictor)
    writer.add(Frame(images[1], "plant.png", "plant"), predictor(images[1]), 0.1)
    writer.close()
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["plant_steps.gif", "plant_steps.png"]
    with Image.open(tmp_path / "new" / "plant_steps.gif") as gif:
        assert gif.n_frames == len(predictor.trace(images[1]).steps) > 1


class Recorder(Writer):
    """Keeps what it is given; after ``last`` predictions the user presses Ctrl-C."""

    def __init__(self, last: int = 100):
        self.given: list[tuple[str, int]] = []
        self.closed = False
        self._last = last

    def add(self, frame: Frame, prediction: Prediction, seconds: float) -> None:
        assert seconds > 0 and not self.closed
        self.given.append((frame.label, prediction.count))
        if len(self.given) == self._last:
            raise KeyboardInterrupt

    def close(self) -> None:
        self.closed = True


def test_every_frame_reaches_every_writer(predictor, images):
    frames = [Frame(image, f"{number}.png", str(number)) for number, image in enumerate(images)]
    first, second = Recorder(), Recorder()
    bar = tqdm()
    totals = write_predictions(predictor, iter(frames), [first, second], bar)
    assert bar.n == 3
    assert first.given == second.given == [(str(n), predictor(image).count) for n, image in enumerate(images)]
    assert first.closed and second.closed
    assert (totals.images, totals.objects, totals.interrupted) == (3, sum(count for _, count in first.given), False)


def test_what_was_done_before_an_interrupt_is_written(predictor, images):
    frames = [Frame(image, f"{number}.png", str(number)) for number, image in enumerate(images)]
    recorder = Recorder(last=2)
    totals = write_predictions(predictor, iter(frames), [recorder], tqdm())
    assert totals.interrupted and recorder.closed and len(recorder.given) == 2


def test_coco_results_are_there_while_more_come(tmp_path, monkeypatch):
    monkeypatch.setattr("rec_attend_d2.prediction.writers._PAUSE", -1.0)
    writer = CocoResults(tmp_path / "found.json")
    for number in range(2):
        writer.add(frame(number=number), prediction([0, 0]), 0.1)
        assert len(json.loads((tmp_path / "found.json").read_text())) == 2 * (number + 1)
    assert len(json.loads(writer.images_path.read_text())["images"]) == 2
