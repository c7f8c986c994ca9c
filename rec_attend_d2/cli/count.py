"""``rec-attend count``: find and count the objects of pictures, a video or a camera."""

import argparse
import glob
import os
import sys
from dataclasses import replace
from pathlib import Path

from tabulate import tabulate

from ..data.image_io import check_percentiles
from ..prediction.counter import PICTURE_FILES, TABLES
from ..prediction.counting import Settings, Shard, Summary, count_pictures
from ..prediction.image_files import Choice
from ..prediction.models import find_model
from ..prediction.pixel_size import PixelSize
from ..prediction.published import FOLDER_VARIABLE
from ..prediction.running import INTERRUPTED, count_video, say
from ..prediction.sources import find_images, is_image_name, open_video, open_webcam, plural
from ..prediction.writers import COUNT_COLUMNS, CountFile, CountTable, Writer, video_path

_THRESHOLD = "MODEL.REC_ATTEND.TEST.SCORE_THRESHOLD"
_OUTPUTS = (*PICTURE_FILES, *TABLES)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    parser.add_argument(
        "--model",
        required=True,
        metavar="MODEL",
        help="a folder that rec-attend train wrote, a config file (.yaml), or the name of published weights such as "
        f"nuclei (looked for in ${FOLDER_VARIABLE}, ~/.cache/rec_attend_d2/weights and the source code's weights)",
    )
    _add_inputs(parser.add_argument_group("what to count"))
    _add_outputs(parser.add_argument_group("results"))
    _add_model_options(parser.add_argument_group("the model"))
    _add_running(parser.add_argument_group("how to run"))
    parser.add_argument(
        "--opts", nargs=argparse.REMAINDER, default=[], metavar="KEY VALUE", help="config changes; give them last"
    )


def _add_inputs(group: argparse._ArgumentGroup) -> None:
    group.add_argument("inputs", nargs="*", metavar="PICTURES", help="image files, folders of them, or glob patterns")
    group.add_argument("--recursive", action="store_true", help="also take the images of folders inside the folders")
    group.add_argument(
        "--page",
        type=_page,
        metavar="N|all",
        help="of TIFFs with several pictures (time, depth, pages): the N-th, from 1; all = each is counted by itself",
    )
    group.add_argument(
        "--channel", type=_number, metavar="N", help="the channel that shows the objects, from 1 (of colour 1 is red)"
    )
    group.add_argument("--video", metavar="FILE", help="count the frames of a video instead")
    group.add_argument("--webcam", action="store_true", help="count what this machine's camera sees, until Ctrl-C")


def _add_outputs(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER",
        help="folder for the results, in which counts.csv is always written (without it the counts are printed); of a "
        "video also its file, such as counted.mp4, beside which the counts are counted.csv",
    )
    group.add_argument("--labels", action="store_true", help="labels/NAME_labels.tif: k where object k is, 0 elsewhere")
    group.add_argument("--objects", action="store_true", help="objects.csv: size, shape and brightness of every object")
    group.add_argument("--rois", action="store_true", help="rois/NAME_rois.zip: outlines for ImageJ's ROI Manager")
    group.add_argument("--geojson", action="store_true", help="geojson/NAME.geojson: outlines for QuPath")
    group.add_argument("--coco", action="store_true", help="found.json and found_images.json: COCO's results")
    group.add_argument("--pictures", action="store_true", help="pictures/NAME.png: the picture with what was found")
    group.add_argument("--steps", action="store_true", help="steps/NAME_steps.png and .gif: the recurrent steps")
    group.add_argument(
        "--pixel-size", type=_positive, metavar="UM", help="micrometres per pixel, if not as the TIFF says"
    )
    group.add_argument("--overwrite", action="store_true", help="count pictures again whose results are there")


def _add_model_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--object-size", type=float, metavar="PIXELS", help="typical width of the objects, if not as in the training"
    )
    group.add_argument(
        "--threshold", type=float, metavar="SCORE", help="how sure of an object the model has to be, 0 to 1"
    )
    group.add_argument(
        "--percentiles",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="percentiles of the grey values that become black and white, such as 1 99.8, instead of the model's",
    )
    group.add_argument(
        "--overlapping", action="store_true", help="masks may overlap, instead of a pixel having one object at most"
    )
    group.add_argument(
        "--tile",
        type=int,
        default=0,
        metavar="PIXELS",
        help="cut all pictures into tiles, not only large ones",
    )


def _add_running(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--device", help="such as cpu, cuda or cuda:1; by default the model's, if it is here")
    group.add_argument(
        "--batch-size", type=_number, metavar="N", help="pictures that go through the model at a time (CPU 1, CUDA 8)"
    )
    group.add_argument(
        "--processes",
        type=_number,
        metavar="N",
        help="that count pictures beside each other, each with one thread (default: the usable cores; on CUDA 1)",
    )
    group.add_argument(
        "--shard",
        type=_shard,
        metavar="I/N",
        help="count every N-th picture from the I-th on, where N machines share the folder of results; by default as "
        "torchrun says",
    )


def _number(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def _page(text: str) -> int | str:
    return text if text == "all" else _number(text)


def _shard(text: str) -> Shard:
    number, slash, parts = text.partition("/")
    if not (slash and number.isdecimal() and parts.isdecimal() and 1 <= int(number) <= int(parts)):
        raise argparse.ArgumentTypeError(f"'{text}' is not like 1/4, 2/4, 3/4 or 4/4")
    return Shard(int(number), int(parts))


def run(arguments: argparse.Namespace) -> None:
    """Count. Exits with 1 where a picture could not be counted, and with 130 after Ctrl-C.

    Raises:
        OSError, ValueError: something is wrong with the options, the model or the inputs.
    """
    given = [bool(arguments.inputs), bool(arguments.video), arguments.webcam]
    if sum(given) != 1:
        raise ValueError("Name the pictures to count, or give --video FILE or --webcam: one of the three.")
    try:
        settings = _settings(arguments)
        if arguments.inputs:
            _count_pictures(arguments, settings)
        else:
            _count_video(arguments, settings)
    except KeyboardInterrupt:  # before anything was counted
        sys.exit(INTERRUPTED)


def _settings(arguments: argparse.Namespace) -> Settings:
    options: list = []
    if arguments.device:
        options += ["MODEL.DEVICE", arguments.device]
    elif "LOCAL_RANK" in os.environ and int(os.environ.get("LOCAL_WORLD_SIZE", 1)) > 1:
        options += ["MODEL.DEVICE", f"cuda:{os.environ['LOCAL_RANK']}"]
    if arguments.threshold is not None:
        if not 0 <= arguments.threshold <= 1:
            raise ValueError(f"--threshold is {arguments.threshold:g}; scores are from 0 to 1.")
        options += [_THRESHOLD, arguments.threshold]
    if arguments.percentiles is not None:
        check_percentiles(arguments.percentiles)
        options += ["INPUT.CONTRAST_PERCENTILES", arguments.percentiles]
    cfg, weights = find_model(arguments.model).load_config([*options, *arguments.opts])
    size = arguments.pixel_size
    return Settings(
        cfg,
        weights,
        arguments.object_size,
        arguments.tile,
        arguments.overlapping,
        arguments.batch_size,
        Choice(arguments.page, arguments.channel),
        None if size is None else PixelSize(size, size),
        arguments.processes,
        arguments.shard or Shard(int(os.environ.get("RANK", 0)) + 1, int(os.environ.get("WORLD_SIZE", 1))),
    )


def _count_pictures(arguments: argparse.Namespace, settings: Settings) -> None:
    outputs = frozenset(name for name in _OUTPUTS if getattr(arguments, name))
    results: Path | None = arguments.output
    if results is None and (outputs or settings.shard.parts > 1):
        what = "--shard" if settings.shard.parts > 1 else f"--{min(outputs)}"
        raise ValueError(f"{what} needs --output FOLDER, where the results go.")
    if results is not None and results.exists() and not results.is_dir():
        raise ValueError(f"--output '{results}' is a file; name a folder for the results.")
    # A single image that is missing is named at the end, as those that are damaged; a folder at once.
    for name in arguments.inputs:
        if not (glob.has_magic(name) or is_image_name(name) or Path(name).expanduser().exists()):
            raise ValueError(f"There is no file or folder '{name}'.")
    own = [] if results is None else [results / name for name in PICTURE_FILES]
    files = find_images(arguments.inputs, arguments.recursive, say, own)
    summary = count_pictures(files, settings, results, outputs, arguments.overwrite, say)
    if results is None and summary.rows:
        print(tabulate(summary.rows, headers=COUNT_COLUMNS, disable_numparse=[0]))
    _report(summary, results)


def _report(summary: Summary, results: Path | None) -> None:
    """Say what was done, and exit with 1 or INTERRUPTED unless all is well."""
    where = "" if results is None else f" in {results / 'counts.csv'}"
    print(f"{plural(summary.pictures, 'picture')}, {plural(summary.objects, 'object')}{where}.", flush=True)
    if summary.pictures and not summary.objects:
        print("Nothing was found in any picture: is it the right --model, do objects have another --object-size?")
    if summary.failures:
        number = plural(len(summary.failures), "picture")
        print("\n".join([f"rec-attend count: {number} could not be counted:", *summary.failures]), file=sys.stderr)
    if summary.interrupted:
        print("Stopped before the end. The same command goes on where it was.", file=sys.stderr)
        sys.exit(INTERRUPTED)
    if summary.failures:
        sys.exit(1)
    if summary.missing:
        print(f"Still to be counted by other shards: {plural(summary.missing, 'picture')}.")


def _count_video(arguments: argparse.Namespace, settings: Settings) -> None:
    """Count --video or --webcam: a video with the objects drawn in it, and the counts of the frames."""
    output: Path | None = arguments.output
    for name in (*_OUTPUTS, "page", "channel", "shard", "recursive", "processes"):
        if getattr(arguments, name):
            raise ValueError(f"--{name} is for pictures. Of a video there are the drawn video and counts.csv.")
    name = "webcam" if arguments.webcam else arguments.video
    if output is None and arguments.webcam:
        raise ValueError("--webcam needs --output, such as counted.mp4: there is no window to show it in.")
    path = video_path(output, name) if output is not None else None
    capture = open_webcam() if arguments.webcam else open_video(name)
    try:
        # A camera's frames are not kept waiting for others.
        chosen = replace(settings, batch_size=1) if arguments.webcam else settings
        predictor = chosen.predictor(chooses_threads=True)
        writers: list[Writer] = [CountTable()]
        if path is not None:
            writers = [CountFile(path.with_suffix(".csv") if path == output else path.with_name("counts.csv"))]
        totals = count_video(capture, name, predictor, writers, path)
    finally:
        capture.release()
    where = f" in {path}" if path is not None else ""
    print(f"{plural(totals.images, 'frame')}, {plural(totals.objects, 'object')}{where}.")
    if totals.interrupted and not arguments.webcam:
        print("Stopped before the end.", file=sys.stderr)
        sys.exit(INTERRUPTED)
