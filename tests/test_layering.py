"""Each part of the package stands on what is below it."""

import ast
from pathlib import Path

import pytest

import rec_attend_d2

PACKAGE = Path(rec_attend_d2.__file__).parent


def imported_parts(path: Path) -> set[str]:
    """Parts of the package (its folders and files) that a file imports, also inside functions."""
    here = ["rec_attend_d2", *path.relative_to(PACKAGE).parts]
    parts = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level] if node.level else []
            module = [*base, *(node.module or "").split(".")] if node.module else base
            names = [[*module, alias.name] for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name.split(".") for alias in node.names]
        else:
            continue
        parts |= {name[1] for name in names if name[0] == "rec_attend_d2" and len(name) > 1}
    return parts


@pytest.mark.parametrize(
    ("part", "above"),
    [
        ("layers", {"checkpoint", "config", "data", "engine", "evaluation", "modeling", "prediction", "visualization"}),
        ("data", {"checkpoint", "engine", "evaluation", "modeling", "prediction", "report", "visualization"}),
        ("modeling", {"checkpoint", "engine", "evaluation", "prediction", "report"}),
        ("evaluation", {"engine", "prediction", "report"}),
        ("prediction", {"benchmark", "engine", "report"}),
        ("report", {"benchmark", "cli", "engine", "export"}),
    ],
)
def test_a_part_imports_nothing_from_above(part: str, above: set[str]):
    files = sorted((PACKAGE / part).rglob("*.py"))
    assert len(files) > 3
    wrong = {str(path.relative_to(PACKAGE)): found for path in files if (found := imported_parts(path) & above)}
    assert wrong == {}
