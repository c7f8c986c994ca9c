"""Inference compiled, and in other precisions."""

import copy
import shutil
from functools import cache, partial

import pytest
import torch
from detectron2.modeling import build_model

from rec_attend_d2.modeling import RecAttend, inference
from rec_attend_d2.modeling.inference import Found, autocast

ALL_STEPS = {"TEST.STOP_EARLY": False, "TEST.MASK_THRESHOLD": 0.002}


@torch.no_grad()
def found(model: RecAttend, batch: list[dict]) -> list[Found]:
    """What the steps of every image find."""
    images = model.eval().preprocess_image(batch)
    return model._infer(images, model.preprocessor(images, batch))


@torch.no_grad()
def change_weights(model: RecAttend) -> None:
    """Take away a third of every weight."""
    for parameter in model.parameters():
        parameter.mul_(2 / 3)


@pytest.fixture
def pair(make_model, make_batch) -> tuple[RecAttend, RecAttend]:
    """A model, and one of the same weights whose steps are compiled."""
    plain, compiled = make_model(ALL_STEPS), make_model({**ALL_STEPS, "TEST.COMPILE": True})
    plain(make_batch([2, 1]))  # norm statistics
    compiled.load_state_dict(plain.state_dict())
    return plain, compiled


def assert_same(got: list[Found], expected: list[Found]) -> None:
    """Both found the same but for rounding."""
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a.scores, b.scores, atol=1e-6, rtol=0)
        torch.testing.assert_close(a.masks, b.masks, atol=1e-6, rtol=0)


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_steps_find_the_same(pair, make_batch):
    plain, compiled = pair
    batch = make_batch([2])
    assert_same(found(compiled, batch), found(plain, batch))


@pytest.fixture
def traced(monkeypatch) -> None:
    """Steps are captured as they are for compilation, and then run without the compiler, which takes minutes."""
    monkeypatch.setattr(inference, "_compiled", cache(partial(torch.compile, backend="eager")))


@pytest.mark.usefixtures("traced")
def test_a_copy_of_a_compiled_model_is_a_model_of_its_own(pair, make_batch):
    plain, compiled = pair
    batch = make_batch([2])
    expected = found(compiled, batch)
    # As averaged weights are a copy.
    changed, changed_plain = copy.deepcopy(compiled), copy.deepcopy(plain)
    change_weights(changed)
    change_weights(changed_plain)
    got = found(changed, batch)
    assert_same(got, found(changed_plain, batch))
    assert (got[0].masks - expected[0].masks).abs().max() > 1e-4


@pytest.mark.usefixtures("traced")
def test_images_leave_the_batch_of_a_compiled_model(pair, make_batch):
    batch = make_batch([2, 1, 0])
    for model in pair:
        model.stop_early = True
    first = torch.cat([image.scores[:1] for image in found(pair[0], batch)])
    for model in pair:
        model.stop_threshold = first.median().item()
    expected = found(pair[0], batch)
    assert len({len(image.scores) for image in expected}) > 1
    assert_same(found(pair[1], batch), expected)


def test_half_precision_is_close_and_not_the_same(pair, make_batch):
    plain, batch = pair[0], make_batch([2, 1])
    half = copy.deepcopy(plain)
    half.precision = "bfloat16"
    with torch.no_grad():
        expected, got = ([output["instances"] for output in model.eval()(batch)] for model in (plain, half))
    for a, b in zip(got, expected, strict=True):
        assert a.scores.dtype == torch.float32 and len(a) > 0 and len(b) > 0
        assert (a.scores[0] - b.scores[0]).abs() < 0.02
        assert not torch.equal(a.scores[:1], b.scores[:1])


def test_training_stays_in_single_precision(make_model, make_batch):
    plain, half = make_model(), make_model({"TEST.AUTOCAST": "bfloat16"})
    half.load_state_dict(plain.state_dict())
    batch = make_batch([2, 1])
    losses = []
    for model in (plain, half):
        torch.manual_seed(1)  # scheduled sampling draws
        losses.append({name: loss.item() for name, loss in model.train()(batch).items()})
    assert losses[0] == losses[1]


def test_stage_b_in_half_precision(tiny_cfg, make_batch):
    cfg = tiny_cfg({"TEST.AUTOCAST": "bfloat16", "TEST.SCORE_THRESHOLD": 0.0})
    cfg.MODEL.META_ARCHITECTURE = "RecAttendBoxProposer"
    with torch.no_grad():
        (output,) = build_model(cfg).eval()(make_batch([2]))
    instances = output["instances"]
    assert instances.scores.dtype == instances.pred_boxes.tensor.dtype == torch.float32 and len(instances) > 0


@pytest.mark.parametrize("precision", ["float16", "half"])
def test_a_precision_that_the_device_lacks(precision: str):
    with pytest.raises(ValueError, match=rf"TEST.AUTOCAST is '{precision}'.*\['bfloat16'\]"):
        autocast(torch.device("cpu"), precision)
