"""An image of 4096 x 4096 pixels with 2,000 objects, from the masks on: what dense masks of 33 GB could not do."""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import torch
from detectron2.data import DatasetCatalog
from detectron2.structures import Boxes, Instances
from PIL import Image

from rec_attend_d2.evaluation import CountingEvaluator
from rec_attend_d2.prediction import Prediction
from rec_attend_d2.prediction.sources import Frame
from rec_attend_d2.prediction.writers import CocoResults, LabelImages, Pictures
from rec_attend_d2.process_memory import resident_bytes
from rec_attend_d2.structures import MaskCrops, intersections

SIDE, COUNT, RADIUS, PITCH = 4096, 2000, 45, 88  # the discs overlap


def discs() -> MaskCrops:
    """In rows of 45; each overlaps the one before and the one below it."""
    crop = np.zeros((2 * RADIUS + 1, 2 * RADIUS + 1), np.uint8)
    cv2.circle(crop, (RADIUS, RADIUS), RADIUS, 1, -1)
    places = np.stack(np.divmod(np.arange(COUNT), 45), axis=1) * PITCH
    return MaskCrops([crop.astype(bool)] * COUNT, places, (SIDE, SIDE))


def score_draw_and_write(folder: Path) -> dict:
    """All that is done with the instances of an image; returns the scores and how many bytes of memory it took."""
    masks = discs()
    instances = Instances((SIDE, SIDE), pred_masks=masks, pred_boxes=Boxes(masks.boxes()))
    instances.scores, instances.pred_classes = torch.ones(COUNT), torch.zeros(COUNT, dtype=torch.int64)
    annotations = [{"segmentation": code, "category_id": 0} for code in masks.rles()]
    record = {"file_name": "many.png", "image_id": 1, "height": SIDE, "width": SIDE, "annotations": annotations}
    DatasetCatalog.register("many_objects", lambda: [record])
    before, _ = resident_bytes()
    evaluator = CountingEvaluator("many_objects", distributed=False)
    evaluator.process([record], [{"instances": instances}])
    frame = Frame(np.full((SIDE, SIDE, 3), 30, np.uint8), "many.png", "many")
    writers = [LabelImages(folder), CocoResults(folder / "found.json"), Pictures({"many": folder / "many.png"})]
    for writer in writers:
        writer.add(frame, Prediction(instances), 0.1)
        writer.close()
    return {"scores": evaluator.evaluate()["counting"], "bytes": resident_bytes()[1] - before}


def test_memory_does_not_grow_with_objects_times_pixels(run_script, tmp_path):
    # In a process of its own, whose largest memory is not that of other tests.
    done = run_script("tests/test_many_objects.py", tmp_path)
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    assert content["bytes"] < 500 * 2**20  # a dozen pictures of this size
    assert {content["scores"][name] for name in ("SBD", "MUCov", "precision50", "pixel_recall")} == {1.0}
    assert len(json.loads((tmp_path / "found.json").read_text())) == COUNT
    with Image.open(tmp_path / "many.png") as picture:
        assert picture.size == (SIDE, SIDE)
    labels = np.asarray(Image.open(tmp_path / "many_labels.png"))
    # Overlapping discs stay whole as masks; as labels the first one of them does.
    assert (labels == 1).sum() == discs().areas()[0] == discs().areas()[1] > (labels == 2).sum()
    assert np.unique(labels).tolist() == list(range(COUNT + 1))


def test_overlaps_are_kept_apart():
    prediction = Prediction(Instances((SIDE, SIDE), pred_masks=discs()))
    shared = intersections(prediction.instances.pred_masks[:2], prediction.instances.pred_masks[:2]).toarray()
    assert shared[0, 1] > 0 and shared[0, 0] == shared[1, 1] == (prediction.labels == 1).sum()
    dense = Prediction(Instances((200, 200), pred_masks=torch.ones(2, 200, 200, dtype=torch.bool)))
    assert dense.labels.dtype == np.uint16 and (dense.labels == 1).all()


if __name__ == "__main__":
    print(json.dumps(score_draw_and_write(Path(sys.argv[1]))))
