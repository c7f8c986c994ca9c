"""tools/export_model.py as a user runs it, with freshly initialised small models on the drawn plants."""

import importlib
import re
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from detectron2.modeling import build_model

from rec_attend_d2.config import load_config
from rec_attend_d2.export import Comparison

ROOT = Path(__file__).resolve().parents[1]
CONFIG = ROOT / "tests" / "configs" / "fast.yaml"


@pytest.fixture
def tool(monkeypatch):
    """tools/export_model.py as a module."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    return importlib.import_module("export_model")


@pytest.fixture
def arguments(tmp_path) -> list[str]:
    """An export of the quick schedule with random weights; the last two arguments are KEY VALUE."""
    weights = tmp_path / "model.pth"
    torch.manual_seed(0)
    torch.save({"model": build_model(load_config(str(CONFIG), ["MODEL.DEVICE", "cpu"])).state_dict()}, weights)
    output = tmp_path / "folder" / "model.pt2"
    return ["--config-file", str(CONFIG), "--format", "torch_export", "--output", str(output), "--steps", "1"] + [
        "MODEL.WEIGHTS",
        str(weights),
    ]


def call(tool, monkeypatch, *arguments: str) -> None:
    """The tool's main() in this process."""
    monkeypatch.setattr(sys, "argv", ["export_model.py", *arguments])
    tool.main()


def test_it_writes_the_file_and_prints_the_differences(arguments, run_tool, tmp_path):
    result = run_tool("export_model", "--images", "3", *arguments)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert re.search(r"model\.pt2 is written: \d+\.\d MB, up to 1 steps\.", result.stdout)
    assert "Largest differences from the original on 3 images (relative where values are above 1):" in lines
    differences = dict(re.findall(r"^(masks|scores|centers|sizes) +(\S+)$", result.stdout, re.MULTILINE))
    assert len(differences) == 4
    assert all(float(value) <= 1e-4 for value in differences.values())
    loaded = torch.export.load(tmp_path / "folder" / "model.pt2").module()
    assert loaded(torch.rand(2, 3, 64, 64))["masks"].shape == (2, 1, 64, 64)


def test_the_images_may_be_files_of_any_size(arguments, tool, monkeypatch, capsys, tmp_path):
    traced = []
    monkeypatch.setattr(tool, "trace", lambda module, images: traced.append(images))
    form = tool.ExportFormat(".pt2", lambda: None, lambda program, path: path.touch(), lambda path: None)
    monkeypatch.setitem(tool.EXPORT_FORMATS, "torch_export", form)
    monkeypatch.setattr(tool, "compare", lambda run, reference, batches: perfect_result(batches))
    files = []
    for number, size in enumerate([(40, 50), (20, 30)]):
        path = tmp_path / f"{number}.png"
        write_white_image(path, size)
        files += ["--input", str(path)]
    call(tool, monkeypatch, *files, *arguments)
    assert traced[0].shape == (1, 3, 64, 64)
    # A white picture in the corner, at half its size.
    assert (traced[0][..., :20, :25] == 1).all() and traced[0].sum() == 3 * 20 * 25
    assert "on 2 images" in capsys.readouterr().out


def perfect_result(batches) -> Comparison:
    """The comparison of a perfect export."""
    return Comparison({"masks": 0.0}, sum(len(batch) for batch in batches))


def write_white_image(path: Path, size: tuple[int, int]) -> None:
    """Write a white image."""
    cv2.imwrite(str(path), np.full((*size, 3), 255, np.uint8))


def test_a_difference_above_the_tolerance_is_an_error(arguments, tool, monkeypatch, capsys):
    monkeypatch.setattr(tool, "export_and_compare", lambda _: Comparison({"masks": 2e-4, "scores": 0.0}, 4))
    with pytest.raises(SystemExit, match=re.escape("masks differ by more than --tolerance 0.0001")):
        call(tool, monkeypatch, *arguments)
    assert re.search(r"masks +2\.00e-04", capsys.readouterr().out)
    call(tool, monkeypatch, "--tolerance", "0.001", *arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--images", "0"], "--images is 0; give at least 1"),
        (["--tolerance", "-1"], "--tolerance is -1.0; give 0 or more"),
        (["--tolerance", "nan"], "--tolerance is nan; give 0 or more"),
        (["--format", "onnx"], "files of format onnx end with .onnx"),
        (["--format", "torchscript"], "invalid choice: 'torchscript'"),
    ],
)
def test_a_wrong_command_line_is_explained(options, message, arguments, tool, monkeypatch, capsys):
    with pytest.raises(SystemExit) as exit_info:
        call(tool, monkeypatch, *arguments[:-2], *options, *arguments[-2:])
    assert exit_info.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("front", "opts", "message"),
    [
        ([], ["MODEL.WEIGHTS", ""], "export_model: MODEL.WEIGHTS is empty: add 'MODEL.WEIGHTS file.pth'"),
        ([], ["MODEL.WEIGHTS", "nowhere.pth"], "MODEL.WEIGHTS names 'nowhere.pth', which does not exist"),
        ([], ["DATASETS.TEST", "()"], "DATASETS.TEST is empty: name images by --input"),
        (["--input", "nowhere.png"], [], "--input names nowhere.png, which does not exist"),
        (["--steps", "0"], [], "A graph of 0 steps finds nothing; give at least 1"),
    ],
)
def test_what_cannot_be_done_is_one_clear_line(
    front, opts, message, arguments, tool, monkeypatch, tmp_path, datasets_root
):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(datasets_root))
    with pytest.raises(SystemExit, match=re.escape(message)):
        call(tool, monkeypatch, *arguments[:-2], *front, *arguments[-2:], *opts)
    assert not (tmp_path / "folder").exists()
