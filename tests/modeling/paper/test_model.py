"""The full model: losses and gradients of every option, the properties of the unroll, and inference."""

import numpy as np
import pytest
import torch
from torch import Tensor

from rec_attend_d2.modeling import RecAttend
from rec_attend_d2.modeling.paper.sequence import StepSequence
from rec_attend_d2.modeling.paper.targets import Targets
from rec_attend_d2.modeling.steps import ExtraMaps, Feeder, StepInputs

B, T, H, W = 2, 3, 32, 48
LOSSES = {"loss_mask", "loss_box", "loss_score", "loss_weight_decay"}
GIVEN_MAPS = {
    "PREPROCESSOR.NAME": "GivenMaps",
    "PREPROCESSOR.ANGLE_BINS": 8,
    "PREPROCESSOR.FOREGROUND_CLASSES": 1,
    "BOX_PROPOSER.INPUTS": ["image", "memory", "angle", "foreground"],
    "SEGMENTATION_HEAD.INPUTS": ["image", "memory", "angle"],
}
SEMANTIC_MAPS = {**GIVEN_MAPS, "PREPROCESSOR.FOREGROUND_CLASSES": 3}
# Every value of every option stands somewhere, and different options are mixed.
OPTIONS = {
    "default": {},
    "learned filters": {"ATTENTION.FILTER_VARIANCE": "learned", "ATTENTION.LEARN_GAINS": True},
    "unit filters": {"ATTENTION.FILTER_VARIANCE": "unit", "BOX_PROPOSER.SQUASH": True, "NORM": "shared"},
    "no norm": {"NORM": "none", "INIT": "truncated_normal", "LOSS.BOX_OVERLAP": "corners"},
    "no overwrite": {"NO_OVERWRITE": True, "LOSS.MASK": "bce", "LOSS.BOX": "bce"},
    "coverage": {"LOSS.MASK": "weighted_coverage", "LOSS.BOX": "weighted_coverage"},
    "fixed order": {"LOSS.MATCHER": "in_order"},
    "mse": {"LOSS.BOX": "mse", "SCHEDULED_SAMPLING.TRUTH_CHOICE": "any", "ATTENTION.LEARN_GAINS": True},
    "huber": {"LOSS.BOX": "huber", "LOSS.BOX_OVERLAP": "corners", "SCHEDULED_SAMPLING.ENABLED": False},
    "box mlp": {"BOX_PROPOSER.BOX_MLP_DIMS": [10], "BOX_PROPOSER.GLIMPSE_MLP_LAYERS": 1, "NORM": "shared"},
    "one glimpse": {"BOX_PROPOSER.GLIMPSES": 1},
    "angle and foreground": GIVEN_MAPS,
    "semantic classes": SEMANTIC_MAPS,
    "nets see different maps": {**GIVEN_MAPS, "BOX_PROPOSER.INPUTS": ["angle"], "SEGMENTATION_HEAD.INPUTS": ["image"]},
}


def batch_for(make_batch, overrides: dict, counts: list[int]) -> list[dict]:
    return make_batch(
        counts,
        angle_bins=overrides.get("PREPROCESSOR.ANGLE_BINS", 0),
        foreground_classes=overrides.get("PREPROCESSOR.FOREGROUND_CLASSES", 0),
    )


def targets_of(model: RecAttend, batch: list[dict]) -> Targets:
    return model.extract_targets(batch)


def warmed_up(model: RecAttend, batch: list[dict]) -> RecAttend:
    """In evaluation mode, with norm statistics of a few training steps and boxes of some size."""
    model.train()
    for _ in range(3):
        model(batch)
    return model.eval()


# ---------------------------------------------------------------- training


@pytest.mark.parametrize("counts", [[2, 1], [3, 0], [0, 0]], ids=str)
@pytest.mark.parametrize("overrides", OPTIONS.values(), ids=OPTIONS.keys())
def test_losses_and_gradients_of_every_option(make_model, make_batch, overrides: dict, counts: list[int]):
    model = make_model(overrides)
    losses = model(batch_for(make_batch, overrides, counts))
    assert set(losses) == LOSSES
    assert all(loss.ndim == 0 and torch.isfinite(loss) for loss in losses.values())
    assert losses["loss_weight_decay"] > 0 and losses["loss_score"] > 0
    sum(losses.values()).backward()
    # Distributed training looks for no unused parameters: each one needs a gradient in every batch.
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


@pytest.mark.parametrize("overrides", OPTIONS.values(), ids=OPTIONS.keys())
def test_objects_teach_every_part(make_model, make_batch, overrides: dict):
    model = make_model({**overrides, "LOSS.WEIGHT_DECAY": 0.0})
    losses = model(batch_for(make_batch, overrides, [3, 2]))
    (losses["loss_mask"] + losses["loss_box"]).backward()
    for part in (model.box_proposer.control_cnn, model.box_proposer.box, model.segmentation_head):
        assert max(parameter.grad.abs().max() for parameter in part.parameters()) > 0


def test_a_batch_without_objects_has_no_mask_and_box_loss(make_model, make_batch):
    losses = make_model()(make_batch([0, 0]))
    assert losses["loss_mask"] == losses["loss_box"] == 0


def test_more_steps_than_objects_teach_the_rest_to_stop(make_model, make_batch, run_steps):
    model = make_model({"LOSS.WEIGHT_DECAY": 0.0})
    batch = make_batch([1, 1])
    sequence = run_steps(model, batch, truth=True)
    sequence.steps.score.retain_grad()
    model.compute_losses(sequence, targets_of(model, batch)).losses["loss_score"].backward()
    # Gradient descent raises the score of the first step, unless a later one is the highest; the rest only falls.
    assert (sequence.steps.score.grad[:, 1:] >= 0).all()
    assert (sequence.steps.score.grad[:, 1:].sum(1) > 0).all()


def test_a_few_steps_of_training_lower_the_loss(make_model, make_batch):
    model, batch = make_model({"SCHEDULED_SAMPLING.ENABLED": False}), make_batch([2, 1])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    history = []
    for _ in range(25):
        loss = sum(model(batch).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert np.mean(history[-3:]) < history[0] - 0.3


# ---------------------------------------------------------------- the unroll


def check_shapes(sequence: StepSequence, channels: int) -> None:
    steps, proposal = sequence.steps, sequence.steps.proposal
    shapes = [
        (steps.score, (B, T)),
        (steps.memory, (B, T, H, W)),
        (sequence.box_maps, (B, T, H, W)),
        (sequence.masks, (B, T, H, W)),
        (steps.cut.patch, (B, T, channels, 16, 24)),
        (steps.cut.patch_mask, (B, T, 16, 24)),
        (steps.scan.glimpse_maps, (B, T, 5, 4, 6)),
        (steps.where.boxes.center, (B, T, 2)),
        (steps.where.boxes.size, (B, T, 2)),
        (proposal.hidden, (B, T, 8)),
    ]
    for name in ("center_normalized", "log_size", "learned_log_variance"):
        shapes.append((getattr(proposal, name), (B, T, 2)))
    for name in ("learned_patch_log_gain", "learned_mask_log_gain", "box_map_log_gain"):
        shapes.append((getattr(proposal, name), (B, T)))
    for tensor, shape in shapes:
        assert tensor.shape == shape
    assert steps.class_probabilities is None


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("overrides", "channels"), [({}, 4), (GIVEN_MAPS, 12)], ids=["image", "maps"])
def test_shapes_and_ranges_of_a_sequence(
    make_model, make_batch, run_steps, overrides: dict, channels: int, training: bool
):
    model, batch = make_model(overrides).train(training), batch_for(make_batch, overrides, [2, 1])
    sequence = run_steps(model, batch, truth=True)
    check_shapes(sequence, channels)
    for maps in (sequence.masks, sequence.box_maps, sequence.steps.score):
        assert ((maps > 0) & (maps < 1)).all()
    assert (sequence.steps.cut.patch_mask >= 0).all()
    np.testing.assert_allclose(sequence.steps.scan.glimpse_maps.detach().sum((3, 4)).numpy(), 1, rtol=1e-4)
    assert (sequence.steps.memory[:, 0] == 0).all()


@pytest.mark.parametrize("no_overwrite", [False, True])
def test_memory_never_forgets_and_holds_what_was_claimed(make_model, make_batch, run_steps, no_overwrite: bool):
    model = make_model({"NO_OVERWRITE": no_overwrite})
    sequence = run_steps(warmed_up(model, make_batch([2, 1])), make_batch([2, 1]))
    assert (sequence.steps.memory[:, 1:] >= sequence.steps.memory[:, :-1]).all()
    for t in range(1, T):
        torch.testing.assert_close(sequence.steps.memory[:, t], sequence.masks[:, :t].amax(1))


@pytest.mark.parametrize("no_overwrite", [False, True])
def test_no_gradient_flows_through_memory(make_model, make_batch, run_steps, no_overwrite: bool):
    model, batch = make_model({"NO_OVERWRITE": no_overwrite}), make_batch([2, 1])
    pasted, paste = [], model.attention.paste

    def recorded_paste(*arguments) -> Tensor:
        pasted.append(paste(*arguments))
        return pasted[-1]

    model.attention.paste = recorded_paste
    sequence = run_steps(model, batch)
    assert not sequence.steps.memory.requires_grad
    later = sequence.masks[:, 1:].sum() + sequence.steps.score[:, 1:].sum()
    first, second, _ = torch.autograd.grad(later, pasted)
    assert (first == 0).all()
    assert (second != 0).any()


def test_no_overwrite_masks_keep_out_of_what_is_claimed(make_model, make_batch):
    model = make_model({"NO_OVERWRITE": True}).eval()
    inputs = model.first_inputs(make_batch([2, 1]))
    inputs.memory[:, :, :20], inputs.memory[:, :, 20:30] = 1.0, 0.5
    hidden = model.step(inputs, Feeder()).cut.mask
    model.no_overwrite = False
    full = model.step(inputs, Feeder()).cut.mask
    assert (hidden[..., :20] == 0).all()
    torch.testing.assert_close(hidden[..., 20:30], full[..., 20:30] / 2)
    torch.testing.assert_close(hidden[..., 30:], full[..., 30:])


@pytest.mark.parametrize("truth", [True, False])
def test_patches_and_masks_are_extracted_and_pasted_at_the_used_boxes(make_model, make_batch, run_steps, truth: bool):
    model, batch = make_model({"SCHEDULED_SAMPLING.BOX_OFFSET": 10**9}).train(truth), make_batch([3, 3])
    images = model.preprocess_image(batch)
    sequence = run_steps(model, batch, truth=True)
    assert torch.allclose(sequence.steps.where.boxes.size, sequence.steps.proposal.boxes.size) != truth
    for b in range(B):
        for t in range(T):
            filters = []
            for axis, (length, patch) in enumerate(((H, 16), (W, 24))):
                center = sequence.steps.where.boxes.center[b, t, axis].item()
                size = sequence.steps.where.boxes.size[b, t, axis].item()
                means = center + (size + 1) / patch * (np.arange(patch) - (patch - 1) / 2)
                distance = np.arange(length)[:, None] - means[None]
                variance = (
                    sequence.steps.proposal.boxes.size[b, t, axis].item() / patch
                )  # of the proposed box, also at a true one
                filters.append(np.exp(-(distance**2) / (2 * variance)) / np.sqrt(2 * np.pi * variance))
            for channel in range(3):
                patch = filters[0].T @ images[b, channel].numpy() @ filters[1]
                np.testing.assert_allclose(sequence.steps.cut.patch[b, t, channel].detach().numpy(), patch, rtol=1e-3)
            memory_patch = filters[0].T @ sequence.steps.memory[b, t].numpy() @ filters[1]
            np.testing.assert_allclose(
                sequence.steps.cut.patch[b, t, 3].detach().numpy(), memory_patch, rtol=1e-3, atol=1e-6
            )
            pasted = filters[0] @ sequence.steps.cut.patch_mask[b, t].detach().numpy() @ filters[1].T
            expected = 1 / (1 + np.exp(5 - np.exp(2) * pasted))
            np.testing.assert_allclose(sequence.masks[b, t].detach().numpy(), expected, rtol=1e-3)


@pytest.mark.parametrize("overrides", [{}, GIVEN_MAPS], ids=["image", "maps"])
def test_reordering_the_batch_reorders_the_outputs(make_model, make_batch, run_steps, overrides: dict):
    batch = batch_for(make_batch, overrides, [2, 1, 3])
    model = warmed_up(make_model(overrides), batch)
    order = [2, 0, 1]

    def run(entries: list[dict]) -> list[Tensor]:
        sequence = run_steps(model, entries)
        steps = sequence.steps
        boxes = [steps.proposal.boxes.center, steps.proposal.boxes.size, sequence.box_maps]
        return [sequence.masks, steps.score, steps.memory, steps.cut.patch, steps.scan.glimpse_maps, *boxes]

    for reordered, straight in zip(run([batch[i] for i in order]), run(batch), strict=True):
        torch.testing.assert_close(reordered, straight[order], rtol=1e-4, atol=1e-5)


def test_evaluation_is_deterministic_ignores_targets_and_changes_nothing(make_model, make_batch, run_steps):
    batch = make_batch([2, 1])
    model = warmed_up(make_model({"SCHEDULED_SAMPLING.MASK_OFFSET": 10**9}), batch)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    first, second = run_steps(model, batch), run_steps(model, batch, truth=True)
    assert torch.equal(first.masks, second.masks) and torch.equal(first.steps.score, second.steps.score)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_scheduled_sampling_feeds_true_masks_and_boxes_in_training(make_model, make_batch, run_steps):
    schedule = {"BOX_OFFSET": 10**9, "MASK_OFFSET": 10**9, "CENTER_NOISE": 0.0, "PADDING_NOISE": 0.0, "MASK_NOISE": 0.0}
    model = make_model({f"SCHEDULED_SAMPLING.{key}": value for key, value in schedule.items()})
    batch = make_batch([3, 3])
    targets = targets_of(model, batch)
    sequence = run_steps(model, batch, truth=True)
    # After two steps memory holds two of the three true masks, and nothing else.
    for b in range(B):
        taken = [(targets.masks[b, n] * sequence.steps.memory[b, 2]).sum() > 0 for n in range(3)]
        assert sum(taken) == 2
        assert torch.equal(sequence.steps.memory[b, 2], targets.masks[b, torch.tensor(taken)].amax(0))
        used = {tuple(size) for size in sequence.steps.where.boxes.size[b].tolist()}
        assert used == {tuple(size) for size in targets.boxes.size[b].tolist()}
    assert not torch.allclose(sequence.steps.proposal.boxes.size, sequence.steps.where.boxes.size)


def test_the_iteration_of_the_schedule_decides(make_model, make_batch, run_steps):
    model = make_model({"SCHEDULED_SAMPLING.MASK_OFFSET": 100, "SCHEDULED_SAMPLING.BOX_OFFSET": 100})
    batch = make_batch([3, 3])
    model.scheduled_sampling.iteration = 10**6
    sequence = run_steps(model, batch, truth=True)
    assert torch.equal(sequence.steps.where.boxes.size, sequence.steps.proposal.boxes.size)


def test_steps_have_their_own_norm_and_share_all_else(make_model):
    state = make_model().state_dict()
    norms = [name for name in state if ".norm." in name]
    assert norms and all(state[name].shape[0] == T for name in norms)
    shared = make_model({"NORM": "shared"}).state_dict()
    assert set(shared) == set(state)
    assert all(shared[name].shape[0] == 1 for name in norms)
    assert not any(".norm." in name for name in make_model({"NORM": "none"}).state_dict())


def test_every_norm_learns_the_statistics_of_every_step(make_model, make_batch):
    model = make_model()
    model(make_batch([2, 1]))
    means = {name: buffer for name, buffer in model.named_buffers() if name.endswith("running_mean")}
    assert len(means) == 4 + 3 + 4  # control CNN, conv and deconv layers of the head
    for mean in means.values():
        assert (mean != 0).any(dim=1).all()
        assert not torch.equal(mean[0], mean[1])


def test_the_loss_of_training_is_that_of_sampled_truth(make_model, make_batch):
    """Early in training memory holds true masks, later predicted ones, which changes what is seen and lost."""
    model = make_model({"SCHEDULED_SAMPLING.MASK_OFFSET": 100, "SCHEDULED_SAMPLING.BOX_OFFSET": 100})
    totals = []
    for iteration in (0, 0, 10**6):
        torch.manual_seed(1)
        model.scheduled_sampling.iteration = iteration
        totals.append(model(make_batch([3, 2]))["loss_mask"].item())
    assert totals[0] == pytest.approx(totals[1], rel=1e-5)
    assert abs(totals[2] - totals[0]) > 1e-4


def test_unrolling_without_the_maps_the_config_names_is_refused(make_model, make_batch):
    model = make_model(GIVEN_MAPS).eval()
    with pytest.raises(ValueError, match="'angle'"):
        model.step(StepInputs(model.preprocess_image(make_batch([1])), torch.zeros(1, H, W), ExtraMaps()), Feeder())


@pytest.mark.parametrize("part", ["BOX_PROPOSER", "SEGMENTATION_HEAD"])
def test_inputs_that_the_preprocessor_does_not_make_are_refused(make_model, part: str):
    with pytest.raises(ValueError, match=f"MODEL.REC_ATTEND.{part}.INPUTS names 'angle'"):
        make_model({f"{part}.INPUTS": ["image", "memory", "angle"]})
