#!/usr/bin/env python
"""Render the docstrings of the package to a web site of plain files: what `make docs` runs.

    python tools/build_docs.py [--output build/docs] [--only MODULE ...]

A module that cannot be imported, or that pdoc warns of, is an error.
"""

import argparse
import importlib
import pkgutil
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import pdoc

import rec_attend_d2

PACKAGE = rec_attend_d2.__name__


def module_names() -> list[str]:
    """The package and all its modules."""
    found = pkgutil.walk_packages(rec_attend_d2.__path__, PACKAGE + ".")
    return [PACKAGE, *sorted(module.name for module in found)]


def build(modules: Sequence[str], output: Path) -> None:
    """Write ``output``/index.html and a page for each of ``modules``.

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


def main() -> None:
    """Render, or say in one line what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("build/docs"), help="folder (default %(default)s)")
    parser.add_argument("--only", nargs="+", metavar="MODULE", help="these modules (default all)")
    arguments = parser.parse_args()
    try:
        build(arguments.only or module_names(), arguments.output)
    except (ImportError, OSError, Warning) as error:
        sys.exit(f"build_docs: {error}")
    print(arguments.output / "index.html")


if __name__ == "__main__":
    main()
