"""tools/build_docs.py: guides and docstrings as web pages."""

import importlib
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MODULES = ["rec_attend_d2", "rec_attend_d2.config", "rec_attend_d2.layers.boxes", "rec_attend_d2.benchmark.groups"]


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
    assert "first counts, own data" in (tmp_path / "index.html").read_text().lower()
    assert 'href="rec_attend_d2/config.html"' in (tmp_path / "index.html").read_text()


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The guides without a reference."""
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        folder = tmp_path_factory.mktemp("site")
        importlib.import_module("build_docs").build_guides(folder)
    finally:
        sys.path.remove(str(ROOT / "tools"))
    return folder


def test_every_page_of_documentation_is_a_guide(site, build_docs):
    listed = {page for pages in build_docs.NAVIGATION.values() for page in pages.values()}
    pages = {path.relative_to(ROOT).as_posix() for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"))}
    assert pages - listed - {"CHANGELOG.md"} == set(), "name it in NAVIGATION"
    for page in listed:
        assert (site / build_docs.Site(ROOT, site).address(page)).is_file(), page


def test_links_of_the_site_lead_somewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        text = re.sub(r"<pre>.*?</pre>", "", page.read_text(), flags=re.DOTALL)
        for link in re.findall(r'(?:href|src)="([^"]+)"', text):
            if not re.match(r"\w+:", link):
                path, _, anchor = link.partition("#")
                target = page.parent / path if path else page
                assert target.is_file(), (page, link)
                assert not anchor or f'id="{anchor}"' in target.read_text(), (page, link)


def test_commands_are_set_as_code(site):
    for page in site.rglob("*.html"):
        assert not re.search(r"<p>\s*(python|rec-attend|make) \S+", page.read_text()), page


@pytest.mark.parametrize("link, missing", [("no.md", "does not exist"), ("INSTALL.md#nothing", "no such heading")])
def test_a_link_that_leads_nowhere_is_named(build_docs, tmp_path, monkeypatch, link: str, missing: str):
    (tmp_path / "README.md").write_text(f"# Title\n\n[x]({link})\n")
    (tmp_path / "INSTALL.md").write_text("# Installation\n")
    monkeypatch.setattr(build_docs, "NAVIGATION", {"": {"Start": "README.md"}})
    with pytest.raises(build_docs.DocsError, match=f"README.md links to {link}.*{missing}"):
        build_docs.build_guides(tmp_path / "site", root=tmp_path)


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
