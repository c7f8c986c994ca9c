"""What several folders of tests need: data drawn once, and the tools as a user calls them."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Tests run beside each other on few cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def datasets_root(tmp_path_factory) -> Path:
    """Folder for DETECTRON2_DATASETS, in which the rosettes are drawn once for all tests."""
    return tmp_path_factory.mktemp("datasets")


@pytest.fixture(scope="session")
def run_script(datasets_root) -> Callable[..., subprocess.CompletedProcess]:
    """Runs ``python SCRIPT ARGUMENTS`` in the root and returns the finished process with its output as text."""

    def run(script: str, *arguments: str | os.PathLike) -> subprocess.CompletedProcess:
        environment = {**os.environ, "DETECTRON2_DATASETS": str(datasets_root), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(ROOT / script), *map(str, arguments)]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)

    return run


@pytest.fixture(scope="session")
def run_tool(run_script) -> Callable[..., subprocess.CompletedProcess]:
    """Runs ``python tools/NAME.py ARGUMENTS``, see :func:`run_script`."""

    def run(name: str, *arguments: str | os.PathLike) -> subprocess.CompletedProcess:
        return run_script(f"tools/{name}.py", *arguments)

    return run
