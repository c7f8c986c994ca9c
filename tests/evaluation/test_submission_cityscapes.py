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
from rec_attend_d2.evaluation.submission_cityscapes import check, pack, score, write_image

SIZE = (6, 8)
FIRST, SECOND = "berlin_000000_000019", "bonn_000000_000019"
SIZES = {FIRST: SIZE, SECOND: SIZE}
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
    def test_text_and_masks(self, tmp_path):
        write_image(tmp_path, FIRST, three_instances())
        lines = (tmp_path / f"{FIRST}_pred.txt").read_text().splitlines()
        assert [line.split(" ")[1:2] for line in lines] == [["25"], ["33"]]
        # Full precision: the scores decide on ranks.
        assert [float(line.split(" ")[2]) for line in lines] == [0.25, float(np.float32(0.1))]
        masks = [cv2.imread(str(tmp_path / line.split(" ")[0]), cv2.IMREAD_UNCHANGED) for line in lines]
        expected = three_instances().pred_masks.numpy()[[0, 2]]
        assert all(np.array_equal(mask != 0, true) for mask, true in zip(masks, expected, strict=True))
        assert len(list(tmp_path.rglob("*.png"))) == 2

    def test_image_without_instances_has_an_empty_text_file(self, tmp_path):
        write_image(tmp_path, FIRST, three_instances()[:0])
        assert (tmp_path / f"{FIRST}_pred.txt").read_text() == ""

    def test_pack(self, tmp_path):
        folder, archive = tmp_path / "folder", tmp_path / "new" / "out.zip"
        for stem in (SECOND, FIRST):
            write_image(folder, stem, three_instances())
        # Written again with fewer instances: the other mask is left over.
        write_image(folder, FIRST, three_instances()[:1])
        pack(folder, archive)
        assert zipfile.ZipFile(archive).namelist() == [
            f"{FIRST}_pred.txt",
            f"masks/{FIRST}_0000.png",
            f"{SECOND}_pred.txt",
            f"masks/{SECOND}_0000.png",
            f"masks/{SECOND}_0002.png",
        ]
        assert check(archive, SIZES) == []

    def test_the_official_program_finds_the_text_files(self, tmp_path):
        write_image(tmp_path, FIRST, three_instances())
        args = copy.copy(official.args)
        args.predictionPath, args.predictionWalk = str(tmp_path), None
        text = official.getPrediction(f"gtFine/test/berlin/{FIRST}_gtFine_instanceIds.png", args)
        assert text == str(tmp_path / f"{FIRST}_pred.txt")
        info = official.readPredInfo(text, args)
        assert [entry["labelID"] for entry in info.values()] == [25, 33]
        assert all(Path(mask).is_file() for mask in info)

    @pytest.mark.parametrize("number", [-1, 8])
    def test_class_that_does_not_exist(self, tmp_path, number):
        wrong = three_instances()
        wrong.pred_classes[0] = number
        with pytest.raises(ValueError, match=rf"{FIRST}: class {number} is not one of 0 to 7: person, rider"):
            write_image(tmp_path, FIRST, wrong)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("value", [math.nan, math.inf])
    def test_score_that_is_no_number(self, tmp_path, value):
        wrong = three_instances()
        wrong.scores[1] = value
        with pytest.raises(ValueError, match=rf"{FIRST}: a score is {value}"):
            write_image(tmp_path, FIRST, wrong)

    def test_masks_of_another_size(self, tmp_path):
        wrong = Instances((12, 16), **three_instances().get_fields())
        with pytest.raises(ValueError, match=rf"{FIRST}: masks of shape \[6, 8\].*\[12, 16\]"):
            write_image(tmp_path, FIRST, wrong)

    def test_nothing_to_pack(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="has no predictions"):
            pack(tmp_path, tmp_path / "out.zip")


class TestCheck:
    def test_valid(self, make_zip):
        assert check(make_zip(), SIZES) == []
        # Other names and places of masks are allowed, and any suffix of the text files.
        moved = {
            f"{FIRST}_pred.txt": None,
            f"{FIRST}.txt": "./a.png 24 1\nb/c/d.png 33 -2e-3\n",
            f"masks/{FIRST}_0000.png": None,
            "a.png": png(np.eye(*SIZE, dtype=np.uint8)),
            "b/c/d.png": png(np.full((*SIZE, 3), 9, dtype=np.uint8)),
        }
        assert check(make_zip(moved), SIZES) == []

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
        found = check(make_zip(changes), SIZES)
        assert len(found) == len(problems)
        assert all(expected in problem for problem, expected in zip(found, problems, strict=True))

    def test_the_same_name_twice(self, make_zip):
        path = make_zip()
        with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr(f"{SECOND}_pred.txt", "")
        assert check(path, SIZES)[0] == f"{SECOND}_pred.txt is in the archive 2 times."

    def test_damaged_archive(self, make_zip):
        path = make_zip()
        content = bytearray(path.read_bytes())
        content[content.index(b"masks/") + 5] ^= 1  # in the text file's data
        path.write_bytes(content)
        assert f"{FIRST}_pred.txt cannot be read (Bad CRC-32" in check(path, SIZES)[0]

    def test_no_archive(self, tmp_path):
        with pytest.raises(FileNotFoundError, match=r"out\.zip does not exist"):
            check(tmp_path / "out.zip", SIZES)
        (tmp_path / "out.zip").write_text("text")
        with pytest.raises(ValueError, match=r"out\.zip is no zip archive"):
            check(tmp_path / "out.zip", SIZES)


class TestScore:
    @pytest.fixture
    def split(self, tmp_path):
        """Folder "cityscapes" of a miniature whose val is registered as "tiny_submission", and its records."""
        write_cityscapes(tmp_path, {"val": 3}, size=(96, 192), seed=1)
        base = tmp_path / "cityscapes"
        records = load_cityscapes(base / "leftImg8bit/val", base / "gtFine/val")
        DatasetCatalog.register("tiny_submission", lambda: records)
        MetadataCatalog.get("tiny_submission").set(gt_dir=str(base / "gtFine/val"), truth_type="gtFine")
        yield base, records
        DatasetCatalog.pop("tiny_submission")
        MetadataCatalog.pop("tiny_submission")

    def test_the_same_as_the_evaluator(self, split, tmp_path):
        base, records = split
        rng = np.random.default_rng(0)
        evaluator = CityscapesEvaluator("tiny_submission", str(tmp_path / "output"))
        evaluator.reset()
        for record in records:
            masks = [mask_util.decode(a["segmentation"]).astype(bool) for a in record["annotations"]]
            moved = np.roll(np.array(masks), 1, axis=2)
            classes = [a["category_id"] for a in record["annotations"]]
            output = instances(moved, classes, rng.random(len(masks)).astype(np.float32).tolist())
            evaluator.process([{"image_id": record["image_id"]}], [{"instances": output}])
        results = evaluator.evaluate()["cityscapes"]
        pack(tmp_path / "output" / "cityscapes_predictions", tmp_path / "out.zip")
        assert check(tmp_path / "out.zip", {r["image_id"]: (r["height"], r["width"]) for r in records}) == []
        assert score(tmp_path / "out.zip", base / "gtFine" / "val") == pytest.approx(results, nan_ok=True, abs=0)
        assert 10 < results["AP"] < 95 and results["AP"] < results["AP50"] and "AP100m" in results

    def test_an_archive_that_is_not_valid(self, split, make_zip):
        base, _ = split
        many = "".join(f"{index}.png 24 1\n" for index in range(30))
        with pytest.raises(
            ValueError, match=r"(?s)submission\.zip is no valid.*Image frankfurt_000000.*15 more\."
        ) as error:
            score(make_zip({"munster_000000_000019_pred.txt": many}), base / "gtFine" / "val")
        assert len(str(error.value).splitlines()) == 22

    def test_wrong_folder(self, split, make_zip):
        base, _ = split
        with pytest.raises(FileNotFoundError, match=r"gtFine has no files CITY/\*_gtFine_instanceIds\.png"):
            score(make_zip(), base / "gtFine")
        with pytest.raises(FileNotFoundError, match=r"gtFine/nothing"):
            score(make_zip(), base / "gtFine" / "nothing")
