"""Maps of a frozen preprocessor on disk, so that they are computed once per image and not once per epoch.

Shapes: `K` foreground channels, `A` angle bins, `H, W` network input.
"""

import hashlib
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """A name for weights: equal weights have equal names, others do not."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


class MapCache:
    """One file per network input, in a folder per weights.

    The key is the input itself, so that augmented images are right too; they are found again only where augmentation
    repeats itself, so the cache pays in evaluation and in training without random augmentation. Maps are kept in half
    precision (an error of at most 0.0005).
    """

    def __init__(self, folder: str | os.PathLike, weights: Mapping[str, Tensor]):
        """
        Args:
            folder: made where there is none; several processes may share it.
            weights: of the preprocessor, which must not change any more.
        """
        self.folder = Path(folder, fingerprint(weights))
        self.folder.mkdir(parents=True, exist_ok=True)

    def _path(self, image: Tensor) -> Path:
        content = image.detach().cpu().contiguous().numpy().tobytes()
        return self.folder / f"{hashlib.sha256(content).hexdigest()[:32]}.pt"

    def get(self, image: Tensor) -> Tensor | None:
        """Maps [K + A, H, W] of a network input [3, H, W], on its device; None if they are not there yet."""
        path = self._path(image)
        return torch.load(path, weights_only=True).to(image) if path.is_file() else None

    def put(self, image: Tensor, maps: Tensor) -> None:
        """Keep the maps [K + A, H, W] of a network input [3, H, W]."""
        path = self._path(image)
        # Never a file that is half written, whatever other processes do.
        handle, temporary = tempfile.mkstemp(dir=self.folder, suffix=".part")
        with os.fdopen(handle, "wb") as file:
            torch.save(maps.detach().half().cpu().clone(), file)
        os.replace(temporary, path)
