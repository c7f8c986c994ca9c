"""The original code's weights -> a Detectron2 state dict.

The original's names: ``ctrl_cnn_w_0`` (conv [kh, kw, in, out]), ``ctrl_cnn_0_T_beta`` (layer 0, time step T),
``attn_cnn_*`` and ``attn_dcnn_*`` (mask head; the latter [kh, kw, out, in]), ``ctrl_lstm_w_xi`` (gates i, f, o and
candidate u), ``glimpse_mlp_*``, ``ctrl_mlp_*``, ``score_mlp_*`` ([in, out]); stage A's ``cnn_*`` and ``dcnn_*``.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import Tensor, nn

from ..layers.step_norm import PerStepBatchNorm
from ..modeling.paper import RecAttend, RecAttendPreprocessor
from ..modeling.paper.box_proposer import GlimpseLSTMBoxProposer, LSTMCell
from ..modeling.paper.foreground_fcn import ForegroundFCN
from ..modeling.paper.segmentation_head import PatchConvDeconvHead
from ..modeling.paper.sequence_model import SequenceModel
from .original_options import config_from_original_options

logger = logging.getLogger(__name__)

# Gates in the order of our LSTM cell.
LSTM_GATES = ("i", "f", "o", "u")
# Names in the original's checkpoints that are no weights.
NO_WEIGHTS = frozenset({"global_step", "step"})
RUNNING_STATISTICS = ("ema_mean", "ema_var")


@dataclass
class _Entry:
    """One tensor of ours, or a part of it, and where it comes from.

    Attributes:
        ours: name in our state dict.
        index: part of the tensor that is set, or ``...``.
        theirs: the original's name.
        layout: from the original's layout to ours and back.
    """

    ours: str
    index: Any
    theirs: str
    to_ours: Callable[[np.ndarray], np.ndarray]
    to_theirs: Callable[[np.ndarray], np.ndarray]


def _same(array: np.ndarray) -> np.ndarray:
    return array


def _transpose(array: np.ndarray) -> np.ndarray:
    return array.T


def _conv_to_ours(array: np.ndarray) -> np.ndarray:
    # [kh, kw, a, b] -> [b, a, kh, kw]; for a transposed conv that is [in, out, kh, kw].
    return array.transpose(3, 2, 0, 1)


def _conv_to_theirs(array: np.ndarray) -> np.ndarray:
    return array.transpose(2, 3, 1, 0)


def _conv_entries(ours: str, theirs: str, layers: nn.ModuleList) -> Iterator[_Entry]:
    for i, layer in enumerate(layers):
        yield _Entry(f"{ours}.{i}.conv.weight", ..., f"{theirs}_w_{i}", _conv_to_ours, _conv_to_theirs)
        yield _Entry(f"{ours}.{i}.conv.bias", ..., f"{theirs}_b_{i}", _same, _same)
        norm = getattr(layer, "norm", None)  # the last deconv layer of stage A has none
        if isinstance(norm, PerStepBatchNorm):
            names = {"weight": "gamma", "bias": "beta", "running_mean": "ema_mean", "running_var": "ema_var"}
            for step in range(len(norm.weight)):
                for our_name, their_name in names.items():
                    their_full = f"{theirs}_{i}_{step}_{their_name}"
                    yield _Entry(f"{ours}.{i}.norm.{our_name}", step, their_full, _same, _same)


def _linear_entries(ours: str, theirs: str) -> Iterator[_Entry]:
    yield _Entry(f"{ours}.weight", ..., theirs.format("w"), _transpose, _transpose)
    yield _Entry(f"{ours}.bias", ..., theirs.format("b"), _same, _same)


def _lstm_entries(ours: str, cell: LSTMCell) -> Iterator[_Entry]:
    size = cell.hidden_size
    inputs = cell.gates.in_features - size
    for number, gate in enumerate(LSTM_GATES):
        rows = slice(number * size, (number + 1) * size)
        x_part, h_part = (rows, slice(0, inputs)), (rows, slice(inputs, None))
        yield _Entry(f"{ours}.gates.weight", x_part, f"ctrl_lstm_w_x{gate}", _transpose, _transpose)
        yield _Entry(f"{ours}.gates.weight", h_part, f"ctrl_lstm_w_h{gate}", _transpose, _transpose)
        yield _Entry(f"{ours}.gates.bias", rows, f"ctrl_lstm_b_{gate}", _same, _same)


def _entries(model: nn.Module) -> Iterator[_Entry]:
    if isinstance(model, RecAttendPreprocessor):
        fcn = model.preprocessor
        assert isinstance(fcn, ForegroundFCN), "the original has no other preprocessor"
        yield from _conv_entries("preprocessor.conv.layers", "cnn", fcn.conv.layers)
        yield from _conv_entries("preprocessor.deconv", "dcnn", fcn.deconv)
    else:
        assert isinstance(model, SequenceModel)
        yield from _recurrent_entries(model)


def _recurrent_entries(model: SequenceModel) -> Iterator[_Entry]:
    proposer = model.box_proposer
    assert isinstance(proposer, GlimpseLSTMBoxProposer), "the original has no other proposer"
    yield from _conv_entries("box_proposer.control_cnn.layers", "ctrl_cnn", proposer.control_cnn.layers)
    yield from _lstm_entries("box_proposer.glimpse.lstm", proposer.glimpse.lstm)
    next_glimpse = proposer.glimpse.next_glimpse
    for i in range(0 if next_glimpse is None else len(next_glimpse.layers)):
        ours = f"box_proposer.glimpse.next_glimpse.layers.{i}"
        yield from _linear_entries(ours, "glimpse_mlp_{}_" + str(i))
    for i in range(len(proposer.box.layers)):
        yield from _linear_entries(f"box_proposer.box.layers.{i}", "ctrl_mlp_{}_" + str(i))
    if isinstance(model, RecAttend):
        head = model.segmentation_head
        assert isinstance(head, PatchConvDeconvHead), "the original has no other head"
        yield from _conv_entries("segmentation_head.conv.layers", "attn_cnn", head.conv.layers)
        yield from _conv_entries("segmentation_head.deconv.layers", "attn_dcnn", head.deconv.layers)
        yield from _linear_entries("stop_scorer.linear", "score_mlp_{}_0")
    else:
        yield from _linear_entries("box_scorer.linear", "score_mlp_{}_0")


def stage_of(names: Iterable[str]) -> str:
    """Whether these are weights of stage "A" (no box proposer), "C" (they have a mask head) or "B"."""
    given = set(names)
    if "attn_cnn_w_0" in given:
        return "C"
    return "B" if "ctrl_cnn_w_0" in given else "A"


def _is_statistic(name: str) -> bool:
    return name.endswith(RUNNING_STATISTICS)


def has_running_statistics(weights: Mapping[str, np.ndarray]) -> bool:
    """Whether the running means and variances are among the weights (the authors' published files lack them)."""
    return any(_is_statistic(name) for name in weights)


def _report(weights: Mapping[str, np.ndarray], used: set[str], missing: list[str]) -> None:
    unmatched = sorted(set(weights) - used)
    extra = [name for name in unmatched if name not in NO_WEIGHTS]
    statistics = [name for name in missing if _is_statistic(name)]
    required = [name for name in missing if not _is_statistic(name)]
    if required:
        raise ValueError(
            f"The weights lack {len(required)} names that the options ask for: {', '.join(required)}. "
            f"Names not used: {', '.join(extra) or 'none'}. Are these the options the weights were trained with?"
        )
    if unmatched:
        logger.warning("%d names of the weights were not used: %s", len(unmatched), ", ".join(unmatched))
    if statistics:
        logger.warning(
            "The weights hold no running statistics for %d of the batch norms' means and variances. They start at 0 "
            "and 1, which is wrong for inference: re-estimate them from data "
            "(rec_attend_d2.checkpoint.estimate_running_statistics, or --estimate-statistics of "
            "tools/convert_weights.py).",
            len(statistics),
        )


def convert_original_weights(
    weights: Mapping[str, np.ndarray], options: Mapping[str, Any]
) -> tuple[CfgNode, dict[str, Tensor]]:
    """Config and state dict of a model that computes what the original does.

    Args:
        weights: the original's names to arrays.
        options: the original's options by name, as in its ``model_opt.yaml``.

    Returns:
        The config, and the state dict of the model that ``detectron2.modeling.build_model`` makes from it. Names that
        were not used are logged, as are missing running statistics.

    Raises:
        ValueError: a weight that the options ask for is missing or has another shape; an option is missing or has no
            counterpart.
    """
    cfg = config_from_original_options(options, stage=stage_of(weights))
    cfg.MODEL.DEVICE = "cpu"
    model = build_model(cfg)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    used, missing = set(), []
    for entry in _entries(model):
        if entry.theirs not in weights:
            missing.append(entry.theirs)
            continue
        used.add(entry.theirs)
        array = np.ascontiguousarray(entry.to_ours(np.asarray(weights[entry.theirs], dtype=np.float32)))
        target = state[entry.ours][entry.index]
        if tuple(target.shape) != array.shape:
            raise ValueError(
                f"'{entry.theirs}' has shape {np.shape(weights[entry.theirs])}, which the options do not ask for "
                f"('{entry.ours}' needs {tuple(target.shape)})."
            )
        target.copy_(torch.from_numpy(array))
    _report(weights, used, missing)
    return cfg, state


def to_original_names(model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    """The inverse for any tensors with our names, such as gradients: the original's names and layouts.

    Args:
        model: a model with the original's parts.
        tensors: our names to tensors of the shapes of the state dict; names may be missing.
    """
    result = {}
    for entry in _entries(model):
        if entry.ours in tensors:
            part = tensors[entry.ours][entry.index].detach().cpu().numpy()
            result[entry.theirs] = entry.to_theirs(part)
    return result
