"""Finds a finished model: the folder of a training, a config file, or the name of published weights."""

import os
from pathlib import Path

from ..config import load_config
from .predictor import find_weights

# What a training leaves, and where a checkout keeps published weights.
CONFIG, WEIGHTS = "config.yaml", "model.pth"
PUBLISHED = Path(__file__).resolve().parents[2] / "weights"


def find_model(name: str | os.PathLike) -> tuple[Path, Path]:
    """Config and weights of a model.

    Args:
        name: folder with config.yaml and model.pth, a config file that names its weights, or a published name such as
            ``nuclei``.

    Raises:
        FileNotFoundError: there is no such model; the message says what is missing.
        ValueError: the config is not valid, or names no weights.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        files = path / CONFIG, path / WEIGHTS
        missing = [file.name for file in files if not file.is_file()]
        if missing:
            raise FileNotFoundError(
                f"The folder {path} has no {' and no '.join(missing)}. Name the folder that a training wrote."
            )
        return files
    published = PUBLISHED / f"{name}.yaml"
    config = published if not path.exists() and published.is_file() else path
    if not config.is_file():
        known = ", ".join(sorted(file.stem for file in PUBLISHED.glob("*.yaml")))
        raise FileNotFoundError(
            f"There is no model '{name}'. Name the folder of a training, a config file, or published weights: {known}."
        )
    weights = Path(find_weights(load_config(config, []), config)).expanduser()
    if not weights.is_file():
        raise FileNotFoundError(f"The weights {weights}, which {config} names, do not exist. Set MODEL.WEIGHTS there.")
    return config, weights
