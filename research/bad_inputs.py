"""A hundred bad inputs, each with the command that gets it and what that is expected to say."""

import importlib
import json
import re
import struct
import sys
import zipfile
import zlib
from argparse import Namespace
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "demo")]
SIZE = (48, 64)
CENTERS = ((12, 14), (30, 30), (50, 20))


@dataclass
class Scratch:
    """A folder for an input, and a name for data sets that no other input has."""

    folder: Path
    name: str

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        (self.folder / "images").mkdir()
        (self.folder / "labels").mkdir()


@dataclass(frozen=True)
class Case:
    """An input.

    Attributes:
        name: what is wrong with it.
        command: that gets it.
        run: makes it in a folder and runs the command; returns the result in words.
        expected: what the message, or "result: ...", has to hold.
    """

    name: str
    command: str
    run: Callable[[Scratch], Any]
    expected: re.Pattern


CASES: list[Case] = []


def case(name: str, command: str, run: Callable[[Scratch], Any], expected: str) -> None:
    """Add an input."""
    CASES.append(Case(name, command, run, re.compile(expected, re.DOTALL)))


def discs(dtype: Any = np.uint8) -> np.ndarray:
    """Label image with three discs."""
    labels = np.zeros(SIZE, np.uint8)
    for number, center in enumerate(CENTERS, start=1):
        cv2.circle(labels, center, 7, number, -1)
    return labels.astype(dtype)


def picture() -> np.ndarray:
    """Grey picture of the discs."""
    return np.where(discs() > 0, 200, 40).astype(np.uint8)


def content(count: int = 2, first: int = 1) -> dict:
    """COCO annotations of pictures with three discs each."""
    images, annotations = [], []
    for number in range(first, first + count):
        images.append({"id": number, "file_name": f"{number}.png", "height": SIZE[0], "width": SIZE[1]})
        for x, y in CENTERS:
            angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
            polygon = np.stack([x + 7 * np.cos(angle), y + 7 * np.sin(angle)], 1).round(2).ravel().tolist()
            entry = {"id": 3 * number + len(annotations) % 3 - 2, "image_id": number, "category_id": 1, "iscrowd": 0}
            annotations.append({**entry, "area": 150, "bbox": [x - 7, y - 7, 14, 14], "segmentation": [polygon]})
    return {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "disc"}]}


# ------------------------------------------------------------------------------------------------ training


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


def _tiff(pixels: np.ndarray, **options: Any) -> Callable[[Path], None]:
    return lambda path: tifffile.imwrite(path, pixels, **options)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)


def _huge_png(path: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 10_000))
        + chunk(b"IEND", b"")
    )


WRONG = r"3\.png cannot be decoded"
picture_file("picture cut", _cut, WRONG)
picture_file("picture with a flipped bit", _flip, WRONG)
picture_file("picture empty", lambda path: path.write_bytes(b""), WRONG)
picture_file("picture is text", lambda path: path.write_text("no picture"), WRONG)
picture_file("picture is a folder", lambda path: (path.unlink(), path.mkdir()), r"does not exist")
picture_file("picture of 10 gigapixels in a header", _huge_png, WRONG)
picture_file("picture of another size", lambda path: cv2.imwrite(str(path), picture().T), r"is 64 high and 48 wide")
picture_file("picture of floats", lambda path: _write_float(path), r"float32 pixels, whose range is unknown")


def _write_float(path: Path) -> None:
    tifffile.imwrite(path.with_suffix(".tif"), picture().astype(np.float32))
    path.with_suffix(".tif").replace(path)


def _as_tif(pixels: np.ndarray, **how: Any) -> dict:
    return {"pixels": pixels, "how": how}


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


# ------------------------------------------------------------------------------------------------ conversion


def convert(scratch: Scratch, write: Callable[[Path], Any], *options: str, count: int = 2, name: str = "{}.tif") -> str:
    """Convert label images that ``write`` writes; the number of objects of each picture."""
    for number in range(count):
        Image.fromarray(picture()).save(scratch.folder / "images" / f"{number}.png")
        write(scratch.folder / "labels" / name.format(number))
    tool = importlib.import_module("labels_to_coco")
    folders = ["--images", scratch.folder / "images", "--labels", scratch.folder / "labels"]
    old, sys.argv = (
        sys.argv,
        ["labels_to_coco", *map(str, folders), "--output", str(scratch.folder / "o.json"), *options],
    )
    try:
        tool.main()
    finally:
        sys.argv = old
    written = json.loads((scratch.folder / "o.json").read_text())
    return f"{len(written['annotations']) / count:g} objects each"


def labels(name: str, write: Callable[[Path], Any], expected: str, *options: str, suffix: str = "tif") -> None:
    """A conversion of label images."""
    case(f"labels: {name}", "convert", lambda s: convert(s, write, *options, name=f"{{}}.{suffix}"), expected)


THREE = r"result: 3 objects each"
for kind in ("i8", "u8", ">u2", ">i4", "<i4", "f4", "f8", ">f4", "i1", "u4"):
    labels(f"type {kind}", _tiff(discs(kind)), THREE)
labels("0 is white, 8 bit", _tiff(discs(), photometric="miniswhite"), THREE)
labels("0 is white, 16 bit", _tiff(discs(np.uint16), photometric="miniswhite"), THREE)
labels("probabilities", _tiff(discs(np.float32) * 0.3), r"no whole numbers, such as 0\.3")
labels("not a number", _tiff(np.where(discs() == 1, np.nan, discs()).astype(np.float32)), r"no whole numbers")
labels("complex numbers", _tiff(discs().astype(np.complex64)), r"complex64 pixels|cannot be decoded")
labels("background -1", _tiff(discs(np.int32) - 1), r"--background -1")
labels("background -1, said", _tiff(discs(np.int32) - 1), THREE, "--background", "-1")
labels("background 1", _tiff(discs() + 1), r"whole border or most.*--background")
labels("background 1, said", _tiff(discs() + 1), THREE, "--background", "1")
labels("inverted binary mask", _tiff(np.where(discs() > 0, 0, 255).astype(np.uint8)), r"whole border or most")
labels("binary mask", _tiff(np.where(discs() > 0, 255, 0).astype(np.uint8)), r"binary masks.*--split-components")
labels("frame of void", _tiff(np.pad(discs()[4:-4, 4:-4], 4, constant_values=255)), r"whole border or most")


def _void() -> np.ndarray:
    ring = cv2.dilate((discs() > 0).astype(np.uint8), np.ones((3, 3))) - (discs() > 0)
    return np.where(ring > 0, 255, discs()).astype(np.uint8)


labels("rings of void 255", _tiff(_void()), r"largest value of 8 or 16 bits is an object|in several pieces")
labels("three pages", _tiff(np.stack([discs()] * 3), photometric="minisblack"), r"has 3 pages")
labels(
    "a stack of colours",
    _tiff(np.stack([discs()] * 5, -1), photometric="minisblack", planarconfig="contig"),
    r"shape \[48, 64, 5\]",
)


def _colours(alpha: np.ndarray, ground: int) -> np.ndarray:
    table = np.array([[ground] * 3, [39, 99, 90], [69, 33, 46], [235, 176, 212]], np.uint8)
    return np.dstack([table[discs()], alpha.astype(np.uint8)])


def _png(pixels: np.ndarray) -> Callable[[Path], None]:
    return lambda path: Image.fromarray(pixels).save(path)


opaque = np.where(discs() > 0, 255, 0)
labels("transparent white ground", _png(_colours(opaque, 255)), THREE, suffix="png")
labels("opacity 0 everywhere", _png(_colours(opaque * 0, 0)), THREE, suffix="png")
labels("white ground", _png(_colours(opaque, 255)[..., :3]), r"whole border or most", suffix="png")
labels("white ground, said", _png(_colours(opaque, 255)[..., :3]), THREE, "--background", "255,255,255", suffix="png")


def _deep_colours(path: Path) -> None:
    pixels = np.zeros((*SIZE, 3), np.uint16)
    pixels[..., 0] = np.array([0, 1001, 1002, 1003], np.uint16)[discs()]
    cv2.imwrite(str(path), pixels)


labels("colours of 16 bits", _deep_colours, THREE, suffix="png")


def _many(dtype: Any) -> np.ndarray:
    grid = np.zeros((200, 200), dtype)
    for number in range(324):
        y, x = divmod(number, 18)
        grid[11 * y : 11 * y + 8, 11 * x : 11 * x + 8] = (number % 255) + 1
    return grid


def _overflow(scratch: Scratch) -> str:
    Image.fromarray(np.zeros((200, 200), np.uint8)).save(scratch.folder / "images" / "a.png")
    Image.fromarray(_many(np.uint8)).save(scratch.folder / "labels" / "a.png")
    return convert(scratch, lambda path: Image.fromarray(discs()).save(path), name="{}.png")


case("labels: 324 objects in 8 bits", "convert", _overflow, r"all 255 values of 8 bits.*begun anew after 255")


def _stray(path: Path) -> None:
    stray = discs()
    stray[0, 0] = 1
    tifffile.imwrite(path, np.where(np.arange(SIZE[1]) >= 0, stray, 0))


def _strays(scratch: Scratch) -> str:
    base = np.zeros((100, 100), np.uint8)
    for number in range(25):
        y, x = divmod(number, 5)
        base[20 * y + 4 : 20 * y + 14, 20 * x + 4 : 20 * x + 14] = number + 1
    base[0, 0] = 7
    Image.fromarray(base * 0).save(scratch.folder / "images" / "a.png")
    Image.fromarray(base).save(scratch.folder / "labels" / "a.png")
    return convert(scratch, lambda path: Image.fromarray(discs()).save(path), name="{}.png")


case("labels: a stray pixel", "convert", _strays, r"1 objects are in several pieces.*a\.png")
labels("a third of the values in pieces", _stray, r"in several pieces")


def _classes(path: Path) -> None:
    tifffile.imwrite(path, np.array([0, 1, 2, 1], np.uint8)[discs()])


labels("semantic classes", _classes, r"in several pieces")
labels("a speck", lambda path: tifffile.imwrite(path, _with(discs(), (2, 60), 9)), r"2 objects have at most 3 pixels")


def _with(pixels: np.ndarray, place: tuple[int, int], value: int) -> np.ndarray:
    pixels[place] = value
    return pixels


labels(
    "a photograph",
    lambda path: Image.fromarray(np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)).save(path),
    r"look like photographs",
    suffix="png",
)
labels("jpeg", lambda path: Image.fromarray(discs()).save(path), r"JPEG changes values", suffix="jpg")
labels("cut", lambda path: (tifffile.imwrite(path, discs()), _cut(path)), r"cannot be decoded|damaged")
labels("text", lambda path: path.write_text("no picture"), r"cannot be decoded")
labels("of another size", _tiff(discs().T), r"is 64 high and 48 wide, but its image")
labels("black", _tiff(discs() * 0), r"No label image has an object")
labels("huge in a header", _huge_png, r"cannot be decoded", suffix="png")


def _beside(scratch: Scratch) -> str:
    (scratch.folder / "labels" / "notes.txt").write_text("")
    (scratch.folder / "images" / "inside").mkdir()
    (scratch.folder / "labels" / "._0.tif").write_text("")
    return convert(scratch, _tiff(discs()))


case("labels: other files beside", "convert", _beside, r"Left out: .*inside.*notes\.txt \(2\)")


def _image_pages(scratch: Scratch) -> str:
    tifffile.imwrite(scratch.folder / "images" / "x.tif", np.stack([picture()] * 2), photometric="minisblack")
    tifffile.imwrite(scratch.folder / "labels" / "x.tif", discs())
    return convert(scratch, _tiff(discs()))


case("pictures of two pages", "convert", _image_pages, r"x\.tif has 2 pages")


# ------------------------------------------------------------------------------------------------ prediction


@cache
def predictor() -> Any:
    """Published weights."""
    from rec_attend_d2.prediction import Predictor

    return Predictor(ROOT / "weights" / "rosettes.yaml")


def predict(name: str, image: Any, expected: str) -> None:
    """Something given to Predictor."""

    def run(scratch: Scratch) -> str:
        found = predictor()(image)
        return (
            f"{found.count} objects, {found.notes}"
            if hasattr(found, "count") and not isinstance(found, list)
            else f"list of {len(found)}"
        )

    case(f"Predictor of {name}", "predict", run, expected)


predict("None", None, r"images are of type NoneType\. Give an array")
predict("a number", 3, r"images are of type int")
predict("a path", "plant.png", r"images are of type str.*Predictor\.read")
predict("a list of None", [None], r"Image 0 is of type NoneType, not a NumPy array")
predict("a Pillow image", Image.fromarray(picture()), r"result: \d+ objects")
predict("a Pillow image with a palette", Image.fromarray(picture()).convert("P"), r"result: \d+ objects")
predict("an array without pixels", np.zeros((0, 5), np.uint8), r"has the shape \[0, 5\]")
predict("two channels", np.zeros((9, 9, 2), np.uint8), r"has the shape \[9, 9, 2\]")
predict("one row of numbers", np.zeros(9, np.uint8), r"has the shape \[9\]")
predict("floats", np.zeros((9, 9), np.float32), r"float32 pixels, whose range is unknown")
predict("truth values", np.zeros((9, 9), bool), r"bool pixels")
predict("text", np.array([["a"]]), r"pixels, whose range is unknown")
predict("12 bits", picture().astype(np.uint16) * 16, r"nearly black")
predict("no images", [], r"result: list of 0")


def demo(scratch: Scratch, *arguments: Any) -> str:
    """demo/demo.py with published weights."""
    tool = importlib.import_module("demo")
    old, sys.argv = sys.argv, ["demo", "--config-file", str(ROOT / "weights/rosettes.yaml"), *map(str, arguments)]
    try:
        tool.main()
    finally:
        sys.argv = old
    return "counted"


def _bad_folder(scratch: Scratch) -> str:
    folder = scratch.folder / "images"
    for name, write in (("a.png", _cut), ("b.png", lambda path: path.write_bytes(b"")), ("c.jpg", _cut)):
        cv2.imwrite(str(folder / name), picture())
        write(folder / name)
    return demo(scratch, "--input", folder)


case("nothing but damaged pictures", "demo", _bad_folder, r"3 left out, which could not be read")
case("a picture that is missing", "demo", lambda s: demo(s, "--input", s.folder / "x.png"), r"x\.png does not exist")
case("a folder without pictures", "demo", lambda s: demo(s, "--input", s.folder / "images"), r"has no images|no image")


def _one(scratch: Scratch, *arguments: Any) -> str:
    cv2.imwrite(str(scratch.folder / "a.png"), picture())
    return demo(scratch, "--input", scratch.folder / "a.png", *arguments)


case("--output x.gif", "demo", lambda s: _one(s, "--output", s.folder / "x.gif"), r"result: counted|\.gif")
case("--output x.xyz", "demo", lambda s: _one(s, "--output", s.folder / "x.xyz"), r"x\.xyz|result: counted")
case(
    "--output over the input",
    "demo",
    lambda s: _one(s, "--output", s.folder / "a.png"),
    r"would (replace|overwrite)|a\.png",
)
case("no such weights", "demo", lambda s: _one(s, "--opts", "MODEL.WEIGHTS", "none.pth"), r"none\.pth")
case("unknown key", "demo", lambda s: _one(s, "--opts", "MODEL.WEIGHT", "x"), r"Non-existent key")


def _video(scratch: Scratch, keep: int) -> str:
    path = scratch.folder / "v.avi"
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 5, (64, 48))
    for _ in range(12):
        video.write(np.dstack([picture()] * 3))
    video.release()
    path.write_bytes(path.read_bytes()[: keep * path.stat().st_size // 12])
    return demo(scratch, "--video-input", path)


case("video of which half is missing", "demo", lambda s: _video(s, 6), r"of 12|damaged|frames? .*(missing|cannot)")
case("video of no frame", "demo", lambda s: _video(s, 0), r"damaged or no video|no frame")


# ------------------------------------------------------------------------------------------------ files of others


def _submission(scratch: Scratch, write: Callable[[zipfile.ZipFile], None]) -> str:
    from detectron2.data import DatasetCatalog, MetadataCatalog

    from rec_attend_d2.evaluation import submission_cityscapes, submission_cvppp

    name = scratch.name + "_city"
    stem = "frankfurt_000000_000001"
    record = {
        "image_id": stem,
        "file_name": "a.png",
        "height": SIZE[0],
        "width": SIZE[1],
        "subset": "A1",
        "plant": "p1",
    }
    DatasetCatalog.register(name, lambda: [record])
    MetadataCatalog.get(name).set(evaluator_type="cityscapes_instance")
    path = scratch.folder / "s.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        write(archive)
    module = submission_cvppp if "answer.h5" in zipfile.ZipFile(path).namelist() else submission_cityscapes
    return "; ".join(module.check(path, name))


def _mask(data: bytes) -> Callable[[zipfile.ZipFile], None]:
    def write(archive: zipfile.ZipFile) -> None:
        archive.writestr("frankfurt_000000_000001_pred.txt", "m.png 24 0.5\n")
        archive.writestr("m.png", data)

    return write


def _huge(scratch: Scratch) -> str:
    _huge_png(scratch.folder / "h.png")
    return _submission(scratch, _mask((scratch.folder / "h.png").read_bytes()))


def _bomb(archive: zipfile.ZipFile) -> None:
    _mask(b"\0" * 300 * 2**20)(archive)


def _leaf_bomb(scratch: Scratch) -> str:
    import h5py

    path = scratch.folder / "answer.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset(
            "A1/p1/label", shape=(200_000, 200_000), dtype=np.uint8, chunks=(1000, 1000), compression="gzip"
        )
    return _submission(scratch, lambda archive: archive.write(path, "answer.h5"))


case(
    "a PNG of 10 gigapixels in a submission",
    "submit",
    _huge,
    r"m\.png is 100000 x 100000, but the image is 48 x 64|m\.png cannot",
)
case("a zip bomb", "submit", lambda s: _submission(s, _bomb), r"m\.png has 300 MiB unpacked")
case("an HDF5 bomb", "submit", _leaf_bomb, r"shape \(200000, 200000\)")
case(
    "an answer that is no HDF5",
    "submit",
    lambda s: _submission(s, lambda a: a.writestr("answer.h5", b"x")),
    r"cannot be read",
)


def _report(scratch: Scratch) -> str:
    from rec_attend_d2.report.rendering import Section, render_markdown

    evil = "<script>alert(1)</script> [x](javascript:y) | `z`"
    return render_markdown(evil, [Section(evil, [evil])])


case("names with HTML in report.md", "report", _report, r"result: (?!.*<script>).*&lt;script&gt;")


def _pickle(scratch: Scratch) -> str:
    from rec_attend_d2.benchmark.models import ComparisonError, check_plain

    try:
        check_plain("detectron2://COCO-Detection/model_final.pkl")
    except ComparisonError as error:
        raise SystemExit(str(error)) from None
    return "loaded"


case("pickled weights of a baseline", "compare", _pickle, r"are a pickle, which can run any code.*--trust-weights")
