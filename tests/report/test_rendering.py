"""Reports as HTML and Markdown: tables, pictures, escaping."""

import base64
import re

import numpy as np
import pytest

from rec_attend_d2.report.plots import picture_png
from rec_attend_d2.report.rendering import Picture, Section, Table, render_html, render_markdown

HOSTILE = '<script>alert("x")</script> & $body | [a](b)'


@pytest.fixture
def sections() -> list[Section]:
    picture = Picture("dots", HOSTILE, picture_png(np.zeros((2, 3, 3), np.uint8)))
    table = Table(HOSTILE, ["model", "|DiC|"], [["a", "1.0"], [HOSTILE, "–"]])
    return [Section(HOSTILE, [HOSTILE], [table], [picture])]


def test_html_shows_what_was_given_and_runs_nothing(sections, read_page):
    page = read_page(render_html(HOSTILE, sections))
    assert "script" not in {tag for tag, _ in page.tags}
    assert sum(HOSTILE in text for text in page.text) == 7  # 2 titles, heading, paragraph, caption, cell, figcaption
    assert page.all("html") == [{"lang": "en"}]
    (image,) = page.all("img")
    assert image["alt"] == HOSTILE
    kind, data = image["src"].split(",")
    assert kind == "data:image/png;base64" and base64.b64decode(data) == sections[0].pictures[0].png
    # Nothing else is loaded.
    assert [a for _, attributes in page.tags for a in attributes if a in ("src", "href")] == ["href", "src"]
    assert page.all("link") == [{"rel": "icon", "href": "data:,"}]


def test_markdown_keeps_its_tables_whole(sections):
    text = render_markdown("Title", sections)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) == 1 and len(rows) == 4
    assert text.startswith("# Title\n") and "(pictures/dots.png)" in text and "–" in text
