"""TRAINING.RECOMPUTE: the same training with fewer activations kept."""

from collections.abc import Callable

import pytest
import torch
from detectron2.modeling import build_model
from torch import Tensor


def train_once(cfg, batch: list[dict], recompute: bool) -> tuple[dict[str, Tensor], int]:
    """Losses, gradients and statistics by name after one backward pass, and the bytes that were kept for it."""
    torch.manual_seed(0)
    cfg.MODEL.REC_ATTEND.TRAINING.RECOMPUTE = recompute
    model = build_model(cfg)
    torch.manual_seed(1)
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        losses = model(batch)
    sum(losses.values()).backward()
    gradients = {f"grad {name}": p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert any(gradient.abs().sum() > 0 for gradient in gradients.values())
    return {**losses, **gradients, **dict(model.named_buffers())}, sum(kept.values())


def check(make_cfg: Callable, batch: list[dict]) -> None:
    plain, kept = train_once(make_cfg(), batch, False)
    again, kept_again = train_once(make_cfg(), batch, True)
    assert plain.keys() == again.keys()
    for name, tensor in plain.items():
        assert torch.equal(again[name], tensor), name
    assert kept_again < 0.7 * kept


@pytest.mark.parametrize("architecture", ["RecAttend", "RecAttendBoxProposer"])
@pytest.mark.parametrize("norm", ["per_step", "shared"])
def test_all_steps_of_an_image(tiny_cfg, make_batch, architecture: str, norm: str):
    def make():
        cfg = tiny_cfg({"NORM": norm})
        cfg.MODEL.META_ARCHITECTURE = architecture
        return cfg

    check(make, make_batch([2, 1]))
