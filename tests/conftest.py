"""What several folders of tests need: data drawn once, and the tools as a user calls them."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
# Tests run beside each other on few cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="session")
def datasets_root(tmp_path_factory) -> Path:
    """Folder for DETECTRON2_DATASETS, in which the rosettes are drawn once for all tests."""
    return tmp_path_factory.mktemp("datasets")


@pytest.fixture(scope="session")
def run_script(datasets_root) -> Callable[..., subprocess.CompletedProcess]:
    """Runs ``python SCRIPT ARGUMENTS`` in the root and returns the finished process with its output as text."""

    def run(script: str, *arguments: str | os.PathLike) -> subprocess.CompletedProcess:
        environment = {**os.environ, "DETECTRON2_DATASETS": str(datasets_root), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(ROOT / script), *map(str, arguments)]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)

    return run


@pytest.fixture(scope="session")
def run_tool(run_script) -> Callable[..., subprocess.CompletedProcess]:
    """Runs ``python tools/NAME.py ARGUMENTS``, see :func:`run_script`."""

    def run(name: str, *arguments: str | os.PathLike) -> subprocess.CompletedProcess:
        return run_script(f"tools/{name}.py", *arguments)

    return run


@pytest.fixture(scope="session")
def squares(tmp_path_factory) -> Path:
    """Folder of a tiny data set: squares.json in COCO format, and images of 64 x 64 with 0, 1, 2 and 3 squares."""
    folder = tmp_path_factory.mktemp("squares")
    content: dict = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "square"}]}
    for count in range(4):
        image = np.full((64, 64, 3), 40, np.uint8)
        file_name = f"squares_{count}.png"
        content["images"].append({"id": count + 1, "file_name": file_name, "height": 64, "width": 64})
        for number in range(count):
            # The second touches the first, the third is alone.
            x, y, side = (8, 8, 16) if number == 0 else (24, 8, 16) if number == 1 else (36, 40, 20)
            image[y : y + side, x : x + side] = 120 + 40 * number
            corners = [x, y, x + side, y, x + side, y + side, x, y + side]
            annotation = {"image_id": count + 1, "category_id": 1, "iscrowd": 0, "area": side**2}
            annotation |= {"id": len(content["annotations"]) + 1, "bbox": [x, y, side, side], "segmentation": [corners]}
            content["annotations"].append(annotation)
        cv2.imwrite(str(folder / file_name), image)
    (folder / "squares.json").write_text(json.dumps(content))
    return folder
