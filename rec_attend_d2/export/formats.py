"""The file formats: written from a traced module, read back by what a user without this package has."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule

from .modules import ExportError

# Images [B, 3, H, W] to outputs by name.
Runner = Callable[[Tensor], dict[str, Tensor]]

# What tracing notes down at every node about the source it came from: many times the size of a small model's weights,
# with paths of the machine that exported it.
_SOURCE_NOTES = ("stack_trace", "from_node")


@dataclass(frozen=True)
class ExportFormat:
    """How a format is written and read.

    Attributes:
        suffix: of its files.
        check: raises an :class:`.ExportError` if something that it needs is not installed.
        save: writes a traced module to a file.
        load: reads a file without use of this package and returns what runs it.
    """

    suffix: str
    check: Callable[[], None]
    save: Callable[[ExportedProgram, Path], None]
    load: Callable[[Path], Runner]


@torch.no_grad()
def trace(module: nn.Module, images: Tensor) -> ExportedProgram:
    """A graph of ``module`` for any number of images of one size.

    Args:
        module: takes images and gives out tensors by name.
        images: an example [B, 3, H, W].
    """
    if images.shape[0] == 1:
        # Of a single image tracing would conclude that there is always one.
        images = images.expand(2, -1, -1, -1).contiguous()
    program = torch.export.export(module, (images,), dynamic_shapes={"images": {0: Dim("batch", min=1)}}, strict=False)
    for part in program.graph_module.modules():
        if isinstance(part, GraphModule):
            for node in part.graph.nodes:
                for note in _SOURCE_NOTES:
                    node.meta.pop(note, None)
    return program


def _save_torch(program: ExportedProgram, path: Path) -> None:
    torch.export.save(program, path)


def _load_torch(path: Path) -> Runner:
    return torch.export.load(path).module()


def _check_onnx() -> None:
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise ExportError(f"Format 'onnx' needs {', '.join(missing)}: pip install {' '.join(missing)}")


def _save_onnx(program: ExportedProgram, path: Path) -> None:
    names = [spec.arg.name for spec in program.graph_signature.output_specs]
    keys = program.call_spec.out_spec.context
    assert len(names) == len(keys)  # a flat dict of tensors
    try:
        converted = torch.onnx.export(program, dynamo=True, input_names=["images"], output_names=keys, verbose=False)
    except torch.onnx.OnnxExporterError as error:
        raise ExportError(
            f"PyTorch {torch.__version__} cannot write this graph as ONNX; a newer release may, and so may --format "
            f"torch_export. {error}"
        ) from error
    assert converted is not None
    # In the file itself: ONNX cannot hold more than 2 GB so, and this project's models have some MB.
    converted.save(path, external_data=False)


def _load_onnx(path: Path) -> Runner:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3  # errors; a warning per constant that its optimiser found unused helps nobody
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]

    def run(images: Tensor) -> dict[str, Tensor]:
        results = session.run(names, {"images": images.cpu().numpy()})
        return {name: torch.from_numpy(result) for name, result in zip(names, results, strict=True)}

    return run


# By the name that --format takes.
EXPORT_FORMATS = {
    "torch_export": ExportFormat(".pt2", lambda: None, _save_torch, _load_torch),
    "onnx": ExportFormat(".onnx", _check_onnx, _save_onnx, _load_onnx),
}
