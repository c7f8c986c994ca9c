"""Files of both formats: like the original for any number of images, and readable without this package."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.export import ExportedProgram

from rec_attend_d2.export import (
    EXPORT_FORMATS,
    ExportError,
    StopLoopModel,
    UnrolledModel,
    compare,
    formats,
    trace,
)
from rec_attend_d2.modeling.steps import Feeder, StepInputs

TOLERANCE = 1e-5
KINDS = ["unrolled", "stop_loop"]


@dataclass
class Example:
    """A traced module with images to try it on."""

    module: UnrolledModel | StopLoopModel
    program: ExportedProgram
    images: Tensor


@pytest.fixture(scope="session")
def examples(quick_model, images) -> dict[str, Example]:
    """The fast recipe unrolled, traced with one image; the paper's in a loop, whose norms differ between steps."""
    fast, paper = quick_model("fast"), quick_model("stage_c")
    batch = images(paper, 3)
    inputs = StepInputs(batch, torch.zeros_like(batch[:, 0]), paper.preprocessor(batch, []))
    first = paper.step(inputs, Feeder()).score.tolist()
    # Image 0 stops at its first step, image 1 later; so the loop ends where the batch says.
    order = sorted(range(3), key=first.__getitem__)
    paper.stop_threshold = (first[order[0]] + first[order[1]]) / 2
    modules = {
        "unrolled": (UnrolledModel(fast, 1), images(fast, 3), 1),
        "stop_loop": (StopLoopModel(paper, 3), batch[order], 2),
    }
    return {kind: Example(m, trace(m, batch[:count]), batch) for kind, (m, batch, count) in modules.items()}


@pytest.fixture(scope="session")
def saved(examples, tmp_path_factory):
    """A function from kind and format to the file, written once."""
    folder = tmp_path_factory.mktemp("exported")

    def save(kind: str, name: str) -> Path:
        if name == "onnx":
            for package in ("onnx", "onnxscript", "onnxruntime"):
                pytest.importorskip(package, reason=f"ONNX export needs {package}")
        form = EXPORT_FORMATS[name]
        path = folder / f"{kind}{form.suffix}"
        if not path.exists():
            form.save(examples[kind].program, path)
        return path

    return save


def test_the_loops_end_depends_on_the_images(examples):
    example = examples["stop_loop"]
    steps = [example.module.reference(image[None])["steps"].item() for image in example.images]
    assert steps[0] == 1 < max(steps)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ["torch_export", "onnx"])
def test_the_file_is_like_the_original_for_any_number_of_images(kind, name, examples, saved):
    example = examples[kind]
    run = EXPORT_FORMATS[name].load(saved(kind, name))
    result = compare(run, example.module.reference, example.images.split([1, 2]))
    assert result.images == 3
    assert ("steps" in result.differences) == (kind == "stop_loop")
    assert result.above(TOLERANCE) == [], result.differences


PROGRAMS = {
    "torch_export": "values = torch.export.load({path!r}).module()(torch.load({images!r}))\n",
    "onnx": (
        "import numpy, onnxruntime\n"
        "session = onnxruntime.InferenceSession({path!r})\n"
        "names = [output.name for output in session.get_outputs()]\n"
        "results = session.run(names, {{'images': numpy.load({images!r})}})\n"
        "values = dict(zip(names, results))\n"
    ),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_the_file_runs_without_this_package(name, examples, saved, tmp_path):
    example = examples["stop_loop"]
    path, batch = saved("stop_loop", name), example.images
    blocked = ["rec_attend_d2", "detectron2", *(["torch"] if name == "onnx" else [])]
    if name == "onnx":
        images_path = tmp_path / "images.npy"
        np.save(images_path, batch.numpy())
    else:
        images_path = tmp_path / "images.pt"
        torch.save(batch, images_path)
    program = (
        f"import sys\nfor name in {blocked}:\n    sys.modules[name] = None\n"  # importing it now raises ImportError
        + ("" if name == "onnx" else "import torch\n")
        + PROGRAMS[name].format(path=str(path), images=str(images_path))
        + "print(int(values['steps']), float(values['masks'].sum()))\n"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    steps, total = result.stdout.split()
    expected = example.module.reference(batch)
    assert int(steps) == expected["steps"]
    assert float(total) == pytest.approx(expected["masks"].sum().item(), rel=1e-4)


def test_files_hold_no_paths_of_the_machine(saved):
    root = str(Path(__file__).resolve().parents[2]).encode()
    assert root not in saved("unrolled", "torch_export").read_bytes()
    assert root not in saved("unrolled", "onnx").read_bytes()


def test_missing_packages_are_a_clear_error(monkeypatch):
    monkeypatch.setattr(formats, "find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(ExportError, match="Format 'onnx' needs onnxscript: pip install onnxscript"):
        EXPORT_FORMATS["onnx"].check()


def test_a_graph_that_onnx_cannot_hold_is_a_clear_error(examples, monkeypatch, tmp_path):
    def refuse(*arguments, **options):
        raise torch.onnx.OnnxExporterError("no such operator")

    monkeypatch.setattr(torch.onnx, "export", refuse)
    with pytest.raises(ExportError, match="cannot write this graph as ONNX.* no such operator"):
        EXPORT_FORMATS["onnx"].save(examples["unrolled"].program, tmp_path / "model.onnx")
