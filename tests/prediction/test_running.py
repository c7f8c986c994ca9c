"""What becomes of videos."""

from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from rec_attend_d2.prediction.running import count_video


class Finder:
    """Stands for a Predictor that finds one object in each picture."""

    batch_size = 2

    def prepare(self, image, name):
        return image

    def predict(self, images):
        return [SimpleNamespace(count=1) for _ in images]


@pytest.mark.parametrize("kept", [1.0, 0.7])
def test_a_video_that_is_cut_off_is_said(tmp_path, kept):
    path = tmp_path / "v.avi"
    video = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 5, (64, 48))
    noise = np.random.default_rng(0)
    for _ in range(20):
        video.write(noise.integers(0, 256, (48, 64, 3), np.uint8))
    video.release()
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    capture = cv2.VideoCapture(str(path))
    if kept == 1:
        assert count_video(capture, str(path), Finder(), [], None).objects == 20
    else:
        with pytest.raises(ValueError, match=r"v\.avi' ends after \d+ of 20 frames: it is damaged or cut off"):
            count_video(capture, str(path), Finder(), [], None)
