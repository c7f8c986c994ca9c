#!/usr/bin/env python
"""Make the files of a release from a finished training.

    python tools/publish_weights.py --config-file configs/Fields/fast.yaml --name nuclei --notes notes.md \
        --weights output/fields_fast/model_final.pth --results output/fields_fast/metrics_final.json \
        [--minutes 20] [--data WORDS] [--output dist/weights]

writes NAME.pth (weights for inference alone, the averaged ones if there are any), NAME.yaml (the complete config),
NAME.md (model card; --notes is what it says of known failures) and SHA256SUMS (lines of other models stay). They are
files of a release. The package notes which they are, in rec_attend_d2/prediction/published.json, by which

    rec-attend count --model NAME pictures

finds and checks them. Only small ones are kept in git too, in weights/.

The config names the weights by their file name alone, so that it is used in the folder it stands in,

    cd dist/weights && python ../../tools/train_net.py --config-file nuclei.yaml --eval-only

(DETECTRON2_DATASETS must then be an absolute path), or from anywhere with MODEL.WEIGHTS added:

    python tools/train_net.py --config-file dist/weights/nuclei.yaml --eval-only \
        MODEL.WEIGHTS dist/weights/nuclei.pth
"""

import argparse
import json
import os
import re
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model
from tabulate import tabulate

from rec_attend_d2.checkpoint import load_weights
from rec_attend_d2.checkpoint.files import save_inference_weights
from rec_attend_d2.checkpoint.loading import read_checkpoint, read_object_size
from rec_attend_d2.config import different_settings, input_words, load_config
from rec_attend_d2.prediction import published
from rec_attend_d2.version import __version__

ROOT = Path(__file__).resolve().parents[1]
# Label of a figure on the card, and where it stands in the results.
COLUMNS = {
    "AP": ("segm", "AP"),
    "AP50": ("segm", "AP50"),
    "SBD": ("counting", "SBD"),
    "\\|DiC\\|": ("counting", "abs_DiC"),
    "count accuracy": ("counting", "count_accuracy"),
    "MWCov": ("counting", "MWCov"),
    "MUCov": ("counting", "MUCov"),
    "box AP50": ("bbox", "AP50"),
    "best box IoU": ("box_counting", "best_box_IoU"),
}
# Folder of weights in git, and how large they may be there: a clone brings every version of them.
GIT_FOLDER = ROOT / "weights"
MAX_BYTES = 5_000_000
# What the data sets of this project are, by the first part of their names.
DATA = {
    "nuclei": "256 x 256 fluorescence images of the 2018 Data Science Bowl, stage1_train (BBBC038v1), with 1 to 20 "
    "nuclei each. Licence: CC0 1.0.",
    "rosettes": "Procedural plants, drawn by this project on first use. Licence: Apache License 2.0.",
}
CARD = """# {name}

Weights of rec_attend_d2 {version}: instance segmentation with recurrent attention, which finds the objects of an image
one after another. {parameters} parameters, {size:.1f} MB; the network sees {input}.

    python tools/train_net.py --config-file {name}.yaml --eval-only

evaluates them, in the folder of these files; `sha256sum -c SHA256SUMS` checks the files.

## Data and licences

* Data: {data}
* Trained on {train}, evaluated on {test}.
* Code and weights: Apache License 2.0.

## Recipe

* Config: `{name}.yaml`, complete.
* Command: `{command}`
{recipe}

## Results

{results}

## Intended use

Finding, outlining and counting objects like those of the training data, in images like those. For anything else,
measure first how well it does on images of your own. Not made for diagnoses or other decisions about people.

## Known failures

{notes}
"""


class PublishError(Exception):
    """The training cannot be published as it is."""


def _texts(node: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """All texts of a config with their keys."""
    if isinstance(node, str):
        yield key, node
    elif isinstance(node, Mapping):
        for name, value in node.items():
            yield from _texts(value, f"{key}.{name}" if key else name)
    elif isinstance(node, (list, tuple)):
        for value in node:
            yield from _texts(value, key)


def published_config(cfg: CfgNode, name: str) -> CfgNode:
    """The config without what belongs to the machine it was made on, with MODEL.WEIGHTS ``name``.pth.

    Raises:
        PublishError: it holds another path of the machine.
    """
    defaults = get_cfg()
    cfg = cfg.clone()
    cfg.MODEL.WEIGHTS = f"{name}.pth"
    cfg.MODEL.DEVICE = defaults.MODEL.DEVICE  # the CPU is taken where there is no GPU
    cfg.OUTPUT_DIR = defaults.OUTPUT_DIR
    paths = [f"{key}: '{text}'" for key, text in _texts(cfg) if os.path.isabs(text) or text.startswith("~")]
    if paths:
        raise PublishError(f"The config holds paths of this machine; make them relative: {'; '.join(paths)}.")
    return cfg


def check_training(cfg: CfgNode, weights: Path) -> None:
    """Raise a PublishError if config.yaml beside the weights says that they were trained with another config."""
    trained_with = weights.parent / "config.yaml"
    if not trained_with.is_file():
        return
    # Stages that start from another training name its weights on the command line.
    different = [key for key in different_settings(cfg, trained_with) if key != "MODEL.WEIGHTS"]
    if different:
        raise PublishError(
            f"{weights} was trained with other {', '.join(different)} than --config-file says. Give --config-file "
            f"{trained_with}."
        )


def check_published(config_file: Path, weights: Path, source: Path) -> int:
    """Load what was written into a fresh model and compare every tensor with those of the training.

    Returns:
        Number of parameters.

    Raises:
        PublishError: a tensor differs, is missing or is left over.
        ValueError: the weights do not fit the config.
    """
    model = build_model(load_config(str(config_file), ["MODEL.DEVICE", "cpu"]))
    load_weights(model, str(weights), complete=True)
    state, expected = model.state_dict(), read_checkpoint(str(source))[0]
    wrong = sorted(state.keys() ^ expected.keys())
    wrong += [name for name in state.keys() & expected.keys() if not torch.equal(state[name], expected[name])]
    if wrong:
        raise PublishError(f"{weights} is not what {source} holds: {', '.join(wrong)}.")
    return sum(parameter.numel() for parameter in model.parameters())


def describe_data(cfg: CfgNode, words: str) -> str:
    """What the training data are, and their licence: ``words``, or what is known of this project's own data sets.

    Raises:
        PublishError: nothing is known of a data set, and no words were given.
    """
    families = dict.fromkeys(name.split("_")[0] for name in cfg.DATASETS.TRAIN)
    unknown = [family for family in families if family not in DATA]
    if unknown and not words:
        raise PublishError(f"Nothing is known of the data {', '.join(unknown)}: say what they are with --data.")
    return words or " ".join(DATA[family] for family in families)


def results_table(cfg: CfgNode, results: dict) -> str:
    """Table of the figures, with a column per data set of DATASETS.TEST.

    Raises:
        PublishError: there are none.
    """
    by_set = results if len(cfg.DATASETS.TEST) > 1 else {", ".join(cfg.DATASETS.TEST): results}
    rows = []
    for label, (group, metric) in COLUMNS.items():
        figures = [entry.get(group, {}).get(metric) for entry in by_set.values()]
        if any(figure is not None for figure in figures):
            rows.append([label, *("" if figure is None else f"{figure:.3g}" for figure in figures)])
    if not rows:
        raise PublishError("--results holds no figure that a model card shows; give a training's metrics_final.json.")
    return tabulate(rows, headers=["", *by_set], tablefmt="github", disable_numparse=True)


def recipe(cfg: CfgNode, config_file: Path, weights: Path, name: str, averaged: bool, minutes: float | None) -> dict:
    """Fields ``command`` and ``recipe`` of the card."""
    start = os.path.basename(cfg.MODEL.WEIGHTS) if os.path.isabs(cfg.MODEL.WEIGHTS) else cfg.MODEL.WEIGHTS
    command = ["python", "tools/train_net.py", "--config-file"]
    if config_file.resolve().is_relative_to(ROOT):
        command.append(config_file.resolve().relative_to(ROOT).as_posix())
    else:
        command += [f"{name}.yaml", "MODEL.WEIGHTS", start]
    content = torch.load(weights, map_location="cpu", weights_only=True)
    iterations = content["iteration"] + 1 if "iteration" in content else cfg.SOLVER.MAX_ITER
    planned = "" if iterations == cfg.SOLVER.MAX_ITER else f" of {cfg.SOLVER.MAX_ITER}"
    lines = [f"* {iterations}{planned} iterations, {cfg.SOLVER.IMS_PER_BATCH} images each."]
    lines += [f"* Started from `{start}`."] if start else []
    lines += [] if minutes is None else [f"* Training time, measured: {minutes:g} minutes."]
    lines.append(f"* Averaged weights (decay {cfg.SOLVER.EMA_DECAY})." if averaged else "* Weights as trained.")
    return {"command": shlex.join(command), "recipe": "\n".join(lines)}


def update_checksums(folder: Path, names: list[str]) -> None:
    """Write the SHA-256 of the files ``names`` to ``folder``/SHA256SUMS; lines of other files stay."""
    path = folder / "SHA256SUMS"
    lines = path.read_text().splitlines() if path.is_file() else []
    sums = {line.split("  ", 1)[1]: line.split("  ", 1)[0] for line in lines}
    sums |= {name: published.sha256_of(folder / name) for name in names}
    path.write_text("".join(f"{value}  {name}\n" for name, value in sorted(sums.items())))


def update_index(name: str, files: list[Path]) -> None:
    """Let the package know the files that a model is used by; other models stay."""
    models = published.published_models() | {name: {path.name: published.sha256_of(path) for path in files}}
    published.INDEX.write_text(json.dumps(models, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def publish(arguments: argparse.Namespace) -> None:
    """Write the files. Everything that can be refused before is refused before the first of them."""
    name, folder = arguments.name, arguments.output
    if not re.fullmatch(r"[\w-]+", name):
        raise PublishError(f"--name is '{name}'; use letters, digits, - and _.")
    for key in ("weights", "results", "notes"):
        if not getattr(arguments, key).is_file():
            raise PublishError(f"--{key} names '{getattr(arguments, key)}', which does not exist.")
    cfg = load_config(str(arguments.config_file), [])
    cfg.INPUT.OBJECT_SIZE = cfg.INPUT.OBJECT_SIZE or read_object_size(str(arguments.weights))
    check_training(cfg, arguments.weights)
    fields = {
        "data": describe_data(cfg, arguments.data),
        "results": results_table(cfg, json.loads(arguments.results.read_text())),
        "notes": arguments.notes.read_text().strip(),
    }
    config = published_config(cfg, name).dump()

    weights_file, config_file, card_file = (folder / f"{name}.{ending}" for ending in ("pth", "yaml", "md"))
    averaged = save_inference_weights(str(arguments.weights), str(weights_file))
    size = weights_file.stat().st_size
    if size > MAX_BYTES and folder.resolve() == GIT_FOLDER:
        weights_file.unlink()
        raise PublishError(
            f"The weights take {size / 1e6:.1f} MB; those in git may take {MAX_BYTES / 1e6:.0f} MB. Publish them in a "
            "release alone, by another --output such as dist/weights."
        )
    config_file.write_text(config)
    parameters = check_published(config_file, weights_file, arguments.weights)
    fields |= recipe(cfg, arguments.config_file, arguments.weights, name, averaged, arguments.minutes)
    card = CARD.format(
        name=name,
        version=__version__,
        parameters=f"{parameters:,}",
        size=size / 1e6,
        input=input_words(cfg),
        train=", ".join(cfg.DATASETS.TRAIN),
        test=", ".join(cfg.DATASETS.TEST),
        **fields,
    )
    card_file.write_text(card)
    update_checksums(folder, [weights_file.name, config_file.name, card_file.name])
    update_index(name, [weights_file, config_file])
    print(f"Wrote {name}.pth ({size / 1e6:.1f} MB), {name}.yaml, {name}.md and SHA256SUMS to {folder}.")
    print(f"Noted them in {published.INDEX}.")


def main() -> None:
    """Read the command line and publish."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--config-file", type=Path, required=True, help="config the weights were trained with")
    parser.add_argument("--weights", type=Path, required=True, help="checkpoint of the training")
    parser.add_argument("--results", type=Path, required=True, help="its metrics_final.json")
    parser.add_argument("--name", required=True, help="name of the files")
    parser.add_argument("--notes", type=Path, required=True, help="Markdown file with the known failures")
    parser.add_argument("--minutes", type=float, help="measured training time")
    parser.add_argument("--data", default="", help="the training data and their licence, if not this project's")
    parser.add_argument("--output", type=Path, default=Path("dist/weights"), help="folder (default dist/weights)")
    try:
        publish(parser.parse_args())
    except (PublishError, FileNotFoundError, ValueError) as error:
        raise SystemExit(f"{error}") from error


if __name__ == "__main__":
    main()
