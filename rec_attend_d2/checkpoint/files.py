"""Files of the original code, and of converted models."""

import json
import logging
import os
from collections.abc import Callable, Mapping
from typing import Any

import h5py
import numpy as np
import torch
import yaml
from detectron2.config import CfgNode
from torch import Tensor

from .loading import read_checkpoint

logger = logging.getLogger(__name__)


def _read_h5(path: str) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    with h5py.File(path, "r") as file:
        file.visititems(lambda name, item: arrays.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None)
    return arrays


def _read_npz(path: str) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def _read_yaml(path: str) -> Any:
    with open(path) as file:
        return yaml.safe_load(file)


def _read_json(path: str) -> Any:
    with open(path) as file:
        return json.load(file)


_WEIGHT_READERS: dict[str, Callable[[str], dict[str, np.ndarray]]] = {".h5": _read_h5, ".npz": _read_npz}
_OPTION_READERS: dict[str, Callable[[str], Any]] = {".yaml": _read_yaml, ".yml": _read_yaml, ".json": _read_json}


def _reader(path: str, readers: Mapping[str, Callable]) -> Callable:
    if not os.path.isfile(path):
        raise FileNotFoundError(f"'{path}' does not exist.")
    ending = os.path.splitext(path)[1].lower()
    if ending not in readers:
        raise ValueError(f"'{path}' ends in '{ending}'; expected one of {', '.join(readers)}.")
    return readers[ending]


def read_weights(path: str) -> dict[str, np.ndarray]:
    """The original's weights by name, from an HDF5 or npz file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: another kind of file, or one that can't be read.
    """
    reader = _reader(path, _WEIGHT_READERS)
    try:
        return reader(path)
    except (OSError, ValueError) as error:
        raise ValueError(f"'{path}' can't be read as the file its name says: {error}") from error


def read_options(path: str) -> dict[str, Any]:
    """The original's options by name, from a YAML or JSON file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: another kind of file, or one that holds no mapping.
    """
    options = _reader(path, _OPTION_READERS)(path)
    if not isinstance(options, dict):
        raise ValueError(f"'{path}' holds no mapping of option names to values.")
    return options


def save_model(cfg: CfgNode, state: Mapping[str, Tensor], checkpoint_path: str, config_path: str) -> None:
    """Write a checkpoint that Detectron2 loads, and the config that goes with it and names it in MODEL.WEIGHTS."""
    for path in (checkpoint_path, config_path):
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    torch.save({"model": dict(state)}, checkpoint_path)
    cfg = cfg.clone()
    cfg.MODEL.WEIGHTS = os.path.abspath(checkpoint_path)
    with open(config_path, "w") as file:
        file.write(cfg.dump())
    logger.info("Wrote %s and %s.", checkpoint_path, config_path)


def save_inference_weights(path_in: str, path_out: str) -> bool:
    """Write a checkpoint of weights alone, without optimizer and training state: a fraction of the size.

    Args:
        path_in: a checkpoint of a training.
        path_out: file to write; its folder is made where there is none. Detectron2 and
            :func:`~rec_attend_d2.checkpoint.load_weights` load it.

    Returns:
        Whether ``path_in`` held averaged weights (SOLVER.EMA_DECAY), which are then the ones written.

    Raises:
        FileNotFoundError: there is no file ``path_in``.
        ValueError: it is no checkpoint, or ``path_out`` is the same file.
    """
    weights, averaged = read_checkpoint(path_in)
    if os.path.realpath(path_in) == os.path.realpath(path_out):
        raise ValueError(f"'{path_out}' is the checkpoint itself, whose training state would be lost: name another.")
    os.makedirs(os.path.dirname(os.path.abspath(path_out)), exist_ok=True)
    torch.save({"model": weights}, path_out)
    kind = "averaged weights" if averaged else "weights as trained, since there is no average,"
    logger.info("Wrote the %s of %s to %s.", kind, path_in, path_out)
    return averaged
