#!/usr/bin/env python
"""Train on the procedural plants, evaluate and draw: what `make demo` runs (at most 10 minutes on 2 cores).

python tools/run_demo.py [--output FOLDER]
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path

from tabulate import tabulate

ROOT = Path(__file__).resolve().parents[1]
SHOWN_METRICS = ("SBD", "abs_DiC", "DiC", "count_accuracy", "FBD", "MWCov")


def run(*arguments: str) -> None:
    """Run one of the tools with this Python and stop the demo where it fails."""
    print(f"\n$ python {' '.join(arguments)}", flush=True)
    # Networks as small as these only lose time to threads that wait for each other: on 2 cores an iteration of stage B
    # took 0.25 s with one thread and 0.74 s with two.
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, env=environment)


def main() -> None:
    """Stage B, stage C (which evaluates at its end) and pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("output/demo"), help="folder for everything it writes")
    output = ROOT / parser.parse_args().output
    start = time.perf_counter()

    stage_b, stage_c = output / "stage_b", output / "stage_c"
    run("tools/train_net.py", "--config-file", "configs/Rosettes/stage_b.yaml", "OUTPUT_DIR", str(stage_b))
    weights = ["MODEL.WEIGHTS", str(stage_b / "model_final.pth"), "OUTPUT_DIR", str(stage_c)]
    run("tools/train_net.py", "--config-file", "configs/Rosettes/stage_c.yaml", *weights)
    pictures = output / "pictures"
    run(
        *("tools/visualize_steps.py", "--config-file", "configs/Rosettes/stage_c.yaml", "--output", str(pictures)),
        *("MODEL.WEIGHTS", str(stage_c / "model_final.pth"), "OUTPUT_DIR", str(stage_c)),
    )

    counting = json.loads((stage_c / "metrics_final.json").read_text())["counting"]
    print(f"\nOn the held-out plants, {time.perf_counter() - start:.0f} s after the start:")
    print(tabulate([(name, counting[name]) for name in SHOWN_METRICS], headers=("metric", "value"), floatfmt=".3f"))
    print(f"Pictures of the steps: {pictures}\nCurves: tensorboard --logdir {output}")


if __name__ == "__main__":
    main()
