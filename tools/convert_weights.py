#!/usr/bin/env python
"""Convert weights of the original code to a checkpoint and a config of this project.

    python tools/convert_weights.py --weights W.h5 --options model_opt.yaml --output model.pth \
        --config-output model.yaml [--estimate-statistics DATASET]
"""

import argparse
import logging

from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.utils.logger import setup_logger

from rec_attend_d2.checkpoint import convert_original_weights, estimate_running_statistics, has_running_statistics
from rec_attend_d2.checkpoint.files import read_options, read_weights, save_model
from rec_attend_d2.data import build_test_loader

logger = logging.getLogger("rec_attend_d2.convert_weights")


def parse_arguments() -> argparse.Namespace:
    """Command line arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True, help="the original's weights, .h5 or .npz")
    parser.add_argument("--options", required=True, help="the options they were trained with, .yaml or .json")
    parser.add_argument("--output", required=True, help="checkpoint to write, .pth")
    parser.add_argument("--config-output", required=True, help="config to write, .yaml")
    parser.add_argument(
        "--estimate-statistics",
        metavar="DATASET",
        help="registered data set whose images re-estimate batch norm's running statistics",
    )
    return parser.parse_args()


def estimated_state(cfg: CfgNode, state: dict, dataset_name: str) -> dict:
    """State dict with running statistics of the images of a data set."""
    model = build_model(cfg)
    model.load_state_dict(state)
    batches = estimate_running_statistics(model, build_test_loader(cfg, dataset_name))
    logger.info("Estimated running statistics from %d batches of %s.", batches, dataset_name)
    return model.state_dict()


def main() -> None:
    """Convert the files."""
    setup_logger(name="rec_attend_d2")
    arguments = parse_arguments()
    weights = read_weights(arguments.weights)
    cfg, state = convert_original_weights(weights, read_options(arguments.options))
    if arguments.estimate_statistics:
        state = estimated_state(cfg, state, arguments.estimate_statistics)
    elif not has_running_statistics(weights):
        logger.warning("Add --estimate-statistics DATASET to estimate the running statistics that the file lacks.")
    save_model(cfg, state, arguments.output, arguments.config_output)


if __name__ == "__main__":
    main()
