"""The loss of validation images: what it is, and that computing it changes nothing."""

import copy
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model

from rec_attend_d2.engine import Trainer
from rec_attend_d2.engine.validation import ValidationBatches, as_in_training, validation_losses


@pytest.fixture(params=["stage_b", "stage_c", "fast", "KITTI/stage_a"])
def cfg(request, make_cfg):
    return make_cfg(request.param, "SOLVER.IMS_PER_BATCH", 2)


def test_losses_are_finite_the_same_each_time_and_leave_no_trace(cfg):
    torch.manual_seed(0)
    model, batches = build_model(cfg), ValidationBatches(cfg)
    assert [len(batch) for batch in batches] == [2, 2, 1] and len(batches) == 3
    state = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    losses = validation_losses(model, batches)
    assert random.getstate() == before[0] and np.random.get_state()[1].tolist() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    torch.rand(3)
    assert validation_losses(model, batches) == losses
    assert np.isfinite(list(losses.values())).all() and len(losses) > 1
    total = losses.pop("val_loss")
    assert total == pytest.approx(sum(losses.values())) and all(name.startswith("val_loss_") for name in losses)


def test_the_loss_is_that_of_training(make_cfg):
    """Stage B draws nothing but noise on memories; without it the loss is the model's own, batch by batch."""
    cfg = make_cfg("stage_b", "SOLVER.IMS_PER_BATCH", 5, "MODEL.REC_ATTEND.SCHEDULED_SAMPLING.MASK_NOISE", 0.0)
    torch.manual_seed(0)
    model, batches = build_model(cfg).train(), ValidationBatches(cfg)
    losses = validation_losses(model, batches)
    expected = model(next(iter(batches)))
    del expected["loss_weight_decay"]
    assert len(losses) == 1 + len(expected)
    for name, value in expected.items():
        assert losses[f"val_{name}"] == pytest.approx(value.item(), abs=1e-6)


def test_scheduled_sampling_is_at_its_end_and_comes_back(make_cfg):
    model = build_model(make_cfg("stage_c")).train()
    model.scheduled_sampling.iteration = 3
    with as_in_training(model):
        assert model.scheduled_sampling.mask_probability(2) == 0
    assert model.scheduled_sampling.iteration == 3 and model.scheduled_sampling.mask_probability(2) > 0


def test_it_all_comes_back_after_an_error(make_cfg):
    model = build_model(make_cfg("stage_c")).eval()
    with pytest.raises(RuntimeError), as_in_training(model):
        assert model.training and not torch.is_grad_enabled()
        raise RuntimeError
    assert not model.training and torch.is_grad_enabled()


@pytest.mark.parametrize(("count", "expected"), [(0, []), (1, ["0"]), (3, ["0", "2", "4"]), (99, list("01234"))])
def test_images_are_spread_over_the_data_set(make_cfg, count, expected):
    batches = ValidationBatches(make_cfg("stage_c", "TEST.LOSS_IMAGES", count))
    assert [Path(entry["file_name"]).stem for batch in batches for entry in batch] == expected


def test_a_negative_number_is_named(make_cfg):
    with pytest.raises(ValueError, match="TEST.LOSS_IMAGES is -1; give 0"):
        ValidationBatches(make_cfg("stage_c", "TEST.LOSS_IMAGES", -1))


class Untested(Trainer):
    """Evaluates nothing but the loss."""

    @classmethod
    def test(cls, cfg, model, evaluators=None) -> dict:
        return {}


def test_trainings_log_it_of_the_averaged_weights(make_cfg):
    cfg = make_cfg("fast", "SOLVER.MAX_ITER", 5, "TEST.EVAL_PERIOD", 2, "TEST.BEST_METRIC", "")
    trainer = Untested(cfg)
    trainer.train()
    lines = [json.loads(line) for line in (Path(cfg.OUTPUT_DIR) / "metrics.json").read_text().splitlines()]
    logged = {entry["iteration"]: entry for entry in lines if "val_loss" in entry}
    assert set(logged) >= {4}
    assert validation_losses(trainer._tested_model, ValidationBatches(cfg)).items() <= logged[4].items()
    assert logged[4]["val_loss"] != validation_losses(trainer.model, ValidationBatches(cfg))["val_loss"]


def test_images_without_annotations_have_no_loss(make_cfg, monkeypatch):
    cfg = make_cfg("stage_c", "SOLVER.MAX_ITER", 1)
    monkeypatch.setattr("rec_attend_d2.engine.validation.DatasetCatalog.get", lambda name: [{"file_name": "x.png"}])
    assert len(ValidationBatches(cfg)) == 0 and list(ValidationBatches(cfg)) == []
