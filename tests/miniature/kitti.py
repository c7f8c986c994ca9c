"""A miniature of KITTI's cars: rendered streets in the tree of the authors' code.

Shapes: `H, W` image in pixels.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from .scenes import draw_scene

IMAGES_PER_SPLIT = {"train": 6, "valid_man": 3, "test_man": 3}
_MOST_CARS = 6
# Images of KITTI's object detection benchmark, from whose numbers the splits are drawn.
_NUMBERS = 7481


def write_kitti(
    root: str | os.PathLike,
    images_per_split: Mapping[str, int] = IMAGES_PER_SPLIT,
    size: tuple[int, int] = (94, 310),
    seed: int = 0,
) -> None:
    """Write ROOT/kitti: images, 8-bit label images, and the files that list the images of each split.

    Args:
        root: folder that will hold "kitti".
        images_per_split: number of images for "train", "valid_man" and "test_man".
        size: (H, W); about 375 x 1242 in the real data set.
        seed: of all randomness; the same arguments give the same files.
    """
    folder = Path(root) / "kitti"
    rng = np.random.default_rng(seed)
    numbers = iter(rng.permutation(_NUMBERS).tolist())
    for name in ("images", "gt", "gt_man"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for split, count in images_per_split.items():
        chosen = sorted(next(numbers) for _ in range(count))
        (folder / f"{split}.txt").write_text("".join(f"{number}\n" for number in chosen))
        for number in chosen:
            scene = draw_scene(rng, size, ["car"] * int(rng.integers(1, _MOST_CARS + 1)))
            labels = np.zeros(size, dtype=np.uint8)
            for index, mask in enumerate(scene.masks, start=1):
                labels[mask] = index
            label_folder = "gt" if split == "train" else "gt_man"
            Image.fromarray(scene.image).save(folder / "images" / f"{number:06d}.png")
            Image.fromarray(labels).save(folder / label_folder / f"{number:06d}.png")
