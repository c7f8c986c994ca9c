"""Cityscapes' scores: by hand, against cityscapesscripts' own program, and from several processes."""

import copy
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pycocotools.mask as mask_util
import pytest
import torch
from cityscapesscripts.evaluation import evalInstanceLevelSemanticLabeling as official
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import Instances
from detectron2.utils import comm

from miniature.cityscapes import write_cityscapes
from rec_attend_d2.data.datasets.cityscapes import LABEL_IDS, load_cityscapes
from rec_attend_d2.evaluation.cityscapes_evaluator import CityscapesEvaluator
from rec_attend_d2.evaluation.cityscapes_scoring import measure_distances

NAME = "tiny_cityscapes"
STEMS = ["aachen_000000_000019", "aachen_000001_000019"]
CLASSES = list(LABEL_IDS)
PERSON, CAR, BUS = CLASSES.index("person"), CLASSES.index("car"), CLASSES.index("bus")
SIZE = (100, 150)
CAMERA = {"extrinsic": {"baseline": 0.25}, "intrinsic": {"fx": 400.0}}

Rectangle = tuple[int, int, int, int]  # top, left, height, width


def rectangle(top: int, left: int, height: int, width: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    mask = np.zeros(size, dtype=bool)
    mask[top : top + height, left : left + width] = True
    return mask


def predictions(found: list[tuple[np.ndarray, int, float]], size: tuple[int, int] = SIZE) -> Instances:
    """Instances from (mask, class number, score)."""
    instances = Instances(size)
    instances.pred_masks = torch.from_numpy(np.array([mask for mask, _, _ in found], dtype=bool).reshape(-1, *size))
    instances.pred_classes = torch.tensor([number for _, number, _ in found], dtype=torch.int64)
    instances.scores = torch.tensor([score for _, _, score in found], dtype=torch.float32)
    return instances


def perfect(record: dict) -> Instances:
    """The true instances of a record as predictions."""
    found = [
        (mask_util.decode(annotation["segmentation"]).astype(bool), annotation["category_id"], 1.0)
        for annotation in record["annotations"]
        if not annotation["iscrowd"]
    ]
    return predictions(found, (record["height"], record["width"]))


def process(evaluator: CityscapesEvaluator, outputs: dict[str, Instances]) -> None:
    for stem, instances in outputs.items():
        evaluator.process([{"image_id": stem}], [{"instances": instances}])


def evaluate(outputs: dict[str, Instances], output_dir: Path | None = None) -> dict[str, float]:
    evaluator = CityscapesEvaluator(NAME, str(output_dir) if output_dir else None)
    evaluator.reset()
    process(evaluator, outputs)
    results = evaluator.evaluate()
    assert list(results) == ["cityscapes"]
    return results["cityscapes"]


@pytest.fixture
def register():
    """Registers what a folder "cityscapes" holds under NAME."""

    def _register(base: Path, split: str = "val", labelled: bool = True, truth_type: str = "gtFine") -> list[dict]:
        gt_dir = base / truth_type / split if labelled else None
        records = load_cityscapes(base / "leftImg8bit" / split, gt_dir, truth_type)
        DatasetCatalog.register(NAME, lambda: copy.deepcopy(records))
        MetadataCatalog.get(NAME).set(gt_dir=str(gt_dir) if gt_dir else None, truth_type=truth_type)
        return records

    yield _register
    DatasetCatalog.pop(NAME, None)
    MetadataCatalog.pop(NAME, None)


@pytest.fixture
def truth(tmp_path, register) -> Callable[..., Path]:
    """Writes and registers images with the instance ids given; returns the folder "cityscapes"."""

    def write(*images: np.ndarray) -> Path:
        base = tmp_path / "cityscapes"
        for stem, ids in zip(STEMS, images, strict=False):
            for name, image in (
                (f"leftImg8bit/val/aachen/{stem}_leftImg8bit.png", np.zeros((*ids.shape, 3), dtype=np.uint8)),
                (f"gtFine/val/aachen/{stem}_gtFine_instanceIds.png", ids.astype(np.uint16)),
            ):
                (base / name).parent.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(base / name), image)
        register(base)
        return base

    return write


@pytest.fixture(scope="module")
def miniature(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("miniature")
    write_cityscapes(root, {"val": 4, "test": 2, "train_extra": 1}, size=(128, 256))
    return root / "cityscapes"


def imperfect(records: list[dict], seed: int = 0) -> dict[str, Instances]:
    """The truth moved, some of it left out or of another class, with random scores."""
    rng = np.random.default_rng(seed)
    outputs = {}
    for record in records:
        instances = perfect(record)
        found = []
        for mask, number in zip(instances.pred_masks.numpy(), instances.pred_classes.tolist(), strict=True):
            if rng.random() < 0.8:
                moved = np.roll(mask, int(rng.integers(-3, 4)), axis=1)
                found.append((moved, number if rng.random() < 0.8 else int(rng.integers(8)), rng.random()))
        outputs[record["image_id"]] = predictions(found, (record["height"], record["width"]))
    return outputs


class TestScores:
    def test_perfect_predictions(self, register, miniature):
        records = register(miniature)
        results = evaluate({record["image_id"]: perfect(record) for record in records})
        assert list(results)[:4] == ["AP", "AP50", "AP100m", "AP50m"]
        assert set(results) == {"AP", "AP50", "AP100m", "AP50m"} | {
            f"{metric}_{name}" for metric in ("AP", "AP50") for name in CLASSES
        }
        assert not [name for name in results if "-" in name]
        assert all(value == pytest.approx(100) for value in results.values() if not math.isnan(value))
        assert not any(math.isnan(results[name]) for name in ("AP", "AP50", "AP100m", "AP50m"))

    def test_errors_by_hand(self, truth):
        ids = np.full(SIZE, 7)
        ids[rectangle(0, 0, 20, 20)] = 26000
        ids[rectangle(40, 0, 10, 24)] = 26001
        ids[rectangle(40, 60, 30, 10)] = 24000
        ids[rectangle(80, 0, 9, 11)] = 28000  # 99 pixels are too few to count
        truth(ids)
        found = [
            (rectangle(80, 100, 15, 15), CAR, 0.95),  # nothing is there
            (rectangle(0, 0, 20, 20), CAR, 0.9),
            (rectangle(40, 4, 10, 24), CAR, 0.8),  # 200 of 280 pixels: IoU 0.714
            (rectangle(40, 60, 27, 10), PERSON, 0.7),  # 270 of 300: IoU 0.9 is not above 0.9
        ]
        results = evaluate({STEMS[0]: predictions(found)})
        # By falling confidence, where IoU 0.714 is enough: precision 0, 1/2, 2/3 at recall 0, 1/2, 1. The curve is
        # integrated with half of the recall's steps on either side of a point.
        high = 0 * 0.25 + 1 / 2 * (0.25 + 0.25) + 2 / 3 * 0.25
        # Otherwise the third one is wrong: precision 0, 1/2, 1/3 at recall 0, 1/2, 1/2.
        low = 0 * 0.25 + 1 / 2 * (0.25 + 0) + 1 / 3 * 0
        # IoU 0.714 is above 0.5, ..., 0.7: five of ten thresholds.
        assert results["AP_car"] == pytest.approx(100 * (5 * high + 5 * low) / 10)
        assert results["AP50_car"] == pytest.approx(100 * high)
        # Above 0.5, ..., 0.85: eight of ten.
        assert results["AP_person"] == pytest.approx(80)
        assert results["AP"] == pytest.approx((results["AP_car"] + 80) / 2)
        assert results["AP50"] == pytest.approx((100 * high + 100) / 2)
        assert math.isnan(results["AP_bus"]) and math.isnan(results["AP_rider"])
        assert "AP100m" not in results and "AP50m" not in results

    def test_predictions_on_groups_and_void_do_not_count(self, truth):
        ids = np.full(SIZE, 7)
        ids[rectangle(0, 0, 20, 20)] = 26000
        ids[rectangle(30, 0, 20, 40)] = 26  # cars
        ids[rectangle(60, 0, 20, 40)] = 2  # rectification border
        truth(ids)
        right = (rectangle(0, 0, 20, 20), CAR, 0.5)
        ignored = [(rectangle(30, 5, 20, 10), CAR, 0.9), (rectangle(60, 5, 20, 10), CAR, 0.9)]
        assert evaluate({STEMS[0]: predictions([right, *ignored])})["AP"] == pytest.approx(100)
        # On the road it would have.
        wrong = (rectangle(60, 100, 20, 10), CAR, 0.9)
        assert evaluate({STEMS[0]: predictions([right, wrong])})["AP"] == pytest.approx(25)

    def test_only_predictions_that_are_ignored(self, truth):
        """cityscapesscripts itself fails here."""
        ids = np.full(SIZE, 7)
        ids[rectangle(0, 0, 20, 20)] = 26000
        ids[rectangle(30, 0, 20, 40)] = 26
        truth(ids)
        results = evaluate({STEMS[0]: predictions([(rectangle(30, 5, 20, 10), CAR, 0.9)])})
        assert results["AP"] == results["AP50_car"] == 0

    def test_no_predictions(self, register, miniature):
        records = register(miniature)
        outputs = {r["image_id"]: predictions([], (r["height"], r["width"])) for r in records}
        results = evaluate(outputs)
        assert {results[name] for name in ("AP", "AP50", "AP100m", "AP50m", "AP_car")} == {0}

    def test_the_same_as_cityscapesscripts_own_program(self, register, miniature, tmp_path, monkeypatch):
        records = register(miniature)
        results = evaluate(imperfect(records), tmp_path / "ours")
        args = copy.copy(official.args)
        args.predictionPath = str(tmp_path / "ours" / "cityscapes_predictions")
        args.exportFile, args.gtInstancesFile = str(tmp_path / "official.json"), str(tmp_path / "instances.json")
        args.quiet = True
        truth_files = sorted(str(path) for path in miniature.glob("gtFine/val/*/*_instanceIds.png"))
        texts = [official.getPrediction(path, args) for path in truth_files]
        # It cannot write its matches with NumPy 2.
        monkeypatch.setattr(official, "writeDict2JSON", lambda *_: None)
        averages = official.evaluateImgLists(texts, truth_files, args)["averages"]
        assert results["AP"] == pytest.approx(100 * averages["allAp"])
        assert results["AP50"] == pytest.approx(100 * averages["allAp50%"])
        for name in CLASSES:
            expected = averages["classes"][name]
            assert results[f"AP_{name}"] == pytest.approx(100 * expected["ap"], nan_ok=True)
            assert results[f"AP50_{name}"] == pytest.approx(100 * expected["ap50%"], nan_ok=True)
        assert 5 < results["AP"] < 60

    def test_polygons_score_as_the_images_drawn_from_them(self, register, miniature, tmp_path):
        records = register(miniature)
        results = evaluate(imperfect(records))
        shutil.copytree(miniature, tmp_path / "cityscapes")
        for path in (tmp_path / "cityscapes" / "gtFine").rglob("*.png"):
            path.unlink()
        DatasetCatalog.pop(NAME)
        MetadataCatalog.pop(NAME)
        register(tmp_path / "cityscapes")
        assert evaluate(imperfect(records)) == pytest.approx(results, nan_ok=True)
        assert not list((tmp_path / "cityscapes" / "gtFine").rglob("*.png"))


class TestDistances:
    def test_measure_distances(self):
        # 0.25 m * 400 px = 100 m px; value 257 is a disparity of 1 px.
        disparity = np.array([[0, 1, 257, 513, 5 * 256 + 1]], dtype=np.uint16)
        expected = [[np.nan, np.inf, 100, 50, 20]]
        assert np.array_equal(measure_distances(disparity, CAMERA), expected, equal_nan=True)

    @pytest.fixture
    def scene(self, truth) -> Path:
        """Cars 20 m, 80 m and 125 m away, one at 10 m that is small, and one whose distance is mostly unknown."""
        ids, distances = np.full(SIZE, 7), np.full(SIZE, np.nan)
        for index, (rect, metres) in enumerate(CARS):
            ids[rectangle(*rect)] = 26000 + index
            distances[rectangle(*rect)] = metres
        distances[rectangle(64, 60, 21, 40)] = np.nan  # 21 of 40 rows
        base = truth(ids)
        disparity = np.nan_to_num(np.rint(256 * 100 / distances + 1)).astype(np.uint16)
        write_distances(base, disparity, CAMERA)
        return base

    def test_by_hand(self, scene):
        # Only the nearest of those that count is found.
        results = evaluate({STEMS[0]: predictions([(rectangle(*CARS[0][0]), CAR, 0.9)])})
        assert results["AP50m"] == pytest.approx(100)
        assert results["AP100m"] == pytest.approx(50)
        assert results["AP"] == results["AP_car"] == pytest.approx(20)

    def test_those_that_do_not_count_are_ignored_when_found(self, scene):
        found = [(rectangle(*rect), CAR, 0.9) for rect, _ in CARS]
        results = evaluate({STEMS[0]: predictions(found)})
        assert results["AP50m"] == results["AP100m"] == results["AP"] == pytest.approx(100)
        results = evaluate({STEMS[0]: predictions(found[2:])})
        # cityscapesscripts fails where all predictions are ignored.
        assert results["AP50m"] == results["AP100m"] == 0 and results["AP"] == pytest.approx(60)

    def test_an_instance_half_of_which_is_known_counts(self, scene):
        disparity_file = scene / f"disparity/val/aachen/{STEMS[0]}_disparity.png"
        disparity = cv2.imread(str(disparity_file), cv2.IMREAD_UNCHANGED)
        disparity[64, 60:100] = 256 * 10 + 1  # its 20th known row, 10 m away
        cv2.imwrite(str(disparity_file), disparity)
        results = evaluate({STEMS[0]: predictions([(rectangle(*CARS[0][0]), CAR, 0.9)])})
        assert results["AP50m"] == pytest.approx(50) and results["AP100m"] == pytest.approx(100 / 3)

    @pytest.mark.parametrize("folder", ["disparity", "camera"])
    def test_without_either_folder_there_are_no_distances(self, scene, folder):
        (scene / folder).rename(scene / "elsewhere")
        assert not [name for name in evaluate({STEMS[0]: predictions([])}) if name.endswith("m")]

    @pytest.mark.parametrize("file", ["disparity/val/aachen/{}_disparity.png", "camera/val/aachen/{}_camera.json"])
    def test_missing_file(self, scene, file):
        (scene / file.format(STEMS[0])).unlink()
        with pytest.raises(FileNotFoundError, match=rf"{file.format(STEMS[0])} does not exist"):
            evaluate({STEMS[0]: predictions([])})

    def test_disparity_of_another_size(self, scene):
        write_distances(scene, np.zeros((10, 12), dtype=np.uint16), CAMERA)
        with pytest.raises(ValueError, match=r"disparity\.png is of shape \[10, 12\].*\[100, 150\]"):
            evaluate({STEMS[0]: predictions([])})

    @pytest.mark.parametrize("camera", [{"extrinsic": {"baseline": 0.2}}, {"extrinsic": 1}, [], "text"])
    def test_wrong_camera(self, scene, camera):
        write_distances(scene, np.zeros(SIZE, dtype=np.uint16), camera)
        with pytest.raises(ValueError, match=r"camera\.json is no camera file.*intrinsic\.fx"):
            evaluate({STEMS[0]: predictions([])})


CARS: list[tuple[Rectangle, float]] = [
    ((0, 0, 40, 40), 20),
    ((0, 60, 40, 40), 80),
    ((0, 110, 40, 40), 125),
    ((60, 0, 20, 40), 10),  # 800 pixels
    ((45, 60, 40, 40), 10),
]


def write_distances(base: Path, disparity: np.ndarray, camera: object) -> None:
    for kind in ("disparity", "camera"):
        (base / kind / "val" / "aachen").mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(base / "disparity" / "val" / "aachen" / f"{STEMS[0]}_disparity.png"), disparity)
    (base / "camera" / "val" / "aachen" / f"{STEMS[0]}_camera.json").write_text(json.dumps(camera))


class TestProcesses:
    def test_two_give_the_result_of_one(self, register, miniature, monkeypatch):
        records = register(miniature)
        outputs = imperfect(records)
        single = evaluate(outputs)

        stems = list(outputs)
        # As DistributedSampler pads: both see the first image.
        shares = [[stems[0], stems[2]], [stems[1], stems[3], stems[0]]]
        first, second = CityscapesEvaluator(NAME), CityscapesEvaluator(NAME)
        for evaluator, share in zip((first, second), shares, strict=True):
            process(evaluator, {stem: outputs[stem] for stem in share})
        gathered: list[dict] = []
        monkeypatch.setattr(comm, "gather", lambda values, dst: gathered.append(values) or gathered)
        monkeypatch.setattr(comm, "is_main_process", lambda: len(gathered) == 2)
        assert second.evaluate() == {}
        assert first.evaluate() == {"cityscapes": pytest.approx(single, nan_ok=True)}

    def test_not_distributed(self, register, miniature, monkeypatch):
        records = register(miniature)
        outputs = imperfect(records)
        single = evaluate(outputs)
        monkeypatch.setattr(comm, "get_rank", lambda: 1)
        evaluator = CityscapesEvaluator(NAME, distributed=False)
        evaluator.reset()
        process(evaluator, outputs)
        assert evaluator.evaluate()["cityscapes"] == pytest.approx(single, nan_ok=True)


class TestFiles:
    def test_results_and_predictions_are_kept_in_the_output_folder(self, register, miniature, tmp_path, monkeypatch):
        records = register(miniature)
        (tmp_path / "current").mkdir()
        monkeypatch.chdir(tmp_path / "current")
        output = tmp_path / "output"
        outputs = {record["image_id"]: perfect(record) for record in records}
        evaluate(outputs, output)
        stored = json.loads((output / "cityscapes_results.json").read_text())
        assert stored["dataset"] == NAME and stored["cityscapes"]["AP"] == pytest.approx(100)
        masks = len(list((output / "cityscapes_predictions").rglob("*.png")))
        assert masks == sum(len(instances) for instances in outputs.values())
        # A second evaluation does not see the files of the first.
        nothing = {stem: instances[:0] for stem, instances in outputs.items()}
        assert evaluate(nothing, output)["AP"] == 0
        assert not list((output / "cityscapes_predictions").rglob("*.png"))
        assert list((tmp_path / "current").iterdir()) == []

    def test_temporary_folder_is_removed(self, register, miniature, tmp_path, monkeypatch):
        records = register(miniature)
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        evaluator = CityscapesEvaluator(NAME)
        evaluator.reset()
        process(evaluator, {record["image_id"]: perfect(record) for record in records})
        evaluator.evaluate()
        assert list(tmp_path.iterdir()) == []

    def test_split_without_labels(self, register, miniature, tmp_path):
        records = register(miniature, "test", labelled=False)
        evaluator = CityscapesEvaluator(NAME, str(tmp_path))
        evaluator.reset()
        size = (records[0]["height"], records[0]["width"])
        process(evaluator, {record["image_id"]: predictions([], size) for record in records})
        assert evaluator.evaluate() == {}
        assert sorted(path.name for path in (tmp_path / "cityscapes_predictions").glob("*.txt")) == [
            "berlin_000000_000019_pred.txt",
            "bonn_000000_000019_pred.txt",
        ]


class TestBadInput:
    def test_coarse_labels(self, register, miniature):
        register(miniature, "train_extra", truth_type="gtCoarse")
        with pytest.raises(ValueError, match=rf"'{NAME}' has coarse labels.*DATASETS\.TEST"):
            CityscapesEvaluator(NAME)

    def test_image_without_predictions(self, register, miniature):
        records = register(miniature)
        with pytest.raises(ValueError, match=r"3 of 4 images .*were not processed.*frankfurt_000001_000019"):
            evaluate({records[0]["image_id"]: perfect(records[0])})

    def test_image_of_another_data_set(self, register, miniature):
        register(miniature)
        with pytest.raises(ValueError, match=rf"'{STEMS[0]}'.* is not in data set '{NAME}'"):
            evaluate({STEMS[0]: predictions([])})

    def test_prediction_at_network_size(self, truth):
        truth(np.full(SIZE, 7))
        with pytest.raises(ValueError, match=r"\(50, 75\).*original size is \(100, 150\)"):
            evaluate({STEMS[0]: predictions([], (50, 75))})
