#!/usr/bin/env python
"""Draw losses and results of trainings over time.

python tools/plot_curves.py --output curves.png output/rosettes_stage_b output/rosettes_stage_c
"""

import argparse
from pathlib import Path

from rec_attend_d2.visualization.curves import draw_curves, read_curves


def main() -> None:
    """Read every folder's metrics.json and save one picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, help="OUTPUT_DIR of trainings")
    parser.add_argument("--output", type=Path, required=True, help="picture to write, .png or .svg")
    arguments = parser.parse_args()
    trainings = {folder.name: read_curves(folder / "metrics.json") for folder in arguments.folders}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    draw_curves(trainings).savefig(arguments.output, dpi=100)


if __name__ == "__main__":
    main()
