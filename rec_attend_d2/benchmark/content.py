"""What a report says: sections of text, tables and pictures, made of the results alone; no format knows any figure."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..report.rendering import Picture, Section, Table
from .figures import IMAGE_PLOTS, OBJECT_PLOTS, group_bars, learning_curves
from .measuring import MEGABYTE
from .models import ModelSpec

UNKNOWN = "–"
# Header of a column to where its figure stands in a model's results, the unit, and how it is shown.
QUALITY = {
    "AP": ("results.metrics.AP", 1, "{:.1f}"),
    "AP50": ("results.metrics.AP50", 1, "{:.1f}"),
    "SBD": ("results.metrics.SBD", 1, "{:.3f}"),
    "|DiC|": ("results.metrics.abs_DiC", 1, "{:.2f}"),
    "count accuracy": ("results.metrics.count_accuracy", 1, "{:.3f}"),
    "MWCov": ("results.metrics.MWCov", 1, "{:.3f}"),
    "MUCov": ("results.metrics.MUCov", 1, "{:.3f}"),
    "relative count error": ("results.metrics.relative_count_error", 1, "{:.3f}"),
    "F1": ("results.metrics.F1", 1, "{:.3f}"),
    "AvgFP": ("results.metrics.AvgFP", 1, "{:.2f}"),
    "AvgFN": ("results.metrics.AvgFN", 1, "{:.2f}"),
    "score threshold": ("results.threshold", 1, "{:.2f}"),
}
COST = {
    "s/image": ("results.seconds_per_image.median", 1, "{:.3f}"),
    "peak MB, inference": ("results.inference_memory", MEGABYTE, "{:.0f}"),
    "peak MB, training": ("training.peak_memory", MEGABYTE, "{:.0f}"),
    "parameters (million)": ("results.parameters", 1e6, "{:.2f}"),
    "GFLOP/image": ("results.flops_per_image", 1e9, "{:.2f}"),
    "minutes trained": ("training.seconds", 60, "{:.1f}"),
    "CPU minutes": ("training.cpu_seconds", 60, "{:.1f}"),
    "iterations": ("training.iterations", 1, "{:.0f}"),
    "images per iteration": ("training.images_per_iteration", 1, "{:.0f}"),
}


def number(value: float | None, template: str = "{:.3f}") -> str:
    """A figure as text; one that is undefined is a dash."""
    return UNKNOWN if value is None else template.format(value)


def model_table(models: Sequence[Mapping], columns: Mapping[str, tuple[str, float, str]], caption: str) -> Table:
    """A row per model, with the columns :data:`QUALITY` or :data:`COST`."""
    rows = []
    for model in models:
        row = [model["name"]]
        for path, unit, template in columns.values():
            value: Any = model
            for key in path.split("."):
                value = value and value[key]  # a model with finished weights has no training
            row.append(number(value if value is None else value / unit, template))
        rows.append(row)
    return Table(caption, ["model", *columns], rows)


def _budget(model: Mapping[str, Any]) -> str:
    words, training = ModelSpec(**model["spec"]).budget(), model["training"]
    return f"{words} from {training['initial_weights'] or 'random weights'}" if training else words


def _setup(content: Mapping[str, Any]) -> Section:
    environment, models = content["environment"], content["models"]
    budgets = "; ".join(f"{model['name']}: {_budget(model)}" for model in models)
    paragraphs = [
        f"Trained on {content['train']}, evaluated on {content['test']}. Budget: {budgets}.",
        f"{environment['device_name']}, {environment['threads']} thread(s), PyTorch {environment['torch']}.",
        f"Command: {content['command']}",
        "Which predictions count as objects is decided alike for all models: scores are cut at the threshold with the "
        f"largest mean SBD on at most {models[0]['spec']['threshold_images']} training images. AP takes all "
        "predictions.",
        "Detectron2's models see the same training images (augmentations, contrast) as this project's, at the size of "
        "their own config. Learning rate schedules are squeezed to the budget; evaluations and checkpoints do not "
        "count.",
        "s/image: median of single images, network and post-processing to masks of the image's size. Peak memory: of "
        "the whole process on a CPU, of tensors on CUDA. FLOPs: matrix products and convolutions, mean of some images.",
        "Occlusion of an object: the share of its boundary at which another object touches or overlaps it (at most one "
        "pixel between them). Of an image: the mean of its objects.",
    ]
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


# Key of the groups to title, figures, what the groups differ in, and what they hold.
_GROUPS = {
    "by_count": ("Quality by number of objects", IMAGE_PLOTS, "true objects", "images"),
    "by_contact": ("Quality by occlusion, images", IMAGE_PLOTS, "mean share of boundary in contact", "images"),
    "objects_by_contact": ("Quality by occlusion, objects", OBJECT_PLOTS, "share of boundary in contact", "objects"),
    "objects_by_area": ("Quality by size, objects", OBJECT_PLOTS, "pixels of the object", "objects"),
}


def _group_section(key: str, groups: Sequence[Mapping[str, Any]]) -> Section:
    """A row per group, and a column per model and metric; and the same as bars."""
    title, metrics, axis, counted = _GROUPS[key]
    names = list(groups[0]["models"])
    headers = [axis, counted, *(f"{metric}, {name}" for metric in metrics.values() for name in names)]
    rows = [
        [group["label"], str(group["size"])]
        + [number(group["models"][name][metric]) for metric in metrics for name in names]
        for group in groups
    ]
    picture = Picture(key, f"{title}: the figures of the table as bars", group_bars(groups, metrics, axis))
    return Section(title, [], [Table(title, headers, rows)], [picture])


def make_sections(content: Mapping[str, Any], gallery: Sequence[Picture]) -> list[Section]:
    """The report of a comparison.

    Args:
        content: of comparison.json.
        gallery: pictures of single images.
    """
    models, groups = content["models"], content["groups"]
    caption = f"Quality on {content['test']} (AP in percent)"
    return [
        Section("Results", tables=[model_table(models, QUALITY, caption), model_table(models, COST, "Cost")]),
        _curves(models),
        *(_group_section(key, groups[key]) for key in _GROUPS if groups[key]),
        Section("Best, median and worst images", ["By the mean SBD of all models."], pictures=list(gallery)),
        _setup(content),
    ]
