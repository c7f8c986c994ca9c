"""Folders of data sets: what lies where files were expected, for error messages, and folders that are written once."""

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from iopath.common.file_io import file_lock

_ARCHIVE_ENDINGS = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar")
_NAMES_SHOWN = 8


def describe_contents(folder: Path) -> str:
    """Sentences for an error message: what ``folder`` holds, and what to do with archives in it.

    Where there is no such folder, the next folder above that exists is described.
    """
    if folder.is_file():
        advice = " It is an archive: unpack it." if is_archive(folder) else ""
        return f"{folder.absolute()} is a file, not a folder.{advice}"
    if not folder.is_dir():
        return f"{folder.absolute()} does not exist. {describe_contents(folder.absolute().parent)}"
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    names = [path.name + "/" * path.is_dir() for path in entries[:_NAMES_SHOWN]]
    more = f" and {len(entries) - len(names)} more" if len(entries) > len(names) else ""
    sentences = [f"{folder.absolute()} holds {', '.join(names) or 'nothing'}{more}."]
    sentences += [f"{path.name} is an archive: unpack it there." for path in entries if is_archive(path)]
    return " ".join(sentences)


def is_archive(path: Path) -> bool:
    """Whether ``path`` is a file that has to be unpacked, judged by its name."""
    return path.is_file() and path.name.lower().endswith(_ARCHIVE_ENDINGS)


def not_found(name: str, what: str, folder: Path, described: Path | None = None, remedy: str = "") -> FileNotFoundError:
    """The error of a data set that is not where it is expected.

    Args:
        name: of the data set.
        what: is missing, such as "the file ...".
        folder: of the data set, below the folder of all data sets.
        described: folder whose contents are told; default ``folder``.
        remedy: sentences to be added.
    """
    return FileNotFoundError(
        f"Data set '{name}' expects {what}, which does not exist. {describe_contents(described or folder)} {remedy}Set "
        f"the environment variable DETECTRON2_DATASETS to the folder that holds '{folder.name}' (now "
        f"{folder.parent.absolute()})."
    )


def write_folder_once(folder: Path, marker_name: str, marker: dict, write: Callable[[Path], None]) -> None:
    """Write a folder, unless one is there whose marker file says that it is up to date.

    It is written beside and then put in place as a whole. Safe when several processes call it.

    Args:
        folder: to be written; an earlier one is replaced.
        marker_name: name of the json file in it that says how it was made.
        marker: content of that file; the folder is out of date where it has another.
        write: writes the contents into the folder given.

    Raises:
        ValueError: the folder exists, but was not written by this function.
        OSError: it cannot be written.
    """

    def is_current() -> bool:
        path = folder / marker_name
        return path.is_file() and json.loads(path.read_text()) == marker

    if is_current():
        return
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with file_lock(str(folder)):
            if is_current():
                return
            if folder.exists() and not (folder / marker_name).is_file():
                raise ValueError(
                    f"{folder.absolute()} exists, but holds something else than this project writes there. Move it "
                    "away."
                )
            fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
            try:
                fresh.chmod(0o755)
                write(fresh)
                (fresh / marker_name).write_text(json.dumps(marker))
                if folder.exists():
                    shutil.rmtree(folder)
                fresh.rename(folder)
            finally:
                shutil.rmtree(fresh, ignore_errors=True)
    except OSError as error:
        raise OSError(
            f"{folder.absolute()} cannot be written: {error}. Make room there, or set DETECTRON2_DATASETS to a folder "
            "you can write to."
        ) from error
