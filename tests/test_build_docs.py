"""tools/build_docs.py: the docstrings as web pages."""

import importlib
import subprocess
import sys
import warnings

import pytest

MODULES = ["rec_attend_d2", "rec_attend_d2.config", "rec_attend_d2.layers.boxes"]


@pytest.fixture
def build_docs(monkeypatch):
    """The tool as a module."""
    monkeypatch.syspath_prepend("tools")
    return importlib.import_module("build_docs")


def test_pages_of_some_modules(run_tool, tmp_path):
    done: subprocess.CompletedProcess = run_tool("build_docs", "--output", tmp_path, "--only", *MODULES)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == str(tmp_path / "index.html")
    page = (tmp_path / "rec_attend_d2.html").read_text()
    # Imported on first use, and shown all the same.
    assert "Predictor" in page
    assert "add_rec_attend_config" in (tmp_path / "rec_attend_d2" / "config.html").read_text()
    assert (tmp_path / "rec_attend_d2" / "layers" / "boxes.html").is_file()


def test_every_module_has_a_page_and_a_docstring(build_docs):
    names = build_docs.module_names()
    assert {"rec_attend_d2.modeling.rec_attend", "rec_attend_d2.prediction.predictor"} <= set(names)
    assert [name for name in names if not importlib.import_module(name).__doc__] == []


def test_a_warning_is_an_error(build_docs, tmp_path, monkeypatch):
    def complain(*modules, output_directory):
        warnings.warn_explicit("no such name", UserWarning, "doc.py", 1, module="pdoc.doc")

    monkeypatch.setattr(build_docs.pdoc, "pdoc", complain)
    monkeypatch.setattr(sys, "argv", ["build_docs.py", "--output", str(tmp_path), "--only", "rec_attend_d2"])
    with pytest.raises(SystemExit, match="build_docs: no such name"):
        build_docs.main()


def test_an_unknown_module_is_named(build_docs, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["build_docs.py", "--output", str(tmp_path), "--only", "rec_attend_d2.nothing"])
    with pytest.raises(SystemExit, match="rec_attend_d2.nothing"):
        build_docs.main()
