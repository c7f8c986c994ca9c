#!/usr/bin/env python
"""Write small rendered data sets in the exact on-disk formats of the real ones.

    python tools/make_miniature.py --output FOLDER [--only cityscapes cvppp kitti coco] [--seed N]

FOLDER is what DETECTRON2_DATASETS has to name. The loaders, evaluators and submission writers treat them like the real
archives, so that a whole pipeline can be tried before those are downloaded. What draws them is with the tests, in
tests/miniature, and not installed with the package.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1] / "tests"
if not (TESTS / "miniature").is_dir():
    sys.exit(f"make_miniature: {TESTS / 'miniature'} is missing. Call the tool in a checkout of the whole project.")
sys.path.insert(0, str(TESTS))

from miniature.cityscapes import write_cityscapes  # noqa: E402
from miniature.coco import write_coco  # noqa: E402
from miniature.cvppp import write_cvppp  # noqa: E402
from miniature.kitti import write_kitti  # noqa: E402

# Name of a data set, which is also that of its folder: what writes it below a root, with a seed.
WRITERS: dict[str, Callable[..., object]] = {
    "cityscapes": write_cityscapes,
    "coco": write_coco,
    "cvppp": write_cvppp,
    "kitti": write_kitti,
}


def main() -> None:
    """Write those that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True, help="folder that will hold the data sets")
    parser.add_argument("--only", nargs="+", choices=sorted(WRITERS), default=sorted(WRITERS), help="default: all")
    parser.add_argument("--seed", type=int, default=0, help="of all randomness")
    arguments = parser.parse_args()
    taken = [str(arguments.output / name) for name in arguments.only if (arguments.output / name).exists()]
    if taken:
        sys.exit(f"make_miniature: {', '.join(taken)} exists already. Remove it, or give another --output.")
    for name in arguments.only:
        WRITERS[name](arguments.output, seed=arguments.seed)
        files = sum(path.is_file() for path in (arguments.output / name).rglob("*"))
        print(f"{arguments.output / name}: {files} files")


if __name__ == "__main__":
    main()
