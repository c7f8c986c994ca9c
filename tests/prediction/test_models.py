"""Where a finished model is found by what a user calls it."""

import pytest

from rec_attend_d2.prediction.models import PUBLISHED, find_model


def test_a_folder_a_config_and_a_published_name(tmp_path):
    for name in ("config.yaml", "model.pth"):
        (tmp_path / name).write_text("")
    assert find_model(tmp_path) == (tmp_path / "config.yaml", tmp_path / "model.pth")
    (tmp_path / "other.yaml").write_text("MODEL: {WEIGHTS: model.pth}")
    assert find_model(str(tmp_path / "other.yaml")) == (tmp_path / "other.yaml", tmp_path / "model.pth")
    assert find_model("nuclei") == (PUBLISHED / "nuclei.yaml", PUBLISHED / "nuclei.pth")


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no config.yaml and no model.pth"):
        find_model(tmp_path)
    with pytest.raises(FileNotFoundError, match="no model 'walruses'.*cells, nuclei, rosettes"):
        find_model("walruses")
    (tmp_path / "lost.yaml").write_text("MODEL: {WEIGHTS: lost.pth}")
    with pytest.raises(FileNotFoundError, match="lost.pth, which .*lost.yaml names"):
        find_model(tmp_path / "lost.yaml")
