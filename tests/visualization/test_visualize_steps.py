"""tools/visualize_steps.py as a user runs it, with freshly initialised small models on the drawn plants."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from PIL import Image

from rec_attend_d2.config import load_config

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / "tools" / "visualize_steps.py"
CONFIG = str(ROOT / "configs" / "Base-RecAttend.yaml")
STEPS = 3
OPTIONS = [
    *("DATASETS.TEST", "('rosettes_val',)"),
    *("INPUT.IMAGE_SIZE", "[48, 48]"),
    *("MODEL.DEVICE", "cpu"),
    *("MODEL.REC_ATTEND.TIME_STEPS", str(STEPS)),
    *("MODEL.REC_ATTEND.BOX_PROPOSER.CONV_CHANNELS", "[8, 8, 8]"),
    *("MODEL.REC_ATTEND.BOX_PROPOSER.CONV_POOLS", "[2, 2, 2]"),
    *("MODEL.REC_ATTEND.BOX_PROPOSER.HIDDEN_DIM", "16"),
    *("MODEL.REC_ATTEND.ATTENTION.PATCH_SIZE", "[16, 16]"),
    # Untrained scores are about 0.5: every step counts, so that the pictures have all of them.
    *("MODEL.REC_ATTEND.TEST.SCORE_THRESHOLD", "0.0"),
]
# Pixels of the pictures: a 48 x 48 image is magnified 4 times for the steps and 7 times for the animation.
STEPS_SIZE = {"RecAttend": (48 + 5 * 196, 116 + STEPS * 196), "RecAttendBoxProposer": (48 + 4 * 196, 116 + STEPS * 196)}
ANIMATION_SIZE = (36 + 340, 2 * 340)


@pytest.fixture(scope="session")
def datasets_folder(tmp_path_factory) -> Path:
    """Where the plants are drawn once for all tests."""
    return tmp_path_factory.mktemp("datasets")


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run the tool in a process of its own."""
    command = [sys.executable, str(TOOL), "--config-file", CONFIG, *arguments]
    environment = {**os.environ, "DETECTRON2_DATASETS": str(folder), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, cwd=folder, check=False)


def size_of(path: Path) -> tuple[int, int]:
    """(height, width) of a picture."""
    with Image.open(path) as picture:
        return picture.height, picture.width


@pytest.mark.parametrize("architecture", ["RecAttend", "RecAttendBoxProposer"])
def test_it_draws_the_first_images(architecture, datasets_folder, tmp_path):
    options = [*OPTIONS, "MODEL.META_ARCHITECTURE", architecture]
    torch.manual_seed(0)
    torch.save({"model": build_model(load_config(CONFIG, options)).state_dict()}, tmp_path / "model.pth")
    output = tmp_path / "pictures"
    arguments = ["--output", str(output), "--images", "2", *options, "MODEL.WEIGHTS", str(tmp_path / "model.pth")]
    result = run(datasets_folder, *arguments)
    assert result.returncode == 0, result.stderr

    files = sorted(output.iterdir())
    stems = sorted({file.name.removesuffix("_steps.png") for file in files if file.name.endswith("_steps.png")})
    assert len(stems) == 2
    endings = ("_instances.png", "_steps.gif", "_steps.png")
    assert [file.name for file in files] == [stem + ending for stem in stems for ending in endings]
    original = size_of(next((datasets_folder / "rosettes" / "val").glob(f"{stems[0]}.*")))
    factor = -(-320 // min(original))
    for stem in stems:
        assert size_of(output / f"{stem}_steps.png") == STEPS_SIZE[architecture]
        assert size_of(output / f"{stem}_steps.gif") == ANIMATION_SIZE
        with Image.open(output / f"{stem}_steps.gif") as gif:
            assert gif.n_frames == STEPS
        expected = (36 + original[0] * factor + 4, 2 * (original[1] * factor + 4))  # found and truth
        assert size_of(output / f"{stem}_instances.png") == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["MODEL.WEIGHTS", ""], "MODEL.WEIGHTS is empty: add 'MODEL.WEIGHTS file.pth'"),
        (["MODEL.WEIGHTS", "nowhere.pth"], "MODEL.WEIGHTS names 'nowhere.pth', which does not"),
        (["DATASETS.TEST", "()"], "DATASETS.TEST is empty: name a data set by --dataset"),
        (["MODEL.WEIGHTS", "a.pth", "--dataset", "rosetes_val"], "'rosetes_val', which is not registered"),
    ],
)
def test_what_is_missing_is_a_clear_error(options, message, tmp_path, monkeypatch):
    command = ["visualize_steps.py", "--config-file", CONFIG, "--output", str(tmp_path / "pictures")]
    monkeypatch.setattr(sys, "argv", [*command, *OPTIONS, *options])
    main = runpy.run_path(str(TOOL))["main"]
    with pytest.raises(SystemExit, match=f"^visualize_steps: .*{re.escape(message)}"):
        main()
    assert not (tmp_path / "pictures").exists()
