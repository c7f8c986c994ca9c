"""How large the pixels of a TIFF file are, as ImageJ or OME wrote it."""

import math
import os
from dataclasses import dataclass
from xml.etree import ElementTree

import tifffile

# Micrometres of the units of ImageJ and OME, in small letters.
_MICROMETRES = {
    **dict.fromkeys(("micron", "microns", "micrometer", "micrometre", "um", "\u00b5m", "\u03bcm", "\\u00b5m"), 1.0),
    **dict.fromkeys(("nm", "nanometer", "nanometre"), 1e-3),
    **dict.fromkeys(("mm", "millimeter", "millimetre"), 1e3),
    **dict.fromkeys(("cm", "centimeter", "centimetre"), 1e4),
    **dict.fromkeys(("m", "meter", "metre"), 1e6),
    **dict.fromkeys(("inch", "in"), 25400.0),
}


@dataclass(frozen=True)
class PixelSize:
    """Height and width of a pixel in micrometres."""

    y: float
    x: float

    @property
    def side(self) -> float:
        """Side of a square pixel of the same area."""
        return math.sqrt(self.y * self.x)


@dataclass(frozen=True)
class Scale:
    """What a file says about its scale.

    Attributes:
        size: of a pixel, where a microscope's program wrote it.
        resolution: pixels per unit along x and y, and TIFF's number of the unit (1 none, 2 inch, 3 cm), of any TIFF;
            that of many is made up for printing.
    """

    size: PixelSize | None = None
    resolution: tuple[float, float, int] | None = None


def read_scale(path: str | os.PathLike) -> Scale:
    """The scale of a TIFF file; what it does not say, or not so that it can be understood, is None."""
    size = resolution = None
    try:
        with tifffile.TiffFile(path) as file:
            resolution = _resolution(file)
            if file.ome_metadata:
                size = _of_ome(file.ome_metadata)
            elif file.imagej_metadata:
                size = _of_imagej(file)
    except (tifffile.TiffFileError, ElementTree.ParseError, ValueError, KeyError, IndexError, ZeroDivisionError):
        pass
    return Scale(size, resolution)


def _resolution(file: tifffile.TiffFile) -> tuple[float, float, int] | None:
    tags = file.pages.first.tags
    if "XResolution" not in tags or "YResolution" not in tags:
        return None
    (x, x_unit), (y, y_unit) = tags["XResolution"].value, tags["YResolution"].value
    unit = int(tags["ResolutionUnit"].value) if "ResolutionUnit" in tags else 2
    return (x / x_unit, y / y_unit, unit) if min(x, y, x_unit, y_unit) > 0 else None


def _of_ome(text: str) -> PixelSize | None:
    pixels = next((node for node in ElementTree.fromstring(text).iter() if node.tag.endswith("}Pixels")), None)
    if pixels is None or not pixels.get("PhysicalSizeX"):
        return None
    sizes = []
    for axis in "YX" if pixels.get("PhysicalSizeY") else "XX":
        unit = pixels.get(f"PhysicalSize{axis}Unit", "um")
        sizes.append(_micrometres(float(pixels.get(f"PhysicalSize{axis}", "")), unit))
    return _checked(*sizes)


def _of_imagej(file: tifffile.TiffFile) -> PixelSize | None:
    unit, tags = (file.imagej_metadata or {}).get("unit"), file.pages.first.tags
    if not unit or "XResolution" not in tags:
        return None
    x = tags["XResolution"].value
    y = tags["YResolution"].value if "YResolution" in tags else x
    return _checked(*(_micrometres(denominator / numerator, str(unit)) for numerator, denominator in (y, x)))


def _micrometres(number: float, unit: str) -> float:
    """0 of a unit that is none of length, such as "pixel"."""
    return number * _MICROMETRES.get(unit.strip().lower(), 0.0)


def _checked(y: float, x: float) -> PixelSize | None:
    return PixelSize(y, x) if math.isfinite(y) and math.isfinite(x) and min(y, x) > 0 else None
