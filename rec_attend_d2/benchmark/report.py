"""Writes the files of a comparison: comparison.json, report.html, report.md and its pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.structures import Instances

from ..config import load_config
from ..data.image_io import read_image
from ..evaluation.coco_evaluator import Detection
from ..report.plots import picture_png
from ..report.rendering import PICTURES, Picture, render_html, render_markdown
from ..report.selection import ranked
from ..visualization import draw_instances, side_by_side, true_instances
from ..whole_files import write_json
from .content import make_sections
from .groups import quality_by_group
from .models import read_json
from .scoring import of_images, predicted_masks, scores_of
from .worker import PREDICTIONS, annotated

JSON, HTML, MARKDOWN = "comparison.json", "report.html", "report.md"


def by_mean_sbd(images: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, list[int]]:
    """Positions of the images with the largest, the middle and the smallest mean SBD of all models; see ranked."""
    return ranked(np.mean([[image["sbd"] for image in of_model] for of_model in images.values()], axis=0))


def _draw(record: dict, kept: Mapping[str, Sequence[Detection]], contrast: Sequence[float]) -> np.ndarray:
    """The image, the truth and every model's instances beside each other, RGB [H, W, 3]."""
    image = read_image(record["file_name"], contrast)[:, :, ::-1]
    size = image.shape[:2]
    pictures = {"truth": draw_instances(image, true_instances(record, size))}
    for name, detections in kept.items():
        pictures[name] = draw_instances(image, Instances(size, pred_masks=predicted_masks(detections, size)))
    return side_by_side(pictures)


def _gallery(models: Sequence[Mapping[str, Any]], records: Sequence[dict], output: Path) -> list[Picture]:
    """The best, the median and the worst images, each with the truth and every model's result."""
    ids = [record["image_id"] for record in records]
    found = {model["name"]: of_images(read_json(output / model["name"] / PREDICTIONS), ids) for model in models}
    recipe = models[0]["spec"]["recipe"]
    contrast = load_config(recipe, []).INPUT.CONTRAST_PERCENTILES if recipe else []
    pictures = []
    for rank, positions in by_mean_sbd({model["name"]: model["results"]["images"] for model in models}).items():
        for number, position in enumerate(positions, start=1):
            kept, words = {}, []
            for name, results in ((model["name"], model["results"]) for model in models):
                detections = found[name][ids[position]]
                high = scores_of(detections) >= results["threshold"]
                kept[name] = [detection for detection, above in zip(detections, high, strict=True) if above]
                words.append(f"{name}: SBD {results['images'][position]['sbd']:.3f}")
            record = records[position]
            alt = f"{rank}: {Path(record['file_name']).name}, truth and results; {', '.join(words)}"
            pictures.append(Picture(f"{rank}_{number}", alt, picture_png(_draw(record, kept, contrast))))
    return pictures


def write_report(content: Mapping[str, Any], output: Path) -> None:
    """Write everything.

    Args:
        content: ``schema``, ``command``, ``environment``, ``train``, ``test`` and ``models`` (of
            :func:`.worker.gather`, all finished).
        output: folder of the comparison, with a folder of each model.
    """
    records, models = annotated(content["test"]), content["models"]
    images = {model["name"]: model["results"]["images"] for model in models}
    content = {**content, "groups": quality_by_group(records, images)}
    write_json(output / JSON, content)
    sections = make_sections(content, _gallery(models, records, output))
    title = f"Comparison on {content['test']}: {', '.join(images)}"
    (output / HTML).write_text(render_html(title, sections), encoding="utf-8")
    (output / MARKDOWN).write_text(render_markdown(title, sections), encoding="utf-8")
    folder = output / PICTURES
    folder.mkdir(exist_ok=True)
    for section in sections:
        for picture in section.pictures:
            (folder / f"{picture.name}.png").write_bytes(picture.png)
