"""Finished models on images, videos and cameras: what Predictor, ``rec-attend count`` and the demo are made of."""

from .predictor import Prediction, Predictor, find_weights

__all__ = ["Prediction", "Predictor", "find_weights"]
