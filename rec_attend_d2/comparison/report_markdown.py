"""A report as Markdown, with its pictures as files beside it."""

from collections.abc import Sequence

from tabulate import tabulate

from .content import Section

PICTURES = "pictures"


def _text(words: str) -> str:
    """Words as they stand in a table's cell or a picture's description."""
    return words.replace("\\", "\\\\").replace("|", "\\|").replace("[", "\\[").replace("]", "\\]")


def render_section(section: Section, level: int = 2) -> str:
    """A section's text under a heading of a level; it refers to each picture as :data:`PICTURES`/NAME.png."""
    parts = [f"{'#' * level} {section.title}", *map(_text, section.paragraphs)]
    for table in section.tables:
        rows = [[_text(cell) for cell in row] for row in table.rows]
        headers = [_text(header) for header in table.headers]
        parts += [f"{_text(table.caption)}:", tabulate(rows, headers, tablefmt="github", disable_numparse=True)]
    parts += [f"![{_text(picture.alt)}]({PICTURES}/{picture.name}.png)" for picture in section.pictures]
    return "\n\n".join(parts)


def render_markdown(title: str, sections: Sequence[Section]) -> str:
    """The text; it refers to each picture as :data:`PICTURES`/NAME.png."""
    return "\n\n".join([f"# {title}", *map(render_section, sections)]) + "\n"
