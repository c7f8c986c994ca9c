"""Flipped bits in weights: PyTorch writes checksums into its files, but does not look at them when it reads."""

import functools
import os
import zipfile
import zlib


def find_damage(path: str) -> str:
    """What is damaged in a checkpoint file, in words; "" where its checksums are right.

    Files of PyTorch before 1.6 are no zip archives and have no checksums: nothing is found in them.

    Raises:
        OSError: the file can't be read.
    """
    status = os.stat(path)
    return _find_damage(os.path.abspath(path), status.st_size, status.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _find_damage(path: str, size: int, time: int) -> str:
    """Of a file as it is of this size at this time, so that it is not read for every question."""
    if not zipfile.is_zipfile(path):
        return ""
    try:
        with zipfile.ZipFile(path) as archive:
            wrong = archive.testzip()
    except (EOFError, NotImplementedError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        # Bits of the archive's own entries: unknown compression, encryption, places that are none.
        return f"its archive is broken ({error})"
    return f"the checksum of its part '{wrong}' is wrong" if wrong else ""


def is_whole(path: str) -> bool:
    """Whether a file is a checkpoint with checksums that are right. Nothing is raised."""
    try:
        return zipfile.is_zipfile(path) and not find_damage(path)
    except OSError:
        return False
