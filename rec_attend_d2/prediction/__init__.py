"""Finished models on images, videos and cameras: what ``rec_attend_d2.Predictor`` and demo/demo.py are made of."""

from .predictor import Prediction, Predictor, find_weights

__all__ = ["Prediction", "Predictor", "find_weights"]
