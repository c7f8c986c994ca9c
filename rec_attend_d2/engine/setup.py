"""From command line arguments to a config."""

import argparse
import logging
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
    default_setup(cfg, arguments)
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=comm.get_rank(), name="rec_attend_d2")
    return cfg


def write_results(results: Mapping, folder: str) -> str:
    """Write evaluation results to ``metrics_final.json`` in ``folder`` and return its path.

    A figure that is undefined, such as the AP of large objects where there is none, becomes null.
    """
    path = Path(folder, "metrics_final.json")
    write_json(path, results)
    logger.info("Results written to %s", path)
    return str(path)
