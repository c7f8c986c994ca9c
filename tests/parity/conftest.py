"""The original code's printed numbers, and the model that should reproduce them."""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch import Tensor

from rec_attend_d2.checkpoint import convert_original_weights
from rec_attend_d2.modeling.image_model import ImageModel
from rec_attend_d2.modeling.paper.sequence import StepSequence
from rec_attend_d2.modeling.paper.targets import Targets
from rec_attend_d2.modeling.steps import ExtraMaps, StepInputs

TESTS = Path(__file__).resolve().parents[1]
SHARED = Path(os.environ.get("REC_ATTEND_REFERENCE", TESTS.parents[1] / "shared" / "reference"))
# Copies of problems without their trained weights, so that a clone alone still proves something.
COPIES = TESTS / "reference"


def _find(name: str) -> Path:
    for folder in (SHARED, COPIES):
        if (folder / f"{name}.npz").is_file():
            return folder / f"{name}.npz"
    pytest.skip(f"{name}.npz is not in {SHARED} (set REC_ATTEND_REFERENCE) and has no copy in tests/reference")


@dataclass
class Problem:
    """One problem: what the original was given and printed, and our model with its weights."""

    name: str
    data: dict[str, np.ndarray]
    options: dict
    cfg: CfgNode
    model: ImageModel

    def with_prefix(self, prefix: str) -> dict[str, np.ndarray]:
        """Arrays whose name starts with ``prefix/``, without it."""
        return {key[len(prefix) + 1 :]: value for key, value in self.data.items() if key.startswith(f"{prefix}/")}

    def image_like(self, key: str) -> Tensor | None:
        """An array [B, H, W, C] of the problem as [B, C, H, W]; None where it has no such array."""
        if key not in self.data:
            return None
        return torch.from_numpy(self.data[key]).permute(0, 3, 1, 2).to(self.model.pixel_mean.dtype).contiguous()

    @property
    def images(self) -> Tensor:
        images = self.image_like("in/x")
        assert images is not None
        return images

    @property
    def targets(self) -> Targets:
        node = self.cfg.MODEL.REC_ATTEND.LOSS
        masks = torch.from_numpy(self.data["in/y_gt"]).to(self.model.pixel_mean.dtype)
        return Targets.from_masks(masks, node.BOX_PADDING_RATIO, node.BOX_PADDING_PIXELS)

    def sequence(self) -> StepSequence:
        """All steps of stage B or C, in the mode that the model is in."""
        images = self.images
        maps = ExtraMaps(angle=self.image_like("in/d_in"), foreground=self.image_like("in/y_in"))
        inputs = StepInputs(images, torch.zeros_like(images[:, 0]), maps)
        return self.model.sequence(inputs, self.model.feeder(self.targets))


@pytest.fixture
def load_problem() -> Callable[[str], Problem]:
    """Loader of a problem by its file's name."""

    def load(name: str) -> Problem:
        with np.load(_find(name), allow_pickle=False) as file:
            data = dict(file)
        options = json.loads(data["meta"].item().decode())["opt"]
        weights = {key[2:]: value for key, value in data.items() if key.startswith("w/")}
        cfg, state = convert_original_weights(weights, options)
        model = build_model(cfg)
        model.load_state_dict(state)
        return Problem(name, data, options, cfg, model)

    return load
