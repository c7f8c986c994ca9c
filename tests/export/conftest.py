"""Fixtures of the export tests: small models whose norms and scores differ from step to step."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from detectron2.modeling import build_model
from torch import Tensor, nn

from rec_attend_d2.config import load_config
from rec_attend_d2.layers.step_norm import PerStepBatchNorm
from rec_attend_d2.modeling import RecurrentAttention

CONFIGS = Path(__file__).resolve().parents[2] / "tests" / "configs"


def randomize_norms(model: nn.Module) -> None:
    """Give every row of every batch norm weights and statistics of its own."""
    for module in model.modules():
        if isinstance(module, PerStepBatchNorm):
            for values in (module.weight, module.running_var):
                nn.init.uniform_(values, 0.5, 1.5)
            for values in (module.bias, module.running_mean):
                nn.init.uniform_(values, -0.5, 0.5)


@pytest.fixture(scope="session")
def quick_model() -> Callable[..., nn.Module]:
    """A function from a quick schedule's name and config changes to its model in evaluation mode."""

    def make(name: str, *options: str) -> nn.Module:
        torch.manual_seed(0)
        cfg = load_config(str(CONFIGS / f"{name}.yaml"), ["MODEL.DEVICE", "cpu", *options])
        model = build_model(cfg).eval()
        randomize_norms(model)
        return model

    return make


@pytest.fixture(scope="session")
def images() -> Callable[..., Tensor]:
    """A function from a model and a number B to the same B images [B, 3, H, W] in [0, 1] every time, of its size."""

    def make(model: RecurrentAttention, count: int) -> Tensor:
        return torch.rand(count, 3, *(model.image_size or (64, 64)), generator=torch.Generator().manual_seed(1))

    return make
