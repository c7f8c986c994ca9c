"""Published weights: which files of a release they are, where they are looked for, and whether they are the right ones.

published.json has the SHA-256 of the files by model and name; tools/publish_weights.py writes it.
"""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from ..whole_files import user_cache

FOLDER_VARIABLE = "REC_ATTEND_WEIGHTS"
# Where the files of releases are to be had.
RELEASES = "the project's releases page"
INDEX = Path(__file__).with_name("published.json")


def published_models() -> dict[str, dict[str, str]]:
    """SHA-256 by file name of each published model."""
    return json.loads(INDEX.read_text(encoding="utf-8"))


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, as ``sha256sum`` prints it."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(2**20):
            digest.update(part)
    return digest.hexdigest()


def cache_folder() -> Path:
    """The user's folder for published weights."""
    return user_cache() / "weights"


def weights_folders() -> list[Path]:
    """Folders of published weights, in the order in which they are searched.

    These are the folder that $REC_ATTEND_WEIGHTS names, the user's cache, and ``weights`` of the source code.
    """
    named = os.environ.get(FOLDER_VARIABLE)
    folders = [Path(named).expanduser()] if named else []
    return [*folders, cache_folder(), Path(__file__).resolve().parents[2] / "weights"]


def find_published(name: str) -> Path:
    """The first folder that has all files of a published model.

    Raises:
        FileNotFoundError: no folder has; the message says which files to download, and where to.
        ValueError: a file is not the published one.
    """
    sums = published_models()[name]
    folders = weights_folders()
    for folder in folders:
        if all((folder / file).is_file() for file in sums):
            _check(folder, sums)
            return folder
    # Where some of the files are, the others belong.
    begun = [folder for folder in folders if any((folder / file).is_file() for file in sums)]
    target = begun[0] if begun else cache_folder()
    missing = [file for file in sorted(sums) if not (target / file).is_file()]
    raise FileNotFoundError(
        f"The published weights '{name}' are not all here. Download {' and '.join(missing)} from {RELEASES} into "
        f"{target}. Looked in {', '.join(map(str, folders))} (${FOLDER_VARIABLE} names another folder)."
    )


def _check(folder: Path, sums: Mapping[str, str]) -> None:
    """Raise a ValueError unless all files have their sums."""
    wrong = [file for file in sorted(sums) if sha256_of(folder / file) != sums[file]]
    if wrong:
        raise ValueError(
            f"{' and '.join(wrong)} in {folder} {'is' if len(wrong) == 1 else 'are'} damaged or of another version of "
            f"rec_attend_d2: the SHA-256 is not that of the published weights. Download {' and '.join(wrong)} of this "
            f"version anew from {RELEASES}; weights of your own need another name."
        )
