"""Annotated pictures drawn for the tests of planning."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

Draw = Callable[..., dict]


def box(x: int, y: int, width: int, height: int, **more) -> dict:
    """Annotation of a rectangle."""
    corners = [x, y, x + width, y, x + width, y + height, x, y + height]
    return {"segmentation": [corners], "bbox": [x, y, width, height], "iscrowd": 0, "category_id": 0, **more}


@pytest.fixture
def draw(tmp_path) -> Draw:
    """Draws a picture with bright rectangles, and gives its dataset dict."""

    def record(name: str, boxes: list[tuple[int, int, int, int]], ground: int = 10, seed: int = 0, color=None) -> dict:
        image = np.random.default_rng(seed).integers(0, 6, (60, 80), np.uint8) + np.uint8(ground)
        for x, y, width, height in boxes:
            image[y : y + height, x : x + width] = 200
        path = Path(tmp_path, name)
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), image if color is None else np.dstack([image, image, image // 2]))
        annotations = [box(*corners) for corners in boxes]
        return {"file_name": str(path), "height": 60, "width": 80, "image_id": name, "annotations": annotations}

    return record
