"""What messages say about a folder that is not as expected."""

import pytest

from rec_attend_d2.data.datasets.file_trees import describe_contents


def test_names_what_is_there(tmp_path):
    (tmp_path / "A2").mkdir()
    (tmp_path / "A1.csv").write_text("")
    (tmp_path / ".hidden").write_text("")
    assert describe_contents(tmp_path) == f"{tmp_path} holds A1.csv, A2/."


def test_an_empty_folder(tmp_path):
    assert describe_contents(tmp_path) == f"{tmp_path} holds nothing."


def test_long_lists_are_cut(tmp_path):
    for index in range(11):
        (tmp_path / f"{index:02d}").write_text("")
    assert describe_contents(tmp_path).endswith("06, 07 and 3 more.")


def test_a_missing_folder_leads_to_the_one_above(tmp_path):
    (tmp_path / "other").mkdir()
    text = describe_contents(tmp_path / "cvppp" / "A1")
    assert f"{tmp_path / 'cvppp' / 'A1'} does not exist." in text
    assert f"{tmp_path / 'cvppp'} does not exist." in text
    assert text.endswith(f"{tmp_path} holds other/.")


@pytest.mark.parametrize("name", ["data.zip", "data.tar.gz", "DATA.TGZ"])
def test_archives_are_to_be_unpacked(tmp_path, name):
    (tmp_path / name).write_text("")
    (tmp_path / "folder.zip").mkdir()
    assert describe_contents(tmp_path).endswith(f"{name} is an archive: unpack it there.")
    assert "folder.zip is an archive" not in describe_contents(tmp_path)
    assert describe_contents(tmp_path / name).endswith("is a file, not a folder. It is an archive: unpack it.")
