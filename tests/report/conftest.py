"""Pages as a browser reads them, and a model that finds bright spots."""

import json
from collections.abc import Callable, Iterable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Boxes, Instances

from rec_attend_d2.config import load_config
from rec_attend_d2.data.datasets import register_coco_files
from rec_attend_d2.structures import MaskCrops

QUICK = Path(__file__).resolve().parents[2] / "tests" / "configs"
# Where the model finds something in every picture, though there is nothing; top, left, bottom, right.
NOTHING = (50, 2, 60, 12)


class Page(HTMLParser):
    """Tags with their attributes, and the text of cells."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def read_page() -> Callable[[str], Page]:
    """A function from the text of a page to what is in it."""
    return Page


class SpotPredictor:
    """Takes each connected bright spot for an object, scored 0.65, and invents one, scored 0.25."""

    def __init__(self, classes: int = 0):
        self.cfg = load_config(str(QUICK / "fast.yaml"), ["MODEL.DEVICE", "cpu"])
        self.cfg.MODEL.REC_ATTEND.NUM_CLASSES = classes
        self.score_threshold = 0.2

    def read(self, path: str) -> np.ndarray:
        return cv2.imread(path)

    def predict(self, images: Iterable[np.ndarray]) -> list[SimpleNamespace]:
        return [SimpleNamespace(instances=self.find(image), notes=("seen",)) for image in images]

    def find(self, image: np.ndarray) -> Instances:
        """Instances of one picture [H, W, 3]."""
        count, labels = cv2.connectedComponents((image[..., 0] > 40).astype(np.uint8))
        labels[NOTHING[0] : NOTHING[2], NOTHING[1] : NOTHING[3]] = count
        scores = torch.tensor([0.65] * (count - 1) + [0.25])
        kept = scores >= self.score_threshold
        masks = MaskCrops.from_labels(labels, count)[kept]
        return Instances(
            image.shape[:2],
            pred_masks=masks,
            pred_boxes=Boxes(torch.from_numpy(masks.boxes()).float()),
            scores=scores[kept],
            pred_classes=torch.zeros(int(kept.sum()), dtype=torch.int64),
        )


@pytest.fixture
def make_predictor() -> Callable[..., SpotPredictor]:
    """A function that makes a model which finds bright spots, of a number of classes."""
    return SpotPredictor


@pytest.fixture
def register(squares, tmp_path) -> Iterator[Callable[..., str]]:
    """A function that registers the squares, with what it changes in their json, and gives the data set's name."""
    names = []

    def make(change: Callable[[dict], object] = lambda content: None) -> str:
        content = json.loads((squares / "squares.json").read_text())
        change(content)
        names.append(f"squares_report_{len(names)}")
        path = tmp_path / f"{names[-1]}.json"
        path.write_text(json.dumps(content))
        register_coco_files([[names[-1], str(path), str(squares)]])
        return names[-1]

    yield make
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)
