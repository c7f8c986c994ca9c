"""Files that are either there as a whole or as they were before, whatever interrupts their writing."""

import errno
import json
import math
import os
import platform
import re
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows, where nothing is locked
    fcntl = None  # type: ignore[assignment]

# Machine and process that a partial file was written by.
_LEFTOVER = re.compile(r"\.([A-Za-z0-9]+)-(\d+)\.partial$")
# Seconds after which a partial file of another machine is given up.
_OLD = 24 * 3600.0
_searched: set[Path] = set()


@contextmanager
def written_at_once(path: Path) -> Iterator[Path]:
    """Gives the path of a new file, which becomes ``path`` when the block ends, and is removed when it fails.

    Folders that are missing are made. Several processes may write the same file: the last one's stays. What processes
    that were killed have left in the folder is removed.

    Raises:
        OSError: it can't be written. Where the disk is full the message names the file and the space.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(path.parent)
    partial = path.with_name(f"{path.name}.{_host()}-{os.getpid()}.partial")
    try:
        with explained_full_disk(path):
            yield partial
        with partial.open("r+b") as file:  # Windows syncs no file that is open for reading alone
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def explained_full_disk(path: Path) -> Iterator[None]:
    """Within it, an error because the disk of ``path``, a file or folder, is full says so and what to do."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        if isinstance(error, FullDisk) or not _says_full(error, path):
            raise
        free = shutil.disk_usage(path if path.is_dir() else path.parent).free
        raise FullDisk(
            errno.ENOSPC,
            f"'{path}' could not be written, with {free / 2**20:.1f} MB free on its disk: make room, and run the same "
            "command again (a training with --resume)",
        ) from error


class FullDisk(OSError):
    """A file that could not be written for lack of space."""


def _says_full(error: OSError | RuntimeError, path: Path) -> bool:
    """Whether an error means a full disk, or a quota that is used up."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    # PyTorch's own writer, which keeps no error number.
    return "PytorchStreamWriter failed" in str(error) or "unexpected pos" in str(error)


class Held(Exception):
    """Another process holds a file; the message says which."""


def hold(path: Path) -> IO[str]:
    """Let no other process hold a file until the returned one is closed, or this process ends, however it ends.

    The file says which process holds it, and stays when it does no longer, without meaning anything. On Windows and on
    file systems without locks nothing is held.

    Raises:
        Held: another process does.
        OSError: the file cannot be written.
    """
    file = path.open("a+", encoding="utf-8")
    if fcntl is not None:
        try:
            # Not flock, which the data loader's workers would share and hold for some seconds more.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            holder = file.read().strip() or "another process"
            file.close()
            raise Held(holder) from None
        except OSError:
            pass  # a file system without locks
    file.truncate(0)
    file.write(f"process {os.getpid()} on {platform.node()}\n")
    file.flush()
    return file


def user_cache() -> Path:
    """What this project keeps for the user from one run to the next."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rec_attend_d2"


def _host() -> str:
    """This machine's name, without what file names or _LEFTOVER cannot have."""
    return re.sub("[^A-Za-z0-9]", "", platform.node()) or "host"


def _remove_leftovers(folder: Path) -> None:
    """Remove the partial files of processes that have ended; each process looks once, since folders may be large."""
    if folder in _searched:
        return
    _searched.add(folder)
    for path in folder.glob("*.partial"):
        writer = _LEFTOVER.search(path.name)
        if writer is None:
            continue
        with suppress(OSError):
            # The processes of other machines that share the folder cannot be asked.
            if writer[1] == _host() and os.name != "nt":
                is_left = not _is_running(int(writer[2]))
            else:
                is_left = time.time() - path.stat().st_mtime > _OLD
            if is_left:
                path.unlink(missing_ok=True)


def _is_running(process: int) -> bool:
    """Whether there is a process of this number, not on Windows, where asking would end it."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):  # another user's
        pass
    return True


def _defined(value: Any) -> Any:
    """Content in which undefined figures are None, since JSON knows neither NaN nor infinity."""
    if isinstance(value, Mapping):
        return {key: _defined(entry) for key, entry in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_defined(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, content: Any, indent: int | None = 2) -> None:
    """Write a json file, in which figures that are NaN or infinite are null."""
    with written_at_once(path) as partial:
        partial.write_text(json.dumps(_defined(content), indent=indent) + "\n", encoding="utf-8")
