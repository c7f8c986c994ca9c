"""Pictures of what the model does, step by step, and of its results."""

from .animation import draw_animation, save_gif, save_steps
from .instances import draw_instances, side_by_side, true_instances
from .maps import draw_maps
from .steps import Trace, draw_steps, seen_image, trace
from .training_data import TrainingDataDrawer

__all__ = [
    "Trace",
    "TrainingDataDrawer",
    "draw_animation",
    "draw_instances",
    "draw_maps",
    "draw_steps",
    "save_gif",
    "save_steps",
    "seen_image",
    "side_by_side",
    "trace",
    "true_instances",
]
