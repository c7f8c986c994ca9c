"""Memories that the modes of single steps train on, and the patches that they cut out."""

import dataclasses

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from rec_attend_d2.layers.boxes import CenterBoxes
from rec_attend_d2.modeling import RecAttend, Targets
from rec_attend_d2.modeling.claims import unclaimed_instances
from rec_attend_d2.modeling.inputs import StepInputs
from rec_attend_d2.modeling.step_types import Proposal

HEIGHT, WIDTH = 32, 64


# ---------------------------------------------------------------- the state pool


def inputs_of(model: RecAttend, batch: list[dict], memory: Tensor) -> tuple[StepInputs, Targets]:
    images = model.preprocess_image(batch)
    return StepInputs(images, memory, model.preprocessor(images, batch)), model.extract_targets(batch)


def memories(batch: list[dict]) -> Tensor:
    return torch.stack([entry["state"].memory for entry in batch])


@pytest.mark.parametrize("memory", ["MaxMemory", "NoOverwriteMemory", "BoundaryMemory", "FeatureMemory"])
def test_memories_grow_by_the_predicted_mask(make_fast, fast_batch, claim, memory: str):
    """Group norm, so that training and evaluation see the same."""
    model = make_fast(
        "StatePool", {"TRAINING.OWN_STEPS": 1, "NORM": "group", "MEMORY.NAME": memory, "MEMORY.FEATURES": 3}
    )
    batch = fast_batch([3, 2, 1])
    claim(model, batch, [[], [1], [0]])
    for steps in (1, 2):
        before = memories(batch)
        inputs, _ = inputs_of(model, batch, before)
        with torch.no_grad():
            mask = model.take_step(inputs, 0).mask
        model(batch)
        torch.testing.assert_close(memories(batch), model.memory.update(before, mask, inputs.extra))
        assert (memories(batch) > before).flatten(1).any(1).all()
        assert all(entry["state"].steps == steps for entry in batch)
        assert not memories(batch).requires_grad


def test_more_own_steps_go_on_only_before_the_last_instances(make_fast, fast_batch, claim):
    model = make_fast("StatePool", {"TRAINING.OWN_STEPS": 3, "NORM": "group"})
    batch = fast_batch([3, 3, 3])
    # Two more steps go on only where more than two instances are left.
    claim(model, batch, [[], [0], [0, 1, 2]])
    inputs, targets = inputs_of(model, batch, memories(batch))
    expected = []
    with torch.no_grad():
        for step in range(3):
            inputs.memory = model.memory.update(inputs.memory, model.take_step(inputs, 0).mask)
            expected.append(inputs.memory)
            left = unclaimed_instances(inputs.memory[:, None], targets).sum(2)
            assert step or left.flatten().tolist() == [3, 2, 0]  # an untrained step claims nothing
    model(batch)
    torch.testing.assert_close(memories(batch)[0], expected[2][0])
    torch.testing.assert_close(memories(batch)[1:], expected[0][1:])
    assert (expected[2] != expected[0]).flatten(1).any(1).all()
    assert all(entry["state"].steps == 1 for entry in batch)


def test_an_image_is_finished_after_a_step_with_nothing_left(make_fast, fast_batch, claim):
    model, batch = make_fast("StatePool", {"TRAINING.OWN_STEPS": 1}), fast_batch([2, 2, 0, 1])
    claim(model, batch, [[0, 1], [0], [], []])
    # The step itself claims everything, which does not count: stopping has still to be trained.
    model.attention.paste = lambda logits, window: logits.new_ones(len(logits), HEIGHT, WIDTH)
    model(batch)
    assert [entry["state"].finished for entry in batch] == [True, False, True, False]
    model(batch)
    assert all(entry["state"].finished for entry in batch)
    assert [entry["state"].steps for entry in batch] == [2] * 4


def test_missing_what_is_left_is_noted(make_fast, fast_batch, claim):
    model, batch = make_fast("StatePool", {"TRAINING.OWN_STEPS": 1}), fast_batch([2, 2, 2, 0])
    targets, propose = model.extract_targets(batch), model.box_proposer.forward

    def first_instance(inputs: StepInputs, step: int) -> Proposal:
        center, size = targets.boxes.center[:1, 0].repeat(4, 1), targets.boxes.size[:1, 0].repeat(4, 1)
        return dataclasses.replace(propose(inputs, step), boxes=CenterBoxes(center, size))

    model.box_proposer.forward = first_instance
    model.attention.paste = lambda logits, window: logits.new_zeros(len(logits), HEIGHT, WIDTH)
    claim(model, batch, [[], [0], [0, 1], []])
    for steps in (1, 2):
        model(batch)
        assert [entry["state"].misses for entry in batch] == [0, steps, 0, 0]


def test_new_images_start_from_drawn_memories(make_fast, fast_batch, fast_masks, claim):
    model, batch = make_fast("StatePool", {"TRAINING.OWN_STEPS": 1, "NORM": "group"}), fast_batch([3, 3])
    claim(model, batch, [[0, 2], [1]])
    old = batch[1]["state"].memory = torch.full((HEIGHT, WIDTH), 0.25)
    batch[0]["state"].memory = None
    model(batch)
    drawn = fast_masks([3])[0, [0, 2]].amax(0)
    assert (memories(batch)[0] >= drawn).all() and (memories(batch)[0] < 1).any()
    assert (memories(batch)[1] >= old).all() and memories(batch)[1].mean() < 0.9


def test_a_batch_without_states_is_refused(make_fast, fast_batch):
    batch = fast_batch([1, 1])
    del batch[1]["state"]
    with pytest.raises(ValueError, match="image1.png has no 'state'.*TRAINING.MODE 'StatePool'.*StatePoolLoader"):
        make_fast("StatePool")(batch)


# ---------------------------------------------------------------- drawn memories and own steps


@pytest.mark.parametrize("memory", ["MaxMemory", "BoundaryMemory", "FeatureMemory"])
def test_the_memory_is_what_writing_drawn_masks_gives(make_fast, fast_batch, fast_masks, claim, memory: str):
    model, batch = (
        make_fast("ParallelTeacherForcing", {"MEMORY.NAME": memory, "MEMORY.FEATURES": 3}),
        fast_batch([3, 1]),
    )
    claim(model, batch, [[2, 0], []])
    targets = model.extract_targets(batch)
    inputs, _ = inputs_of(model, batch, model.memory.initial(model.preprocess_image(batch)))
    drawn = torch.stack([model.training_mode.draw(model, inputs, targets, index) for index in (0, 1)])
    written = fast_masks([3])[0, [0, 2]]
    assert torch.equal(model.memory.claimed(drawn), torch.stack([written.amax(0), torch.zeros(HEIGHT, WIDTH)]))
    if memory == "FeatureMemory":
        fine, masks = inputs.extra.features[0][0, :3].detach(), written.bool()
        shares = F.avg_pool2d(written, 4)[:, None]
        means = (fine * shares).sum((2, 3)) / shares.sum((2, 3))
        # The first object was written last.
        torch.testing.assert_close(drawn[0, 1:, masks[0]], means[0, :, None].expand(-1, int(masks[0].sum())))
        assert (drawn[0, 1:, ~masks.any(0)] == 0).all()
    if memory == "BoundaryMemory":
        # The pixels whose 3x3 neighbours in the image are not all the object's.
        around = F.avg_pool2d(written[:, None], 3, stride=1, padding=1, count_include_pad=False)[:, 0]
        assert torch.equal(drawn[0, 1], (written * (around < 0.999)).amax(0))


@pytest.mark.parametrize("norm", ["shared", "group"])
def test_own_steps_leave_no_trace_but_memory(make_fast, fast_batch, claim, norm: str):
    model = make_fast("ParallelTeacherForcing", {"TRAINING.OWN_STEPS": 2, "NORM": norm})
    batch = fast_batch([3, 3, 1])
    claim(model, batch, [[], [0], []])
    inputs, targets = inputs_of(model, batch, memories(batch))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for count in (0, 1, 2):
        reached = model.training_mode.go_on(model, inputs, targets, count)
        # More than ``count`` instances have to be left; an untrained model claims none by itself.
        goes_on = [left > count > 0 for left in (3, 2, 1)]
        grown = (reached != inputs.memory).flatten(1).any(1)
        assert grown.tolist() == goes_on
        assert not reached.requires_grad
    assert model.training and all(part.training for part in model.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(("own_steps", "expected"), [(0, {0}), (2, {0, 1, 2})])
def test_every_number_of_own_steps_up_to_the_largest_is_drawn(
    make_fast, fast_batch, own_steps: int, expected: set[int]
):
    model, batch = make_fast("ParallelTeacherForcing", {"TRAINING.OWN_STEPS": own_steps}), fast_batch([3])
    inputs, targets = inputs_of(model, batch, torch.zeros(1, HEIGHT, WIDTH))
    counts = set()

    def recorded(model: RecAttend, inputs: StepInputs, targets: Targets, count: int) -> Tensor:
        counts.add(count)
        return inputs.memory

    model.training_mode.go_on = recorded
    for _ in range(40):
        model.training_mode.start(model, batch, inputs, targets)
    assert counts == expected


def test_own_steps_reach_the_trained_memory(make_fast, fast_batch, claim):
    model, batch = make_fast("ParallelTeacherForcing", {"TRAINING.OWN_STEPS": 1}), fast_batch([2])
    claim(model, batch, [[]])
    seen, propose = [], model.box_proposer.forward
    model.box_proposer.forward = lambda inputs, step: seen.append((inputs, model.training)) or propose(inputs, step)
    for _ in range(10):
        claim(model, batch, [[]])
        seen.clear()
        losses = model(batch)
        if len(seen) == 2:
            break
    (own, own_training), (trained, training) = seen
    assert not own_training and training
    assert (own.memory == 0).all() and (trained.memory > 0).any()
    # Features learn from the trained step alone.
    assert not own.extra.features[0].requires_grad and trained.extra.features[0].requires_grad
    sum(losses.values()).backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


# ---------------------------------------------------------------- patches


@pytest.mark.parametrize("true_patches", [0, 1, 5])
def test_patches_at_noisy_true_boxes_of_unclaimed_instances(make_fast, fast_batch, claim, true_patches: int):
    noise = 0.4
    overrides = {"TRAINING.TRUE_PATCHES": true_patches, "TRAINING.BOX_NOISE": noise}
    model, batch = make_fast("ParallelTeacherForcing", overrides), fast_batch([3, 3, 1])
    targets = model.extract_targets(batch)
    claimed = [[0], [0, 1, 2], []]
    unclaimed = [[1, 2], [], [0]]
    window, judge = model.attention.window, model.criterion.mask_loss
    seen, judged, moved = [], [], []
    model.attention.window = lambda boxes, proposal, size: (
        seen.append((boxes, proposal)) or window(boxes, proposal, size)
    )
    model.criterion.mask_loss = lambda pairs: judged.append(pairs) or judge(pairs)
    for _ in range(12):
        claim(model, batch, claimed)
        seen.clear()
        judged.clear()
        model.training_mode.own_steps = 0
        model(batch)
        ((boxes, proposal),) = seen
        expected = sum(min(true_patches, len(numbers)) for numbers in unclaimed)
        assert len(boxes.center) == 3 + expected
        # The patches at true boxes come after those at proposed ones, image by image.
        images = [b for b, numbers in enumerate(unclaimed) for _ in range(min(true_patches, len(numbers)))]
        assert expected <= len(judged[0].logits) <= expected + 2
        taken = set()
        for row, b in enumerate(images):
            center, size = boxes.center[3 + row], boxes.size[3 + row]
            mask = judged[0].true_masks[len(judged[0].logits) - expected + row]
            (n,) = [n for n in unclaimed[b] if torch.equal(mask, targets.masks[b, n])]
            taken.add((b, n))
            true_center, true_size = targets.boxes.center[b, n], targets.boxes.size[b, n]
            moved.append(torch.cat([(center - true_center) / true_size, torch.log(size / true_size)]))
            torch.testing.assert_close(proposal.log_size[3 + row], torch.log(size / torch.tensor([32.0, 64.0])))
        assert len(taken) == expected  # none twice
    if true_patches:
        moved_by = torch.stack(moved).abs()
        assert (moved_by[:, :2] <= noise / 2 + 1e-5).all() and (moved_by[:, 2:] <= noise + 1e-5).all()
        assert (moved_by[:, :2].amax(0) > 0.3 * noise).all() and (moved_by[:, 2:].amax(0) > 0.6 * noise).all()


def test_scores_belong_to_the_proposed_boxes(make_fast, fast_batch, claim):
    """One score per image, whatever other patches there are; the score of an image depends on its own patch."""
    model, batch = make_fast("StatePool", {"NORM": "group", "TRAINING.OWN_STEPS": 1}), fast_batch([3, 2])
    claim(model, batch, [[], []])
    inputs, _ = inputs_of(model, batch, memories(batch))
    judged, score_loss = [], model.criterion.score_loss
    model.criterion.score_loss = lambda scores, steps: judged.append(scores) or score_loss(scores, steps)
    expected = model.take_step(inputs, 0).score
    model(batch)
    torch.testing.assert_close(judged[0], expected[:, None])
    assert abs(expected[0] - expected[1]) > 1e-4
