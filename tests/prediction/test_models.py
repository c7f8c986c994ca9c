"""Models by folder, config file or name."""

from pathlib import Path

import pytest

from rec_attend_d2.prediction.models import find_model, weights_folders


@pytest.fixture
def places(tmp_path, monkeypatch) -> Path:
    """Folders of weights, and a working folder with a trained model and others."""
    for name in ("own/nuclei", "cache/rec_attend_d2/weights/nuclei", "cache/rec_attend_d2/weights/worms"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{name}.yaml").write_text("MODEL:\n  WEIGHTS: mine.pth\n")
        (tmp_path / name).with_name("mine.pth").touch()
    for name in ("model/config.yaml", "model/model.pth", "nuclei/picture.png", "empty/config.yaml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("VERSION: 2\n")
    monkeypatch.setenv("REC_ATTEND_WEIGHTS", str(tmp_path / "own"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_models_are_found(places):
    assert (find_model("model").config, find_model("model").weights) == (
        Path("model/config.yaml"),
        Path("model/model.pth"),
    )
    # A folder of this name that is no model is not in the way.
    assert find_model("nuclei").config == places / "own" / "nuclei.yaml"
    assert find_model("worms").config == places / "cache" / "rec_attend_d2" / "weights" / "worms.yaml"
    assert find_model("own/nuclei.yaml").load_config([])[1] == "own/mine.pth"
    assert find_model("rosettes").config.is_file()  # of the source code
    assert weights_folders()[0] == places / "own"


def test_the_weights_of_a_folder_may_be_replaced(places):
    assert find_model("model").load_config([])[1] == "model/model.pth"
    assert find_model("model").load_config(["MODEL.WEIGHTS", "own/mine.pth"])[1] == "own/mine.pth"
    with pytest.raises(FileNotFoundError, match=r"names 'no\.pth', which does not exist"):
        find_model("model").load_config(["MODEL.WEIGHTS", "no.pth"])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no.yaml", r"The config file 'no\.yaml' does not exist"),
        ("empty", "The folder 'empty' is no model: it has to have config.yaml and model.pth"),
        ("nothing", "There is no model 'nothing'.*published weights: .*nuclei, .*worms.*Looked in .*own"),
    ],
)
def test_what_is_no_model(places, name, message):
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        find_model(name)
