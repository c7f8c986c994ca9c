#!/usr/bin/env python
"""Find and count the objects of images, a video or a webcam with a trained model.

    python demo/demo.py --config-file weights/rosettes.yaml --input plant.png folder 'plants/**/*.png'
        [--output pictures] [--labels folder] [--csv counts.csv] [--json results.json] [--steps folder]
        [--opts KEY VALUE ...]
    python demo/demo.py --config-file ... --video-input plants.mp4 --output counted.mp4
    python demo/demo.py --config-file ... --webcam --output counted.mp4    (Ctrl-C ends it)

Without an output the counts are printed. Images that cannot be read are left out and named at the end, and the exit
status is then 1. How sure the model has to be of an object: --opts MODEL.REC_ATTEND.TEST.SCORE_THRESHOLD 0.5.
"""

import argparse
import sys
from pathlib import Path

from tqdm import tqdm

from rec_attend_d2.config import load_config
from rec_attend_d2.prediction import Predictor, find_weights
from rec_attend_d2.prediction.running import INTERRUPTED, build_predictor, count_video
from rec_attend_d2.prediction.sources import distinct_names, find_images, image_frames, open_video, open_webcam
from rec_attend_d2.prediction.writers import (
    CocoResults,
    CountFile,
    CountTable,
    LabelImages,
    Pictures,
    StepPictures,
    Totals,
    Writer,
    check_label_paths,
    known_categories,
    picture_paths,
    video_path,
    write_predictions,
)


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", required=True, help="the config the weights were trained with")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--input", nargs="+", metavar="PATH", help="images, folders of images or glob patterns")
    source.add_argument("--video-input", metavar="FILE", help="a video")
    source.add_argument("--webcam", action="store_true", help="this machine's camera, until Ctrl-C")
    parser.add_argument(
        "--output", type=Path, help="folder for the pictures; also the file of a single picture or of the video"
    )
    parser.add_argument(
        "--labels", type=Path, metavar="FOLDER", help="label images of 16 bits, NAME_labels.png: k where object k is"
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="counts, a row per image or frame")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="COCO results; NAME_images.json beside it names the images"
    )
    parser.add_argument("--steps", type=Path, metavar="FOLDER", help="pictures and animations of the recurrent steps")
    parser.add_argument("--batch-size", type=int, default=8, help="images that go through the model at a time")
    parser.add_argument(
        "--object-size", type=float, metavar="PIXELS", help="typical width of the objects, if not as in the training"
    )
    parser.add_argument(
        "--tile", type=int, default=0, metavar="PIXELS", help="cut images of any size into tiles; else large ones only"
    )
    parser.add_argument(
        "--overlapping", action="store_true", help="masks may overlap, instead of a pixel having one object at most"
    )
    parser.add_argument(
        "--opts", nargs=argparse.REMAINDER, default=[], metavar="KEY VALUE", help="config changes; give them last"
    )
    arguments = parser.parse_args()
    if arguments.steps and not arguments.input:
        parser.error("--steps draws the steps of images: give them by --input.")
    if arguments.webcam and not (arguments.output or arguments.labels or arguments.csv or arguments.json):
        parser.error(
            "--webcam needs --output FILE.mp4 (or --labels, --csv, --json): this is OpenCV's headless build, which "
            "cannot show a window."
        )
    return arguments


def load_model(arguments: argparse.Namespace, batch_size: int) -> Predictor:
    """The model of the command line. Raises ValueError or FileNotFoundError where something is wrong with it."""
    cfg = load_config(arguments.config_file, arguments.opts)
    weights = find_weights(cfg, arguments.config_file)
    return build_predictor(cfg, weights, batch_size, arguments.object_size, arguments.tile, arguments.overlapping)


def result_writers(arguments: argparse.Namespace, predictor: Predictor) -> list[Writer]:
    """Those that images and videos have in common; the counts are printed where nothing else is asked for."""
    writers: list[Writer] = []
    if not (arguments.output or arguments.labels or arguments.csv or arguments.json or arguments.steps):
        writers.append(CountTable())
    if arguments.labels:
        writers.append(LabelImages(arguments.labels))
    if arguments.csv:
        writers.append(CountFile(arguments.csv))
    if arguments.json:
        writers.append(CocoResults(arguments.json, known_categories(predictor.cfg)))
    return writers


def run_on_images(arguments: argparse.Namespace, unreadable: list[str]) -> Totals:
    """Predict --input; why an image cannot be read is appended to ``unreadable``."""
    paths = find_images(arguments.input)
    labels = distinct_names(paths)
    pictures = picture_paths(arguments.output, paths, labels) if arguments.output else {}
    if arguments.labels:
        check_label_paths(arguments.labels, paths, labels)
    predictor = load_model(arguments, arguments.batch_size)
    writers = result_writers(arguments, predictor)
    if pictures:
        writers.append(Pictures(pictures))
    if arguments.steps:
        writers.append(StepPictures(arguments.steps, predictor))
    bar = tqdm(total=len(paths), unit="image")

    def report(reason: str) -> None:
        unreadable.append(reason)
        bar.update()

    frames = image_frames(zip(paths, labels, strict=True), predictor.read, report)
    return write_predictions(predictor, frames, writers, bar)


def run_on_video(arguments: argparse.Namespace) -> Totals:
    """Predict --video-input or --webcam."""
    name = "webcam" if arguments.webcam else arguments.video_input
    path = video_path(arguments.output, name) if arguments.output else None
    capture = open_webcam() if arguments.webcam else open_video(name)
    try:
        # A camera's frames are not kept waiting for others.
        predictor = load_model(arguments, 1 if arguments.webcam else arguments.batch_size)
        return count_video(capture, name, predictor, result_writers(arguments, predictor), path)
    finally:
        capture.release()


def main() -> None:
    """Predict, write, and say what could not be read."""
    arguments = parse_arguments()
    unreadable: list[str] = []
    try:
        totals = run_on_images(arguments, unreadable) if arguments.input else run_on_video(arguments)
    except (OSError, ValueError) as error:
        sys.exit(f"demo: {error}")
    print(f"{totals.images} {'images' if arguments.input else 'frames'}, {totals.objects} objects.")
    if unreadable:
        sys.exit("\n".join([f"demo: {len(unreadable)} left out, which could not be read:", *unreadable]))
    if totals.interrupted and not arguments.webcam:
        print("Stopped before the end.", file=sys.stderr)
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
