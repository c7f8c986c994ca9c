"""Every colour of the pictures, RGB in 0..255; they stand out on dark microscope images and on green plants."""

import colorsys

Color = tuple[int, int, int]

BACKGROUND: Color = (24, 26, 30)
TEXT: Color = (235, 235, 235)
FADED_TEXT: Color = (140, 140, 140)
BOX: Color = (255, 220, 0)
MASK: Color = (255, 70, 200)
STOP: Color = (255, 82, 82)
IGNORED: Color = (190, 190, 190)

# Hues of consecutive instances lie a golden ratio of the circle apart, so that neighbours differ strongly.
_GOLDEN_RATIO = 0.618034


def instance_color(index: int) -> Color:
    """A bright colour for instance ``index`` (>= 0), the same in every picture and distinct from its neighbours'."""
    hue = (0.9 + index * _GOLDEN_RATIO) % 1.0
    saturation = (0.9, 0.6, 0.75)[index % 3]
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)
