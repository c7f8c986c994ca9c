"""Which evaluators are built, and what the ones on top of COCO report where COCO's own have no number."""

import copy
import math

import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.coco import convert_to_coco_json
from detectron2.evaluation import DatasetEvaluators
from detectron2.structures import Boxes, BoxMode, Instances

from rec_attend_d2.evaluation import BoxCountingEvaluator, build, build_evaluator, counting_evaluator, score_image

NAME = "tiny_build"
SIZE = (40, 50)
CLASSES = ["leaf", "stone"]
# Boxes XYXY and classes of each image; all are small objects in COCO's sense.
OBJECTS = {0: [((2, 2, 12, 12), 0), ((20, 20, 30, 36), 1)], 1: [], 2: [((0, 0, 20, 20), 0)]}


def box_mask(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros(SIZE, dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


def annotation(box: tuple[int, int, int, int], category_id: int, iscrowd: int = 0) -> dict:
    rle = mask_util.encode(np.asfortranarray(box_mask(*box), dtype=np.uint8))
    return {
        "bbox": list(box),
        "bbox_mode": BoxMode.XYXY_ABS,
        "segmentation": {**rle, "counts": rle["counts"].decode()},
        "category_id": category_id,
        "iscrowd": iscrowd,
    }


def make_records() -> list[dict]:
    return [
        {
            "file_name": f"{image_id}.png",
            "image_id": image_id,
            "height": SIZE[0],
            "width": SIZE[1],
            "annotations": [annotation(*obj) for obj in objects],
        }
        for image_id, objects in OBJECTS.items()
    ]


def box_output(objects: list) -> dict:
    """What the box proposer by itself outputs: no masks, no classes."""
    boxes = torch.tensor([box for box, _ in objects], dtype=torch.float32).reshape(-1, 4)
    return {"instances": Instances(SIZE, pred_boxes=Boxes(boxes), scores=torch.ones(len(objects)))}


def mask_output(objects: list) -> dict:
    instances = box_output(objects)["instances"]
    masks = np.array([box_mask(*box) for box, _ in objects], dtype=bool).reshape(-1, *SIZE)
    instances.pred_masks = torch.from_numpy(masks)
    instances.pred_classes = torch.tensor([cls for _, cls in objects], dtype=torch.int64)
    return {"instances": instances}


def run(evaluator, outputs: dict[int, dict]) -> dict[str, dict[str, float]]:
    evaluator.reset()
    for image_id, output in outputs.items():
        evaluator.process([{"image_id": image_id, "file_name": f"{image_id}.png"}], [output])
    return evaluator.evaluate()


@pytest.fixture
def records():
    records = make_records()
    DatasetCatalog.register(NAME, lambda: copy.deepcopy(records))
    MetadataCatalog.get(NAME).set(thing_classes=CLASSES, evaluator_type="coco")
    yield records
    DatasetCatalog.remove(NAME)
    MetadataCatalog.pop(NAME)


@pytest.fixture
def cfg(tmp_path):
    cfg = get_cfg()
    cfg.OUTPUT_DIR = str(tmp_path)
    cfg.MODEL.META_ARCHITECTURE = "RecAttend"
    return cfg


@pytest.fixture
def box_cfg(cfg):
    cfg.MODEL.META_ARCHITECTURE = "RecAttendBoxProposer"
    return cfg


class TestMaskModel:
    def test_perfect_predictions(self, cfg, records):
        results = run(build_evaluator(cfg, NAME), {i: mask_output(objects) for i, objects in OBJECTS.items()})
        assert list(results) == ["segm", "counting"]
        assert results["segm"]["AP"] == pytest.approx(100)
        assert results["segm"]["AP-stone"] == pytest.approx(100)
        assert results["counting"]["SBD"] == 1

    def test_wrong_class_costs_ap_but_not_counting(self, cfg, records):
        swapped = {i: mask_output([(box, 1 - cls) for box, cls in objects]) for i, objects in OBJECTS.items()}
        results = run(build_evaluator(cfg, NAME), swapped)
        assert results["segm"]["AP"] == 0
        assert results["counting"]["SBD"] == 1

    def test_no_prediction_at_all_is_zero_not_nan(self, cfg, records):
        results = run(build_evaluator(cfg, NAME), {i: mask_output([]) for i in OBJECTS})
        assert {name: results["segm"][name] for name in ("AP", "AP50", "AP75", "APs", "AP-leaf", "AP-stone")} == {
            "AP": 0,
            "AP50": 0,
            "AP75": 0,
            "APs": 0,
            "AP-leaf": 0,
            "AP-stone": 0,
        }
        assert math.isnan(results["segm"]["APl"])  # there is no large object to be found
        # Image 1 is empty on both sides and right.
        assert results["counting"]["SBD"] == pytest.approx(1 / 3)
        assert results["counting"]["abs_DiC"] == 1
        assert all(math.isfinite(value) for value in results["counting"].values())

    def test_prediction_on_an_image_without_objects(self, cfg, records):
        outputs = {i: mask_output(objects) for i, objects in OBJECTS.items()}
        outputs[1] = mask_output([((5, 5, 15, 15), 0)])
        outputs[1]["instances"].scores[:] = 0.5
        results = run(build_evaluator(cfg, NAME), outputs)
        assert results["segm"]["AP"] == pytest.approx(100)  # it scores below every right one
        assert results["counting"]["AvgFP"] == pytest.approx(1 / 3)

    def test_files_of_each_data_set_have_their_own_folder(self, cfg, records, tmp_path):
        outputs = {i: mask_output(objects) for i, objects in OBJECTS.items()}
        run(build_evaluator(cfg, NAME), outputs)
        folder = tmp_path / "inference" / NAME
        assert (folder / "coco_instances_results.json").is_file()
        assert (folder / "counting_results.json").is_file()

        run(build_evaluator(cfg, NAME, str(tmp_path / "elsewhere")), outputs)
        assert (tmp_path / "elsewhere" / "counting_per_image.csv").is_file()


class TestTasksOfTheSameScores:
    @pytest.mark.parametrize(("evaluator_type", "task"), [("cvppp", "lsc"), ("kitti", "coverage")])
    def test_an_image_is_scored_once(self, cfg, records, monkeypatch, evaluator_type, task):
        scored = []
        monkeypatch.setattr(counting_evaluator, "score_image", lambda *masks: scored.append(1) or score_image(*masks))
        for record in records:
            record["subset"] = "A1"
        monkeypatch.setitem(build.DATASET_EVALUATORS, "coco", build.DATASET_EVALUATORS[evaluator_type])
        results = run(build_evaluator(cfg, NAME), {i: mask_output(objects) for i, objects in OBJECTS.items()})
        assert list(results) == ["segm", "counting", task]
        assert len(scored) == len(OBJECTS)


class TestBoxModel:
    def test_perfect_predictions(self, box_cfg, records):
        results = run(build_evaluator(box_cfg, NAME), {i: box_output(objects) for i, objects in OBJECTS.items()})
        assert list(results) == ["bbox", "box_counting"]
        assert results["bbox"]["AP"] == pytest.approx(100)
        assert results["box_counting"]["best_box_IoU"] == 1
        assert results["box_counting"]["count_accuracy"] == 1
        assert not [name for name in results["box_counting"] if "-" in name]

    def test_by_hand(self, box_cfg, records):
        # IoU 100/200 with the first object, 0 with the second; nothing for the third, one box on the empty image.
        boxes = {0: [((2, 2, 22, 12), 0)], 1: [((0, 0, 5, 5), 0)], 2: []}
        results = run(build_evaluator(box_cfg, NAME), {i: box_output(objects) for i, objects in boxes.items()})
        assert results["box_counting"]["best_box_IoU"] == pytest.approx((0.5 + 0 + 0) / 3)
        assert results["box_counting"]["DiC"] == pytest.approx((-1 + 1 - 1) / 3)
        assert results["box_counting"]["abs_DiC"] == 1
        assert results["box_counting"]["count_accuracy"] == 0
        assert results["box_counting"]["num_images"] == 3

    def test_no_prediction_at_all(self, box_cfg, records):
        results = run(build_evaluator(box_cfg, NAME), {i: box_output([]) for i in OBJECTS})
        assert results["bbox"]["AP"] == 0
        assert results["box_counting"]["best_box_IoU"] == 0
        assert results["box_counting"]["count_accuracy"] == pytest.approx(1 / 3)

    def test_crowd_box_and_box_of_no_area(self, records):
        records[2]["annotations"].append(annotation((25, 0, 50, 40), 0, iscrowd=1))
        outputs = {i: box_output(objects) for i, objects in OBJECTS.items()}
        outputs[2] = box_output([*OBJECTS[2], ((30, 10, 40, 20), 0), ((7, 7, 7, 9), 0)])
        results = run(BoxCountingEvaluator(NAME), outputs)
        assert results["box_counting"]["count_accuracy"] == 1
        outputs[2] = box_output([*OBJECTS[2], ((20, 10, 30, 20), 0)])  # exactly half of it in the crowd region
        assert run(BoxCountingEvaluator(NAME), outputs)["box_counting"]["DiC"] == pytest.approx(1 / 3)


class TestChoice:
    def test_unknown_type_names_the_known_ones(self, cfg):
        MetadataCatalog.get("tiny_unknown").set(thing_classes=CLASSES, evaluator_type="lvis")
        try:
            with pytest.raises(ValueError, match=r"'tiny_unknown'.*'lvis'.*\['cityscapes_instance', 'coco'"):
                build_evaluator(cfg, "tiny_unknown")
        finally:
            MetadataCatalog.pop("tiny_unknown")

    def test_missing_type(self, cfg):
        try:
            with pytest.raises(ValueError, match=r"'tiny_typeless'.*None.*evaluator_type=\.\.\."):
                build_evaluator(cfg, "tiny_typeless")
        finally:
            MetadataCatalog.pop("tiny_typeless", None)

    def test_an_evaluator_of_ones_own_gets_the_config(self, cfg, records, tmp_path, monkeypatch):
        calls = []

        class Own(BoxCountingEvaluator):
            @classmethod
            def from_config(cls, *arguments):
                calls.append(arguments)
                return cls(NAME)

        monkeypatch.setitem(build.DATASET_EVALUATORS, "coco", (Own,))
        build_evaluator(cfg, NAME)
        assert calls == [(cfg, NAME, str(tmp_path / "inference" / NAME))]

    @pytest.mark.parametrize("architecture", ["RecAttend", "RecAttendBoxProposer"])
    def test_catalogs_and_config_stay_as_they_were(self, cfg, records, architecture):
        cfg.MODEL.META_ARCHITECTURE = architecture
        before = MetadataCatalog.get(NAME).as_dict(), cfg.dump(), DatasetCatalog.list()
        first = build_evaluator(cfg, NAME)
        assert isinstance(first, DatasetEvaluators)
        assert (MetadataCatalog.get(NAME).as_dict(), cfg.dump(), DatasetCatalog.list()) == before

    def test_data_set_with_a_coco_file_keeps_it(self, cfg, records, tmp_path):
        json_file = str(tmp_path / "annotations.json")
        convert_to_coco_json(NAME, json_file)
        MetadataCatalog.get(NAME).json_file = json_file
        results = run(build_evaluator(cfg, NAME), {i: mask_output(objects) for i, objects in OBJECTS.items()})
        assert results["segm"]["AP"] == pytest.approx(100)
        assert MetadataCatalog.get(NAME).json_file == json_file
        assert not list((tmp_path / "inference" / NAME).glob("*coco_format.json"))

    def test_changed_data_set_is_not_judged_by_an_earlier_conversion(self, cfg, records):
        outputs = {i: mask_output(objects) for i, objects in OBJECTS.items()}
        assert run(build_evaluator(cfg, NAME), outputs)["segm"]["AP-leaf"] == pytest.approx(100)
        records[2]["annotations"] = [annotation((30, 30, 40, 40), 0)]
        assert run(build_evaluator(cfg, NAME), outputs)["segm"]["AP-leaf"] < 60
