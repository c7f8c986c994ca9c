"""Pictures are looked at before a training, all offenders are counted, and what was found never goes stale."""

import os
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from rec_attend_d2.data import picture_check
from rec_attend_d2.data.picture_check import check_pictures, depth_hints, equal_files, read_facts


@pytest.fixture(autouse=True)
def memory(tmp_path, monkeypatch) -> Path:
    """Folder of what is remembered; as of a new process."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(picture_check, "_looked_at", {})
    return tmp_path / "cache" / "rec_attend_d2" / "pictures"


def write(folder: Path, count: int, pixels: np.ndarray | None = None) -> list[dict]:
    """Records of so many pictures of 4 x 6, all different unless they are given."""
    records = []
    for number in range(count):
        path = folder / f"{number}.png"
        cv2.imwrite(str(path), np.full((4, 6), number + 100, np.uint8) if pixels is None else pixels)
        records.append({"file_name": str(path), "height": 4, "width": 6})
    return records


def make_old(records: list[dict], monkeypatch) -> None:
    """Let it be a minute later."""
    now = time.time()
    monkeypatch.setattr(picture_check.time, "time", lambda: now + 60)


def looked_at(monkeypatch) -> list[str]:
    """Names of the files that are decoded from now on."""
    names: list[str] = []
    look = picture_check.look_at_file
    monkeypatch.setattr(picture_check, "look_at_file", lambda path: (names.append(Path(path).name), look(path))[1])
    monkeypatch.setattr(picture_check, "_looked_at", {})
    return names


def test_all_that_is_wrong_is_in_one_error(tmp_path):
    records = write(tmp_path, 14)
    for record in records[:12]:
        record["height"] = 5
    Path(records[12]["file_name"]).write_bytes(b"no picture")
    with pytest.raises(ValueError) as error:
        check_pictures({"train": records[:7], "val": records[7:]}, any_depth=False)
    lines = str(error.value).splitlines()
    assert lines[0] == "13 problems with the 14 pictures of train, val:" and lines[-1] == "  ... and 3 more."
    assert "0.png is 4 high and 6 wide, but its annotations say 5 high" in lines[1] and len(lines) == 12


def test_missing_pictures(tmp_path):
    records = write(tmp_path, 2)
    os.remove(records[1]["file_name"])
    with pytest.raises(FileNotFoundError, match=r"1\.png does not exist"):
        check_pictures({"train": records}, any_depth=False)


def test_depths(tmp_path):
    dark = write(tmp_path, 1, np.full((4, 6), 4000, np.uint16))
    assert [line[:21] for line in depth_hints(check_pictures({"train": dark}, any_depth=False))] == [
        "1 of 1 pictures use le"[:21]
    ]
    bright = write(tmp_path, 1, np.full((4, 6), 40000, np.uint16))
    assert depth_hints(check_pictures({"train": bright}, any_depth=False)) == []
    floats = [{**bright[0], "file_name": str(tmp_path / "f.tif")}]
    cv2.imwrite(floats[0]["file_name"], np.ones((4, 6), np.float32))
    check_pictures({"train": floats}, any_depth=True)
    with pytest.raises(ValueError, match=r"f\.tif has float32 pixels.*INPUT\.CONTRAST_PERCENTILES"):
        check_pictures({"train": floats}, any_depth=False)


def test_equal_files_have_different_names(tmp_path):
    records = write(tmp_path, 3)
    copy = {**records[0], "file_name": str(tmp_path / "copy.png")}
    Path(copy["file_name"]).write_bytes(Path(records[0]["file_name"]).read_bytes())
    facts = check_pictures({"a": records, "b": [copy]}, any_depth=False)
    assert equal_files(facts, records, [copy, records[2]]) == [
        (copy["file_name"], records[0]["file_name"]),
        (records[2]["file_name"],) * 2,
    ]


def test_only_what_changed_is_looked_at_again(tmp_path, monkeypatch):
    records = write(tmp_path, 3)
    names = [record["file_name"] for record in records]
    make_old(records, monkeypatch)
    first = read_facts(names)
    again = looked_at(monkeypatch)
    assert read_facts(names) == first and again == []

    # A picture with as many bytes, whose time of change is set back.
    before = os.stat(names[1])
    content = bytearray(Path(names[1]).read_bytes())
    content[-20] ^= 1
    Path(names[1]).write_bytes(content)
    os.utime(names[1], ns=(before.st_atime_ns, before.st_mtime_ns))
    again = looked_at(monkeypatch)
    assert read_facts(names)[names[1]] != first[names[1]] and again == ["1.png"]


def test_what_fails_or_was_just_written_is_not_remembered(tmp_path, monkeypatch, memory):
    records = write(tmp_path, 2)
    read_facts([record["file_name"] for record in records])
    assert not memory.exists()
    Path(records[0]["file_name"]).write_bytes(b"")
    make_old(records, monkeypatch)
    again = looked_at(monkeypatch)
    for _ in range(2):
        monkeypatch.setattr(picture_check, "_looked_at", {})
        read_facts([record["file_name"] for record in records])
    assert sorted(again) == ["0.png", "0.png", "1.png"]


@pytest.mark.parametrize("content", ["", "[]", '{"version": 1}', '{"entries": {"x": 3}}'])
def test_a_damaged_memory_is_no_harm(tmp_path, monkeypatch, memory, content):
    records = write(tmp_path, 1)
    make_old(records, monkeypatch)
    read_facts([records[0]["file_name"]])
    (file,) = memory.iterdir()
    file.write_text(content)
    again = looked_at(monkeypatch)
    assert read_facts([records[0]["file_name"]])[records[0]["file_name"]].size == (4, 6) and again == ["0.png"]
