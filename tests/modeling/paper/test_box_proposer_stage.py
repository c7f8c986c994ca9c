"""Stage B: losses, what its memory holds, and boxes in the image's own coordinates."""

from collections.abc import Callable

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes
from torch import Tensor, nn

from rec_attend_d2.layers.boxes import CenterBoxes
from rec_attend_d2.modeling import RecAttendBoxProposer
from rec_attend_d2.modeling.paper.sequence import BoxProposal, GlimpseScan
from rec_attend_d2.modeling.steps import StepInputs

B, T, H, W = 2, 3, 32, 48
GIVEN_MAPS = {
    "PREPROCESSOR.NAME": "GivenMaps",
    "PREPROCESSOR.ANGLE_BINS": 8,
    "PREPROCESSOR.FOREGROUND_CLASSES": 3,
    "BOX_PROPOSER.INPUTS": ["image", "memory", "angle", "foreground"],
}
OPTIONS = {
    "default": {},
    "learned filters": {"ATTENTION.FILTER_VARIANCE": "learned", "NORM": "shared"},
    "corners": {"LOSS.BOX_OVERLAP": "corners", "LOSS.BOX": "huber", "BOX_PROPOSER.SQUASH": True},
    "any truth": {"SCHEDULED_SAMPLING.TRUTH_CHOICE": "any", "LOSS.BOX": "bce", "NORM": "none"},
    "no overwrite": {"NO_OVERWRITE": True, "LOSS.BOX": "weighted_coverage"},
    "one glimpse": {"BOX_PROPOSER.GLIMPSES": 1, "LOSS.BOX": "mse"},
    "semantic classes": GIVEN_MAPS,
}


@pytest.fixture
def stage_cfg(tiny_cfg) -> Callable[..., CfgNode]:
    """A function from config overrides to a config of stage B."""

    def make(overrides: dict | None = None) -> CfgNode:
        cfg = tiny_cfg(overrides)
        cfg.MODEL.META_ARCHITECTURE = "RecAttendBoxProposer"
        return cfg

    return make


@pytest.fixture
def make_model(stage_cfg) -> Callable[..., RecAttendBoxProposer]:
    """A function from config overrides to a model of stage B."""

    def make(overrides: dict | None = None) -> RecAttendBoxProposer:
        return build_model(stage_cfg(overrides))

    return make


@pytest.mark.parametrize("counts", [[2, 1], [3, 0], [0, 0]], ids=str)
@pytest.mark.parametrize("overrides", OPTIONS.values(), ids=OPTIONS.keys())
def test_losses_and_gradients_of_every_option(make_model, make_batch, overrides: dict, counts: list[int]):
    model = make_model(overrides)
    maps = {"angle_bins": 8, "foreground_classes": 3} if overrides is GIVEN_MAPS else {}
    losses = model(make_batch(counts, **maps))
    assert set(losses) == {"loss_box", "loss_score", "loss_weight_decay"}
    assert all(loss.ndim == 0 and torch.isfinite(loss) for loss in losses.values())
    sum(losses.values()).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


@pytest.mark.parametrize("training", [True, False])
def test_shapes_of_a_sequence(make_model, make_batch, run_steps, training: bool):
    sequence = run_steps(make_model().train(training), make_batch([2, 1]), truth=True)
    assert sequence.steps.score.shape == (B, T)
    assert sequence.steps.memory.shape == sequence.box_maps.shape == (B, T, H, W)
    assert sequence.steps.proposal.boxes.center.shape == sequence.steps.proposal.boxes.size.shape == (B, T, 2)
    assert sequence.steps.scan.glimpse_maps.shape == (B, T, 5, 4, 6)
    assert sequence.steps.class_probabilities is None
    assert ((sequence.steps.score > 0) & (sequence.steps.score < 1)).all()


def test_scores_of_semantic_classes(make_model, make_batch, run_steps):
    sequence = run_steps(make_model(GIVEN_MAPS).eval(), make_batch([2, 1], angle_bins=8, foreground_classes=3))
    assert sequence.steps.class_probabilities.shape == (B, T, 3)
    torch.testing.assert_close(sequence.steps.class_probabilities.sum(2), torch.ones(B, T))
    torch.testing.assert_close(sequence.steps.score, sequence.steps.class_probabilities[:, :, 1:].sum(2))


@pytest.mark.parametrize("training", [True, False])
def test_memory_takes_one_true_mask_after_the_other(make_model, make_batch, run_steps, training: bool):
    model, batch = make_model({"SCHEDULED_SAMPLING.ENABLED": False}).train(training), make_batch([3, 1])
    model.scheduled_sampling.iteration = 10**9
    targets = model.extract_targets(batch)
    sequence = run_steps(model, batch, truth=True)
    assert (sequence.steps.memory[:, 0] == 0).all()
    for t in range(1, T):
        covered = (sequence.steps.memory[:1, t][:, None] * targets.masks[:1]).sum((2, 3)) > 0
        assert covered.sum() == t
        expected = targets.masks[0, covered[0]].amax(0)
        written = sequence.steps.memory[0, t]
        assert torch.equal((written > 0).float(), expected)
        assert written[expected > 0].min() >= 0.7
        assert written[expected > 0].max() <= 1
    # The second image has one object; after it memory takes what the model proposes, which is never exactly 0.
    assert torch.equal((sequence.steps.memory[1, 1] > 0).float(), targets.masks[1, 0])
    assert (sequence.steps.memory[1, 2] > 0).all()


def test_without_truth_memory_takes_the_predicted_box_maps(make_model, make_batch, run_steps):
    sequence = run_steps(make_model().eval(), make_batch([2, 1]))
    for t in range(1, T):
        torch.testing.assert_close(sequence.steps.memory[:, t], sequence.box_maps[:, :t].amax(1))


class ScriptedProposer(nn.Module):
    """Proposes given boxes, [B, T, 2] each."""

    def __init__(self, boxes: CenterBoxes, make_proposal: Callable[..., BoxProposal]):
        super().__init__()
        self.boxes, self.make_proposal = boxes, make_proposal

    def forward(self, inputs: StepInputs) -> tuple[BoxProposal, GlimpseScan]:
        center, size = self.boxes.center[:, inputs.number], self.boxes.size[:, inputs.number]
        return self.make_proposal(center, size), GlimpseScan(torch.ones(len(center), 1, 1, 1))


class ScriptedScorer(nn.Module):
    """Gives scores from a list of steps."""

    def __init__(self, scores: list[float]):
        super().__init__()
        self.scores = iter(scores)

    def forward(self, hidden: Tensor) -> tuple[Tensor, None]:
        return torch.full((len(hidden),), next(self.scores)), None


def scripted(
    model: RecAttendBoxProposer, boxes: CenterBoxes, scores: list[float], make_proposal
) -> RecAttendBoxProposer:
    model.box_proposer, model.box_scorer = ScriptedProposer(boxes, make_proposal), ScriptedScorer(scores)
    return model.eval()


@pytest.mark.parametrize(("original", "factors"), [((32, 48), (1, 1)), ((64, 96), (2, 2)), ((32, 144), (1, 3))])
def test_perfect_proposals_give_the_boxes_of_the_true_masks(
    make_model, make_batch, make_proposal, original: tuple[int, int], factors: tuple[int, int]
):
    model, batch = make_model(), make_batch([3, 2], original)
    targets = model.extract_targets(batch)
    outputs = scripted(model, targets.boxes, [0.9, 0.8, 0.4], make_proposal)(batch)
    # Masks at the original size, whose boxes Detectron2 computes.
    masks = targets.masks.repeat_interleave(factors[0], 2).repeat_interleave(factors[1], 3).bool()
    for index, output in enumerate(outputs):
        instances = output["instances"]
        assert instances.image_size == original
        assert instances.scores.tolist() == pytest.approx([0.9, 0.8])
        assert instances.pred_classes.tolist() == [0, 0]
        assert isinstance(instances.pred_boxes, Boxes)
        expected = BitMasks(masks[index, :2]).get_bounding_boxes().tensor
        torch.testing.assert_close(instances.pred_boxes.tensor, expected, rtol=0, atol=1e-3)


def test_boxes_are_clipped_to_the_original_image(make_model, make_batch, make_proposal):
    boxes = CenterBoxes(torch.tensor([[[2.0, 40.0]] * 3]), torch.full((1, 3, 2), 60.0))
    model = scripted(make_model(), boxes, [0.9, 0.9, 0.9], make_proposal)
    tensor = model(make_batch([1], (65, 144)))[0]["instances"].pred_boxes.tensor
    # Without its padding, a fifth on either side, a box of 60 is 42.86 wide: from 18.57 to beyond the right rim, and
    # from above the upper rim to 23.43. One pixel of the input is 3 pixels wide and 2.03 high.
    assert tensor[:, 0].tolist() == pytest.approx([18.57 * 3] * 3, abs=3)
    assert tensor[:, 1].tolist() == [0, 0, 0]
    assert tensor[:, 2].tolist() == [144, 144, 144]
    assert tensor[:, 3].tolist() == pytest.approx([23.43 * 65 / 32] * 3, abs=2.1)


def test_no_boxes_at_all(make_model, make_batch, make_proposal):
    boxes = CenterBoxes(torch.full((2, 3, 2), 16.0), torch.full((2, 3, 2), 20.0))
    for output in scripted(make_model(), boxes, [0.1, 0.2, 0.3], make_proposal)(make_batch([1, 1])):
        instances = output["instances"]
        assert len(instances) == 0
        assert instances.pred_boxes.tensor.shape == (0, 4)
        assert instances.scores.shape == instances.pred_classes.shape == (0,)


def test_its_box_proposer_starts_that_of_the_full_model(make_model, tiny_cfg):
    stage_b, full = make_model(), build_model(tiny_cfg())
    result = full.load_state_dict(stage_b.state_dict(), strict=False)
    assert set(result.unexpected_keys) == {"box_scorer.linear.weight", "box_scorer.linear.bias"}
    assert all(key.startswith(("segmentation_head.", "stop_scorer.")) for key in result.missing_keys)


def test_the_score_threshold_is_the_configs(make_model, make_batch, make_proposal):
    boxes = CenterBoxes(torch.full((1, 3, 2), 16.0), torch.full((1, 3, 2), 20.0))
    model = scripted(make_model({"TEST.SCORE_THRESHOLD": 0.25}), boxes, [0.25, 0.24, 0.9], make_proposal)
    assert model(make_batch([1]))[0]["instances"].scores.tolist() == pytest.approx([0.25, 0.9])


def test_a_few_steps_of_training_lower_the_loss(make_model, make_batch):
    model, batch = make_model(), make_batch([2, 1])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    history = []
    for _ in range(25):
        loss = sum(model(batch).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert sum(history[-3:]) / 3 < history[0] - 0.2
