"""The settings of a training, chosen from what the data are, each with its reason; and the file that keeps them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from detectron2.config import CfgNode

from ..config import load_config
from ..data.datasets.annotated import Annotated
from ..whole_files import written_at_once
from .survey import PERCENTILES, Survey

# Objects that fill their convex hull better than this are round: their outlines are drawn by few pixels.
_ROUND = 0.92
# Widths in network pixels of round objects and of others; see docs/ablation.md.
_PIXELS_ROUND, _PIXELS_RAGGED = 12.0, 24.0
# At most a tenth of the objects are narrower in the network.
_PIXELS_NARROW = 6.0
# Side of windows in network pixels, and what it is a multiple of.
_WINDOW, _WINDOW_MULTIPLE = 256, 32
# 8-bit pictures in colours whose median is darker need a stretch of contrast.
_DARK = 25.0
# The ground of fluorescence is this dark, between the percentiles, and what is on it this much brighter.
_DARK_GROUND, _BRIGHTER = 0.25, 0.1
# AP is measured on so many detections per picture at least.
_FEWEST_DETECTIONS = 100

HEADER = """\
# What rec-attend chose, and why. Change what you like and train by it:
#     rec-attend train --plan plan.yaml --output another_model
# A setting is a key of Detectron2's or this project's config; more may be added, with or without a reason.
"""


@dataclass(frozen=True)
class Setting:
    """A value of a config key, and why it was chosen."""

    value: Any
    why: str = "set by hand"


@dataclass(frozen=True)
class Plan:
    """What is trained on what.

    Attributes:
        data: the pictures.
        validation: those that the model is measured on: names of ``data``'s images, or pictures of their own.
        why_validation: how they were chosen.
        minutes: of the whole training.
        settings: by config key.
        class_names: of class 0, 1, ...
        learning_minutes: of these, evaluations on the way included; 0 = not known yet.
    """

    data: Annotated
    validation: list[str] | Annotated
    why_validation: str
    minutes: float
    settings: dict[str, Setting] = field(default_factory=dict)
    class_names: list[str] = field(default_factory=list)
    learning_minutes: float = 0.0

    def config(self) -> CfgNode:
        """The fast model's config with these settings.

        Raises:
            ValueError: a key does not exist, or its value is of a wrong type.
        """
        options = [part for key, setting in self.settings.items() for part in (key, setting.value)]
        return load_config(base_config(), options)

    def write(self, path: Path) -> None:
        """Write the file that :meth:`read` reads."""
        validation: Any = self.validation if isinstance(self.validation, list) else _described(self.validation)
        content = {
            "data": _described(self.data),
            "minutes": self.minutes,
            "learning_minutes": self.learning_minutes,
            "classes": self.class_names,
            "settings": {key: {"value": item.value, "why": item.why} for key, item in self.settings.items()},
            "why_validation": self.why_validation,
            "validation": validation,
        }
        with written_at_once(path) as partial:
            partial.write_text(HEADER + yaml.safe_dump(content, sort_keys=False, width=110), encoding="utf-8")

    @classmethod
    def read(cls, path: Path) -> "Plan":
        """The plan of a file. Raises FileNotFoundError or ValueError, which name the file and the key."""
        if not path.is_file():
            raise FileNotFoundError(f"The plan '{path}' does not exist.")
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise ValueError(f"The plan '{path}' is no YAML file: {error}") from error
        needed = ("data", "minutes", "classes", "settings", "why_validation", "validation")
        missing = [key for key in needed if not isinstance(content, dict) or key not in content]
        if missing:
            raise ValueError(f"The plan '{path}' has no {', '.join(missing)}. Copy it anew from a trained model.")
        validation = content["validation"]
        return cls(
            data=_annotated(content["data"], f"{path}, data"),
            validation=validation if isinstance(validation, list) else _annotated(validation, f"{path}, validation"),
            why_validation=content["why_validation"],
            minutes=float(content["minutes"]),
            settings={key: _setting(item, f"{path}, {key}") for key, item in (content["settings"] or {}).items()},
            class_names=list(content["classes"] or []),
            learning_minutes=float(content.get("learning_minutes", 0.0)),
        )


def base_config() -> Path:
    """The fast model's config: of the installed package, or of the source tree."""
    package = Path(__file__).parents[1]
    folder = next(path for path in (package / "configs", package.parent / "configs") if path.is_dir())
    return folder / "Fast-RecAttend.yaml"


def _described(pictures: Annotated) -> dict[str, Any]:
    """What differs from the defaults, as YAML takes it."""
    described: dict[str, Any] = {}
    for name, value in vars(pictures).items():
        if value != getattr(Annotated, name, None):
            value = str(value.absolute()) if isinstance(value, Path) else value
            described[name] = list(value) if isinstance(value, tuple) else value
    return described


def _annotated(content: Any, where: str) -> Annotated:
    names = vars(Annotated(Path()))
    if not isinstance(content, Mapping) or "images" not in content or set(content) - set(names):
        raise ValueError(f"{where}: give 'images' and what else is needed of {', '.join(names)}.")
    fields: dict[str, Any] = {
        name: Path(value) if name in ("images", "labels", "coco") else value for name, value in content.items()
    }
    background = fields.get("background")
    if isinstance(background, list):
        fields["background"] = tuple(background)
    return Annotated(**fields)


def _setting(item: Any, where: str) -> Setting:
    if not isinstance(item, Mapping):
        return Setting(item)
    if "value" not in item:
        raise ValueError(f"{where}: give a value, or 'value' and 'why'.")
    return Setting(item["value"], str(item.get("why", Setting.why)))


def choose_settings(found: Survey) -> dict[str, Setting]:
    """The settings that follow from what the data are, by config key."""
    return {
        **_choose_sizes(found),
        **_choose_appearance(found),
        **_choose_classes(found),
    }


def _choose_sizes(found: Survey) -> dict[str, Setting]:
    """How large objects are, in the file and for the network, and what of a picture is seen at a time."""
    size, shape = found.object_size, f"objects fill {found.solidity:.2f} of their convex hull"
    if found.solidity >= _ROUND:
        pixels, pixels_why = _PIXELS_ROUND, f"round ({shape}): so many pixels suffice for their outlines"
    else:
        pixels = float(round(min(_PIXELS_RAGGED, max(_PIXELS_ROUND, size)), 1))
        pixels_why = f"not round ({shape}): more pixels for their outlines, but not more than the file has"
    why = "typical width of an object: the square root of the median area, median over pictures"
    narrow = float(np.percentile(found.object_widths, 10))
    if narrow * pixels / size < _PIXELS_NARROW:
        why = (
            f"{size:g} is the typical width, but a tenth of the objects are narrower than {narrow:.0f} pixels: for them"
        )
        size = round(narrow * pixels / _PIXELS_NARROW, 2)
    side, window_why = _choose_window(found, pixels / size)
    batch = 4 if side <= _WINDOW // 2 else 2
    rate = 0.0015 if batch == 4 else 0.002
    return {
        "INPUT.OBJECT_SIZE": Setting(size, why),
        "INPUT.OBJECT_PIXELS": Setting(pixels, pixels_why),
        "INPUT.WINDOW_SIZE": Setting(side, window_why),
        "SOLVER.IMS_PER_BATCH": Setting(batch, "windows per iteration: small batches learn more in the same time"),
        "SOLVER.BASE_LR": Setting(rate, f"what batches of {batch} learn best with"),
    }


def _choose_window(found: Survey, scale: float) -> tuple[int, str]:
    longest = float(np.median([max(picture.size) for picture in found.pictures])) * scale
    fitting = _WINDOW_MULTIPLE * max(2, math.ceil(longest / _WINDOW_MULTIPLE - 0.25))
    if fitting < _WINDOW:
        return fitting, f"pictures are {longest:.0f} pixels long in the network"
    return _WINDOW, "part of a picture that training sees at a time, network pixels"


def _choose_appearance(found: Survey) -> dict[str, Setting]:
    """Contrast, and how pictures are changed in training."""
    augmentations = ["RandomHorizontalFlip", "RandomVerticalFlip", "RandomTranspose", "RandomWarp", "RandomIntensity"]
    reason = "no side is up; pictures are also bent, scaled and changed in brightness"
    if found.is_grey or found.is_deep or found.brightness < _DARK:
        contrast = Setting(list(PERCENTILES), f"{_contrast_reason(found)}: these percentiles become black and white")
        outside, inside = found.levels
        if outside < _DARK_GROUND and inside > outside + _BRIGHTER:
            augmentations.append("EmptyPictures")
            reason += "; dark ground, so that a picture of noise has to count 0"
    else:
        contrast = Setting([], "pictures in colours with 8 bits are taken as they are")
    return {
        "INPUT.CONTRAST_PERCENTILES": contrast,
        "INPUT.AUGMENTATIONS": Setting(
            augmentations, f"{reason} (where there is an up and a down, take out the vertical flip and the transpose)"
        ),
        "INPUT.WARP.ROTATION": Setting(180.0, "largest turn in degrees (10 where there is an up and a down)"),
    }


def _contrast_reason(found: Survey) -> str:
    if found.is_deep:
        return "values of more than 8 bits"
    return "grey pictures" if found.is_grey else "dark pictures"


def _choose_classes(found: Survey) -> dict[str, Setting]:
    names = list(found.class_names)
    most = max(found.counts)
    detections = max(_FEWEST_DETECTIONS, math.ceil(1.3 * most / 50) * 50)
    settings = {
        "TEST.DETECTIONS_PER_IMAGE": Setting(detections, f"for the AP alone; the fullest picture has {most} objects")
    }
    if len(names) > 1:
        settings["MODEL.REC_ATTEND.NUM_CLASSES"] = Setting(len(names), "number of categories")
        settings["MODEL.REC_ATTEND.CLASS_NAMES"] = Setting(names, "their names")
    return settings
