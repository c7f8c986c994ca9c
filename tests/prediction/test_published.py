"""Files of a release: found where they are, refused where they are not what was published, named where they are not."""

import json
import shutil
from pathlib import Path

import pytest

from rec_attend_d2.prediction import published
from rec_attend_d2.prediction.models import find_model

WEIGHTS = Path(__file__).resolve().parents[2] / "weights"


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """The only folder of weights, which does not exist yet."""
    monkeypatch.delenv("REC_ATTEND_WEIGHTS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    folder = published.cache_folder()
    # An installed package has no source code beside it.
    monkeypatch.setattr(published, "weights_folders", lambda: [tmp_path / "other", folder])
    return folder


def put(folder: Path, *names: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        shutil.copy(WEIGHTS / name, folder)


def test_the_folders_in_their_order(tmp_path, monkeypatch):
    monkeypatch.setenv("REC_ATTEND_WEIGHTS", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert published.weights_folders() == [tmp_path / "own", tmp_path / "cache" / "rec_attend_d2" / "weights", WEIGHTS]
    monkeypatch.delenv("REC_ATTEND_WEIGHTS")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert published.weights_folders() == [tmp_path / ".cache" / "rec_attend_d2" / "weights", WEIGHTS]


def test_the_weights_of_this_source_code_are_found():
    for name in published.published_models():
        assert find_model(name).config == WEIGHTS / f"{name}.yaml"


def test_weights_in_the_cache_are_used_and_no_others(cache):
    put(cache, "nuclei.yaml", "nuclei.pth")
    Path("nuclei.pth").write_text("something else of this name where the command is run")
    assert find_model("nuclei").load_config([])[1] == str(cache / "nuclei.pth")


def test_what_to_download_is_said(cache):
    message = r"Download nuclei.pth and nuclei.yaml from the project's releases page into .*rec_attend_d2/weights"
    with pytest.raises(FileNotFoundError, match=message):
        find_model("nuclei")
    put(cache.parents[1] / "other", "nuclei.yaml")
    with pytest.raises(FileNotFoundError, match=r"Download nuclei.pth from .* into \S*/other\."):
        find_model("nuclei")


@pytest.mark.parametrize("name", ["cells.pth", "cells.yaml"])
def test_damaged_files_are_refused(cache, name):
    put(cache, "cells.yaml", "cells.pth")
    content = bytearray((cache / name).read_bytes())
    content[len(content) // 2] ^= 1
    (cache / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"^{name} in .* is damaged or of another version .* Download {name} of this"):
        find_model("cells")
    # Who names the file itself knows what it is.
    assert find_model(str(cache / "cells.yaml")).config == cache / "cells.yaml"


def test_files_of_another_version_are_refused(cache, tmp_path, monkeypatch):
    put(cache, "cells.yaml", "cells.pth")
    (tmp_path / "index.json").write_text(json.dumps({"cells": {"cells.pth": "0" * 64, "cells.yaml": "1" * 64}}))
    monkeypatch.setattr(published, "INDEX", tmp_path / "index.json")
    with pytest.raises(ValueError, match="cells.pth and cells.yaml in .* are damaged or of another version"):
        find_model("cells")
