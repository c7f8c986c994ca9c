"""Gradient accumulation: several batches in one optimizer step."""

import copy

import pytest
import torch
from detectron2.engine.train_loop import SimpleTrainer
from detectron2.utils.events import EventStorage
from torch import nn

from rec_attend_d2.engine import Trainer
from rec_attend_d2.engine.accumulation import AccumulatingAMPTrainer, AccumulatingTrainer, accumulating


class Regression(nn.Module):
    """Group norm, two losses; takes lists of (input, output)."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.GroupNorm(2, 4), nn.Linear(4, 1))

    def forward(self, data):
        inputs, outputs = (torch.stack(column) for column in zip(*data, strict=True))
        predicted = self.layers(inputs)
        return {"square": (predicted - outputs).square().mean(), "absolute": predicted.abs().mean()}


def pairs(count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(3)
    return [
        (
            torch.randn(3, generator=generator, dtype=torch.double),
            torch.randn(1, generator=generator, dtype=torch.double),
        )
        for _ in range(count)
    ]


def train(model: nn.Module, data: list, size: int, batches: int, steps: int) -> tuple[nn.Module, dict]:
    """``steps`` of SGD, each from ``batches`` of ``size``; the model and the last logged losses."""
    model = copy.deepcopy(model)
    loader = [data[start : start + size] for start in range(0, len(data), size)]
    trainer = SimpleTrainer(model, loader, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9))
    trainer = accumulating(trainer, batches)
    with EventStorage() as storage:
        for trainer.iter in range(steps):
            trainer.run_step()
        losses = {name: value for name, (value, _) in storage.latest().items() if "time" not in name}
    return model, losses


@pytest.mark.parametrize("batches", [2, 3])
def test_small_batches_are_as_good_as_a_large_one(batches):
    torch.manual_seed(0)
    model = Regression().double()
    data = pairs(4 * 6)
    whole, whole_losses = train(model, data, size=6, batches=1, steps=4)
    parts, parts_losses = train(model, data, size=6 // batches, batches=batches, steps=4)
    assert parts_losses == pytest.approx(whole_losses, abs=1e-12) and set(parts_losses) >= {"square", "total_loss"}
    for (name, value), before in zip(parts.state_dict().items(), model.state_dict().values(), strict=True):
        torch.testing.assert_close(value, whole.state_dict()[name], atol=1e-12, rtol=1e-12)
        assert not torch.equal(value, before)


def test_one_batch_per_step_is_detectron2s_own_trainer():
    trainer = SimpleTrainer(nn.Linear(1, 1), [], None)
    assert accumulating(trainer, 1) is trainer


@pytest.mark.filterwarnings("ignore:CUDA is not available")
def test_mixed_precision_scales_the_gradients_and_steps_once():
    class Scaler:
        steps = 0

        def scale(self, loss):
            return 8 * loss

        def step(self, optimizer):
            self.steps += 1
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    parameter.grad /= 8
            optimizer.step()

        def update(self):
            pass

    torch.manual_seed(0)
    model, data = Regression().double(), pairs(4)
    expected, _ = train(model, data, size=2, batches=2, steps=1)
    loader, optimizer = [data[:2], data[2:]], torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    trainer = AccumulatingAMPTrainer(model, loader, optimizer, grad_scaler=Scaler())
    trainer.batches = 2
    with EventStorage():
        trainer.run_step()
    assert trainer.grad_scaler.steps == 1
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, expected.state_dict()[name])


@pytest.mark.parametrize("recipe", ["stage_c", "fast"])
def test_a_training_accumulates(make_cfg, run_training, recipe):
    options = ["SOLVER.ACCUMULATE", 3, "SOLVER.MAX_ITER", 3, "SOLVER.CHECKPOINT_PERIOD", 2, "DATASETS.TEST", ()]
    cfg = make_cfg(recipe, *options, "SOLVER.IMS_PER_BATCH", 1)
    whole = run_training(cfg)
    assert len(whole) == 3
    with open(f"{cfg.OUTPUT_DIR}/last_checkpoint", "w") as file:
        file.write("model_0000001.pth")
    assert run_training(cfg) == whole[2:]


def test_batches_of_a_step_are_different_images(make_cfg):
    trainer = Trainer(make_cfg("fast", "SOLVER.ACCUMULATE", 2, "DATASETS.TEST", ()))
    assert isinstance(trainer._trainer, AccumulatingTrainer) and trainer._trainer.batches == 2
    batches = iter(trainer.data_loader)
    places = [entry["origin"][0] for _ in range(3) for entry in next(batches)]
    assert places == list(range(6))


@pytest.mark.parametrize("batches", [0, -2])
def test_a_bad_number_is_named(make_cfg, batches):
    with pytest.raises(ValueError, match=f"SOLVER.ACCUMULATE is {batches}; give at least 1"):
        Trainer(make_cfg("fast", "SOLVER.ACCUMULATE", batches))
