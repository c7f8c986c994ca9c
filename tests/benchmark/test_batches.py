"""Synthetic batches."""

import numpy as np
import pytest
import torch

from rec_attend_d2.benchmark.batches import synthetic_batch
from rec_attend_d2.benchmark.disks import grid_of_disks
from rec_attend_d2.benchmark.probes import usual_objects


@pytest.mark.parametrize("count", [1, 2, 7, 16, 30])
def test_objects_are_disjoint_and_as_many_as_asked_for(count):
    masks = grid_of_disks((64, 128), count)
    areas = masks.sum((1, 2))
    assert masks.shape == (count, 64, 128) and masks.sum(0).max() == 1
    assert areas.min() > 0 and areas.max() < 1.5 * areas.min() + 4
    assert np.unique(np.argmax(masks.reshape(count, -1), axis=1)).size == count


def test_too_many_objects_are_refused():
    with pytest.raises(ValueError, match="8 x 8 pixels is too small for 100 objects"):
        grid_of_disks((8, 8), 100)


def test_a_batch_is_the_same_in_every_run(quick_cfg):
    cfg = quick_cfg("Cityscapes/stage_c")
    first, second = synthetic_batch(cfg, 2), synthetic_batch(cfg, 2)
    for one, other in zip(first, second, strict=True):
        assert torch.equal(one["image"], other["image"])
        assert torch.equal(one["instances"].gt_masks.tensor, other["instances"].gt_masks.tensor)
        assert torch.equal(one["instances"].gt_classes, other["instances"].gt_classes)
    assert not torch.equal(first[0]["image"], first[1]["image"])
    assert first[0]["image"].shape == (3, *cfg.INPUT.IMAGE_SIZE)
    assert first[0]["foreground"].shape[0] == 9 and first[0]["angle_map"].shape[0] == 8
    assert int(first[0]["instances"].gt_classes.max()) < 8


def test_a_recurrent_model_gets_three_quarters_as_many_objects_as_steps(quick_cfg):
    assert usual_objects(quick_cfg("stage_c", "MODEL.REC_ATTEND.TIME_STEPS", 21)) == 16
    assert usual_objects(quick_cfg("stage_c", "MODEL.META_ARCHITECTURE", "GeneralizedRCNN")) == 7
