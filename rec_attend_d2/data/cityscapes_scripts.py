"""The public tools of Cityscapes' makers, imported only where they are used.

What the newest NumPy and Pillow took away from cityscapesscripts 2.3.0 is made up for here, and only here.

Shapes: `H, W` size of an image in pixels.
"""

import importlib
import json
from pathlib import Path
from types import ModuleType

import numpy as np
from numpy.typing import NDArray


def cityscapes_module(name: str) -> ModuleType:
    """Import ``cityscapesscripts.<name>``, for example "helpers.labels".

    Raises:
        ImportError: the package is not installed.
    """
    try:
        module = importlib.import_module(f"cityscapesscripts.{name}")
    except ImportError as error:
        raise ImportError(
            f"Cityscapes is read and scored by cityscapesscripts, which cannot be imported ({error}). Install it: "
            "pip install rec_attend_d2[cityscapes]"
        ) from error
    # NumPy 2.4 removed in1d, which the evaluators call. Only their own name "np" is changed, never NumPy itself.
    if hasattr(module, "np") and not hasattr(module.np, "in1d"):
        numpy_with_in1d = ModuleType("numpy")
        numpy_with_in1d.__dict__.update(vars(np), in1d=np.isin)
        vars(module)["np"] = numpy_with_in1d
    return module


def draw_instance_ids(json_file: Path) -> NDArray[np.uint16]:
    """Draw the polygons of an annotation file as cityscapesscripts' json2instanceImg does.

    (That tool itself cannot save its image with Pillow 13.)

    Args:
        json_file: ``*_polygons.json``.

    Returns:
        [H, W]; label id * 1000 + number of the instance, or the label id alone for groups and for classes without
        instances.

    Raises:
        ValueError: no valid annotation file, or a label that is not in the class list; names the file.
    """
    annotation = cityscapes_module("helpers.annotation").Annotation()
    try:
        annotation.fromJsonText(json_file.read_text(encoding="utf-8"))
    # A wrong type anywhere in the file.
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(
            f"{json_file} is no valid annotation file ({error!r}). It needs imgHeight, imgWidth and objects with label "
            "and polygon [[x, y], ...]; restore it from the archive."
        ) from error
    # The drawing function would end the program.
    labels = cityscapes_module("helpers.labels")
    for item in annotation.objects:
        if item.label not in labels.name2label and labels.assureSingleInstanceName(item.label) is None:
            raise ValueError(
                f"{json_file} has an object with label '{item.label}', which is not in cityscapesscripts' class list. "
                "Correct the label, or restore the file from the archive."
            )
    try:
        image = cityscapes_module("preparation.json2instanceImg").createInstanceImage(annotation, "ids")
    except (TypeError, ValueError) as error:
        raise ValueError(f"{json_file} has a polygon that cannot be drawn ({error}). Correct it.") from error
    return np.array(image).astype(np.uint16)
