"""Fixtures of the tests of training modes: models of the fast recipe, and batches and memories for them."""

from collections.abc import Callable, Sequence

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Instances
from torch import Tensor

from rec_attend_d2.data import ImageState
from rec_attend_d2.modeling import RecAttend
from rec_attend_d2.modeling.step_types import ExtraMaps

HEIGHT, WIDTH = 32, 64
# First row, first column, last row, last column; largest first.
RECTANGLES = ((3, 2, 15, 25), (18, 34, 28, 51), (4, 40, 11, 55))


@pytest.fixture
def make_fast(fast_cfg) -> Callable[..., RecAttend]:
    """A function from a training mode and config overrides to a model in training mode."""

    def make(mode: str, overrides: dict | None = None) -> RecAttend:
        return build_model(fast_cfg({**(overrides or {}), "TRAINING.MODE": mode}))

    return make


@pytest.fixture
def fast_masks() -> Callable[[Sequence[int]], Tensor]:
    """A function from the number of objects of every image to masks [B, 3, HEIGHT, WIDTH]."""

    def make(counts: Sequence[int]) -> Tensor:
        masks = torch.zeros(len(counts), len(RECTANGLES), HEIGHT, WIDTH)
        for b, count in enumerate(counts):
            for n, (y0, x0, y1, x1) in enumerate(RECTANGLES[:count]):
                masks[b, n, y0 : y1 + 1, x0 : x1 + 1] = 1
        return masks

    return make


@pytest.fixture
def fast_batch(fast_masks) -> Callable[[Sequence[int]], list[dict]]:
    """A function from the number of objects of every image to dataset dicts as StatePoolLoader gives new ones."""

    def make(counts: Sequence[int]) -> list[dict]:
        generator, batch = torch.Generator().manual_seed(0), []
        for index, masks in enumerate(fast_masks(counts).bool()):
            image = torch.randint(0, 80, (3, HEIGHT, WIDTH), dtype=torch.uint8, generator=generator)
            image += (masks.any(0) * 150).to(torch.uint8)
            instances = Instances((HEIGHT, WIDTH))
            instances.gt_masks = BitMasks(masks[: counts[index]])
            entry = {"image": image, "instances": instances, "state": ImageState()}
            batch.append({**entry, "file_name": f"image{index}.png"})
        return batch

    return make


@pytest.fixture
def claim() -> Callable[[RecAttend, list[dict], list[list[int]]], None]:
    """A function that sets, whatever the mode, which instances of every image the memories to train on hold."""

    # For a memory that keeps some.
    extra = ExtraMaps(features=(torch.ones(1, 4, HEIGHT // 4, WIDTH // 4),))

    def set_memories(model: RecAttend, batch: list[dict], claimed: list[list[int]]) -> None:
        for entry, numbers in zip(batch, claimed, strict=True):
            memory = model.memory.initial(torch.zeros(1, 3, HEIGHT, WIDTH))
            for n in numbers:
                memory = model.memory.update(memory, entry["instances"].gt_masks.tensor[n : n + 1].float(), extra)
            entry["state"].memory = memory[0]
        drawn = iter([torch.tensor(numbers, dtype=torch.int64) for numbers in claimed])
        if hasattr(model.training_mode, "drawn_memories"):
            model.training_mode.drawn_memories.draw = lambda masks: masks[next(drawn)]

    return set_memories
