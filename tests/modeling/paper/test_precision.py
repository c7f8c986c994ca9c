"""Inference in other precisions than float32."""

import copy

import torch
from detectron2.modeling import build_model


def test_half_precision_is_close_and_not_the_same(make_model, make_batch):
    plain, batch = make_model({"TEST.STOP_EARLY": False, "TEST.MASK_THRESHOLD": 0.002}), make_batch([2, 1])
    plain(batch)  # norm statistics
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
