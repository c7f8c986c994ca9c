#!/usr/bin/env python
"""Draw the pictures of the documentation with the published weights, on validation pictures.

    python research/draw_front_page.py [--chromium PROGRAM]

writes docs/front_page.png, docs/steps.png and, with a Chromium or Chrome that makes a picture of a page,
docs/report.png. docs/front_page.json says which files are shown, what was found, and the SHA256 of the weights: a test
compares them with weights/SHA256SUMS. The data sets (fields, cells, rosettes) are those of DETECTRON2_DATASETS.

No picture is chosen by hand: of the validation pictures with at least the median number of objects it is the one of
median SBD.
"""

import argparse
import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

import rec_attend_d2  # noqa: F401  registers the data sets
from rec_attend_d2.prediction import Predictor
from rec_attend_d2.prediction.predictor import Prediction
from rec_attend_d2.report import Measured, measure, write_report
from rec_attend_d2.report.measure import PictureResult
from rec_attend_d2.structures import MaskCrops, as_crops
from rec_attend_d2.visualization.canvas import dimmed, draw_boxes, draw_masks, grid, text_cell
from rec_attend_d2.visualization.colors import BOX, FADED_TEXT, STOP, TEXT, instance_color
from rec_attend_d2.visualization.instances import count_text
from rec_attend_d2.visualization.steps import Trace, box_corners, claimed, draw_steps
from rec_attend_d2.whole_files import write_json, written_at_once

ROOT = Path(__file__).resolve().parents[1]
DOCS, WEIGHTS = ROOT / "docs", ROOT / "weights"
PICTURE, STEPS, REPORT, RECORD = (
    DOCS / name for name in ("front_page.png", "steps.png", "report.png", "front_page.json")
)
# Sizes in pixels of the picture.
HEIGHT, HEADER, LOW_HEADER, TEXT_SIZE, THICKNESS, GAP = 460, 76, 48, 24, 2, 4
REPORT_WIDTH, REPORT_HEIGHT = 1100, 1500


@dataclass(frozen=True)
class Shown:
    """Published weights, the data set that they are shown on, and what is to be seen there."""

    weights: str
    dataset: str
    title: str


SHOWN = (
    Shown("nuclei", "fields_val", "nuclei, fluorescence"),
    Shown("cells", "cells_val", "cells, phase contrast"),
    Shown("rosettes", "rosettes_val", "leaves of a drawn plant"),
)
# The weights whose report is shown.
REPORTED = "cells"


def middle(pictures: Sequence[PictureResult]) -> PictureResult:
    """Of the pictures with at least the median number of objects the one of median SBD."""
    least = float(np.median([picture.true_count for picture in pictures]))
    full = sorted((p for p in pictures if p.true_count >= least), key=lambda p: (p.sbd, p.file_name))
    return full[len(full) // 2]


def enlarged(image: np.ndarray, factor: float) -> np.ndarray:
    """The image [H, W, ...] in another size, smoothly."""
    return cv2.resize(
        image, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    )


def enlarged_masks(masks: MaskCrops, factor: float) -> MaskCrops:
    """Masks in another size, with smooth outlines."""
    dense = [enlarged(mask.astype(np.float32), factor) > 0.5 for mask in masks.numpy()]
    return as_crops(np.stack(dense))


def draw_found(image: np.ndarray, masks: MaskCrops, factor: float) -> np.ndarray:
    """The picture [H, W, 3] in another size, with every mask in its own colour."""
    large = enlarged(image, factor)
    if not len(masks):
        return large
    colors = [instance_color(number) for number in range(len(masks))]
    return draw_masks(large, enlarged_masks(masks, factor), colors, strength=0.35, thickness=THICKNESS)


def panel(title: str, image: np.ndarray, prediction: Prediction) -> list[np.ndarray]:
    """Heading and picture of what was found in an image, uint8 RGB [H, W, 3]."""
    drawn = draw_found(image, as_crops(prediction.instances.pred_masks), HEIGHT / image.shape[0])
    return [text_cell(title, HEADER, drawn.shape[1], TEXT, TEXT_SIZE), drawn]


def glances(trace: Trace, width: int) -> list[list[np.ndarray]]:
    """Headings and pictures of the steps of a trace, ``width`` pixels in all: its boxes, and all found so far."""
    count = len(trace.steps)
    headings, cells = [], []
    for number, step in enumerate(trace.steps):
        side = width * (number + 1) // count - width * number // count - GAP
        factor = side / trace.image.shape[1]
        goes_on = bool(claimed(step).any())
        cell = draw_found(trace.image, as_crops(trace.found[number].pred_masks), factor)
        corners = box_corners(step, 1)[claimed(step)] * factor
        cell = draw_boxes(cell, corners, [BOX] * len(corners), THICKNESS)
        words = f"glance {number + 1}: {count_text(int(claimed(step).sum()))}" if goes_on else "nothing left: stop"
        headings.append(text_cell(words, LOW_HEADER, side, TEXT if goes_on else STOP, TEXT_SIZE))
        cells.append(cell if goes_on else dimmed(cell))
    height = min(cell.shape[0] for cell in cells)
    return [headings, [cell[:height] for cell in cells]]


def weights_sum(name: str) -> str:
    """SHA256 of weights, as weights/SHA256SUMS has it."""
    lines = (WEIGHTS / "SHA256SUMS").read_text().splitlines()
    return {file: digest for digest, file in (line.split() for line in lines)}[f"{name}.pth"]


def save(path: Path, picture: np.ndarray) -> None:
    """Write a picture [H, W, 3]."""
    with written_at_once(path) as partial:
        Image.fromarray(picture).save(partial, format="PNG", optimize=True)


def draw_report(measured: Measured, predictor: Predictor, title: str, chromium: str) -> None:
    """Write the top of the report about a model as docs/report.png."""
    with tempfile.TemporaryDirectory() as folder:
        page = write_report(Path(folder), title, measured, predictor)
        shot = Path(folder) / "report.png"
        options = ["--headless", "--no-sandbox", "--hide-scrollbars", f"--window-size={REPORT_WIDTH},{REPORT_HEIGHT}"]
        subprocess.run([chromium, *options, f"--screenshot={shot}", page.as_uri()], check=True, capture_output=True)
        with written_at_once(REPORT) as partial:
            Image.open(shot).convert("RGB").quantize(128).save(partial, format="PNG", optimize=True)


def main() -> None:
    """Draw and write everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--chromium", default=shutil.which("chromium") or "", help="for docs/report.png")
    chromium: str = parser.parse_args().chromium
    panels, record = [], []
    for shown in SHOWN:
        predictor = Predictor(WEIGHTS / f"{shown.weights}.yaml", WEIGHTS / f"{shown.weights}.pth")
        measured = measure(predictor, shown.dataset)
        chosen = middle(measured.pictures)
        image = predictor.read(chosen.file_name)
        title = f"{shown.title}\n{chosen.predicted_count} found, {chosen.true_count} annotated"
        panels.append(panel(title, np.ascontiguousarray(image[:, :, ::-1]), predictor.predict([image])[0]))
        record.append(
            {
                "dataset": shown.dataset,
                "picture": Path(chosen.file_name).name,
                "annotated": chosen.true_count,
                "found": chosen.predicted_count,
                "SBD": chosen.sbd,
                "weights": f"{shown.weights}.pth",
                "sha256": weights_sum(shown.weights),
            }
        )
        print(json.dumps(record[-1]))
        if shown.weights == REPORTED and chromium:
            draw_report(measured, predictor, f"{shown.weights} on {shown.dataset}", chromium)
    trace = predictor.trace(image)
    width = sum(drawn.shape[1] + GAP for _, drawn in panels)
    rows = [[heading for heading, _ in panels], [drawn for _, drawn in panels]]
    words = "How the model goes through that plant: the boxes of each glance, and all that was found until then"
    rows += [[text_cell(words, LOW_HEADER, width - GAP, FADED_TEXT, TEXT_SIZE)], *glances(trace, width)]
    save(PICTURE, grid(rows))
    save(STEPS, draw_steps(trace))
    write_json(RECORD, {"command": "python research/draw_front_page.py", "pictures": record})


if __name__ == "__main__":
    main()
