#!/usr/bin/env python
"""Find a learning rate: train while it grows from tiny to huge, and see where the loss falls and where it explodes.

python tools/find_learning_rate.py --config-file configs/Nuclei/fast.yaml --output output/rate [KEY VALUE ...]

Writes learning_rate.json (rates, losses, suggestion) and learning_rate.png, and prints a table. For a schedule with a
warmup and a decay the suggestion is the highest rate, SOLVER.BASE_LR.
"""

import argparse
import math
import sys
from pathlib import Path

from detectron2.utils.env import seed_all_rng

from rec_attend_d2.config import load_config
from rec_attend_d2.data import register_datasets
from rec_attend_d2.engine.range_test import RangeTest, RangeTestTrainer, draw_range_test
from rec_attend_d2.whole_files import write_json

ROWS = 12


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", required=True)
    parser.add_argument("--output", type=Path, required=True, help="folder for the results")
    parser.add_argument("--lowest", type=float, default=1e-6, help="first learning rate (default %(default)s)")
    parser.add_argument("--highest", type=float, default=1.0, help="last learning rate (default %(default)s)")
    parser.add_argument("--iterations", type=int, default=200, help="optimizer steps (default %(default)s)")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs")
    arguments = parser.parse_args()
    if not 0 < arguments.lowest < arguments.highest < math.inf:
        parser.error(f"--lowest {arguments.lowest} and --highest {arguments.highest}: give 0 < lowest < highest.")
    if arguments.iterations < 20:
        parser.error(f"--iterations {arguments.iterations}: give at least 20.")
    return arguments


def run_test(arguments: argparse.Namespace) -> RangeTest:
    """Run the range test that the command line asks for."""
    cfg = load_config(arguments.config_file, arguments.opts)
    # Nothing is evaluated. The rate is the ramp's, with all its iterations after any warmup.
    own = ["DATASETS.TEST", (), "TEST.EVAL_PERIOD", 0, "SOLVER.EARLY_STOPPING", 0, "OUTPUT_DIR", str(arguments.output)]
    own += ["SOLVER.BASE_LR", arguments.lowest, "SOLVER.MAX_ITER", arguments.iterations, "SOLVER.WARMUP_ITERS", 0]
    cfg.merge_from_list(own)
    register_datasets(cfg)
    seed_all_rng(cfg.SEED if cfg.SEED >= 0 else None)
    trainer = RangeTestTrainer(cfg, arguments.highest)
    trainer.resume_or_load(resume=False)
    return trainer.run()


def table(result: RangeTest) -> str:
    """Some of the iterations as lines of text."""
    count = len(result.rates)
    shown = sorted({round(row * (count - 1) / (ROWS - 1)) for row in range(ROWS)})
    lines = [f"{result.rates[i]:>12.2e}  {result.losses[i]:>10.4f}  {result.smoothed[i]:>10.4f}" for i in shown]
    return "\n".join([f"{'rate':>12}  {'loss':>10}  {'smoothed':>10}", *lines])


def write(result: RangeTest, folder: Path) -> None:
    """Write learning_rate.json and learning_rate.png."""
    content = {
        "suggestion": result.suggestion(),
        "steepest": result.steepest(),
        "exploded_at": result.exploded_at(),
        "rates": result.rates,
        "losses": result.losses,
    }
    write_json(folder / "learning_rate.json", content)
    draw_range_test(result).savefig(folder / "learning_rate.png", dpi=100)


def main() -> None:
    """Test, write and print."""
    arguments = parse_arguments()
    try:
        result = run_test(arguments)
        print(table(result))
        write(result, arguments.output)
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"{error}")
    limit = result.exploded_at()
    exploded = "the loss does not explode" if limit is None else f"the loss rises from {limit:.2g} on"
    print(f"Steepest fall at {result.steepest():.2g}; {exploded}. Suggestion: SOLVER.BASE_LR {result.suggestion():.2g}")
    print(f"{arguments.output}: learning_rate.json, learning_rate.png")


if __name__ == "__main__":
    main()
