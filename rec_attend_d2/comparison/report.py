"""Writes the files of a comparison: comparison.json, report.html, report.md and its pictures."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..config import load_config
from ..whole_files import write_json
from .content import Picture, make_sections
from .figures import picture_png
from .files import read_json
from .gallery import draw_image, ranked
from .groups import quality_by_group
from .predictions import of_images
from .report_html import render_html
from .report_markdown import PICTURES, render_markdown
from .worker import PREDICTIONS, annotated

JSON, HTML, MARKDOWN = "comparison.json", "report.html", "report.md"


def _gallery(content: Mapping[str, Any], records: list[dict], output: Path) -> list[Picture]:
    models = content["models"]
    ids = [record["image_id"] for record in records]
    found = {m["name"]: of_images(read_json(output / m["name"] / PREDICTIONS), ids) for m in models}
    thresholds = {model["name"]: model["results"]["threshold"] for model in models}
    images = {model["name"]: model["results"]["images"] for model in models}
    recipe = models[0]["spec"]["recipe"]
    contrast = load_config(recipe, []).INPUT.CONTRAST_PERCENTILES if recipe else []
    pictures = []
    for rank, positions in ranked(images).items():
        for number, position in enumerate(positions, start=1):
            of_model = {name: detections[ids[position]] for name, detections in found.items()}
            picture = draw_image(records[position], of_model, thresholds, contrast)
            scores = ", ".join(f"{name}: SBD {im[position]['sbd']:.3f}" for name, im in images.items())
            alt = f"{rank}: {Path(records[position]['file_name']).name}, truth and results; {scores}"
            pictures.append(Picture(f"{rank}_{number}", alt, picture_png(picture)))
    return pictures


def write_report(content: Mapping[str, Any], output: Path) -> None:
    """Write everything.

    Args:
        content: ``schema``, ``command``, ``environment``, ``train``, ``test`` and ``models`` (of
            :func:`.suite.gather`, all finished).
        output: folder of the comparison, with a folder of each model.
    """
    records = annotated(content["test"])
    images = {model["name"]: model["results"]["images"] for model in content["models"]}
    content = {**content, "groups": quality_by_group(records, images)}
    write_json(output / JSON, content)
    sections = make_sections(content, _gallery(content, records, output))
    title = f"Comparison on {content['test']}: {', '.join(images)}"
    (output / HTML).write_text(render_html(title, sections), encoding="utf-8")
    (output / MARKDOWN).write_text(render_markdown(title, sections), encoding="utf-8")
    folder = output / PICTURES
    folder.mkdir(exist_ok=True)
    for section in sections:
        for picture in section.pictures:
            (folder / f"{picture.name}.png").write_bytes(picture.png)
