"""Re-estimated running statistics are the plain mean over the batches."""

from pathlib import Path

import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_model

from rec_attend_d2 import add_rec_attend_config
from rec_attend_d2.checkpoint import estimate_running_statistics

CONFIG = Path(__file__).resolve().parents[2] / "tests" / "configs" / "stage_c.yaml"


@pytest.fixture(params=["per_step", "shared"])
def model(request):
    cfg = get_cfg()
    add_rec_attend_config(cfg)
    cfg.merge_from_file(str(CONFIG))
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.REC_ATTEND.NORM = request.param
    torch.manual_seed(0)
    return build_model(cfg).eval()


def make_batches(number: int) -> list[list[dict]]:
    generator = torch.Generator().manual_seed(0)
    size = (3, 32, 48)
    return [[{"image": torch.randint(0, 256, size, generator=generator).to(torch.uint8)}] for _ in range(number)]


def test_plain_mean_over_batches(model):
    batches = make_batches(3)
    norm = model.box_proposer.control_cnn.layers[0].norm
    conv = model.box_proposer.control_cnn.layers[0].conv
    momentum = norm.momentum
    assert estimate_running_statistics(model, batches) == 3
    assert norm.momentum == momentum and not model.training
    # At the first step the memory is empty, so the norm's input is known.
    if len(norm.running_mean) > 1:
        inputs = [torch.cat([model.preprocess_image(b), torch.zeros(1, 1, 32, 48)], dim=1) for b in batches]
        features = [conv(x) for x in inputs]
        mean = torch.stack([f.mean((0, 2, 3)) for f in features]).mean(0)
        var = torch.stack([f.var((0, 2, 3), unbiased=False) for f in features]).mean(0)
        torch.testing.assert_close(norm.running_mean[0], mean, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(norm.running_var[0], var, rtol=1e-4, atol=1e-6)


def test_the_order_of_batches_makes_no_difference(model):
    batches = make_batches(3)
    norm = model.box_proposer.control_cnn.layers[0].norm
    estimate_running_statistics(model, batches)
    first = norm.running_var.clone()
    estimate_running_statistics(model, batches[::-1])
    torch.testing.assert_close(norm.running_var, first, rtol=1e-4, atol=1e-6)


def test_no_batch_is_an_error(model):
    with pytest.raises(ValueError, match="No images"):
        estimate_running_statistics(model, [])
