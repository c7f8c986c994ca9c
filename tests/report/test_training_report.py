"""The report of one model: one file without anything from outside, with everything that was measured."""

import base64
import csv
import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from rec_attend_d2.report import measure, write_report

HOSTILE = '<script>alert("x")</script> & <b>'


@pytest.fixture
def metrics_file(tmp_path):
    entries = [
        {"iteration": 19, "time": 2.0, "total_loss": 3.0},
        {
            "iteration": 39,
            "time": 2.0,
            "total_loss": 2.0,
            "val_loss": 2.5,
            "counting/SBD": 0.5,
            "counting/abs_DiC": 1.5,
        },
    ]
    path = tmp_path / "metrics.json"
    path.write_text("\n".join(map(json.dumps, entries)))
    return path


def pictures_of(page) -> dict[str, np.ndarray]:
    files = {image["id"]: base64.b64decode(image["src"].partition(",")[2]) for image in page.all("img")}
    return {name: np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) for name, data in files.items()}


def test_a_page_that_needs_nothing_else(register, make_predictor, read_page, metrics_file, tmp_path):
    predictor = make_predictor()
    measured = measure(predictor, register())
    plan, findings = [("SOLVER.MAX_ITER", "1000", HOSTILE)], [("smallest object", HOSTILE)]
    path = write_report(
        tmp_path / "new" / "folder",
        HOSTILE,
        measured,
        predictor,
        plan=plan,
        findings=findings,
        metrics_file=metrics_file,
    )
    assert path == tmp_path / "new" / "folder" / "report.html"
    page = read_page(path.read_text(encoding="utf-8"))
    assert {"script", "iframe", "b"}.isdisjoint(tag for tag, _ in page.tags)
    links = [value for _, attributes in page.tags for name, value in attributes.items() if name in ("src", "href")]
    assert all(link.startswith("data:") for link in links)
    assert sum(HOSTILE in text for text in page.text) == 4  # title, heading, and two cells
    shown = pictures_of(page)
    assert list(shown) == ["legend", "best_1", "best_2", "worst_1", "worst_2", "counts", "learning"]
    # Magnified fivefold, with headers and gaps.
    assert shown["worst_1"].shape == (320 + 32 + 8, 2 * 320 + 8, 3)
    text = " ".join(page.text)
    for words in ("0.50 objects per picture (33.3", "2 of 4 (50.0", "4 of the 6", "8 objects where people outlined 6"):
        assert words in text, words
    assert "2 objects too many" in text and "overlooked" in text and "seen" in text


def test_tables_beside_the_page(register, make_predictor, tmp_path):
    predictor = make_predictor()
    measured = measure(predictor, register())
    write_report(tmp_path, "Squares", measured, predictor)
    rows = list(csv.DictReader((tmp_path / "evaluation.csv").open(encoding="utf-8")))
    assert [row["invented"] for row in rows] == ["1"] * 4 and rows[2]["file_name"].endswith("squares_2.png")
    content = json.loads((tmp_path / "evaluation.json").read_text())
    assert content["summary"]["SBD"] == measured.summary["SBD"] and len(content["pictures"]) == 4


def only_picture(number: int):
    def change(content: dict) -> None:
        image = content["images"][number]
        content["images"] = [image]
        content["annotations"] = [item for item in content["annotations"] if item["image_id"] == image["id"]]

    return change


@pytest.mark.parametrize("number", [0, 3])
def test_a_single_picture_with_and_without_objects(register, make_predictor, read_page, tmp_path, number):
    predictor = make_predictor()
    predictor.score_threshold = 0.5  # nothing is invented
    measured = measure(predictor, register(only_picture(number)))
    page = read_page(write_report(tmp_path, "One", measured, predictor).read_text(encoding="utf-8"))
    assert list(pictures_of(page)) == ["legend", "best_1", "counts"]
    text = " ".join(page.text)
    assert ("Every picture is counted exactly." in text) == (number == 0) == ("area in pixels" not in text)


def test_classes_and_names_of_files(squares, register, make_predictor, read_page, tmp_path):
    name = "a & <i>b.png"
    shutil.copy(squares / "squares_1.png", tmp_path / name)

    def change(content: dict) -> None:
        only_picture(1)(content)
        content["images"][0]["file_name"] = str(tmp_path / name)
        content["categories"].append({"id": 2, "name": "<i>round</i>"})

    predictor = make_predictor(classes=2)
    measured = measure(predictor, register(change))
    page = read_page(write_report(tmp_path, "Classes", measured, predictor).read_text(encoding="utf-8"))
    assert "<i>round</i>" in page.text and any(name in text for text in page.text)
    assert "i" not in {tag for tag, _ in page.tags}


def test_a_training_without_metrics_is_named(register, make_predictor, tmp_path):
    predictor = make_predictor()
    measured = measure(predictor, register())
    with pytest.raises(FileNotFoundError, match="none.json"):
        write_report(tmp_path, "None", measured, predictor, metrics_file=tmp_path / "none.json")
