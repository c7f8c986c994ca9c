"""The fast model as a whole: glances end, images leave the batch, and training changes what it should."""

import dataclasses

import pytest
import torch
from detectron2.modeling import build_model

from rec_attend_d2.layers.boxes import CenterBoxes
from rec_attend_d2.modeling.fast.place_proposer import PlaceScan
from rec_attend_d2.modeling.steps import Cut, Feeder, Proposal, Where

from .conftest import SIZE, label_image, rectangle


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


def entry(value: float = 0.0, size: tuple[int, int] = SIZE, network_size: tuple[int, int] = SIZE) -> dict:
    """A dataset dict of a uniform image of a file of ``size``; ``value`` in [0, 1] is what its pixels become."""
    image = torch.full((3, *network_size), round(value * 255), dtype=torch.uint8)
    return {"image": image, "height": size[0], "width": size[1]}


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


def test_specks_are_left_out(model):
    model = scripted(model, {0.2: [[(9.5, 9.5)], [(9.5, 9.5)]]})
    assert len(model([entry(0.2)])[0]["instances"]) == 1
    model.sizes = dataclasses.replace(model.sizes, width=60.0)
    assert model.sizes.smallest_area > 64
    assert len(model([entry(0.2)])[0]["instances"]) == 0


def test_a_fresh_model_ends(model):
    found = model([entry(0.2), entry(0.6)])
    assert all(len(result["instances"]) <= 24 for result in found)


# ---------------------------------------------------------------- images of any size


def noisy(height: int, width: int) -> dict:
    """A dataset dict of a picture of noise, of a file twice as large."""
    image = torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(width))
    return {"image": image, "height": 2 * height, "width": 2 * width}


@pytest.fixture
def eager(model):
    """A model with random weights that claims whatever it looks at."""
    torch.nn.init.normal_(model.box_proposer.place.weight)
    torch.nn.init.zeros_(model.box_proposer.place.bias)
    model.box_proposer.initial_size = 5.0
    torch.nn.init.constant_(model.segmentation_head.mask.bias, 3.0)
    model.stop_threshold = 0.0
    return model


def test_images_of_different_sizes_are_each_as_alone(eager):
    entries = [noisy(64, 96), noisy(40, 50), noisy(64, 96), noisy(1, 70), noisy(33, 32), noisy(1, 1)]
    together = eager(entries)
    for entry_, result in zip(entries, together, strict=True):
        own, alone = result["instances"], eager([entry_])[0]["instances"]
        assert own.image_size == (entry_["height"], entry_["width"])
        torch.testing.assert_close(own.scores, alone.scores, rtol=1e-4, atol=1e-5)
        differing = (own.pred_masks.numpy() != alone.pred_masks.numpy()).mean() if len(own) else 0
        assert differing < 1e-3
    assert all(len(result["instances"]) > 1 for result in together[:2])


def test_batches_are_padded_to_what_the_encoder_needs(model):
    entries = [noisy(40, 50), noisy(33, 70)]
    inputs = model.first_inputs(entries)
    assert inputs.image_size == (64, 96)
    for row, (height, width) in enumerate([(40, 50), (33, 70)]):
        torch.testing.assert_close(inputs.image[row, :, :height, :width], entries[row]["image"] / 255)
        inside = torch.zeros(64, 96, dtype=torch.bool)
        inside[:height, :width] = True
        assert (inputs.image[row, :, ~inside] == 0).all()
        assert torch.equal(inputs.memory[row] == 0, inside) and torch.equal(inputs.memory[row] == 1, ~inside)


def test_nothing_is_claimed_outside_of_an_image(eager):
    (steps,), _ = eager.run([noisy(40, 50)])
    centers, claimed = torch.cat([step.where.boxes.center for step in steps]), torch.cat([s.claimed for s in steps])
    sizes = torch.cat([step.where.boxes.size for step in steps])
    outside = (centers - sizes / 2 >= torch.tensor([40.0, 50.0])).any(1)
    assert outside.sum() > 3 and claimed.sum() > 3 and not (claimed & outside).any()


def test_a_mask_in_the_padding_is_no_object(model):
    model = scripted(model, {0.2: [[(20.0, 20.0), (20.0, 60.0)], [(20.0, 60.0)]]})
    (steps,), _ = model.run([entry(0.2, network_size=(40, 50))])
    assert [step.claimed.tolist() for step in steps] == [[True, False], [False]]


# ---------------------------------------------------------------- training


def training_entries(classes: tuple[int, int] = (0, 0)) -> list[dict]:
    masks = [rectangle(8, 8, 24, 32), rectangle(40, 60, 12, 12)]
    none = torch.zeros(0, dtype=torch.int64)
    return [
        {**entry(0.3), "labels": label_image(masks), "gt_classes": torch.tensor(classes)},
        {**entry(0.3), "labels": label_image([]), "gt_classes": none},
    ]


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
    losses = model(training_entries((2, 1)))
    assert losses["loss_class"] > 0
    with pytest.raises(ValueError, match="object of class 3 .*NUM_CLASSES is 3"):
        model(training_entries((3, 1)))


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


def test_windows_in_which_all_is_taken_can_be_trained_on(model):
    entries = training_entries()
    entries[0]["labels"], entries[0]["gt_classes"] = torch.full(SIZE, -1, dtype=torch.int32), entries[1]["gt_classes"]
    losses = model.train()(entries)
    assert all(loss.isfinite() for loss in losses.values()) and losses["loss_mask"] == 0


def test_training_needs_labels(model):
    model.train()
    with pytest.raises(ValueError, match="no 'labels'"):
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
