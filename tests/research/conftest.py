"""The scripts of research/, which import each other as scripts beside each other do."""

import importlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def script(monkeypatch) -> Callable[[str], ModuleType]:
    """A function from the name of a script to its module."""
    monkeypatch.syspath_prepend(str(ROOT / "research"))
    return importlib.import_module
