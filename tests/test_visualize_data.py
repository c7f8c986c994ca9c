"""tools/visualize_data.py as a user runs it, on the drawn plants."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ["--config-file", "tests/configs/fast.yaml"]
# A window of 64 x 64 is magnified 8 times.
CELL = 512, 512


@pytest.fixture
def run(monkeypatch) -> Callable[..., None]:
    """Runs the tool in this process."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    monkeypatch.chdir(ROOT)
    tool = importlib.import_module("visualize_data")

    def call(*arguments: object) -> None:
        monkeypatch.setattr(sys, "argv", ["visualize_data.py", *map(str, arguments)])
        tool.main()

    return call


def test_it_draws_the_first_images(run_tool, tmp_path):
    options = ["--output", tmp_path / "new" / "pictures", "--images", "2", "--draws", "2", "--dataset", "rosettes_val"]
    process = run_tool("visualize_data", *CONFIG, *options, "--seed", "3")
    assert process.returncode == 0, process.stderr[-3000:]
    files = sorted((tmp_path / "new" / "pictures").iterdir())
    assert len(files) == 2 and process.stdout.split() == list(map(str, files))
    for file in files:
        assert file.name.endswith("_data.png")
        with Image.open(file) as picture:
            assert picture.size == (2 * (CELL[1] + 4), 48 + 2 * (CELL[0] + 4))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--dataset", "rosetes_val"], "visualize_data: DATASETS.TRAIN names the data set 'rosetes_val', which is not"),
        (["DATASETS.TRAIN", "()"], "DATASETS.TRAIN is empty: name a data set by --dataset."),
        (["INPUT.NOTHING", "1"], "INPUT.NOTHING"),
        (["INPUT.AUGMENTATIONS", "('Blur',)"], "Blur"),
        (["--images", "0"], "--images is 0; give at least 1."),
        (["--draws", "0"], "--draws is 0"),
        (["--config-file", "nowhere.yaml"], "'nowhere.yaml' does not exist"),
    ],
)
def test_wrong_calls_end_in_one_line(run, tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as error:
        run(*CONFIG, "--output", tmp_path / "pictures", *arguments)
    assert message in f"{error.value}{capsys.readouterr().err}"
    assert not (tmp_path / "pictures").exists()
