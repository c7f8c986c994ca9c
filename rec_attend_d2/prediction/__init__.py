"""Finished models on images, videos and cameras: what ``rec_attend_d2.Predictor`` and demo/demo.py are made of."""

from .sources import (
    Frame,
    distinct_names,
    find_images,
    frame_count,
    frame_rate,
    image_frames,
    open_video,
    open_webcam,
    video_frames,
)

__all__ = [
    "Frame",
    "distinct_names",
    "find_images",
    "frame_count",
    "frame_rate",
    "image_frames",
    "open_video",
    "open_webcam",
    "video_frames",
]
