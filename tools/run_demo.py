#!/usr/bin/env python
"""Train on the procedural plants, evaluate and draw: what `make demo` runs (at most 10 minutes on 2 cores).

python tools/run_demo.py [--output FOLDER]
"""

import argparse
import json
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
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True)


def main() -> None:
    """Training (which evaluates at its end) and pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("output/demo"), help="folder for everything it writes")
    output = ROOT / parser.parse_args().output
    start = time.perf_counter()

    config = ["--config-file", "configs/Rosettes/demo.yaml"]
    # Where it was interrupted, or is done, the training goes on.
    run("tools/train_net.py", *config, "--resume", "OUTPUT_DIR", str(output))
    pictures = output / "pictures"
    weights = ["MODEL.WEIGHTS", str(output / "model_final.pth"), "OUTPUT_DIR", str(output)]
    run("tools/visualize_steps.py", *config, "--output", str(pictures), *weights)

    counting = json.loads((output / "metrics_final.json").read_text())["counting"]
    print(f"\nOn the held-out plants, {time.perf_counter() - start:.0f} s after the start:")
    print(tabulate([(name, counting[name]) for name in SHOWN_METRICS], headers=("metric", "value"), floatfmt=".3f"))
    print(f"Pictures of the steps: {pictures}\nCurves: tensorboard --logdir {output}")


if __name__ == "__main__":
    main()
