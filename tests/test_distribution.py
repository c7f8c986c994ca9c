"""What is handed out: the sdist, the wheel built from it, and the package as it runs from that wheel alone."""

import configparser
import email
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest

from rec_attend_d2.version import __version__

ROOT = Path(__file__).resolve().parents[1]
LARGEST_IN_GIT = 5_000_000
# What a folder of work may hold besides the repository.
NOT_SOURCE = (".git", ".venv", ".*_cache", "__pycache__", "build", "dist", "output", "*.egg-info", "shared")
# What `python -m build` does in environments of its own, with the setuptools that is there.
BUILD = "import sys; from setuptools import build_meta; getattr(build_meta, sys.argv[1])(sys.argv[2])"
# Ten minutes, where seconds are usual: machines may be busy.
TIMEOUT_S = 600
WITHOUT_DETECTRON2 = """
import sys

class Finder:
    def find_spec(self, name, path, target=None):
        if name == "detectron2":
            raise ModuleNotFoundError(f"No module named '{name}'", name=name)

sys.meta_path.insert(0, Finder())
import rec_attend_d2
"""


class Built(NamedTuple):
    """The two files, and the folders that they are unpacked in."""

    sdist: Path
    wheel: Path
    source: Path
    site: Path


def run(*command: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    """A finished Python process with its output as text, which sees of this project what ``PYTHONPATH`` names."""
    settings = {key: value for key, value in os.environ.items() if not key.startswith(("REC_ATTEND", "PYTHON"))}
    settings |= {"OMP_NUM_THREADS": "1", **environment}
    words = [sys.executable, *map(str, command)]
    return subprocess.run(words, cwd=cwd, env=settings, capture_output=True, text=True, timeout=TIMEOUT_S)


def build(what: str, source: Path, output: Path) -> Path:
    done = run("-c", BUILD, f"build_{what}", output, cwd=source)
    assert done.returncode == 0, done.stderr[-3000:]
    (built,) = output.glob("*.whl" if what == "wheel" else "*.tar.gz")
    return built


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Built:
    """The sdist of a copy of this folder, and the wheel of the unpacked sdist."""
    folder = tmp_path_factory.mktemp("distribution")
    shutil.copytree(ROOT, folder / "checkout", ignore=shutil.ignore_patterns(*NOT_SOURCE))
    sdist = build("sdist", folder / "checkout", folder / "dist")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder / "sdist", filter="data")
    (source,) = (folder / "sdist").iterdir()
    wheel = build("wheel", source, folder / "dist")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    shutil.rmtree(folder / "checkout")
    return Built(sdist, wheel, source, folder / "site")


@pytest.fixture
def rec_attend(built, tmp_path) -> Callable[..., subprocess.CompletedProcess]:
    """Runs ``rec-attend`` from the wheel in a folder that has nothing of this project, with an empty home."""
    for name in ("home", "work"):
        (tmp_path / name).mkdir()

    def run_from_wheel(*words: str | Path, **environment: str) -> subprocess.CompletedProcess:
        places = {"PYTHONPATH": str(built.site), "HOME": str(tmp_path / "home"), "XDG_CACHE_HOME": ""}
        command = ("-c", "from rec_attend_d2.cli import main; main()", *words)
        return run(*command, cwd=tmp_path / "work", **places, **environment)

    return run_from_wheel


def files_in(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def tracked_files() -> list[str]:
    """Files in git; skips the test where there is none, as in an sdist."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a clone of the repository")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_the_wheel_has_all_that_runs_and_nothing_else(built):
    package = {f"rec_attend_d2/{name}" for name in files_in(ROOT / "rec_attend_d2") if "__pycache__" not in name}
    assert {"rec_attend_d2/py.typed", "rec_attend_d2/prediction/published.json"} <= package
    package |= {f"rec_attend_d2/configs/{name}" for name in files_in(ROOT / "configs")}
    notes = f"rec_attend_d2-{__version__}.dist-info"
    assert {name for name in files_in(built.site) if not name.startswith(notes)} == package
    assert f"{notes}/licenses/LICENSE" in files_in(built.site)
    # No weights, pictures or compiled modules: it runs with every Python.
    assert built.wheel.name == f"rec_attend_d2-{__version__}-py3-none-any.whl"
    assert built.wheel.stat().st_size < 1_000_000


def test_what_the_wheel_says_of_itself(built):
    notes = built.site / f"rec_attend_d2-{__version__}.dist-info"
    entry_points = configparser.ConfigParser()
    entry_points.read(notes / "entry_points.txt")
    assert dict(entry_points["console_scripts"]) == {"rec-attend": "rec_attend_d2.cli:main"}
    metadata = email.message_from_string((notes / "METADATA").read_text(encoding="utf-8"))
    assert (metadata["Name"], metadata["Version"]) == ("rec_attend_d2", __version__)
    assert metadata["Requires-Python"] == ">=3.10"
    versions = [line.rsplit(" ", 1)[1] for line in metadata.get_all("Classifier") if ":: Python :: 3." in line]
    assert versions == ["3.10", "3.11", "3.12", "3.13"]
    assert f"Python {versions[0]} to {versions[-1]}" in (ROOT / "INSTALL.md").read_text(encoding="utf-8")


def test_the_sdist_has_what_the_repository_has(built):
    missing = set(tracked_files()) - files_in(built.source)
    assert missing == {".gitignore"}


def test_git_holds_no_large_files():
    sizes = {name: (ROOT / name).stat().st_size for name in tracked_files()}
    assert {name: size for name, size in sizes.items() if size > LARGEST_IN_GIT} == {}


def test_the_changelog_has_this_version():
    assert f"\n## {__version__} (" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_it_counts_where_nothing_else_of_the_project_is(built, rec_attend, tmp_path):
    picture = np.zeros((256, 256), np.uint8)
    for place in ((50, 60), (180, 70), (120, 190)):
        cv2.circle(picture, place, 7, 140, -1)
    cv2.imwrite(str(tmp_path / "discs.png"), cv2.GaussianBlur(picture, (0, 0), 1.0))
    where = ("--output", "results", "--processes", "1")
    done = rec_attend("count", "--model", ROOT / "weights" / "nuclei.yaml", tmp_path / "discs.png", *where)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "1 picture, 3 objects in results/counts.csv." in done.stdout

    found = rec_attend("count", "--model", "nuclei", tmp_path / "discs.png")
    assert found.returncode == 1
    assert f"from the project's releases page into {tmp_path / 'home'}/.cache/rec_attend_d2/weights" in found.stderr
    assert str(built.site / "weights") in found.stderr  # where the wheel's package is the one that runs


def test_its_recipes_come_with_it(built, tmp_path):
    program = (
        "import rec_attend_d2; from rec_attend_d2.config import load_config; "
        "from rec_attend_d2.planning.plan import base_config; load_config(base_config(), []); print(base_config())"
    )
    done = run("-c", program, cwd=tmp_path, PYTHONPATH=str(built.site))
    assert done.stdout.strip() == str(built.site / "rec_attend_d2" / "configs" / "Fast-RecAttend.yaml"), done.stderr


def test_detectron2_that_is_missing_is_named(built, tmp_path):
    done = run("-c", WITHOUT_DETECTRON2, cwd=tmp_path, PYTHONPATH=str(built.site))
    assert "ModuleNotFoundError: rec_attend_d2 needs Detectron2" in done.stderr.splitlines()[-1]
