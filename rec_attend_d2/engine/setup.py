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
from torch import nn

from ..checkpoint.loading import read_object_size
from ..config import load_config
from ..data import register_datasets, sees_windows
from ..data.object_size import resolve_object_size
from ..whole_files import write_json
from .checkpointer import SafeCheckpointer
from .output_folder import RESULTS_NAME, check_resumable, check_unused, hold_folder
from .processes import refuse_together

logger = logging.getLogger(__name__)


def setup(arguments: argparse.Namespace) -> CfgNode:
    """Frozen config of a training or evaluation run: loggers set up, data sets registered and checked.

    A training has its OUTPUT_DIR to itself from then on.

    Args:
        arguments: of ``detectron2.engine.default_argument_parser``.

    Raises:
        ValueError, FileNotFoundError: a data set or the config file is missing.
        Refused: OUTPUT_DIR is in use, or holds another training.
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
    if not evaluates:
        # Before anything of the folder is written over.
        refuse_together(lambda: _claim(cfg, arguments.resume))
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


def _claim(cfg: CfgNode, resume: bool) -> None:
    """Take OUTPUT_DIR for a training. Raises :class:`Refused`."""
    folder = Path(cfg.OUTPUT_DIR)
    hold_folder(folder)
    if not resume:
        check_unused(folder)
        return
    checkpoint = SafeCheckpointer(nn.Module(), cfg.OUTPUT_DIR).get_checkpoint_file()
    if checkpoint:
        check_resumable(cfg, checkpoint)


def write_results(results: Mapping, folder: str) -> str:
    """Write evaluation results to ``metrics_final.json`` in ``folder`` and return its path.

    A figure that is undefined, such as the AP of large objects where there is none, becomes null.
    """
    path = Path(folder, RESULTS_NAME)
    write_json(path, results)
    logger.info("Results written to %s", path)
    return str(path)
