"""Cityscapes submissions: written, packed, checked and scored."""

import copy
import math
import zipfile
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

from miniature.cityscapes import write_cityscapes
from rec_attend_d2.data.datasets.cityscapes import load_cityscapes
from rec_attend_d2.evaluation.cityscapes_evaluator import CityscapesEvaluator
from rec_attend_d2.evaluation.submission_cityscapes import check, image_files, pack, score

SIZE = (6, 8)
FIRST, SECOND = "berlin_000000_000019", "bonn_000000_000019"
NAME = "tiny_submission"
LINE = f"masks/{FIRST}_0000.png 26 0.5\n"


def instances(masks: np.ndarray, classes: list[int], scores: list[float]) -> Instances:
    result = Instances(masks.shape[1:])
    result.pred_masks, result.scores = torch.from_numpy(masks), torch.tensor(scores)
    result.pred_classes = torch.tensor(classes, dtype=torch.int64)
    return result


def three_instances() -> Instances:
    """A rider, one without pixels, and a bicycle."""
    masks = np.zeros((3, *SIZE), dtype=bool)
    masks[0, 1:3, 2:5] = True
    masks[2, 4:, 7] = True
    return instances(masks, [1, 2, 7], [0.25, 0.9, 0.1])


def png(mask: np.ndarray) -> bytes:
    return cv2.imencode(".png", mask)[1].tobytes()


@pytest.fixture(autouse=True)
def _registered():
    """NAME: two images without labels."""
    records = [{"file_name": stem, "image_id": stem, "height": 6, "width": 8} for stem in (FIRST, SECOND)]
    DatasetCatalog.register(NAME, lambda: records)
    MetadataCatalog.get(NAME).set(gt_dir=None)
    yield
    DatasetCatalog.pop(NAME)
    MetadataCatalog.pop(NAME)


@pytest.fixture
def make_zip(tmp_path) -> Callable[..., Path]:
    """Writes an archive that is valid but for the files given; None leaves one out."""

    def make(changes: dict[str, bytes | str | None] | None = None) -> Path:
        files: dict[str, bytes | str | None] = {
            f"{FIRST}_pred.txt": LINE,
            f"{SECOND}_pred.txt": "",
            f"masks/{FIRST}_0000.png": png(np.full(SIZE, 255, dtype=np.uint8)),
            **(changes or {}),
        }
        with zipfile.ZipFile(tmp_path / "submission.zip", "w") as archive:
            for name, content in files.items():
                if content is not None:
                    archive.writestr(name, content)
        return tmp_path / "submission.zip"

    return make


class TestWriting:
    def test_text_and_masks(self):
        files = image_files(FIRST, three_instances())
        lines = files.pop(f"{FIRST}_pred.txt").decode().splitlines()
        assert [line.split(" ")[1:2] for line in lines] == [["25"], ["33"]]
        # Full precision: the scores decide on ranks.
        assert [float(line.split(" ")[2]) for line in lines] == [0.25, float(np.float32(0.1))]
        assert list(files) == [line.split(" ")[0] for line in lines]
        masks = [cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_UNCHANGED) for png in files.values()]
        expected = three_instances().pred_masks.numpy()[[0, 2]]
        assert all(np.array_equal(mask != 0, true) for mask, true in zip(masks, expected, strict=True))

    def test_image_without_instances_has_an_empty_text_file(self):
        assert image_files(FIRST, three_instances()[:0]) == {f"{FIRST}_pred.txt": b""}

    def test_pack(self, tmp_path):
        archive = tmp_path / "new" / "out.zip"
        pack(archive, NAME, [(SECOND, three_instances()), (FIRST, three_instances()[:1])])
        assert zipfile.ZipFile(archive).namelist() == [
            f"{SECOND}_pred.txt",
            f"masks/{SECOND}_0000.png",
            f"masks/{SECOND}_0002.png",
            f"{FIRST}_pred.txt",
            f"masks/{FIRST}_0000.png",
        ]
        assert check(archive, NAME) == []

    def test_an_image_is_missing(self, tmp_path):
        with pytest.raises(ValueError, match=f"1 of 2 images have no prediction, first '{SECOND}'"):
            pack(tmp_path / "out.zip", NAME, [(FIRST, three_instances())])
        assert list(tmp_path.iterdir()) == []

    def test_the_official_program_finds_the_text_files(self, tmp_path):
        pack(tmp_path / "out.zip", NAME, [(stem, three_instances()) for stem in (FIRST, SECOND)])
        zipfile.ZipFile(tmp_path / "out.zip").extractall(tmp_path)
        args = copy.copy(official.args)
        args.predictionPath, args.predictionWalk = str(tmp_path), None
        text = official.getPrediction(f"gtFine/test/berlin/{FIRST}_gtFine_instanceIds.png", args)
        assert text == str(tmp_path / f"{FIRST}_pred.txt")
        info = official.readPredInfo(text, args)
        assert [entry["labelID"] for entry in info.values()] == [25, 33]
        assert all(Path(mask).is_file() for mask in info)

    @pytest.mark.parametrize("number", [-1, 8])
    def test_class_that_does_not_exist(self, number):
        wrong = three_instances()
        wrong.pred_classes[0] = number
        with pytest.raises(ValueError, match=rf"{FIRST}: class {number} is not one of 0 to 7: person, rider"):
            image_files(FIRST, wrong)

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_score_that_is_no_number(self, value):
        wrong = three_instances()
        wrong.scores[1] = value
        with pytest.raises(ValueError, match=rf"{FIRST}: a score is {value}"):
            image_files(FIRST, wrong)

    def test_masks_of_another_size(self):
        wrong = Instances((12, 16), **three_instances().get_fields())
        with pytest.raises(ValueError, match=rf"{FIRST}: masks of shape \[6, 8\].*\[12, 16\]"):
            image_files(FIRST, wrong)


class TestCheck:
    def test_valid(self, make_zip):
        assert check(make_zip(), NAME) == []
        # Other names and places of masks are allowed, and any suffix of the text files.
        moved = {
            f"{FIRST}_pred.txt": None,
            f"{FIRST}.txt": "./a.png 24 1\nb/c/d.png 33 -2e-3\n",
            f"masks/{FIRST}_0000.png": None,
            "a.png": png(np.eye(*SIZE, dtype=np.uint8)),
            "b/c/d.png": png(np.full((*SIZE, 3), 9, dtype=np.uint8)),
        }
        assert check(make_zip(moved), NAME) == []

    @pytest.mark.parametrize(
        ("changes", "problems"),
        [
            ({f"{SECOND}_pred.txt": None}, [f"Image {SECOND} has no text file {SECOND}*.txt at the root."]),
            (
                {f"{SECOND}_pred.txt": None, f"sub/{SECOND}_pred.txt": ""},
                [f"Image {SECOND} has no text file", f"sub/{SECOND}_pred.txt belongs to no image"],
            ),
            ({f"{SECOND}.txt": ""}, [f"Image {SECOND} has several text files: "]),
            ({"bonn_000001_000019_pred.txt": ""}, ["bonn_000001_000019_pred.txt belongs to no image"]),
            ({"masks/more.png": png(np.ones(SIZE, dtype=np.uint8))}, ["masks/more.png belongs to no image"]),
            ({f"{FIRST}_pred.txt": LINE + "\n"}, [f"{FIRST}_pred.txt, line 2 is ''. It has to be 'MASK LABEL"]),
            ({f"{FIRST}_pred.txt": LINE.replace(" ", "  ", 1)}, ["line 1 is", "belongs to no image"]),
            ({f"{FIRST}_pred.txt": LINE.replace("26", "25.5")}, ["line 1: label 25.5 is not one of 24, 25, 26"]),
            ({f"{FIRST}_pred.txt": LINE.replace("26", "29")}, ["line 1: label 29 is not one of"]),
            ({f"{FIRST}_pred.txt": LINE.replace("0.5", "high")}, ["line 1: confidence high is no finite number"]),
            ({f"{FIRST}_pred.txt": LINE.replace("0.5", "nan")}, ["line 1: confidence nan is no finite number"]),
            (
                {f"{FIRST}_pred.txt": LINE + LINE},
                ["line 2: mask masks/berlin_000000_000019_0000.png is named a second"],
            ),
            ({f"{FIRST}_pred.txt": LINE + "no.png 26 1\n"}, ["line 2: mask no.png is not in the archive"]),
            ({f"{FIRST}_pred.txt": LINE + "/no.png 26 1\n"}, ["line 2: mask /no.png is not inside the archive"]),
            ({f"{FIRST}_pred.txt": LINE + "a/../../no.png 26 1"}, ["line 2: mask ../no.png is not inside the archive"]),
            ({f"{FIRST}_pred.txt": b"\xff\xfe"}, [f"{FIRST}_pred.txt cannot be read", "belongs to no image"]),
            ({f"masks/{FIRST}_0000.png": b"no image"}, ["line 1: mask masks/berlin_000000_000019_0000.png cannot be"]),
            (
                {f"masks/{FIRST}_0000.png": png(np.ones(SIZE, dtype=np.uint8))[:-30]},
                ["line 1: mask masks/berlin_000000_000019_0000.png cannot be"],
            ),
            (
                {f"masks/{FIRST}_0000.png": cv2.imencode(".bmp", np.ones(SIZE, dtype=np.uint8))[1].tobytes()},
                ["masks/berlin_000000_000019_0000.png is no PNG"],
            ),
            ({f"masks/{FIRST}_0000.png": png(np.ones((3, 8), dtype=np.uint8))}, ["is 3 x 8, but the image is 6 x 8"]),
            ({f"masks/{FIRST}_0000.png": png(np.zeros(SIZE, dtype=np.uint8))}, ["is empty. Leave its line out"]),
        ],
    )
    def test_problems(self, make_zip, changes, problems):
        found = check(make_zip(changes), NAME)
        assert len(found) == len(problems)
        assert all(expected in problem for problem, expected in zip(found, problems, strict=True))

    def test_the_same_name_twice(self, make_zip):
        path = make_zip()
        with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr(f"{SECOND}_pred.txt", "")
        assert check(path, NAME)[0] == f"{SECOND}_pred.txt is in the archive 2 times."

    def test_damaged_archive(self, make_zip):
        path = make_zip()
        content = bytearray(path.read_bytes())
        content[content.index(b"masks/") + 5] ^= 1  # in the text file's data
        path.write_bytes(content)
        assert f"{FIRST}_pred.txt cannot be read (Bad CRC-32" in check(path, NAME)[0]

    def test_no_archive(self, tmp_path):
        assert check(tmp_path / "out.zip", NAME) == [f"{tmp_path / 'out.zip'} does not exist."]
        (tmp_path / "out.zip").write_text("text")
        (problem,) = check(tmp_path / "out.zip", NAME)
        assert "out.zip is no zip archive" in problem


class TestScore:
    def test_the_same_as_the_evaluator(self, tmp_path):
        write_cityscapes(tmp_path, {"val": 3}, size=(96, 192), seed=1)
        base = tmp_path / "cityscapes"
        records = load_cityscapes(base / "leftImg8bit/val", base / "gtFine/val")
        DatasetCatalog.pop(NAME)
        DatasetCatalog.register(NAME, lambda: records)
        MetadataCatalog.pop(NAME)
        MetadataCatalog.get(NAME).set(gt_dir=str(base / "gtFine/val"), truth_type="gtFine")
        rng = np.random.default_rng(0)
        evaluator = CityscapesEvaluator(NAME)
        outputs = {}
        for record in records:
            masks = [mask_util.decode(a["segmentation"]).astype(bool) for a in record["annotations"]]
            moved = np.roll(np.array(masks), 1, axis=2)
            classes = [a["category_id"] for a in record["annotations"]]
            output = instances(moved, classes, rng.random(len(masks)).astype(np.float32).tolist())
            outputs[record["image_id"]] = output
            evaluator.process([{"image_id": record["image_id"]}], [{"instances": output}])
        results = evaluator.evaluate()["cityscapes"]
        pack(tmp_path / "out.zip", NAME, outputs.items())
        assert check(tmp_path / "out.zip", NAME) == []
        assert score(tmp_path / "out.zip", NAME) == pytest.approx(results, nan_ok=True, abs=0)
        assert 10 < results["AP"] < 95 and results["AP"] < results["AP50"] and "AP100m" in results

    def test_an_archive_that_is_not_valid(self, make_zip):
        many = "".join(f"{index}.png 24 1\n" for index in range(30))
        with pytest.raises(ValueError, match=rf"(?s)submission\.zip is no valid.*{SECOND}_pred.*10 more\.") as error:
            score(make_zip({f"{SECOND}_pred.txt": many}), NAME)
        assert len(str(error.value).splitlines()) == 22

    def test_no_labels(self, make_zip):
        with pytest.raises(ValueError, match=f"'{NAME}' has no labels: only its test server can score"):
            score(make_zip(), NAME)
