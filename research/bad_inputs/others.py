"""What is given to a finished model, and files of others: submissions, names and weights."""

import importlib
import sys
import zipfile
from collections.abc import Callable
from functools import cache
from typing import Any

import cv2
import numpy as np
from PIL import Image

from .base import ROOT, SIZE, Scratch, case, cut_file, huge_png, picture


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
    for name, write in (("a.png", cut_file), ("b.png", lambda path: path.write_bytes(b"")), ("c.jpg", cut_file)):
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
    huge_png(scratch.folder / "h.png")
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
