#!/usr/bin/env python
"""Make a web site of plain files of the guides and of all docstrings: what `make docs` runs.

    python tools/build_docs.py [--output build/docs] [--only MODULE ...]

The guides are the Markdown pages of this project, README.md the start page; every page that one of them links to is
there, too, and other files that they name (results, configs, scripts) as text. The reference is pdoc's. A module that
cannot be imported, what pdoc warns of, and a link that leads nowhere are errors.
"""

import argparse
import html
import importlib
import json
import os
import pkgutil
import posixpath
import re
import shutil
import string
import sys
import warnings
from collections.abc import Collection, Sequence
from pathlib import Path

import markdown2
import pdoc

import rec_attend_d2

PACKAGE = rec_attend_d2.__name__
ROOT = Path(__file__).resolve().parents[1]
# What the side of every page lists: pages by their words, in groups.
NAVIGATION = {
    "First": {
        "Start": "README.md",
        "Installation": "INSTALL.md",
        "First counts, own data": "GETTING_STARTED.md",
        "Notebook": "docs/tutorial.ipynb",
    },
    "Guides": {
        "How it works": "docs/how_it_works.md",
        "Every setting": "docs/config.md",
        "Detectron2's tools": "docs/training.md",
        "Data sets": "datasets/README.md",
        "The paper's model": "docs/paper_model.md",
        "Submissions": "docs/submissions.md",
        "Large pictures": "docs/large_pictures.md",
        "Cores, GPUs, machines": "docs/clusters.md",
        "Export": "docs/export.md",
    },
    "Figures": {
        "Model zoo": "MODEL_ZOO.md",
        "Side by side": "docs/benchmarks.md",
        "Speed and memory": "docs/speed.md",
        "What was tried": "docs/ablation.md",
        "Differences": "docs/differences.md",
        "Reliability": "docs/reliability.md",
        "Changes": "CHANGELOG.md",
    },
}
EXTRAS = ["tables", "fenced-code-blocks", "header-ids", "cuddled-lists", "code-friendly"]
PICTURES = {".png", ".jpg", ".gif", ".svg"}


class DocsError(Exception):
    """A page has something that does not work; the message names both."""


def module_names() -> list[str]:
    """The package and all its modules but those that are programs, which importing would run."""
    found = (module.name for module in pkgutil.walk_packages(rec_attend_d2.__path__, PACKAGE + "."))
    return [PACKAGE, *sorted(name for name in found if not name.endswith(".__main__"))]


def build_reference(modules: Sequence[str], output: Path) -> None:
    """Write a page for each of ``modules``.

    Raises:
        ImportError: there is no such module, or it cannot be imported.
        Warning: pdoc is not content with a docstring or a name.
    """
    # pdoc forbids programs while it imports, and some of the libraries start one: it should find everything imported.
    for name in modules:
        importlib.import_module(name)
    # It looks at a module's names without asking for those that are imported on first use.
    rec_attend_d2.__dict__.setdefault("Predictor", rec_attend_d2.Predictor)
    pdoc.render.configure(docformat="google")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", module="pdoc")
        # A package without __all__ brings its modules by itself.
        warnings.filterwarnings("ignore", "The module specification .* has already been added", module="pdoc")
        pdoc.pdoc(*modules, output_directory=output)


def to_html(markdown: str) -> str:
    """Markdown as HTML, with GitHub's anchors."""
    return str(markdown2.markdown(markdown, extras=EXTRAS))


def notebook_to_html(text: str) -> str:
    """The cells of a notebook without their outputs."""
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(text)["cells"]]
    return "\n".join(
        to_html(source) if kind == "markdown" else f"<pre><code>{html.escape(source)}</code></pre>"
        for kind, source in cells
    )


class Site:
    """Pages made of this project's files, each once, together with all that they link to.

    Attributes:
        root: folder of the project.
        output: folder of the site.
        modules: that have a page of the reference.
    """

    def __init__(self, root: Path, output: Path, modules: Collection[str] = ()):
        self.root, self.output, self.modules = root, output, set(modules)
        self._template = string.Template((ROOT / "tools" / "docs_page.html").read_text(encoding="utf-8"))
        self._done: set[str] = set()
        # (page, link, the site's file, anchor) of every link with an anchor, to be checked when all pages are there.
        self._anchors: list[tuple[str, str, str, str]] = []

    def address(self, name: str) -> str:
        """Where the site has a file or folder of the project, both relative to their folders."""
        path = self.root / name
        module = name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        if name.endswith(".py") and module in self.modules:
            return module.replace(".", "/") + ".html"
        if path.is_dir():
            return posixpath.join(name, "files.html")
        if path.suffix == ".md":
            return "index.html" if name == "README.md" else name.removesuffix(".md") + ".html"
        return name if path.suffix in PICTURES else name + ".html"

    def add(self, name: str) -> None:
        """Write a file of the project into the site, and all that it links to."""
        if name in self._done:
            return
        self._done.add(name)
        path, address = self.root / name, self.address(name)
        target = self.output / address
        if name.endswith(".py") and not address.endswith(".py.html"):
            return  # a page of the reference
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in PICTURES:
            shutil.copyfile(path, target)
            return
        content = self._resolved(name, self._content(name))
        title = re.sub(r"<[^>]+>", "", (re.search(r"<h1.*?>(.*?)</h1>", content) or ["", name])[1])
        page = self._template.substitute(title=title, navigation=self._navigation(name), content=content)
        target.write_text(page, encoding="utf-8")

    def check_anchors(self) -> None:
        """Raise a DocsError if an anchor is not on the page that a link leads to."""
        for page, link, address, anchor in self._anchors:
            if f'id="{anchor}"' not in (self.output / address).read_text(encoding="utf-8"):
                raise DocsError(f"{page} links to {link}, but there is no such heading.")

    def _content(self, name: str) -> str:
        path = self.root / name
        if path.is_dir():
            files = sorted(file.name for file in path.iterdir() if file.suffix in PICTURES | {".json", ".md", ".yaml"})
            listed = "\n".join(f'<li><a href="{file}">{file}</a></li>' for file in files)
            return f"<h1>{name}</h1>\n<ul>{listed}</ul>"
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".md":
            return to_html(text)
        if path.suffix == ".ipynb":
            return notebook_to_html(text)
        return f"<h1>{name}</h1>\n<pre><code>{html.escape(text)}</code></pre>"

    def _resolved(self, name: str, content: str) -> str:
        """A page whose links lead to pages of the site, which are added."""
        folder = name if (self.root / name).is_dir() else posixpath.dirname(name)

        def replace(match: re.Match[str]) -> str:
            attribute, link = match.groups()
            path, _, anchor = html.unescape(link).partition("#")
            if re.match(r"\w+:", link):
                return match.group()
            linked = posixpath.normpath(posixpath.join(folder, path)) if path else name
            if linked.startswith("..") or not (self.root / linked).exists():
                raise DocsError(f"{name} links to {link}, which does not exist.")
            self.add(linked)
            address = self.address(linked)
            if anchor:
                self._anchors.append((name, link, address, anchor))
            return f'{attribute}="{self._relative(name, address)}{"#" + anchor if anchor else ""}"'

        # Code has no links.
        parts = re.split(r"(<pre>.*?</pre>)", content, flags=re.DOTALL)
        pattern = re.compile(r'\b(href|src)="([^"]+)"')
        return "".join(part if part.startswith("<pre>") else pattern.sub(replace, part) for part in parts)

    def _relative(self, name: str, address: str) -> str:
        return posixpath.relpath(address, posixpath.dirname(self.address(name)) or ".")

    def _navigation(self, name: str) -> str:
        lines = []
        for group, pages in NAVIGATION.items():
            lines.append(f"<h2>{group}</h2>")
            for words, page in pages.items():
                here = ' class="here"' if page == name else ""
                lines.append(f'<a{here} href="{self._relative(name, self.address(page))}">{html.escape(words)}</a>')
        if PACKAGE in self.modules:
            lines.append("<h2>Reference</h2>")
            lines.append(f'<a href="{self._relative(name, PACKAGE + ".html")}">{PACKAGE}</a>')
        return "\n".join(lines)


def build_guides(output: Path, modules: Collection[str] = (), root: Path = ROOT) -> None:
    """Write ``output``/index.html, the start page, and all guides.

    Raises:
        DocsError: a link leads nowhere.
    """
    site = Site(root, output, modules)
    for pages in NAVIGATION.values():
        for page in pages.values():
            site.add(page)
    site.check_anchors()


def main() -> None:
    """Render, or say in one line what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("build/docs"), help="folder (default %(default)s)")
    parser.add_argument("--only", nargs="+", metavar="MODULE", help="reference of these modules (default all)")
    arguments = parser.parse_args()
    try:
        modules = arguments.only or module_names()
        build_reference(modules, arguments.output)
        build_guides(arguments.output, modules)
    except (ImportError, OSError, Warning, DocsError) as error:
        sys.exit(f"build_docs: {error}")
    print(os.path.join(arguments.output, "index.html"))


if __name__ == "__main__":
    main()
