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


def pixel_size_of(path: str | os.PathLike) -> PixelSize | None:
    """The pixel size that a TIFF file says, None if it says none; its dots per inch for printing are none."""
    try:
        with tifffile.TiffFile(path) as file:
            if file.ome_metadata:
                return _of_ome(file.ome_metadata)
            if file.imagej_metadata:
                return _of_imagej(file)
    except (tifffile.TiffFileError, ElementTree.ParseError, ValueError, KeyError, IndexError, ZeroDivisionError):
        pass  # a file that says nothing that can be understood is measured in pixels
    return None


def _of_ome(text: str) -> PixelSize | None:
    pixels = next((node for node in ElementTree.fromstring(text).iter() if node.tag.endswith("}Pixels")), None)
    if pixels is None or not pixels.get("PhysicalSizeX"):
        return None
    sizes = []
    for axis in "YX":
        number = pixels.get(f"PhysicalSize{axis}") or pixels.get("PhysicalSizeX") or ""
        sizes.append(_micrometres(float(number), pixels.get(f"PhysicalSize{axis}Unit", "um")))
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
