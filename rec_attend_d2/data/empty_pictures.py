"""Pictures without objects, drawn at random: noise, gradients, single hot pixels.

A stretch of contrast makes the noise of an empty field as bright as nuclei are. A model that was never shown such a
picture counts hundreds of objects in it.
"""

import cv2
import numpy as np
from numpy.typing import NDArray

# Share of pictures with hot pixels, and largest share of pixels that are hot.
_HOT_PICTURES, _HOT_PIXELS = 0.3, 2e-3


def draw_empty_picture(side: int) -> NDArray[np.uint8]:
    """A grey picture [side, side], drawn with ``np.random``: a flat or sloping ground, noise on it, maybe hot pixels.

    The noise is Gaussian or uniform, with any width from 0 to a third of the range, and sharp or smoothed over up to
    three pixels.
    """
    generator = np.random.default_rng(np.random.randint(2**31))
    ground = generator.uniform(0, 128)
    slope = generator.uniform(-1, 1, 2) * (generator.random() < 0.4) * 100
    axis = np.linspace(-0.5, 0.5, side, dtype=np.float32)
    picture = ground + slope[0] * axis[:, None] + slope[1] * axis
    noise = generator.standard_normal((side, side), dtype=np.float32)
    if generator.random() < 0.3:
        noise = generator.uniform(-1.7, 1.7, (side, side)).astype(np.float32)
    if generator.random() < 0.3:
        noise = np.asarray(cv2.GaussianBlur(noise, (0, 0), generator.uniform(0.5, 3.0)), np.float32)
        noise /= noise.std()
    picture = picture + noise * 80 * generator.random() ** 2
    if generator.random() < _HOT_PICTURES:
        hot = generator.random((side, side)) < _HOT_PIXELS * generator.random()
        picture = np.where(hot, generator.uniform(100, 255), picture)
    return np.rint(picture).clip(0, 255).astype(np.uint8)
