"""From a command line to counts: what demo/demo.py and ``rec-attend count`` have in common."""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import cv2
from detectron2.config import CfgNode
from tqdm import tqdm

from ..threads import choose_and_say
from .predictor import Predictor
from .sources import known_property, video_frames
from .writers import Totals, Video, Writer, write_predictions

USUAL_FRAME_RATE = 30.0  # of sources that do not say theirs
INTERRUPTED = 130  # the exit status that shells use for Ctrl-C


def say(text: str) -> None:
    """Print a line that is no result."""
    print(text, file=sys.stderr)


def build_predictor(
    cfg: CfgNode,
    weights: str,
    batch_size: int,
    object_size: float | None = None,
    tile: int = 0,
    overlapping: bool = False,
    chooses_threads: bool = True,
    shows_tiles: bool = True,
) -> Predictor:
    """A predictor, see its class for the arguments and errors.

    Args:
        chooses_threads: measure with how many threads the CPU is fastest.
        shows_tiles: a progress bar goes over the tiles of a large picture.
    """
    if chooses_threads:
        choose_and_say(cfg.MODEL.DEVICE, say)
    bar = partial(tqdm, unit="tile", leave=False, disable=None)
    options = {"object_size": object_size, "tile": tile, "overlapping_masks": overlapping}
    return Predictor(cfg, weights, batch_size, **options, **({"progress": bar} if shows_tiles else {}))  # type: ignore[arg-type]


def count_video(
    capture: cv2.VideoCapture, name: str, predictor: Predictor, writers: Sequence[Writer], path: Path | None
) -> Totals:
    """Predict the frames of a video or a camera.

    Args:
        capture: open; it stays so.
        name: of the video, for the tables.
        predictor: the model.
        writers: get every frame.
        path: of the video with the objects drawn in it; None = there is none.
    """
    all_writers = list(writers)
    if path is not None:
        all_writers.append(Video(path, known_property(capture, cv2.CAP_PROP_FPS) or USUAL_FRAME_RATE))
    frames = known_property(capture, cv2.CAP_PROP_FRAME_COUNT)
    bar = tqdm(total=int(frames) if frames else None, unit="frame")
    return write_predictions(predictor, video_frames(capture, name, predictor.prepare), all_writers, bar)
