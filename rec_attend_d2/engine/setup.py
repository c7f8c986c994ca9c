"""From command line arguments to a config."""

import argparse
import logging
import os
from collections.abc import Mapping
from pathlib import Path

from detectron2.config import CfgNode
from detectron2.engine import default_setup
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from ..checkpoint.loading import read_object_size
from ..config import load_config
from ..data import register_datasets, sees_windows
from ..data.object_size import resolve_object_size
from ..whole_files import write_json

logger = logging.getLogger(__name__)


def setup(arguments: argparse.Namespace) -> CfgNode:
    """Frozen config of a training or evaluation run: loggers set up, data sets registered and checked.

    Args:
        arguments: of ``detectron2.engine.default_argument_parser``.

    Raises:
        ValueError, FileNotFoundError: a data set or the config file is missing.
    """
    cfg = load_config(arguments.config_file, arguments.opts)
    register_datasets(cfg)
    fast, evaluates = sees_windows(cfg), arguments.eval_only
    if fast and evaluates and cfg.INPUT.OBJECT_SIZE == 0 and cfg.MODEL.WEIGHTS:
        cfg.INPUT.OBJECT_SIZE = read_object_size(cfg.MODEL.WEIGHTS)
    # By it the paper's model only warns of images that are shrunk too far, for which nothing has to be measured anew.
    if fast or not evaluates:
        resolve_object_size(cfg)
    cfg.freeze()
    make_output_folder(cfg)
    default_setup(cfg, arguments)
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="rec_attend_d2")
    return cfg


def make_output_folder(cfg: CfgNode) -> None:
    """Make OUTPUT_DIR. Raises a ValueError if that cannot be, or nothing can be written there."""
    try:
        Path(cfg.OUTPUT_DIR).mkdir(parents=True, exist_ok=True)
        reason = "" if os.access(cfg.OUTPUT_DIR, os.W_OK) else "its files cannot be written"
    except OSError as error:
        reason = error.strerror or str(error)
    if reason:
        raise ValueError(f"OUTPUT_DIR '{cfg.OUTPUT_DIR}' cannot be made or used ({reason}). Name another folder.")


def write_results(results: Mapping, folder: str) -> str:
    """Write evaluation results to ``metrics_final.json`` in ``folder`` and return its path.

    A figure that is undefined, such as the AP of large objects where there is none, becomes null.
    """
    path = Path(folder, "metrics_final.json")
    write_json(path, results)
    logger.info("Results written to %s", path)
    return str(path)
