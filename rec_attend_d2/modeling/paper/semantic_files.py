"""A semantic segmentation made elsewhere, one PNG per image, from which instances get their class.

Shapes: `K` channels, the background and the classes; `h0, w0` original image.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from detectron2.config import CfgNode
from torch import Tensor

_KEY = "MODEL.REC_ATTEND.TEST.SEM_SEG_DIR"
# What image files of Cityscapes have behind their name and label files have not.
_IMAGE_ENDING = "_leftImg8bit"


class SemanticFiles:
    """Finds and reads the label image of an image file."""

    def __init__(self, folder: str | os.PathLike, values: Sequence[int]):
        """
        Args:
            folder: with PNG files at any depth, named as the images or with an ending that starts with "_".
            values: pixel value of each class; all others are background.

        Raises:
            FileNotFoundError: there is no such folder, or no PNG file in it.
            ValueError: no values.
        """
        self.folder = Path(folder)
        self.values = tuple(values)
        self._files = sorted(self.folder.rglob("*.png"))
        if not self._files:
            raise FileNotFoundError(f"{_KEY} names '{folder}', which is no folder with PNG files.")
        if not self.values:
            raise ValueError(f"{_KEY} is set: give the pixel value of each class in TEST.SEM_SEG_VALUES.")

    def path_of(self, file_name: str) -> Path:
        """The label image of an image file.

        Raises:
            FileNotFoundError: there is none, or more than one.
        """
        stem = Path(file_name).stem.removesuffix(_IMAGE_ENDING)
        found = [path for path in self._files if path.stem == stem or path.stem.startswith(f"{stem}_")]
        if len(found) != 1:
            names = ", ".join(path.name for path in found[:3]) or "none"
            raise FileNotFoundError(
                f"{file_name} needs one label image '{stem}.png' or '{stem}_*.png' in {self.folder} ({_KEY}); found: "
                f"{names}."
            )
        return found[0]

    def read(self, file_name: str, size: tuple[int, int]) -> Tensor:
        """One-hot maps [K, h0, w0] of an image file of ``size`` (h0, w0), the background first.

        Raises:
            FileNotFoundError: see :meth:`path_of`.
            ValueError: the label image cannot be read, has several channels or another size.
        """
        path = self.path_of(file_name)
        labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        if labels is None or labels.shape != tuple(size):
            found = "cannot be read" if labels is None else f"has the shape {list(labels.shape)}"
            raise ValueError(f"Label image {path} ({_KEY}) {found}; expected one channel of {list(size)}.")
        classes = labels[None] == np.array(self.values)[:, None, None]
        return torch.from_numpy(np.concatenate([~classes.any(0, keepdims=True), classes])).float()


def build_semantic_files(cfg: CfgNode) -> SemanticFiles | None:
    """What MODEL.REC_ATTEND.TEST.SEM_SEG_DIR names; None if it is empty."""
    node = cfg.MODEL.REC_ATTEND.TEST
    return SemanticFiles(node.SEM_SEG_DIR, node.SEM_SEG_VALUES) if node.SEM_SEG_DIR else None
