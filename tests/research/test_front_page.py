"""Pictures of the documentation are of the published weights, and the front page's figures of the files in docs/."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.structures import Instances
from PIL import Image

from rec_attend_d2.prediction.predictor import Prediction
from rec_attend_d2.report import PictureResult

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def drawer(script):
    return script("draw_front_page")


@pytest.fixture
def table(script):
    return script("readme_table")


def test_no_picture_is_older_than_its_weights(drawer):
    entries = json.loads(drawer.RECORD.read_text())["pictures"]
    assert [entry["weights"] for entry in entries] == [f"{shown.weights}.pth" for shown in drawer.SHOWN]
    for shown, entry in zip(drawer.SHOWN, entries, strict=True):
        again = "python research/draw_front_page.py draws them again"
        assert entry["sha256"] == drawer.weights_sum(shown.weights), again
    for path in (drawer.PICTURE, drawer.STEPS, drawer.REPORT):
        with Image.open(path) as picture:
            assert picture.width >= 800, path


def result(name: str, count: int, sbd: float) -> PictureResult:
    zeros = dict.fromkeys(("found", "missed", "lost_in_merged", "lost_in_pieces", "overlooked", "merged", "split"), 0)
    lists = {"areas": [], "found_objects": [], "true_by_class": [], "predicted_by_class": []}
    return PictureResult(name, count, count, sbd, **zeros, invented=0, seconds=0.0, notes="", **lists)


def test_the_picture_shown_is_the_middling_one_of_those_with_many_objects(drawer):
    pictures = [result("few", 1, 0.9), result("b", 5, 0.2), result("c", 5, 0.8), result("d", 9, 0.7)]
    assert drawer.middle(pictures).file_name == "d"
    assert drawer.middle(pictures[::-1]).file_name == "d"


def test_masks_are_drawn_where_they_are(drawer):
    masks = torch.zeros(1, 20, 40, dtype=torch.bool)
    masks[0, 5:15, 20:40] = True
    prediction = Prediction(Instances((20, 40), pred_masks=masks), ())
    heading, drawn = drawer.panel("nuclei", np.zeros((20, 40, 3), np.uint8), prediction)
    assert heading.shape[1] == drawn.shape[1] == 2 * drawer.HEIGHT == 2 * drawn.shape[0]
    factor = drawer.HEIGHT / 20
    rows, columns = np.nonzero(drawn.any(axis=2))
    assert np.allclose([rows.min(), rows.max()], [5 * factor, 15 * factor], atol=3)
    assert np.allclose([columns.min(), columns.max()], [20 * factor, 40 * factor], atol=3)


def test_the_front_page_is_up_to_date_and_short(table):
    page = (ROOT / "README.md").read_text()
    again = "python research/update_model_zoo.py writes it again"
    assert f"{table.BEGIN}\n{table.render_results()}\n\n{table.END}" in page, again
    assert len(page.splitlines()) <= 150


def test_every_row_has_a_file_with_its_command(table):
    rows = [line for line in table.render_results().splitlines() if "](" in line]
    assert {"this project", "Mask R-CNN", "StarDist", "the paper"} <= {row.split("|")[2].strip() for row in rows}
    for row in rows:
        (link,) = re.findall(r"\]\((.*?)\)", row)
        entry = json.loads((ROOT / link).read_text())
        assert entry.get("command") or entry.get("run", {}).get("command") or entry.get("source"), link


def test_a_model_of_rec_attend_train_has_a_row(table, tmp_path, monkeypatch):
    (tmp_path / "own").mkdir()
    measured = {"SBD": 0.8, "abs_DiC": 1.25, "F1": 0.9}
    (tmp_path / "own" / "leaves.json").write_text(json.dumps({"minutes": 19.6, "measured": measured}))
    monkeypatch.setattr(table, "ROOT", tmp_path)
    monkeypatch.setattr(table, "ONE_COMMAND", tmp_path / "own")
    (row,) = table.one_command()
    cells = ["leaves", "this project, `rec-attend train`", "20", "0.800", "1.25", "", ""]
    assert row.cells() == [*cells, "[command](own/leaves.json)"]


def test_the_papers_figures_are_alike_everywhere(table):
    page = (ROOT / "docs" / "paper_model.md").read_text().replace("\\|", "|")
    names = {"abs_DiC": "|DiC|"}
    for data, metrics in json.loads((table.PUBLISHED / "paper.json").read_text())["results"].items():
        (row,) = (line for line in page.splitlines() if line.startswith(f"| {data} |"))
        for name, value in metrics.items():
            assert f"{names.get(name, name)} {value}" in row, (data, name)
