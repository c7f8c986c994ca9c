"""What a model consists of and what its inference costs: parameters, operations and activations by part and time step.

fvcore counts operations (a multiplication and an addition as one, unlike :mod:`.compute`) and activations (outputs of
matrix products and convolutions) in a trace of the networks. Post-processing, which depends on what was found, is left
out of recurrent models.

Shapes: `B` images, `T` time steps.
"""

import dataclasses
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.export import TracingAdapter
from fvcore.nn import ActivationCountAnalysis, FlopCountAnalysis, parameter_count
from fvcore.nn.jit_analysis import JitModelAnalysis
from torch import Tensor, nn

from ..modeling.paper.sequence_model import SequenceModel
from ..modeling.steps import Feeder
from .batches import synthetic_batch, usual_objects
from .runs import Inference, build_random_model

# What is counted, by the name that the report has for it.
ANALYSES: dict[str, type[JitModelAnalysis]] = {"flops": FlopCountAnalysis, "activations": ActivationCountAnalysis}
# The whole model, and what it computes outside of its parts, such as attention's cutting and pasting.
WHOLE = "all"
OWN = "(outside of these parts)"


@dataclass(frozen=True)
class StepCounts:
    """A figure of a model with time steps; without any the further steps are 0.

    Attributes:
        first: of the first step and all that is done once per image.
        further: of each step after it.
    """

    first: int
    further: int

    def total(self, steps: int) -> int:
        """Of so many steps, at least one."""
        return self.first + (steps - 1) * self.further


@dataclass(frozen=True)
class Trace:
    """What fvcore counted in one trace.

    Attributes:
        parts: figure by part; a part of a part has its name after a dot.
        uncounted: how often an operator ran that is not counted, by its name.
    """

    parts: Counter[str]
    uncounted: Counter[str]


def parameter_counts(model: nn.Module, depth: int) -> dict[str, int]:
    """Number of parameters by part down to ``depth`` names; shared ones count once in each part that has them."""
    counts = {name: count for name, count in parameter_count(model).items() if count and is_part(model, name, depth)}
    return {name or WHOLE: count for name, count in counts.items()}


def trainable_parameters(model: nn.Module) -> int:
    """Number of parameters that training changes."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def is_part(model: nn.Module, name: str, depth: int) -> bool:
    """Whether ``name`` is a module of the model and has at most ``depth`` names."""
    return (not name or name.count(".") < depth) and name in dict(model.named_modules())


class _Unrolled(nn.Module):
    """All results of all time steps, so that the trace drops nothing as unused."""

    def __init__(self, model: SequenceModel):
        super().__init__()
        self.model = model

    def forward(self, batched_inputs: list[dict]) -> list[Tensor]:
        """Tensors of the sequence."""
        return list(_tensors(self.model.sequence(self.model.first_inputs(batched_inputs), Feeder())))


def _tensors(value: Any) -> Iterator[Tensor]:
    """Tensors in a dataclass, and in those it holds."""
    if isinstance(value, Tensor):
        yield value
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _tensors(getattr(value, field.name))


def trace(model: nn.Module, batch: list[dict], analysis: type[JitModelAnalysis], depth: int) -> Trace:
    """Count in one trace of a model in evaluation mode.

    Args:
        model: of a recurrent one, T time steps are traced.
        batch: dataset dicts.
        analysis: what is counted.
        depth: names that a part may have.
    """
    recurrent = isinstance(model, SequenceModel)
    network = _Unrolled(model) if isinstance(model, SequenceModel) else model
    with torch.no_grad(), warnings.catch_warnings():
        # Of the tracer: that values of Python are constants, as they should be.
        warnings.simplefilter("ignore")
        adapter = TracingAdapter(network, batch, allow_non_tensor=True)
        counter = analysis(adapter, adapter.flattened_inputs)
        counter.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
        by_module, uncounted = counter.by_module(), counter.unsupported_ops()
    prefix = "model.model" if recurrent else "model"
    parts: Counter[str] = Counter()
    for name, count in by_module.items():
        part = name.removeprefix(prefix).removeprefix(".")
        if name.startswith(prefix) and is_part(model, part, depth):
            parts[part or WHOLE] = int(count)
    # Results are put together outside of the model too.
    parts[WHOLE] = int(by_module[""])
    parts[OWN] = parts[WHOLE] - sum(count for name, count in parts.items() if "." not in name and name != WHOLE)
    return Trace(parts, uncounted)


def step_counts(first: Mapping[str, int], both: Mapping[str, int]) -> dict[str, StepCounts]:
    """Figures by name of traces with one step and with two."""
    counts = {name: StepCounts(first.get(name, 0), both[name] - first.get(name, 0)) for name in both}
    return {name: count for name, count in counts.items() if count.first or count.further}


def count_steps(
    model: nn.Module, batch: list[dict], analysis: type[JitModelAnalysis], depth: int
) -> tuple[dict[str, StepCounts], dict[str, StepCounts]]:
    """Figures by part, and uncounted operators by name.

    Raises:
        ValueError: a recurrent model has fewer than two time steps.
    """
    if not isinstance(model, SequenceModel):
        whole = trace(model, batch, analysis, depth)
        return step_counts(whole.parts, whole.parts), step_counts(whole.uncounted, whole.uncounted)
    before = model.time_steps
    if before < 2:
        raise ValueError(f"MODEL.REC_ATTEND.TIME_STEPS is {before}; give at least 2 to tell one step from the next.")
    traces = []
    try:
        for model.time_steps in (1, 2):
            traces.append(trace(model, batch, analysis, depth))
    finally:
        model.time_steps = before
    first, both = traces
    return step_counts(first.parts, both.parts), step_counts(first.uncounted, both.uncounted)


def analyze(cfg: CfgNode, tasks: list[str], steps: int | None, depth: int) -> dict[str, Any]:
    """A report that a json file can hold.

    Args:
        cfg: a config of this project, or of Detectron2. Images have INPUT.IMAGE_SIZE and are synthetic.
        tasks: of "parameters", "structure" and the names of ``ANALYSES``.
        steps: time steps that the totals are for; None = MODEL.REC_ATTEND.TIME_STEPS.
        depth: names that a part may have, at least 1.

    Returns:
        ``model`` (class), ``image_size``, ``steps`` (None without time steps), and by task: ``parameters`` with
        ``trainable`` and ``parts``, ``structure`` as text, and for what is counted ``parts`` and ``uncounted``, both by
        name with ``first``, ``further`` and ``total``.

    Raises:
        ValueError: a setting is wrong, or there are no time steps to have ``steps`` of.
    """
    model = build_random_model(cfg).eval()
    recurrent = isinstance(model, SequenceModel)
    if steps is not None and not recurrent:
        raise ValueError(f"{type(model).__name__} has no time steps; leave out --steps.")
    count = (steps or cfg.MODEL.REC_ATTEND.TIME_STEPS) if recurrent else 1
    report: dict[str, Any] = {
        "model": type(model).__name__,
        "image_size": list(cfg.INPUT.IMAGE_SIZE),
        "steps": count if recurrent else None,
    }
    batch = Inference(model, synthetic_batch(cfg, 1, usual_objects(cfg))).batch
    for task in tasks:
        if task == "parameters":
            report[task] = {"trainable": trainable_parameters(model), "parts": parameter_counts(model, depth)}
        elif task == "structure":
            report[task] = str(model)
        else:
            parts, uncounted = count_steps(model, batch, ANALYSES[task], depth)
            report[task] = {"parts": _rows(parts, count), "uncounted": _rows(uncounted, count)}
    return report


def _rows(counts: Mapping[str, StepCounts], steps: int) -> dict[str, dict[str, int]]:
    return {name: {**dataclasses.asdict(count), "total": count.total(steps)} for name, count in counts.items()}
