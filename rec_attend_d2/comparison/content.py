"""What a report says: sections of text, tables and pictures, made of the results alone; no format knows any figure."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..benchmark.report import MEGABYTE
from .budget import Budget
from .figures import IMAGE_PLOTS, OBJECT_PLOTS, count_scatter, group_bars, learning_curves

UNKNOWN = "–"


@dataclass(frozen=True)
class Table:
    """A table; the first cell of a row names it.

    Attributes:
        caption: what it shows.
        headers: of the columns.
        rows: of cells.
    """

    caption: str
    headers: list[str]
    rows: list[list[str]]


@dataclass(frozen=True)
class Picture:
    """A picture.

    Attributes:
        name: of its file, without ending.
        alt: what is to be seen, for who can't see it.
        png: the file.
    """

    name: str
    alt: str
    png: bytes


@dataclass(frozen=True)
class Section:
    """A part of a report: title, paragraphs, then tables, then pictures."""

    title: str
    paragraphs: list[str] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)


def number(value: float | None, template: str = "{:.3f}") -> str:
    """A figure as text; one that is undefined is a dash."""
    return UNKNOWN if value is None else template.format(value)


def _metric(name: str, template: str = "{:.3f}") -> Callable[[Mapping], str]:
    return lambda model: number(model["results"]["metrics"][name], template)


def _training(key: str, scale: float, template: str) -> Callable[[Mapping], str]:
    def cell(model: Mapping) -> str:
        return number(model["training"][key] / scale, template) if model["training"] else UNKNOWN

    return cell


QUALITY: dict[str, Callable[[Mapping], str]] = {
    "AP": _metric("AP", "{:.1f}"),
    "AP50": _metric("AP50", "{:.1f}"),
    "SBD": _metric("SBD"),
    "|DiC|": _metric("abs_DiC", "{:.2f}"),
    "count accuracy": _metric("count_accuracy"),
    "MWCov": _metric("MWCov"),
    "MUCov": _metric("MUCov"),
    "AvgFP": _metric("AvgFP", "{:.2f}"),
    "AvgFN": _metric("AvgFN", "{:.2f}"),
    "score threshold": lambda model: number(model["results"]["threshold"], "{:.2f}"),
}
COST: dict[str, Callable[[Mapping], str]] = {
    "s/image": lambda model: number(model["results"]["seconds_per_image"]["median"]),
    "peak MB, inference": lambda model: number(model["results"]["inference_memory"] / MEGABYTE, "{:.0f}"),
    "peak MB, training": _training("peak_memory", MEGABYTE, "{:.0f}"),
    "parameters (million)": lambda model: number(model["results"]["parameters"] / 1e6, "{:.2f}"),
    "GFLOP/image": lambda model: number(model["results"]["flops_per_image"] / 1e9, "{:.2f}"),
    "minutes trained": _training("seconds", 60, "{:.1f}"),
    "CPU minutes": _training("cpu_seconds", 60, "{:.1f}"),
    "iterations": _training("iterations", 1, "{:.0f}"),
    "images per iteration": _training("images_per_iteration", 1, "{:.0f}"),
}


def model_table(models: Sequence[Mapping], columns: Mapping[str, Callable[[Mapping], str]], caption: str) -> Table:
    """A row per model."""
    rows = [[model["name"], *(cell(model) for cell in columns.values())] for model in models]
    return Table(caption, ["model", *columns], rows)


def group_table(groups: Sequence[Mapping], metrics: Mapping[str, str], first: str, counted: str, caption: str) -> Table:
    """A row per group, and a column per model and metric."""
    names = list(groups[0]["models"])
    headers = [first, counted, *(f"{title}, {name}" for title in metrics.values() for name in names)]
    rows = [
        [group["label"], str(group["size"])]
        + [number(group["models"][name][metric]) for metric in metrics for name in names]
        for group in groups
    ]
    return Table(caption, headers, rows)


def _budgets(models: Sequence[Mapping]) -> str:
    words = []
    for model in models:
        spec = model["spec"]
        if spec["weights"]:
            words.append(f"{model['name']}: finished weights, not trained")
        else:
            start = model["training"]["initial_weights"] or "random weights"
            words.append(f"{model['name']}: {Budget(**spec['budget']).describe()}, from {start}")
    return "; ".join(words)


def _setup(content: Mapping[str, Any]) -> Section:
    environment = content["environment"]
    spec = content["models"][0]["spec"]
    stalls = sum(model["training"]["stalls"] for model in content["models"] if model["training"])
    paragraphs = [
        f"Trained on {content['train']}, evaluated on {content['test']}. Budget: {_budgets(content['models'])}.",
        f"{environment['device_name']}, {environment['threads']} thread(s), PyTorch {environment['torch']}.",
        f"Command: {content['command']}",
        "Which predictions count as objects is decided alike for all models: scores are cut at the threshold with the "
        f"largest mean SBD on at most {spec['threshold_images']} training images. AP takes all predictions.",
        "Detectron2's models see the same training images (augmentations, contrast) as this project's, at the size of "
        "their own config. Learning rate schedules are squeezed to the budget; evaluations and checkpoints do not "
        "count.",
        "s/image: median of single images, network and post-processing to masks of the image's size. Peak memory: of "
        "the whole process on a CPU, of tensors on CUDA. FLOPs: matrix products and convolutions, mean of some images.",
    ]
    if stalls:
        paragraphs.append(f"While training, {stalls:.0f} s in which a process did not run at all are left out.")
    return Section("How it was measured", paragraphs)


def _curves(models: Sequence[Mapping]) -> Section:
    curves = {model["name"]: model["training"]["curve"] for model in models if model["training"]}
    if not curves:
        return Section("Learning curves", ["All models have finished weights."])
    alt = "Learning curves: " + "; ".join(
        f"{name} ends at SBD {points[-1]['metrics']['SBD']:.3f} after {points[-1]['seconds'] / 60:.1f} minutes"
        for name, points in curves.items()
    )
    text = "Evaluated on the test images at equal shares of the budget, each time with a threshold of its own."
    return Section("Learning curves", [text], pictures=[Picture("learning_curves", alt, learning_curves(curves))])


def _groups(quality: Mapping[str, Any]) -> list[Section]:
    described = [
        ("by_count", "Quality by number of objects", IMAGE_PLOTS, "true objects", "images", ""),
        (
            "by_contact",
            "Quality by occlusion, images",
            IMAGE_PLOTS,
            "mean share of boundary in contact",
            "images",
            "Occlusion of an object: the share of its boundary at which another object touches or overlaps it (at most "
            "one pixel between them). Of an image: the mean of its objects.",
        ),
        (
            "objects_by_contact",
            "Quality by occlusion, objects",
            OBJECT_PLOTS,
            "share of boundary in contact",
            "objects",
            "",
        ),
    ]
    sections = []
    for key, title, plots, axis, counted, text in described:
        if quality[key]:
            table = group_table(quality[key], plots, axis, counted, title)
            picture = Picture(key, f"{title}: the figures of the table as bars", group_bars(quality[key], plots, axis))
            sections.append(Section(title, [text] if text else [], [table], [picture]))
    return sections


def make_sections(content: Mapping[str, Any], gallery: Sequence[Picture]) -> list[Section]:
    """The report of a comparison.

    Args:
        content: of comparison.json.
        gallery: pictures of single images.
    """
    models = content["models"]
    images = {model["name"]: model["results"]["images"] for model in models}
    difference = {name: sum(abs(i["pred_count"] - i["gt_count"]) for i in im) for name, im in images.items()}
    alt = "Predicted against true count. Sum of absolute differences: " + ", ".join(
        f"{name} {total} in {len(images[name])} images" for name, total in difference.items()
    )
    results = [
        model_table(models, QUALITY, f"Quality on {content['test']} (AP in percent)"),
        model_table(models, COST, "Cost"),
    ]
    return [
        Section("Results", tables=results),
        _curves(models),
        Section("Predicted and true count", pictures=[Picture("counts", alt, count_scatter(images))]),
        *_groups(content["groups"]),
        Section("Best, median and worst images", ["By the mean SBD of all models."], pictures=list(gallery)),
        _setup(content),
    ]
