"""Annotations, pictures and settings that a training cannot use."""

import json
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile

from .base import ROOT, Scratch, case, content, cut_file, huge_png, picture


def check(scratch: Scratch, train: dict, val: dict | None = None, *options: str, files: Any = None) -> str:
    """All that a training does before its first iteration."""
    from rec_attend_d2.data import build_train_loader
    from rec_attend_d2.engine import setup

    val = content(2, 3) if val is None else val
    for number in range(1, 5):
        cv2.imwrite(str(scratch.folder / "images" / f"{number}.png"), picture() + np.uint8(number))
    if files is not None:
        files(scratch.folder / "images")
    entries = []
    for part, what in (("train", train), ("val", val)):
        (scratch.folder / f"{part}.json").write_text(json.dumps(what) if isinstance(what, dict) else what)
        entries.append([f"{scratch.name}_{part}", str(scratch.folder / f"{part}.json"), str(scratch.folder / "images")])
    names = ["DATASETS.TRAIN", f"('{entries[0][0]}',)", "DATASETS.TEST", f"('{entries[1][0]}',)"]
    base = ["DATASETS.COCO_FILES", str(entries), *names, "OUTPUT_DIR", str(scratch.folder / "output")]
    arguments = Namespace(
        config_file=str(ROOT / "tests/configs/fast.yaml"), opts=[*base, *options], eval_only=False, resume=False
    )
    cfg = setup(arguments)
    build_train_loader(cfg)
    return f"classes {cfg.MODEL.REC_ATTEND.NUM_CLASSES}"


def training(name: str, change: Callable[[dict], Any], expected: str, *options: str, files: Any = None) -> None:
    """A training whose json is changed."""

    def run(scratch: Scratch) -> str:
        train = content()
        changed = change(train)
        return check(scratch, changed if isinstance(changed, (dict, str)) else train, None, *options, files=files)

    case(name, "train", run, expected)


def annotation(key: str, value: Any, expected: str) -> None:
    """A training of which one annotation has another value."""
    shown = json.dumps(value)
    training(f"{key} {shown}", lambda c: c["annotations"][1].update({key: value}), expected)


annotation("iscrowd", None, r"annotation 2 of image 1 has iscrowd None")
annotation("iscrowd", "0", r"annotation 2 of image 1 has iscrowd '0'")
annotation("iscrowd", 2, r"iscrowd 2\. Give the number 0")
annotation("iscrowd", [], r"iscrowd \[\]")
annotation("area", None, r"area None\. Give its pixels")
annotation("area", "12", r"area '12'")
annotation("area", -1, r"area -1")
annotation("bbox", None, r"bbox None\. Give \[x, y, width, height\]")
annotation("bbox", [1, 2, 3], r"bbox \[1, 2, 3\]")
annotation("bbox", [1, 2, "3", 4], r"has bbox")
annotation("bbox", [9, 9, -3, 4], r"has bbox")
annotation("id", None, r"has id None")
annotation("id", [1], r"has id \[1\]")
annotation("id", 1, r"two annotation entries have the id 1")
annotation("image_id", None, r"image_id None")
annotation("image_id", "1", r"image_id '1', which no image has")
annotation("category_id", None, r"category_id None")
annotation("category_id", 0, r"category_id 0, which is not in 'categories'")
annotation("segmentation", None, r"no outline, only a box")
annotation("segmentation", [], r"no outline, only a box")
annotation("segmentation", [[1, 2, 3, 4]], r"malformed polygons")
annotation("segmentation", [[1, 2, 3, None, 5, 6]], r"malformed polygons")
annotation("segmentation", [1, 2, 3, 4, 5, 6], r"malformed polygons")
annotation("segmentation", [[200, 200, 220, 200, 210, 220]], r"no pixel inside the image")
annotation("segmentation", {"size": [64, 48], "counts": [10, 5, 3057]}, r"RLE of size \[64, 48\]")
annotation("segmentation", {"size": [48, 64], "counts": "zz"}, r"no valid RLE")
annotation("segmentation", {"size": [48, 64]}, r"no valid RLE")
annotation("segmentation", "masks/1.png", r"neither polygons nor RLE")
training(
    "twelve annotations wrong at once",
    lambda c: [a.update(area=None, iscrowd=None) for a in c["annotations"]],
    r"12 problems with .*train\.json.*and 2 more",
)
training("all crowds", lambda c: [a.update(iscrowd=1) for a in c["annotations"]], r"no object to train on.*crowds")
training("no annotations", lambda c: c.update(annotations=[]), r"no object to train on.*no annotation")
training("no images", lambda c: c.update(images=[]), r"empty list 'images'")
training("no categories", lambda c: c.update(categories=[]), r"empty list 'categories'")
training("a list", lambda c: "[]", r"no list 'images'")
training("cut json", lambda c: json.dumps(c)[:-9], r"not valid JSON")
training("empty json", lambda c: "", r"not valid JSON")
training("binary json", lambda c: "\x00\x01", r"not valid JSON")
training("file_name null", lambda c: c["images"][0].update(file_name=None), r"image 1 has file_name None")
training("file_name empty", lambda c: c["images"][0].update(file_name=""), r"has file_name ''")
training("file_name a number", lambda c: c["images"][0].update(file_name=7), r"has file_name 7")
training("height text", lambda c: c["images"][0].update(height="48"), r"height '48'\. Give a number of pixels")
training("width null", lambda c: c["images"][0].update(width=None), r"width None")
training("image id null", lambda c: c["images"][0].update(id=None), r"id None")
training(
    "image ids of mixed types",
    lambda c: [c["images"][0].update(id="one"), [a.update(image_id="one") for a in c["annotations"][:3]]],
    r"ids of 'images' are numbers, such as 2, and text, such as 'one'",
)
training("image missing", lambda c: c["images"][0].update(file_name="x.png"), r"x\.png, listed in .* does not exist")
training("category name null", lambda c: c["categories"][0].update(name=None), r"has name None")
training(
    "two categories of a name", lambda c: c["categories"].append({"id": 2, "name": "disc"}), r"two category entries"
)
training(
    "coordinates from 0 to 1",
    lambda c: [a.update(segmentation=[[v / 64 for v in a["segmentation"][0]]]) for a in c["annotations"]],
    r"coordinates from 0 to 1",
)
training("annotation id 0", lambda c: c["annotations"][0].update(id=0), r"annotation id 0.*numbered anew")
training(
    "an annotation twice",
    lambda c: c["annotations"].append({**c["annotations"][0], "id": 99}),
    r"1 annotations repeat another one and are left out: 99 of 1\.png",
)
training(
    "an image twice",
    lambda c: [
        c["images"].append({**c["images"][0], "id": 9}),
        [c["annotations"].append({**a, "id": 90 + a["id"], "image_id": 9}) for a in c["annotations"][:3]],
    ],
    r"1 image entries name a file a second time.*3 annotations repeat",
)
training(
    "two categories, one for validation",
    lambda c: c["categories"].append({"id": 2, "name": "ring"}),
    r"has the categories disc, but .* has disc, ring",
)


def _two(order: str) -> dict:
    numbered = content(2, 3 if order == "ba" else 1)
    numbered["categories"] = [{"id": 1, "name": order[0]}, {"id": 2, "name": order[1]}]
    return numbered


case(
    "categories in another order", "train", lambda s: check(s, _two("ab"), _two("ba")), r"Categories count in the order"
)
_SAME = {"categories": _two("ab")["categories"]}
case("two categories", "train", lambda s: check(s, _two("ab"), {**content(2, 3), **_SAME}), r"result: classes 2")
for number in (3, 5):
    case(
        f"two categories, NUM_CLASSES {number}",
        "train",
        lambda s, n=number: check(s, _two("ab"), {**content(2, 3), **_SAME}, "MODEL.REC_ATTEND.NUM_CLASSES", str(n)),
        r"NUM_CLASSES is \d, but .* has 2 categories \(a, b\)\. Set it to 2",
    )
training(
    "one category, NUM_CLASSES 2", lambda c: None, r"NUM_CLASSES is 2.*Set it to 0", "MODEL.REC_ATTEND.NUM_CLASSES", "2"
)
case(
    "pictures in both splits", "train", lambda s: check(s, content(), content()), r"2 of the 2 pictures .* are also in"
)


def picture_file(name: str, write: Callable[[Path], Any], expected: str, number: int = 3, *options: str) -> None:
    """A training with a picture file that is wrong; of 3 and 4 are for validation."""
    training(name, lambda c: None, expected, *options, files=lambda folder: write(folder / f"{number}.png"))


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)


WRONG = r"3\.png cannot be decoded"
picture_file("picture cut", cut_file, WRONG)
picture_file("picture with a flipped bit", _flip, WRONG)
picture_file("picture empty", lambda path: path.write_bytes(b""), WRONG)
picture_file("picture is text", lambda path: path.write_text("no picture"), WRONG)
picture_file("picture is a folder", lambda path: (path.unlink(), path.mkdir()), r"does not exist")
picture_file("picture of 10 gigapixels in a header", huge_png, WRONG)
picture_file("picture of another size", lambda path: cv2.imwrite(str(path), picture().T), r"is 64 high and 48 wide")
picture_file("picture of floats", lambda path: _write_float(path), r"float32 pixels, whose range is unknown")


def _write_float(path: Path) -> None:
    tifffile.imwrite(path.with_suffix(".tif"), picture().astype(np.float32))
    path.with_suffix(".tif").replace(path)


def tiff_training(name: str, pixels: np.ndarray, expected: str) -> None:
    """A training with TIFFs for pictures."""

    def run(scratch: Scratch) -> str:
        train = content()
        for image in train["images"]:
            image["file_name"] = image["file_name"].replace("png", "tif")
        return check(
            scratch,
            train,
            files=lambda folder: [
                tifffile.imwrite(folder / f"{n}.tif", pixels, photometric="minisblack") for n in (1, 2)
            ],
        )

    case(name, "train", run, expected)


tiff_training("pictures of three pages", np.stack([picture()] * 3), r"has 3 pages, of which one can be used")
tiff_training("dark pictures of 12 bits", picture().astype(np.uint16) * 16, r"2 of 4 pictures use less than an eighth")
tiff_training("pictures of int32", picture().astype(np.int32), r"int32 pixels|cannot be decoded")
tiff_training("pictures of doubles", picture().astype(np.float64), r"float64 pixels")


def train(scratch: Scratch, *options: str) -> str:
    """A short training by tools/train_net.py."""
    from rec_attend_d2.engine import Trainer, setup

    for number in range(1, 5):
        cv2.imwrite(str(scratch.folder / "images" / f"{number}.png"), picture() + np.uint8(number))
    (scratch.folder / "train.json").write_text(json.dumps(content()))
    entry = [f"{scratch.name}_t", str(scratch.folder / "train.json"), str(scratch.folder / "images")]
    names = ["DATASETS.TRAIN", f"('{entry[0]}',)", "DATASETS.TEST", "()", "DATASETS.COCO_FILES", str([entry])]
    base = [*names, "OUTPUT_DIR", str(scratch.folder / "output"), "SOLVER.MAX_ITER", "30", "SOLVER.WARMUP_ITERS", "0"]
    arguments = Namespace(
        config_file=str(ROOT / "tests/configs/fast.yaml"), opts=[*base, *options], eval_only=False, resume=False
    )
    trainer = Trainer(setup(arguments))
    trainer.resume_or_load(resume=False)
    trainer.train()
    return "trained"


DIVERGED = r"Not finite: .*lower SOLVER\.BASE_LR"
case("BASE_LR 100", "train", lambda s: train(s, "SOLVER.BASE_LR", "100"), r"trained|Not finite")
for rate in ("1000.0", "1e30"):
    case(f"BASE_LR {rate}", "train", lambda s, r=rate: train(s, "SOLVER.BASE_LR", r), DIVERGED)


def _blocked_output(scratch: Scratch) -> str:
    (scratch.folder / "file").write_text("")
    return train(scratch, "OUTPUT_DIR", str(scratch.folder / "file" / "output"))


case("OUTPUT_DIR below a file", "train", _blocked_output, r"OUTPUT_DIR .* cannot be made or used")
case("unknown key", "train", lambda s: train(s, "SOLVER.BASE_LRR", "1"), r"Non-existent key: SOLVER\.BASE_LRR")
case("key without value", "train", lambda s: train(s, "SOLVER.BASE_LR"), r"not valid")
case("value of a wrong type", "train", lambda s: train(s, "SOLVER.BASE_LR", "fast"), r"not valid")
case(
    "unknown data set", "train", lambda s: train(s, "DATASETS.TRAIN", "('rosettes_trian',)"), r"Similar names: rosettes"
)
