"""A report of sections with text, tables and pictures, as one HTML file and as Markdown."""

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from string import Template

from tabulate import tabulate

PICTURES = "pictures"

_PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>$title</title>
<style>
body { font-family: sans-serif; line-height: 1.5; max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums; }
th, td { border-bottom: 1px solid #bbb; padding: 0.3rem 0.7rem; vertical-align: top; }
th { text-align: left; }
img { max-width: 100%; height: auto; }
figure { margin: 1rem 0 2rem; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(16rem, 1fr)); gap: 1rem; margin: 1.5rem 0; }
.facts div { border: 1px solid #bbb; border-radius: 0.5rem; padding: 0.8rem 1rem; }
.facts dt { font-weight: bold; }
.facts dd { margin: 0; }
.facts .value { font-size: 1.6rem; line-height: 1.3; }
.wide { overflow-x: auto; }
</style>
</head>
<body>
<main>
<h1>$title</h1>
$body
</main>
</body>
</html>
""")


@dataclass(frozen=True)
class Table:
    """A table; the first cell of a row names it.

    Attributes:
        caption: what it shows.
        headers: of the columns.
        rows: of cells.
        words: so many columns from the first on hold words, the others figures.
    """

    caption: str
    headers: list[str]
    rows: list[list[str]]
    words: int = 1


@dataclass(frozen=True)
class Fact:
    """A figure that matters, what it is called, and in a sentence or two what it means."""

    value: str
    name: str
    meaning: str


@dataclass(frozen=True)
class Picture:
    """A picture.

    Attributes:
        name: of its file, without ending.
        alt: what is to be seen, for who can't see it.
        png: the file.
    """

    name: str
    alt: str
    png: bytes


@dataclass(frozen=True)
class Section:
    """A part of a report: title, paragraphs, then facts, then tables, then pictures."""

    title: str
    paragraphs: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)
    facts: list[Fact] = field(default_factory=list)


def _tabulate(table: Table, tablefmt: str) -> str:
    alignment = ["left"] * table.words + ["right"] * (len(table.headers) - table.words)
    return tabulate(table.rows, table.headers, tablefmt=tablefmt, disable_numparse=True, colalign=alignment)


def _html_fact(fact: Fact) -> str:
    name, value, meaning = map(escape, (fact.name, fact.value, fact.meaning))
    return f"<div><dt>{name}</dt><dd class='value'>{value}</dd><dd>{meaning}</dd></div>"


def _html_section(section: Section) -> str:
    parts = [f"<h2>{escape(section.title)}</h2>", *(f"<p>{escape(text)}</p>" for text in section.paragraphs)]
    if section.facts:
        parts += ["<dl class='facts'>", *map(_html_fact, section.facts), "</dl>"]
    for table in section.tables:
        caption = escape(table.caption)
        # Reachable by keyboard where it is wider than the window. tabulate escapes what cells hold.
        parts.append(f"<h3>{caption}</h3>\n<div class='wide' tabindex='0' role='region' aria-label=\"{caption}\">")
        parts.append(f"{_tabulate(table, 'html')}</div>")
    for picture in section.pictures:
        data, alt = base64.b64encode(picture.png).decode("ascii"), escape(picture.alt)
        image = f'<img id="{escape(picture.name)}" alt="{alt}" src="data:image/png;base64,{data}">'
        parts.append(f"<figure>{image}<figcaption>{alt}</figcaption></figure>")
    return "<section>\n" + "\n".join(parts) + "\n</section>"


def render_html(title: str, sections: Sequence[Section]) -> str:
    """A page that needs nothing beside it: no network, no scripts, pictures inside."""
    return _PAGE.substitute(title=escape(title), body="\n".join(map(_html_section, sections)))


def _plain(words: str) -> str:
    """Words as they stand in Markdown, in a table's cell or a picture's description too: no HTML, link or code."""
    words = " ".join(words.split()) if "\n" in words or "\r" in words else words
    escaped = re.sub(r"([\\`*|\[\]])", r"\\\1", words)
    return escaped.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def render_section(section: Section, level: int = 2) -> str:
    """A section in Markdown under a heading of a level; it refers to each picture as :data:`PICTURES`/NAME.png."""
    parts = [f"{'#' * level} {_plain(section.title)}", *map(_plain, section.paragraphs)]
    if section.facts:
        parts.append("\n".join(f"- {_plain(f'{fact.name}: {fact.value}. {fact.meaning}')}" for fact in section.facts))
    for table in section.tables:
        escaped = Table("", [*map(_plain, table.headers)], [[*map(_plain, row)] for row in table.rows], table.words)
        parts += [f"{_plain(table.caption)}:", _tabulate(escaped, "github")]
    parts += [f"![{_plain(picture.alt)}]({PICTURES}/{picture.name}.png)" for picture in section.pictures]
    return "\n\n".join(parts)


def render_markdown(title: str, sections: Sequence[Section]) -> str:
    """The text; it refers to each picture as :data:`PICTURES`/NAME.png."""
    return "\n\n".join([f"# {_plain(title)}", *map(render_section, sections)]) + "\n"
