"""A report as one HTML file that needs nothing beside it: no network, no scripts, pictures inside."""

import base64
from collections.abc import Sequence
from html import escape
from string import Template

from .content import Picture, Section, Table

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
caption { text-align: left; font-weight: bold; padding-bottom: 0.3rem; }
th, td { border-bottom: 1px solid #bbb; padding: 0.3rem 0.7rem; text-align: right; }
th[scope=row], th:first-child { text-align: left; }
img { max-width: 100%; height: auto; }
figure { margin: 1rem 0; }
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


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{escape(header)}</th>' for header in table.headers)
    rows = [
        f'<tr><th scope="row">{escape(row[0])}</th>' + "".join(f"<td>{escape(cell)}</td>" for cell in row[1:]) + "</tr>"
        for row in table.rows
    ]
    body = "\n".join(rows)
    # Reachable by keyboard where it is wider than the window.
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(table.caption)}"><table>'
        f"<caption>{escape(table.caption)}</caption>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>"
        "</table></div>"
    )


def _picture(picture: Picture) -> str:
    data = base64.b64encode(picture.png).decode("ascii")
    return (
        f'<figure><img id="{escape(picture.name)}" alt="{escape(picture.alt)}" src="data:image/png;base64,{data}">'
        f"<figcaption>{escape(picture.alt)}</figcaption></figure>"
    )


def _section(section: Section) -> str:
    parts = [f"<h2>{escape(section.title)}</h2>"]
    parts += [f"<p>{escape(paragraph)}</p>" for paragraph in section.paragraphs]
    parts += [_table(table) for table in section.tables]
    parts += [_picture(picture) for picture in section.pictures]
    return "<section>\n" + "\n".join(parts) + "\n</section>"


def render_html(title: str, sections: Sequence[Section]) -> str:
    """The page."""
    return _PAGE.substitute(title=escape(title), body="\n".join(_section(section) for section in sections))
