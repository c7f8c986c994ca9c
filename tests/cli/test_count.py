"""rec-attend count as its users run it, with a model of random weights."""

import csv
import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import roifile
import tifffile
from PIL import Image
from pycocotools.coco import COCO
from skimage.measure import regionprops_table

from rec_attend_d2 import cli
from rec_attend_d2.data import large_images
from rec_attend_d2.prediction import image_files
from rec_attend_d2.prediction.image_files import ImageReader
from rec_attend_d2.prediction.worker_pool import use_one_thread

Run = Callable[..., tuple[object, str, str]]


@pytest.fixture(scope="module")
def model(random_model) -> Path:
    return random_model(12.0)


def smooth(seed: int, height: int = 40, width: int = 56) -> np.ndarray:
    """A smooth grey picture, uint8 [height, width]."""
    noise = np.random.default_rng(seed).integers(0, 256, (4, 5), dtype=np.uint8)
    return np.asarray(cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC))


@pytest.fixture
def pictures(tmp_path) -> Path:
    """A folder with five pictures: grey, in colour, with alpha, of 16 bits, and a TIFF of half a micrometre a pixel."""
    folder = tmp_path / "new_images"
    folder.mkdir()
    cv2.imwrite(str(folder / "a_grey.png"), smooth(0))
    cv2.imwrite(str(folder / "b_color.png"), np.dstack([smooth(seed) for seed in (1, 2, 3)]))
    cv2.imwrite(str(folder / "c_alpha.png"), np.dstack([smooth(seed) for seed in (4, 5, 6, 7)]))
    cv2.imwrite(str(folder / "d_deep.png"), smooth(8).astype(np.uint16) * 257)
    tifffile.imwrite(folder / "e_scaled.tif", smooth(9), imagej=True, resolution=(2, 2), metadata={"unit": "um"})
    return folder


@pytest.fixture
def run(model, capfd) -> Run:
    """Runs the command in this process; returns exit status or message, and what it printed and reported."""

    def run_count(*words: object) -> tuple[object, str, str]:
        status: object = 0
        try:
            cli.main(["count", "--model", str(model), *map(str, words)])
        except SystemExit as error:
            status = error.code
        return status, *capfd.readouterr()

    return run_count


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def without_time(path: Path) -> list[dict[str, str]]:
    return [{**row, "seconds": ""} for row in rows_of(path)]


def polygon_area(rings: list[list[list[int]]]) -> float:
    """Area of a GeoJSON polygon: of the first ring without those of its holes."""
    areas = []
    for ring in rings:
        assert ring[0] == ring[-1]
        (x, y), (x_next, y_next) = np.array(ring[:-1]).T, np.array(ring[1:]).T
        areas.append(abs(float(np.sum(x * y_next - x_next * y))) / 2)
    return areas[0] - sum(areas[1:])


def test_every_kind_of_result(run, pictures, tmp_path):
    (pictures / "._a_grey.png").write_bytes(b"left by a Mac")
    (pictures / "notes.txt").touch()
    (pictures / "old").mkdir()
    cv2.imwrite(str(pictures / "old" / "z.png"), smooth(0))
    results = tmp_path / "results"
    kinds = ["--labels", "--objects", "--rois", "--geojson", "--coco", "--pictures", "--steps"]
    status, printed, reported = run(pictures, "--output", results, *kinds, "--processes", 1)
    assert status == 0
    assert "5 images. Left out: 1 file of other kinds (.txt), 1 hidden file, 1 image of folders inside" in reported
    counts = rows_of(results / "counts.csv")
    names = ["a_grey", "b_color", "c_alpha", "d_deep", "e_scaled"]
    assert [Path(row["file"]).stem for row in counts] == names
    number = [int(row["count"]) for row in counts]
    assert printed == f"5 pictures, {sum(number)} objects in {results / 'counts.csv'}.\n" and min(number) > 0
    assert {path.name for path in results.iterdir() if path.is_file()} == {
        *("counts.csv", "objects.csv", "found.json", "found_images.json")
    }
    objects = rows_of(results / "objects.csv")
    coco = COCO(str(results / "found_images.json")).loadRes(str(results / "found.json"))
    for index, name in enumerate(names):
        mine = [row for row in objects if Path(row["file"]).stem == name]
        labels = tifffile.imread(results / f"labels/{name}_labels.tif")
        assert labels.dtype == np.uint16 and labels.shape == (40, 56)
        assert np.unique(labels[labels > 0]).tolist() == [int(row["object"]) for row in mine]
        assert [int(row["area"]) for row in mine] == np.bincount(labels.ravel())[1:].tolist()
        rois = roifile.roiread(results / f"rois/{name}_rois.zip")
        assert [int(roi.name) for roi in rois] == [int(row["object"]) for row in mine]
        features = json.loads((results / f"geojson/{name}.geojson").read_text())["features"]
        for feature, row in zip(features, mine, strict=True):
            shape = feature["geometry"]
            polygons = [shape["coordinates"]] if shape["type"] == "Polygon" else shape["coordinates"]
            assert sum(map(polygon_area, polygons)) == int(row["area"]) == feature["properties"]["measurements"]["area"]
            assert feature["properties"]["objectType"] == "detection"
        assert len(coco.getAnnIds(imgIds=[index + 1])) == len(mine) == number[index]
        assert Image.open(results / f"pictures/{name}.png").size[0] % 56 == 0
        assert (results / f"steps/{name}_steps.png").exists() and (results / f"steps/{name}_steps.gif").exists()
    # Brightness is that of the file: of 16 bits, and red, green and blue of OpenCV's blue, green, red.
    deep = smooth(8).astype(np.uint16) * 257
    labels = tifffile.imread(results / "labels/d_deep_labels.tif")
    means = regionprops_table(labels, deep, properties=["mean_intensity"])["mean_intensity"]
    found = [float(row["mean_intensity_1"]) for row in objects if Path(row["file"]).stem == "d_deep"]
    np.testing.assert_allclose(found, means, rtol=1e-5)
    first = next(row for row in objects if Path(row["file"]).stem == "b_color")
    where = tifffile.imread(results / "labels/b_color_labels.tif") == 1
    assert [int(first[f"max_intensity_{c}"]) for c in (1, 2, 3)] == [smooth(s)[where].max() for s in (3, 2, 1)]
    # Micrometres where the file says how large its pixels are, and the label image says it too.
    assert {row["area_um2"] for row in objects if row["file"].endswith(".png")} == {""}
    scaled = [row for row in objects if row["file"].endswith(".tif")]
    assert [float(row["area_um2"]) for row in scaled] == [int(row["area"]) / 4 for row in scaled]
    with tifffile.TiffFile(results / "labels/e_scaled_labels.tif") as file:
        assert file.imagej_metadata["unit"] == "um" and file.pages[0].tags["XResolution"].value == (2, 1)
    assert not list(results.rglob("*.partial*"))


def test_processes_make_no_difference(run, pictures, tmp_path):
    kinds = ["--labels", "--objects", "--coco", "--rois"]
    for number in (1, 2):
        status, _, _ = run(pictures, "--output", tmp_path / str(number), "--processes", number, *kinds)
        assert status == 0
    assert without_time(tmp_path / "1" / "counts.csv") == without_time(tmp_path / "2" / "counts.csv")
    names = ["objects.csv", "found.json", "found_images.json"]
    names += [f"labels/{path.name}" for path in (tmp_path / "1" / "labels").iterdir()]
    for name in names:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes()


def test_what_is_done_is_not_done_again(run, pictures, tmp_path):
    results = tmp_path / "results"

    def counted(*words: object) -> set[str]:
        """Names of the pictures that are counted."""
        before = {path: path.stat().st_mtime_ns for path in (results / ".records").glob("*.json")}
        status, printed, _ = run(pictures, "--output", results, "--processes", 1, *words)
        assert status == 0 and printed.startswith("5 pictures")
        after = {path: path.stat().st_mtime_ns for path in (results / ".records").glob("*.json")}
        return {path.stem[0] for path in after if after[path] != before.get(path)}

    everything = set("abcde")
    assert counted() == everything
    before = (results / "counts.csv").read_text()
    assert counted() == set()
    assert (results / "counts.csv").read_text() == before
    cv2.imwrite(str(pictures / "b_color.png"), smooth(20))
    assert counted() == {"b"}
    assert counted("--labels") == everything
    (results / "labels" / "c_alpha_labels.tif").unlink()
    assert counted("--labels") == {"c"}
    assert counted() == set()
    assert counted("--threshold", 0.9) == everything
    assert counted("--threshold", 0.9, "--overwrite") == everything
    # Pictures that are not asked for any more leave the table, which is said.
    _, printed, reported = run(pictures / "a_grey.png", "--output", results, "--threshold", 0.9)
    assert printed.startswith("1 picture,") and "also has results of 4 other pictures" in reported
    assert len(rows_of(results / "counts.csv")) == 1


def test_pictures_of_one_name_do_not_replace_each_other(run, pictures, tmp_path):
    (tmp_path / "other").mkdir()
    cv2.imwrite(str(tmp_path / "other" / "a_grey.png"), smooth(30, 24, 24))
    for inputs in ([pictures / "a_grey.png"], [tmp_path / "other"], [tmp_path / "other", pictures / "a_grey.png"]):
        status, _, reported = run(*inputs, "--output", tmp_path / "results", "--labels")
        assert status == 0
    assert "Counted before and left as they are: 2 pictures" in reported
    shapes = {path.name: tifffile.imread(path).shape for path in (tmp_path / "results" / "labels").iterdir()}
    assert shapes == {"a_grey_labels.tif": (40, 56), "other_a_grey_labels.tif": (24, 24)}


def slow_reader(monkeypatch, action: Callable[[str], object]) -> None:
    """Makes the reader call ``action`` with the name of each file first."""
    read = ImageReader.read

    def read_slowly(reader: ImageReader, source) -> object:
        action(source.file)
        return read(reader, source)

    monkeypatch.setattr(ImageReader, "read", read_slowly)


def test_a_process_that_dies_takes_only_its_picture(run, pictures, tmp_path, monkeypatch):
    slow_reader(monkeypatch, lambda file: os.kill(os.getpid(), signal.SIGKILL) if "b_color" in file else None)
    results = tmp_path / "results"
    status, printed, reported = run(pictures, "--output", results, "--processes", 2)
    assert status == 1 and printed.startswith("4 pictures,")
    assert "1 picture could not be counted" in reported
    assert f"{pictures / 'b_color.png'} was not counted: its process was killed" in reported
    assert len(rows_of(results / "counts.csv")) == 4
    monkeypatch.undo()
    status, printed, reported = run(pictures, "--output", results)
    assert status == 0 and printed.startswith("5 pictures") and "left as they are: 4 pictures" in reported


def in_process(model: Path, *words: object) -> multiprocessing.process.BaseProcess:
    """The command in a process of its own, a copy of this one."""
    arguments = ["count", "--model", str(model), *map(str, words)]
    use_one_thread()  # a copy has no other threads, and would wait for them
    process = multiprocessing.get_context("fork").Process(target=cli.main, args=(arguments,))
    process.start()
    return process


def wait_for_records(results: Path, number: int) -> None:
    end = time.monotonic() + 60
    while len(list((results / ".records").glob("*.json"))) < number:
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize(("end", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_it_goes_on_after_it_was_stopped(run, model, pictures, tmp_path, monkeypatch, end, status):
    results, go_on = tmp_path / "results", tmp_path / "go_on"

    def wait(file: str) -> None:
        while file.endswith(("d_deep.png", "e_scaled.tif")) and not go_on.exists():
            time.sleep(0.02)

    with monkeypatch.context() as patch:
        slow_reader(patch, wait)
        process = in_process(model, pictures, "--output", results, "--processes", 2, "--objects")
        wait_for_records(results, 3)
        os.kill(process.pid, end)
        if end == signal.SIGKILL:
            go_on.touch()  # those that lost the process they work for end after the picture at hand
        process.join(30)
        assert process.exitcode == status
    if end == signal.SIGINT:  # what was done is in the tables
        assert len(rows_of(results / "counts.csv")) == 3
    code, printed, reported = run(pictures, "--output", results, "--objects", "--processes", 1)
    left = "3" if end == signal.SIGINT else "[345]"
    assert re.search(f"left as they are: {left} pictures", reported)
    assert code == 0 and "\n5 pictures" in f"\n{printed}"
    code, _, _ = run(pictures, "--output", tmp_path / "again", "--objects", "--processes", 1)
    assert (results / "objects.csv").read_bytes() == (tmp_path / "again" / "objects.csv").read_bytes()


@pytest.mark.parametrize("torchrun", [False, True])
def test_shards_share_a_folder(run, model, pictures, tmp_path, monkeypatch, torchrun):
    results = tmp_path / "results"
    processes = []
    for number in (0, 1):
        if torchrun:
            monkeypatch.setenv("RANK", str(number))
            monkeypatch.setenv("WORLD_SIZE", "2")
        shard = [] if torchrun else ["--shard", f"{number + 1}/2"]
        processes.append(in_process(model, pictures, "--output", results, "--objects", "--processes", 1, *shard))
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0]
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    run(pictures, "--output", tmp_path / "whole", "--objects", "--processes", 1)
    assert without_time(results / "counts.csv") == without_time(tmp_path / "whole" / "counts.csv")
    assert (results / "objects.csv").read_bytes() == (tmp_path / "whole" / "objects.csv").read_bytes()


def test_a_shard_says_what_is_still_missing(run, pictures, tmp_path):
    status, printed, _ = run(pictures, "--output", tmp_path / "results", "--shard", "2/2")
    assert status == 0 and printed.startswith("2 pictures,")
    assert printed.endswith("Still to be counted by other shards: 3 pictures.\n")


@pytest.fixture
def stack(tmp_path) -> Path:
    """A TIFF of three points in time and two channels, of which the second shows nothing."""
    path = tmp_path / "stack.tif"
    planes = np.stack([np.stack([smooth(time), np.zeros((40, 56), np.uint8)]) for time in range(3)])
    tifffile.imwrite(path, planes, imagej=True, metadata={"axes": "TCYX"})
    return path


def test_pages_and_channels_have_to_be_chosen(run, stack, tmp_path):
    results = tmp_path / "results"
    for words, missing in [
        ([], "by --page N (from 1), or --page all for each as a picture of its own, and by --channel N"),
        (["--page", 1], "by --channel N (from 1)"),
        (["--channel", 1], "by --page N (from 1)"),
        (["--page", 4, "--channel", 1], "there is no page 4"),
        (["--page", 1, "--channel", 3], "there is no channel 3"),
    ]:
        status, _, _ = run(stack, "--output", results, *words)
        assert f"{stack} holds 3 pages of 2 channels (axes TCYX, 3 x 2 x 40 x 56)" in str(status)
        assert missing in str(status) and not results.exists()


def test_every_page_is_a_picture(run, stack, tmp_path):
    for time_ in range(3):
        cv2.imwrite(str(tmp_path / f"{time_}.png"), smooth(time_))
    run(*(tmp_path / f"{time_}.png" for time_ in range(3)), "--output", tmp_path / "single")
    expected = [row["count"] for row in rows_of(tmp_path / "single" / "counts.csv")]
    words = ["--page", "all", "--channel", 1, "--labels", "--objects", "--rois"]
    status, _, _ = run(stack, "--output", tmp_path / "all", *words)
    rows = rows_of(tmp_path / "all" / "counts.csv")
    assert status == 0 and [row["frame"] for row in rows] == ["1", "2", "3"]
    assert [row["count"] for row in rows] == expected
    names = sorted(path.name for path in (tmp_path / "all" / "labels").iterdir())
    assert names == [f"stack_p000{number}_labels.tif" for number in (1, 2, 3)]
    objects = rows_of(tmp_path / "all" / "objects.csv")
    assert {row["max_intensity_2"] for row in objects} == {"0"}  # all channels are measured
    assert len(roifile.roiread(tmp_path / "all" / "rois" / "stack_p0002_rois.zip")) == int(expected[1])
    status, _, _ = run(stack, "--output", tmp_path / "one", "--page", 2, "--channel", 1)
    assert [(row["frame"], row["count"]) for row in rows_of(tmp_path / "one" / "counts.csv")] == [("2", expected[1])]


def test_regions_lie_on_their_page(run, tmp_path):
    tifffile.imwrite(tmp_path / "pages.tif", np.stack([smooth(0), smooth(1)]), photometric="minisblack")
    run(tmp_path / "pages.tif", "--page", "all", "--output", tmp_path / "results", "--rois")
    for page in (1, 2):
        rois = roifile.roiread(tmp_path / "results" / "rois" / f"pages_p000{page}_rois.zip")
        assert {roi.position for roi in rois} == {page}


def test_what_stays_in_its_file_gives_the_same(run, pictures, tmp_path, monkeypatch):
    words = [pictures / "e_scaled.tif", "--objects", "--labels", "--percentiles", 1, 99]
    tifffile.imwrite(pictures / "e_scaled.tif", smooth(9))
    run(*words, "--output", tmp_path / "read")
    for module in (image_files, large_images):
        monkeypatch.setattr(module, "LARGEST_READ", 100)
    status, _, _ = run(*words, "--output", tmp_path / "mapped")
    assert status == 0
    assert (tmp_path / "mapped" / "objects.csv").read_text() == (tmp_path / "read" / "objects.csv").read_text()
    status, _, reported = run(*words, "--output", tmp_path / "mapped", "--pictures")
    assert status == 1 and "e_scaled.tif is too large to be drawn" in reported


def test_floats_need_percentiles(run, tmp_path):
    pixels = smooth(0).astype(np.float32) / 100 - 1
    pixels[:3, :4], pixels[5, 6] = np.nan, np.inf
    tifffile.imwrite(tmp_path / "float.tif", pixels)
    status, _, _ = run(tmp_path / "float.tif", "--output", tmp_path / "results")
    assert "float.tif has pixels of type float32" in str(status) and "--percentiles 1 99.8" in str(status)
    words = ["--output", tmp_path / "results", "--objects", "--percentiles", 0, 100]
    status, _, _ = run(tmp_path / "float.tif", *words)
    assert status == 0
    brightest = [float(row["max_intensity_1"]) for row in rows_of(tmp_path / "results" / "objects.csv")]
    assert brightest and max(brightest) <= 1.55


def test_a_picture_without_objects(run, pictures, tmp_path):
    kinds = ["--labels", "--objects", "--rois", "--geojson", "--coco"]
    status, printed, _ = run(pictures / "a_grey.png", "--output", tmp_path, *kinds, "--threshold", 1)
    assert status == 0 and printed.startswith("1 picture, 0 objects")
    assert tifffile.imread(tmp_path / "labels" / "a_grey_labels.tif").max() == 0
    assert rows_of(tmp_path / "objects.csv") == [] and (tmp_path / "objects.csv").read_text().startswith("file,frame,")
    assert json.loads((tmp_path / "geojson" / "a_grey.geojson").read_text())["features"] == []
    assert json.loads((tmp_path / "found.json").read_text()) == []


def test_what_cannot_be_read_is_named_at_the_end(run, pictures, tmp_path):
    (pictures / "bad.png").write_text("no picture")
    (pictures / "bad.tif").write_bytes(b"II*\0broken")
    status, printed, reported = run(pictures, tmp_path / "missing.png", "--output", tmp_path / "results")
    assert status == 1 and printed.startswith("5 pictures,")
    assert "rec-attend count: 3 pictures could not be counted:" in reported
    for reason in ("bad.png cannot be decoded", "bad.tif is a damaged TIFF", "missing.png does not exist"):
        assert reason in reported


def test_counts_are_printed_where_nothing_is_written(run, pictures):
    status, printed, _ = run(pictures / "*.png", "--processes", 2)
    lines = printed.splitlines()
    assert status == 0 and lines[0].split() == ["file", "frame", "count", "mean_score", "seconds", "note"]
    assert [line.split()[0] for line in lines[2:6]] == sorted(map(str, pictures.glob("*.png")))
    assert lines[6].startswith("4 pictures, ")


def test_results_inside_the_inputs_are_no_inputs(run, pictures):
    for _ in range(2):
        status, printed, _ = run(pictures, "--recursive", "--output", pictures, "--labels", "--pictures")
        assert status == 0 and printed.startswith("5 pictures,")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "Name the pictures to count, or give --video FILE or --webcam"),
        (["a.png", "--labels"], "--labels needs --output FOLDER"),
        (["a.png", "--shard", "1/2"], "--shard needs --output FOLDER"),
        (["a.png", "--output", "a.png"], "--output 'a.png' is a file"),
        (["pictures/a.png", "--output", ".", "--pictures"], "pictures/a.png' would replace the input"),
        (["a.png", "--threshold", "2"], "--threshold is 2; scores are from 0 to 1"),
        (["a.png", "--percentiles", "99", "1"], "INPUT.CONTRAST_PERCENTILES is [99.0, 1.0]"),
        (["a.png", "--object-size", "0"], "The object size is 0"),
        (["*.nothing"], "No file matches the pattern '*.nothing'"),
        (["--webcam"], "--webcam needs --output"),
        (["--video", "no.mp4"], "The video 'no.mp4' does not exist"),
        (["--video", "no.mp4", "--labels", "--output", "x"], "--labels is for pictures"),
        (["a.png", "--model", "nothing"], "There is no model 'nothing'"),
        (["a.png", "--opts", "MODEL.WEIGHTS", "no.pth"], "'no.pth', which does not exist"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(run, tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pictures").mkdir()
    for name in ("a.png", "pictures/a.png"):
        cv2.imwrite(name, smooth(0))
    status, printed, _ = run(*words)
    assert str(status).startswith("rec-attend count: ") and message in str(status) and printed == ""


@pytest.mark.parametrize("words", [["--shard", "3/2"], ["--page", "0"], ["--processes", "0"], ["--pixel-size", "-1"]])
def test_numbers_that_cannot_be(run, words):
    status, _, reported = run("a.png", *words)
    assert status == 2 and words[0] in reported


def test_a_video(run, tmp_path):
    video = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 5, (56, 40))
    for number in range(3):
        video.write(cv2.cvtColor(smooth(number), cv2.COLOR_GRAY2BGR))
    video.release()
    for output, drawn, counts in [
        (tmp_path / "new.avi", tmp_path / "new.avi", tmp_path / "new.csv"),
        (tmp_path / "folder", tmp_path / "folder" / "clip.mp4", tmp_path / "folder" / "counts.csv"),
    ]:
        status, printed, _ = run("--video", tmp_path / "clip.avi", "--output", output)
        assert status == 0 and printed.startswith("3 frames, ")
        assert cv2.VideoCapture(str(drawn)).get(cv2.CAP_PROP_FRAME_COUNT) == 3
        assert [row["frame"] for row in rows_of(counts)] == ["0", "1", "2"]


def test_one_count_at_a_time_in_a_folder_of_results(model, pictures, tmp_path):
    results = tmp_path / "results"
    (results / ".records").mkdir(parents=True)
    code = "import sys, pathlib; from rec_attend_d2.whole_files import hold; f = hold(pathlib.Path(sys.argv[1])); "
    code += "print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(results / ".records" / ".lock_1_of_1")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        words = ["count", "--model", str(model), str(pictures), "--output", str(results), "--processes", "1"]
        with pytest.raises(SystemExit, match=f"process {other.pid} on .* is counting into"):
            cli.main(words)
        other.stdin.close()
    cli.main(words)
    assert len((results / "counts.csv").read_text().splitlines()) == 6
