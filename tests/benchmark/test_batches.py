"""Synthetic batches."""

import numpy as np
import pytest
import torch

from rec_attend_d2.benchmark.batches import check_config, random_masks, synthetic_batch, usual_objects


def test_objects_are_disjoint_sorted_and_of_a_realistic_size():
    masks = random_masks((224, 224), 16, np.random.default_rng(0))
    areas = masks.sum((1, 2))
    assert masks.shape == (16, 224, 224) and masks.sum(0).max() == 1
    assert areas.min() > 0 and np.all(np.diff(areas) <= 0)
    assert 0.2 < areas.sum() / 224**2 < 0.7


@pytest.mark.parametrize("count", [1, 2, 7, 30])
def test_as_many_objects_as_asked_for(count):
    masks = random_masks((64, 128), count, np.random.default_rng(1))
    assert len(masks) == count and masks.any((1, 2)).all()


def test_too_many_objects_are_refused():
    with pytest.raises(ValueError, match="8 x 8 pixels is too small for 100 objects"):
        random_masks((8, 8), 100, np.random.default_rng(0))


def test_a_batch_is_the_same_in_every_run(quick_cfg):
    cfg = quick_cfg("Cityscapes/stage_c")
    first, second = synthetic_batch(cfg, 2, 3), synthetic_batch(cfg, 2, 3)
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


@pytest.mark.parametrize("key", ["TEST.SEM_SEG_DIR", "PREPROCESSOR.CACHE_DIR"])
def test_a_config_that_wants_files_is_refused(quick_cfg, key):
    check_config(quick_cfg("stage_c"))
    with pytest.raises(ValueError, match=f"{key} is 'folder'.* add MODEL.REC_ATTEND.{key} ''"):
        check_config(quick_cfg("stage_c", f"MODEL.REC_ATTEND.{key}", "folder"))
