"""All sizes follow from the width of a typical object, and objects of very different sizes fit into one picture."""

import cv2
import numpy as np
import pytest
import torch

from rec_attend_d2.modeling.fast.claims import claimed_masks
from rec_attend_d2.modeling.fast.place_proposer import _LOG_SIZE_LIMIT
from rec_attend_d2.modeling.fast.sizes import Sizes
from rec_attend_d2.modeling.fast.targets import ObjectTargets
from rec_attend_d2.structures import MaskCrops


@pytest.mark.parametrize(("width", "patch"), [(4, 24), (12, 24), (18, 24), (24, 32), (60, 80)])
def test_patches_are_multiples_of_8(width: float, patch: int):
    assert Sizes(width).patch == patch


def street(size: tuple[int, int]) -> tuple[np.ndarray, list[int]]:
    """Label image of figures from 8 to 420 pixels in height that stand side by side, and their heights."""
    heights = [8, 12, 20, 40, 80, 160, 300, 420]
    labels, x = np.zeros(size, np.int32), 6
    for number, height in enumerate(sorted(heights, reverse=True), start=1):
        width = max(4, height // 3)
        top, middle = size[0] - 20 - height, x + width // 2
        cv2.ellipse(labels, (middle, top + height * 6 // 10), (width // 2, height * 4 // 10), 0, 0, 360, number, -1)
        cv2.circle(labels, (middle, top + height // 6), max(1, height // 7), number, -1)
        x += width + 8
    return labels, sorted(heights, reverse=True)


def test_objects_from_10_to_500_pixels_are_proposed_and_outlined_in_one_picture():
    """What a perfect model of streets could find: boxes within reach, a place for each, masks through the patch."""
    labels, heights = street((512, 512))
    sizes, count = Sizes(24.0), len(heights)
    targets = ObjectTargets.from_labels(
        torch.from_numpy(labels)[None], [torch.zeros(count, dtype=torch.int64)], sizes.padding
    )
    assert targets.valid.all()
    reach = np.exp(_LOG_SIZE_LIMIT)
    assert sizes.initial_box / reach < targets.boxes.size.min()
    assert targets.boxes.size.max() < sizes.initial_box * reach
    owners = targets.place_owners(targets.valid, (128, 128), 4)
    assert set(owners.unique().tolist()) == set(range(count + 1))

    image, instance = torch.zeros(count, dtype=torch.int64), torch.arange(count)
    boxes = type(targets.boxes)(targets.boxes.center[0], targets.boxes.size[0])
    own, _ = targets.cut(image, instance, boxes, sizes.patch)
    masks = claimed_masks(torch.logit(own, 1e-4), boxes, (512, 512), overlapping=False)
    truth = MaskCrops.from_labels(labels, count)
    for number, height in enumerate(heights):
        found, true = masks[number].numpy(), truth[number].numpy()
        assert (found & true).sum() / (found | true).sum() > (0.9 if height >= 20 else 0.6), height
