"""Flipped bits in weights: PyTorch writes checksums into its files, but does not look at them when it reads."""

import functools
import os
import zipfile
import zlib

import torch

# Attribute of folders in an archive. PyTorch reads nothing where it is set, and leaves tensors as memory happens to be.
_FOLDER = 0x10


def find_damage(path: str) -> str:
    """What is damaged in a checkpoint file, in words; "" where its checksums are right.

    Files of PyTorch before 1.6 are no zip archives and have no checksums: nothing is found in them.

    Raises:
        OSError: there is no such file.
    """
    status = os.stat(path)
    return _find_damage(os.path.abspath(path), status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _find_damage(path: str, size: int, time: int) -> str:
    """Of a file as it is of this size at this time, so that it is not read for every question."""
    try:
        if not zipfile.is_zipfile(path):
            return ""
        with zipfile.ZipFile(path) as archive:
            wrong = archive.testzip()
            folders = [entry.filename for entry in archive.infolist() if entry.external_attr & _FOLDER]
    except (EOFError, NotImplementedError, OSError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        # Bits of the archive's own entries: unknown compression, encryption, places that are none.
        return f"its archive is broken ({error})"
    if folders:
        return f"its part '{folders[0]}' is marked as a folder"
    return f"the checksum of its part '{wrong}' is wrong" if wrong else ""


def is_whole(path: str) -> bool:
    """Whether a file is a checkpoint with checksums that are right, which can be read. Nothing is raised."""
    try:
        if not zipfile.is_zipfile(path) or find_damage(path):
            return False
        # Tensors stay on the disk.
        torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception:  # whatever a damaged entry leads to
        return False
    return True
