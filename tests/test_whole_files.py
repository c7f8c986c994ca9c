"""Files that appear as a whole or not at all."""

import errno
import json
import subprocess
import sys

import pytest

from rec_attend_d2.whole_files import FullDisk, write_json, written_at_once

# A process that is in the middle of a file when it has said so.
LEAVES_HALF = """
import sys, time
from pathlib import Path
from rec_attend_d2.whole_files import written_at_once
with written_at_once(Path(sys.argv[1])) as partial:
    partial.write_text("half of something longer")
    print(flush=True)
    time.sleep(60)
"""

# A process that is in the middle of a file when it has said so.
LEAVES_HALF = """
import sys, time
from pathlib import Path
from rec_attend_d2.whole_files import written_at_once
with written_at_once(Path(sys.argv[1])) as partial:
    partial.write_text("half of something longer")
    print(flush=True)
    time.sleep(60)
"""


def test_a_file_is_replaced(tmp_path):
    path = tmp_path / "new" / "file.zip"
    for text in ("first", "second"):
        with written_at_once(path) as partial:
            partial.write_text(text)
            assert partial.parent == path.parent
        assert path.read_text() == text
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("interruption", [KeyError, KeyboardInterrupt])
def test_a_failure_keeps_what_was_there(tmp_path, interruption: type[BaseException]):
    (tmp_path / "file.zip").write_text("first")
    with pytest.raises(interruption), written_at_once(tmp_path / "file.zip") as partial:
        partial.write_text("half")
        raise interruption
    assert [path.read_text() for path in tmp_path.iterdir()] == ["first"]


def test_what_a_killed_process_left_is_removed(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", LEAVES_HALF, str(tmp_path / "file.txt")], stdout=subprocess.PIPE)
    child.stdout.read(1)
    others = [tmp_path / "file.txt.elsewhere-1.partial", tmp_path / "mine.partial"]
    for path in others:
        path.touch()
    child.kill()
    child.wait()
    left = [path for path in tmp_path.iterdir() if path not in others]
    assert [path.read_text() for path in left] == ["half of something longer"]
    with written_at_once(tmp_path / "file.txt") as partial:
        partial.write_text("whole")
    assert sorted(tmp_path.iterdir()) == [others[0].with_name("file.txt"), *others]
    assert (tmp_path / "file.txt").read_text() == "whole"


def test_two_may_write_the_same_file(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", LEAVES_HALF, str(tmp_path / "file.txt")], stdout=subprocess.PIPE)
    child.stdout.read(1)
    with written_at_once(tmp_path / "file.txt") as partial:
        partial.write_text("whole")
    assert len(list(tmp_path.iterdir())) == 2  # what is being written is no leftover
    child.kill()
    child.wait()
    assert (tmp_path / "file.txt").read_text() == "whole"


def test_json_has_no_undefined_figures(tmp_path):
    path = tmp_path / "folder" / "a.json"
    write_json(path, {"a": [float("nan"), 1.5], "b": {"c": float("inf")}, "d": ("x", 1)})
    assert json.loads(path.read_text()) == {"a": [None, 1.5], "b": {"c": None}, "d": ["x", 1]}
    assert path.read_text().startswith('{\n  "a": [')
    write_json(path, {"a": 1}, indent=None)
    assert path.read_text() == '{"a": 1}\n'


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left"),
        OSError(errno.EDQUOT, "quota"),
        RuntimeError("PytorchStreamWriter failed"),
    ],
)
def test_a_full_disk_is_told_with_file_and_space(tmp_path, error):
    path = tmp_path / "model.pth"
    with pytest.raises(FullDisk, match=f"'{path}' could not be written, with [0-9.]+ MB free on its disk: make room"):
        with written_at_once(path):
            raise error
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RuntimeError, match="^other$"), written_at_once(path):
        raise RuntimeError("other")
