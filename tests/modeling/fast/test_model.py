"""The fast model as a whole: glances end, images leave the batch, and training changes what it should."""

import dataclasses

import pytest
import torch
from detectron2.modeling import build_model

from rec_attend_d2.layers.boxes import CenterBoxes
from rec_attend_d2.modeling.fast.place_proposer import PlaceScan
from rec_attend_d2.modeling.steps import Cut, Feeder, Proposal, Where

from .conftest import SIZE, instances_of, rectangle


class Scripted(torch.nn.Module):
    """Stands for proposer, head and scorer: claims the centres it is told, a list per image and glance."""

    def __init__(self, script: dict[float, list[list[tuple[float, float]]]]):
        super().__init__()
        self.script = script
        self.control_cnn = torch.nn.Identity()

    def forward(self, inputs):
        """Looks at the script's centres of each image, which its first pixel names; boxes of side 7."""
        rows, centers = [], []
        for row, image in enumerate(inputs.image):
            glances = self.script[round(image[0, 0, 0].item(), 1)]
            for center in glances[min(inputs.number, len(glances) - 1)]:
                rows.append(row), centers.append(center)
        boxes = CenterBoxes(torch.tensor(centers), torch.full((len(centers), 2), 7.0))
        hidden = torch.zeros(len(rows), 1)
        return Proposal(torch.tensor(rows), boxes, hidden), PlaceScan(torch.zeros(len(inputs.image), 1, 1), boxes, 4)


def scripted(model, script):
    """The model with that proposer, a head that fills the box and a scorer that is always sure."""
    model.box_proposer = Scripted(script)
    logits = lambda patch: (torch.full((len(patch), 16, 16), 9.0), torch.zeros(len(patch), 1, 1, 1))  # noqa: E731
    model.segmentation_head.forward = logits
    model.stop_scorer.forward = lambda hidden, features: torch.full((len(hidden),), 0.9)
    return model


def entry(value: float = 0.0, size: tuple[int, int] = SIZE) -> dict:
    """A dataset dict of a uniform image; ``value`` in [0, 1] is what its pixels become."""
    return {"image": torch.full((3, *SIZE), round(value * 255), dtype=torch.uint8), "height": size[0], "width": size[1]}


def test_images_leave_when_a_glance_claims_nothing(model):
    # The last glance of each script is at what was claimed already: it claims nothing, however sure the scorer is.
    script = {
        0.2: [[(10.0, 10.0), (40.0, 40.0)], [(40.0, 40.0)]],
        0.6: [[(10.0, 50.0)], [(30.0, 20.0)], [(10.0, 50.0)]],
    }
    model = scripted(model, script)
    inputs = model.first_inputs([entry(0.2), entry(0.6)])
    with torch.no_grad():
        taken = model.unroll(inputs, 9, Feeder(), stop=True)
    assert [images for images, _ in taken] == [[0, 1], [0, 1], [1]]
    assert [step.claimed.tolist() for _, step in taken] == [[True, True, True], [False, True], [False]]
    found, _ = model.run([entry(0.2), entry(0.6)])
    assert [[int(step.claimed.sum()) for step in steps] for steps in found] == [[2, 0], [1, 1, 0]]
    assert [len(result["instances"]) for result in model([entry(0.2), entry(0.6)])] == [2, 2]


def test_each_glance_sees_the_memory_of_those_before(model):
    model = scripted(model, {0.2: [[(9.5, 9.5)], [(29.5, 29.5)], [(29.5, 29.5)]]})
    (steps,), _ = model.run([entry(0.2)])
    assert [round(step.memory.sum().item()) for step in steps] == [0, 64, 128]
    assert steps[2].memory[0, 30, 30] > 0.99


def test_results_have_the_files_size(model):
    model = scripted(model, {0.2: [[(9.5, 9.5)], [(9.5, 9.5)]]})
    found = model([entry(0.2, (128, 288))])[0]["instances"]
    assert found.image_size == (128, 288)
    assert found.pred_boxes.tensor.tolist() == [[18, 12, 42, 28]]  # columns times 3, rows times 2


def test_small_objects_are_left_out(model):
    model = scripted(model, {0.2: [[(9.5, 9.5)], [(9.5, 9.5)]]})
    model.min_area = 64
    assert len(model([entry(0.2)])[0]["instances"]) == 0


def test_a_fresh_model_ends(model):
    found = model([entry(0.2), entry(0.6)])
    assert all(len(result["instances"]) <= 24 for result in found)


def training_entries(classes: list[int] | None = None) -> list[dict]:
    first = instances_of([rectangle(8, 8, 24, 32), rectangle(40, 60, 12, 12)], classes)
    return [{**entry(0.3), "instances": objects} for objects in (first, instances_of([]))]


def test_training_gives_finite_losses_and_gradients_everywhere(model):
    model.train()
    torch.manual_seed(0)
    entries = training_entries()
    losses = model(entries)
    assert set(losses) == {"loss_place", "loss_object", "loss_box", "loss_score", "loss_mask"}
    sum(losses.values()).backward()
    assert all(loss.isfinite() for loss in losses.values())
    missing = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert missing == []


def test_classes_are_learned_where_there_are_several(cfg):
    cfg.MODEL.REC_ATTEND.NUM_CLASSES = 3
    model = build_model(cfg).train()
    losses = model(training_entries([2, 1]))
    assert losses["loss_class"] > 0
    with pytest.raises(ValueError, match="object of class 3 .*NUM_CLASSES is 3"):
        model(training_entries([3, 1]))


def test_recomputing_gives_the_same_gradients_and_statistics(cfg):
    gradients = []
    for recompute in (False, True):
        cfg.MODEL.REC_ATTEND.TRAINING.RECOMPUTE = recompute
        torch.manual_seed(0)
        model = build_model(cfg).train()
        torch.manual_seed(1)
        sum(model(training_entries()).values()).backward()
        gradients.append([p.grad for p in model.parameters()] + list(model.buffers()))
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second)


def test_training_needs_instances(model):
    model.train()
    with pytest.raises(ValueError, match="no 'instances'"):
        model([entry()])


def test_steps_of_an_image_are_those_of_a_batch_of_one(model):
    inputs = model.first_inputs([entry(0.2), entry(0.7)])
    with torch.no_grad():
        step = model.step(inputs, Feeder())
        model.remember(inputs, step, Feeder())
        alone_inputs = dataclasses.replace(model.first_inputs([entry(0.7)]))
        alone = model.step(alone_inputs, Feeder())
    own = step.of_image(1)
    assert own.proposal.image.unique().tolist() == [0] and own.memory.shape == (1, *SIZE)
    torch.testing.assert_close(own.score, alone.score, rtol=1e-4, atol=1e-5)
    assert isinstance(own.where, Where) and isinstance(own.cut, Cut)


def test_half_precision_finds_about_the_same(cfg):
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    torch.nn.init.constant_(model.segmentation_head.mask.bias, 3.0)
    model.stop_threshold = 0.2
    full = model.run([entry(0.5)])[0][0][0]
    model.precision = "bfloat16"
    half = model.run([entry(0.5)])[0][0][0]
    assert half.score.dtype == torch.bfloat16 and half.where.boxes.center.dtype == torch.float32
    torch.testing.assert_close(half.scan.heat().float(), full.scan.heat(), rtol=0, atol=0.02)
    assert len(model([entry(0.5)])[0]["instances"]) >= 1


def test_infinite_logits_are_named(model):
    model.train()
    torch.nn.init.constant_(model.box_proposer.place.bias, torch.nan)
    with pytest.raises(FloatingPointError, match="logits of places are not finite"):
        model(training_entries())
