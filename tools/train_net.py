#!/usr/bin/env python
"""Train or evaluate any config of this project.

python tools/train_net.py --config-file configs/Nuclei/fast.yaml [--num-gpus N] [--resume] [KEY VALUE ...]
python tools/train_net.py --config-file configs/Nuclei/fast.yaml --eval-only MODEL.WEIGHTS model_final.pth
"""

import argparse
import sys

from detectron2.engine import default_argument_parser, launch
from detectron2.utils import comm

from rec_attend_d2.engine import Trainer, evaluate, setup, write_results


def main(arguments: argparse.Namespace) -> None:
    """One process of a run."""
    cfg = setup(arguments)
    if arguments.eval_only:
        results = evaluate(cfg, cfg.MODEL.WEIGHTS)
    else:
        trainer = Trainer(cfg)
        trainer.resume_or_load(resume=arguments.resume)
        results = trainer.train()
    if results and comm.is_main_process():
        write_results(results, cfg.OUTPUT_DIR)


if __name__ == "__main__":
    args = default_argument_parser().parse_args()
    try:
        launch(
            main,
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(args,),
        )
    except (ValueError, OSError, FloatingPointError) as error:
        sys.exit(f"train_net: {error}")
