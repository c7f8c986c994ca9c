"""Says what lies where a data set's files were expected; for error messages."""

from pathlib import Path

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
