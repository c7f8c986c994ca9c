"""docs/tutorial.ipynb: committed without outputs, and it runs from top to bottom."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "docs" / "tutorial.ipynb"


@pytest.fixture
def notebook() -> nbformat.NotebookNode:
    return nbformat.read(NOTEBOOK, as_version=4)


def test_it_is_valid_and_has_no_outputs(notebook):
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert len(code) >= 5
    for cell in code:
        assert cell.outputs == [] and cell.execution_count is None, cell.source


def test_it_runs_from_top_to_bottom(notebook, tmp_path, monkeypatch):
    monkeypatch.setenv("TUTORIAL_ITERATIONS", "8")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    # The kernel is a process of its own, which does not know where pytest found the package.
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    NotebookClient(
        notebook, timeout=280, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    ).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) == 5
    texts = [output.get("text", "") + output.get("data", {}).get("text/plain", "") for output in outputs]
    assert any("'abs_DiC'" in text for text in texts)
    # What the published weights reach, which needs no training here.
    (line,) = [text for text in texts if text.startswith("mean error")]
    assert float(line.split()[2]) < 1
