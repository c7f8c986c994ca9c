#!/usr/bin/env python
"""Train or evaluate any config of this project.

python tools/train_net.py --config-file configs/Nuclei/fast.yaml [--num-gpus N] [--resume] [KEY VALUE ...]
python tools/train_net.py --config-file configs/Nuclei/fast.yaml --eval-only MODEL.WEIGHTS model_final.pth

Several processes, on the CPU where there is no GPU: --num-gpus N, or torchrun --nproc-per-node N tools/train_net.py ...
Several machines, which share OUTPUT_DIR: the same command on each with --num-machines M --machine-rank 0 (1, ... M - 1)
--dist-url tcp://FIRST_MACHINE:PORT, or by torchrun. SOLVER.IMS_PER_BATCH counts the images of all processes.
"""

import argparse
import logging
from pathlib import Path

from detectron2.engine import default_argument_parser
from detectron2.utils import comm

from rec_attend_d2.engine import Trainer, evaluate, setup, write_results
from rec_attend_d2.engine.output_folder import RESULTS_NAME
from rec_attend_d2.engine.processes import run

logger = logging.getLogger("rec_attend_d2.tools")


def main(arguments: argparse.Namespace) -> None:
    """One process of a run."""
    cfg = setup(arguments)
    if arguments.eval_only:
        results = evaluate(cfg, cfg.MODEL.WEIGHTS)
    else:
        trainer = Trainer(cfg)
        trainer.resume_or_load(resume=arguments.resume)
        if trainer.is_finished:
            logger.info(
                "The training in '%s' is finished after %d iterations (results: %s): raise SOLVER.MAX_ITER to go on, "
                "or give another OUTPUT_DIR.",
                *(cfg.OUTPUT_DIR, trainer.start_iter, RESULTS_NAME),
            )
            return
        if comm.is_main_process():  # those of fewer iterations
            Path(cfg.OUTPUT_DIR, RESULTS_NAME).unlink(missing_ok=True)
        results = trainer.train()
    if results and comm.is_main_process():
        write_results(results, cfg.OUTPUT_DIR)


if __name__ == "__main__":
    run(main, default_argument_parser().parse_args())
