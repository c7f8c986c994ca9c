"""Models by their name: a folder of a training, a config file, or published weights."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from detectron2.config import CfgNode

from ..config import load_config
from .predictor import find_weights
from .published import FOLDER_VARIABLE, find_published, published_models, weights_folders

CONFIG_NAME, WEIGHTS_NAME = "config.yaml", "model.pth"


@dataclass(frozen=True)
class Model:
    """Files of a model.

    Attributes:
        config: its config file.
        weights: its checkpoint; None = the file that the config names in MODEL.WEIGHTS.
    """

    config: Path
    weights: Path | None = None

    def load_config(self, options: Sequence) -> tuple[CfgNode, str]:
        """The config with ``KEY VALUE`` pairs, and the path of the weights: those of the options before its own.

        Raises:
            FileNotFoundError: there are no such weights.
            ValueError: something is wrong with the config or the options.
        """
        cfg = load_config(self.config, list(options))
        if self.weights is not None and "MODEL.WEIGHTS" not in options:
            return cfg, str(self.weights)
        weights = os.path.expanduser(find_weights(cfg, self.config))
        if not os.path.isfile(weights):
            raise FileNotFoundError(f"MODEL.WEIGHTS of '{self.config}' names '{weights}', which does not exist.")
        return cfg, weights


def find_model(name: str) -> Model:
    """The model of a name.

    Args:
        name: a folder with config.yaml and model.pth, as ``rec-attend train`` writes it; a config file (.yaml); or the
            name of published weights, or of others whose NAME.yaml lies in one of :func:`weights_folders`.

    Raises:
        FileNotFoundError: there is no such model.
        ValueError: it is a folder without these files, or files of published weights are not the published ones.
    """
    path = Path(name).expanduser()
    if path.suffix.lower() in (".yaml", ".yml"):
        if not path.is_file():
            raise FileNotFoundError(f"The config file '{path}' does not exist.")
        return Model(path)
    if (path / CONFIG_NAME).is_file() and (path / WEIGHTS_NAME).is_file():
        return Model(path / CONFIG_NAME, path / WEIGHTS_NAME)
    published = published_models()
    if name in published:
        folder = find_published(name)
        return Model(folder / f"{name}.yaml", folder / f"{name}.pth")
    folders = weights_folders()
    for folder in folders if path.name == name else []:
        if (folder / f"{name}.yaml").is_file():
            return Model(folder / f"{name}.yaml")
    if path.is_dir():
        raise ValueError(
            f"The folder '{name}' is no model: it has to have {CONFIG_NAME} and {WEIGHTS_NAME}, as rec-attend train "
            "writes them."
        )
    here = {config.stem for folder in folders if folder.is_dir() for config in folder.glob("*.yaml")}
    raise FileNotFoundError(
        f"There is no model '{name}'. Give a folder that rec-attend train wrote, a config file (.yaml), or one of the "
        f"published weights: {', '.join(sorted(here | published.keys()))}. Looked in {', '.join(map(str, folders))} "
        f"(${FOLDER_VARIABLE} names another folder)."
    )
