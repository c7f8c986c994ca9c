"""Stage A's evaluator, on hand-made maps whose numbers of pixels can be counted."""

import copy
import json
import math

import cv2
import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode
from detectron2.utils import comm

from miniature.cityscapes import write_cityscapes
from rec_attend_d2 import add_rec_attend_config
from rec_attend_d2.data.angle_map import angle_map
from rec_attend_d2.data.cityscapes_scripts import cityscapes_module
from rec_attend_d2.data.datasets import register_builtin_datasets
from rec_attend_d2.data.datasets.cityscapes import LABEL_IDS, register_cityscapes
from rec_attend_d2.evaluation import build_evaluator
from rec_attend_d2.evaluation.foreground_evaluator import ForegroundEvaluator

NAME = "tiny_maps"
SIZE = (8, 10)
BINS = 8
# Boxes (y0, y1, x0, x1), class and crowd flag of each image.
OBJECTS = {
    1: [((0, 4, 0, 4), 0, 0), ((4, 8, 0, 5), 1, 0)],
    2: [((2, 6, 2, 8), 1, 0), ((0, 2, 0, 10), 0, 1)],
    3: [],
}


def box_mask(y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
    mask = np.zeros(SIZE, dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


def rle(mask: np.ndarray) -> dict:
    encoded = mask_util.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": encoded["size"], "counts": encoded["counts"].decode("ascii")}


def make_records() -> list[dict]:
    return [
        {
            "file_name": f"{image_id}.png",
            "image_id": image_id,
            "height": SIZE[0],
            "width": SIZE[1],
            "annotations": [
                {
                    "segmentation": rle(box_mask(*box)),
                    "bbox": [box[2], box[0], box[3], box[1]],
                    "bbox_mode": BoxMode.XYXY_ABS,
                    "category_id": class_number,
                    "iscrowd": iscrowd,
                }
                for box, class_number, iscrowd in objects
            ],
        }
        for image_id, objects in OBJECTS.items()
    ]


@pytest.fixture
def records():
    records = make_records()
    DatasetCatalog.register(NAME, lambda: copy.deepcopy(records))
    MetadataCatalog.get(NAME).set(thing_classes=["leaf", "stone"], evaluator_type="coco")
    yield records
    DatasetCatalog.remove(NAME)
    MetadataCatalog.remove(NAME)


def foreground(image_id: int) -> np.ndarray:
    """True labels [H, W]: 0 background, 1 leaf, 2 stone."""
    labels = np.zeros(SIZE, dtype=np.int64)
    for box, class_number, _ in OBJECTS[image_id]:
        labels[box_mask(*box)] = class_number + 1
    return labels


def single(labels: np.ndarray) -> torch.Tensor:
    """Foreground probabilities [1, H, W] of labels [H, W]."""
    return torch.from_numpy(np.where(labels > 0, 0.51, 0.5)[None].astype(np.float32))


def classes(labels: np.ndarray) -> torch.Tensor:
    """Probabilities [3, H, W] whose largest are at labels [H, W]."""
    return torch.from_numpy(np.where(labels == np.arange(3)[:, None, None], 0.4, 0.3).astype(np.float32))


def angles(image_id: int) -> torch.Tensor:
    """Right angles of the instances, and bin 0 elsewhere, [A, H, W]."""
    masks = [box_mask(*box) for box, _, iscrowd in OBJECTS[image_id] if not iscrowd]
    truth = angle_map(np.array(masks, dtype=bool).reshape(-1, *SIZE), BINS)
    truth[0][truth.sum(0) == 0] = 1
    return torch.from_numpy(truth)


def run(evaluator: ForegroundEvaluator, outputs: dict[int, dict]) -> dict:
    evaluator.reset()
    for image_id, output in outputs.items():
        evaluator.process([{"image_id": image_id, "file_name": f"{image_id}.png"}], [output])
    return evaluator.evaluate()


def test_perfect_maps(records, tmp_path):
    outputs = {i: {"sem_seg": single(foreground(i)), "angle_map": angles(i)} for i in OBJECTS}
    results = run(ForegroundEvaluator(NAME, 1, BINS, str(tmp_path)), outputs)
    assert results == {"foreground": {"IoU": 1, "angle_accuracy": 1}}
    assert json.loads((tmp_path / "foreground_results.json").read_text()) == {"dataset": NAME, **results}


def test_iou_is_of_all_pixels_of_the_data_set(records):
    # True: 36, 44 and 0 pixels. Predicted: 16 + 0 right, and 80 wrong.
    labels = {1: np.where(box_mask(0, 4, 0, 4), 1, 0), 2: np.zeros(SIZE), 3: np.ones(SIZE)}
    results = run(ForegroundEvaluator(NAME, 1, 0), {i: {"sem_seg": single(labels[i])} for i in OBJECTS})
    assert results == {"foreground": {"IoU": 16 / (36 + 44 + 80)}}


def test_classes(records):
    perfect = {i: foreground(i) for i in OBJECTS}
    results = run(ForegroundEvaluator(NAME, 3, 0), {i: {"sem_seg": classes(perfect[i])} for i in OBJECTS})
    assert results == {"foreground": {"mIoU": 1, "IoU-background": 1, "IoU-leaf": 1, "IoU-stone": 1}}

    # The leaf of image 1 (16 pixels) is called stone; the other images are right.
    wrong = {**perfect, 1: np.where(perfect[1] == 1, 2, perfect[1])}
    results = run(ForegroundEvaluator(NAME, 3, 0), {i: {"sem_seg": classes(wrong[i])} for i in OBJECTS})["foreground"]
    leaf, stone = 20 / 36, 44 / (44 + 16)
    assert results["IoU-background"] == 1
    assert (results["IoU-leaf"], results["IoU-stone"]) == (pytest.approx(leaf), pytest.approx(stone))
    assert results["mIoU"] == pytest.approx((1 + leaf + stone) / 3)


def test_class_that_never_occurs_is_left_out_of_the_mean(records):
    for record in records:
        record["annotations"] = [a for a in record["annotations"] if a["category_id"] == 1]
    labels = {i: np.where(foreground(i) == 2, 2, 0) for i in OBJECTS}
    results = run(ForegroundEvaluator(NAME, 3, 0), {i: {"sem_seg": classes(labels[i])} for i in OBJECTS})["foreground"]
    assert math.isnan(results["IoU-leaf"])
    assert results["mIoU"] == results["IoU-stone"] == results["IoU-background"] == 1


def test_objects_in_front_of_a_crowd_decide_the_class(records):
    crowd = {**records[1]["annotations"][1], "segmentation": rle(np.ones(SIZE, dtype=bool))}
    records[1]["annotations"][1] = crowd  # a crowd of leaves all over the image, the stone is part of it
    labels = {i: foreground(i) for i in OBJECTS}
    labels[2] = np.where(labels[2] == 2, 2, 1)
    results = run(ForegroundEvaluator(NAME, 3, 0), {i: {"sem_seg": classes(labels[i])} for i in OBJECTS})
    assert results["foreground"]["mIoU"] == 1


def test_angles_by_hand(records):
    outputs = {i: {"sem_seg": single(foreground(i)), "angle_map": angles(i)} for i in OBJECTS}
    # The first object of image 1 (16 pixels) has opposite angles; 16 + 20 + 24 pixels have one.
    box = box_mask(*OBJECTS[1][0][0])
    wrong = outputs[1]["angle_map"].numpy()
    wrong[:, box] = np.roll(wrong[:, box], 4, axis=0)
    results = run(ForegroundEvaluator(NAME, 1, BINS), outputs)
    assert results["foreground"] == {"IoU": 1, "angle_accuracy": pytest.approx(44 / 60)}


@pytest.mark.parametrize("bin_of", [0, 1], ids=["first object's", "second object's"])
def test_where_instances_overlap_the_angle_of_any_is_right(records, bin_of):
    boxes = [(0, 8, 0, 6), (0, 8, 4, 10)]
    both = box_mask(*boxes[0]) & box_mask(*boxes[1])
    records[:] = records[:1]
    records[0]["annotations"] = [
        {**annotation, "segmentation": rle(box_mask(*box))}
        for annotation, box in zip(records[0]["annotations"], boxes, strict=True)
    ]
    maps = [angle_map(box_mask(*box)[None], BINS) for box in boxes]
    predicted = np.where(both, maps[bin_of], maps[0] + maps[1])
    output = {"sem_seg": single(np.ones(SIZE)), "angle_map": torch.from_numpy(predicted)}
    results = run(ForegroundEvaluator(NAME, 1, BINS), {1: output})
    assert results["foreground"] == {"IoU": 1, "angle_accuracy": 1}


def test_void_pixels_do_not_count(records):
    void = box_mask(0, 8, 5, 10)  # holds no pixel of the objects of image 1
    records[0]["void"] = rle(void)
    labels = {i: foreground(i) for i in OBJECTS}
    labels[1][void] = 1
    assert run(ForegroundEvaluator(NAME, 1, 0), {i: {"sem_seg": single(labels[i])} for i in OBJECTS}) == {
        "foreground": {"IoU": 1}
    }
    labels[1][0, 4] = 1  # outside of it one wrong pixel
    results = run(ForegroundEvaluator(NAME, 1, 0), {i: {"sem_seg": single(labels[i])} for i in OBJECTS})
    assert results["foreground"]["IoU"] == 80 / 81


def test_unscored_pixels_do_not_count(records):
    records[0]["unscored"] = rle(box_mask(0, 8, 5, 10))  # holds no pixel of the objects of image 1
    outputs = {i: {"sem_seg": single(foreground(i)), "angle_map": angles(i)} for i in OBJECTS}
    outputs[1]["sem_seg"][:, :, 5:] = 1
    assert run(ForegroundEvaluator(NAME, 1, BINS), outputs)["foreground"] == {"IoU": 1, "angle_accuracy": 1}


# Labels that cityscapesscripts leaves out of semantic scores, though they are known to be no object: a wrong prediction
# there must not count. And one that counts.
PAINTED = {"parking": 9, "static": 4, "bridge": 15, "vegetation": 21}


@pytest.fixture
def city_stems(tmp_path) -> list[str]:
    """Names of the images of a Cityscapes miniature, registered; patches of :data:`PAINTED` are in its labels."""
    write_cityscapes(tmp_path, {"val": 2}, size=(96, 192))
    folder = tmp_path / "cityscapes" / "gtFine" / "val"
    for path in folder.glob("*/*_*Ids.png"):
        ids = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        for number, label in enumerate(PAINTED.values()):
            ids[10:40, 10 + 30 * number : 35 + 30 * number] = label
        cv2.imwrite(str(path), ids)
    register_cityscapes(tmp_path)
    yield [path.name.removesuffix("_gtFine_labelIds.png") for path in sorted(folder.glob("*/*_labelIds.png"))]
    register_builtin_datasets()


def predicted_classes(truth: np.ndarray, seed: int) -> np.ndarray:
    """Classes [H, W] (0 background, then those of Cityscapes) that are right here and there, wrong everywhere else."""
    classes_of = np.zeros(256, dtype=np.int64)
    classes_of[list(LABEL_IDS.values())] = range(1, len(LABEL_IDS) + 1)
    noise = np.random.default_rng(seed).integers(0, len(LABEL_IDS) + 1, (12, 24)).repeat(8, 0).repeat(8, 1)
    return np.where(np.arange(truth.shape[1]) % 3 == 0, noise, np.roll(classes_of[truth], 2, axis=1))


def test_classes_of_cityscapes_score_as_cityscapesscripts_scores_them(city_stems, tmp_path):
    outputs, prediction_files, truth_files = {}, [], []
    for seed, stem in enumerate(city_stems):
        (truth_file,) = (tmp_path / "cityscapes" / "gtFine").rglob(f"{stem}_gtFine_labelIds.png")
        truth = cv2.imread(str(truth_file), cv2.IMREAD_UNCHANGED)
        predicted = predicted_classes(truth, seed)
        for label in PAINTED.values():
            assert (predicted[truth == label] > 0).any() and (predicted[truth == label] == 0).any()
        one_hot = predicted == np.arange(len(LABEL_IDS) + 1)[:, None, None]
        outputs[stem] = {"sem_seg": torch.from_numpy(one_hot.astype(np.float32))}
        prediction_files.append(str(tmp_path / f"{stem}_pred.png"))
        truth_files.append(str(truth_file))
        road = 7  # any label that is no object may stand for the background
        cv2.imwrite(prediction_files[-1], np.array([road, *LABEL_IDS.values()], dtype=np.uint8)[predicted])

    program = cityscapes_module("evaluation.evalPixelLevelSemanticLabeling")
    args = copy.copy(program.args)
    args.quiet, args.JSONOutput = True, False
    expected = program.evaluateImgLists(prediction_files, truth_files, args)["classScores"]
    results = run(ForegroundEvaluator("rec_attend_cityscapes_val", len(LABEL_IDS) + 1, 0), outputs)["foreground"]
    ours = {name: results[f"IoU-{name}"] for name in LABEL_IDS}
    assert ours == {name: pytest.approx(expected[name], rel=1e-12) for name in LABEL_IDS}
    assert len(set(ours.values())) == len(LABEL_IDS) and all(0 < iou < 1 for iou in ours.values())


def test_coarse_images_have_no_angles(records):
    records[0]["coarse"] = True
    outputs = {i: {"sem_seg": single(foreground(i)), "angle_map": angles(i)} for i in OBJECTS}
    outputs[1]["angle_map"] = outputs[1]["angle_map"].flip(0)
    assert run(ForegroundEvaluator(NAME, 1, BINS), outputs)["foreground"] == {"IoU": 1, "angle_accuracy": 1}
    for record in records:
        record["coarse"] = True
    results = run(ForegroundEvaluator(NAME, 1, BINS), outputs)["foreground"]
    assert results["IoU"] == 1 and math.isnan(results["angle_accuracy"])


def test_counts_are_small_and_gathered_once_for_each_image(records, monkeypatch):
    outputs = {i: {"sem_seg": single(foreground(i)), "angle_map": angles(i)} for i in OBJECTS}
    gathered = []

    def gather(values: dict, dst: int) -> list[dict]:
        gathered.append(values)
        # The other process saw the last image too, and differently.
        return [{i: values[i] for i in (1, 2)}, {i: values[i] for i in (2, 3)}]

    monkeypatch.setattr(comm, "gather", gather)
    results = run(ForegroundEvaluator(NAME, 1, BINS), outputs)
    assert results["foreground"] == {"IoU": 1, "angle_accuracy": 1}
    (counts,) = gathered
    assert {i: c.confusion.tolist() for i, c in counts.items()} == {
        1: [[44, 0], [0, 36]],
        2: [[36, 0], [0, 44]],
        3: [[80, 0], [0, 0]],
    }
    assert [(c.angles, c.right_angles) for c in counts.values()] == [(36, 36), (24, 24), (0, 0)]


def test_no_foreground_at_all_is_nan(records):
    for record in records:
        record["annotations"] = []
    outputs = {i: {"sem_seg": torch.zeros(1, *foreground(i).shape)} for i in OBJECTS}
    assert math.isnan(run(ForegroundEvaluator(NAME, 1, 0), outputs)["foreground"]["IoU"])


def test_built_from_the_config(records, tmp_path):
    cfg = get_cfg()
    add_rec_attend_config(cfg)
    cfg.OUTPUT_DIR = str(tmp_path)
    cfg.MODEL.META_ARCHITECTURE = "RecAttendPreprocessor"
    cfg.MODEL.REC_ATTEND.PREPROCESSOR.FOREGROUND_CLASSES = 3
    cfg.MODEL.REC_ATTEND.PREPROCESSOR.ANGLE_BINS = BINS
    outputs = {i: {"sem_seg": classes(foreground(i)), "angle_map": angles(i)} for i in OBJECTS}
    results = run(build_evaluator(cfg, NAME), outputs)
    assert list(results) == ["foreground"]
    assert results["foreground"]["mIoU"] == results["foreground"]["angle_accuracy"] == 1
    assert (tmp_path / "inference" / NAME / "foreground_results.json").is_file()


@pytest.mark.parametrize("channels", [2, 4, 0])
def test_channels_that_are_not_the_data_sets_classes(records, channels):
    with pytest.raises(ValueError, match=rf"FOREGROUND_CLASSES is {channels}, .*has 2 classes \(leaf, stone\)"):
        ForegroundEvaluator(NAME, channels, 0)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ({"angle_map": torch.zeros(BINS, *SIZE)}, r"'1\.png' has a 'sem_seg' of shape None, .*\(1, 8, 10\)"),
        ({"sem_seg": torch.zeros(1, *SIZE)}, r"'1\.png' has a 'angle_map' of shape None, .*\(8, 8, 10\)"),
        (
            {"sem_seg": torch.zeros(3, *SIZE), "angle_map": torch.zeros(BINS, *SIZE)},
            r"'sem_seg' of shape \(3, 8, 10\), .*\(1, 8, 10\)",
        ),
        (
            {"sem_seg": torch.zeros(1, 10, 8), "angle_map": torch.zeros(BINS, 10, 8)},
            r"'sem_seg' of shape \(1, 10, 8\), .*\(1, 8, 10\)",
        ),
    ],
)
def test_wrong_maps(records, output, message):
    with pytest.raises(ValueError, match=message):
        run(ForegroundEvaluator(NAME, 1, BINS), {1: output})


def test_unknown_image(records):
    with pytest.raises(ValueError, match=r"'9\.png' \(image_id 9\) is not in data set 'tiny_maps'"):
        run(ForegroundEvaluator(NAME, 1, 0), {9: {"sem_seg": single(foreground(1))}})


def test_images_that_were_not_processed(records):
    with pytest.raises(
        ValueError, match=r"2 of 3 images of data set 'tiny_maps' were not processed, first: \['2\.png'"
    ):
        run(ForegroundEvaluator(NAME, 1, 0), {1: {"sem_seg": single(foreground(1))}})


def test_without_annotations_there_are_no_results(records, caplog):
    for record in records:
        del record["annotations"]
    evaluator = ForegroundEvaluator(NAME, 1, 0)
    assert "'tiny_maps' has no annotations" in caplog.text
    assert run(evaluator, {i: {"sem_seg": single(foreground(i))} for i in OBJECTS}) == {}
