"""Inference of the full model: instances at the original size, and stopping early."""

import dataclasses

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Instances
from torch import Tensor, nn

from rec_attend_d2.layers.boxes import CenterBoxes
from rec_attend_d2.modeling import RecAttend, Targets
from rec_attend_d2.modeling.claims import unclaimed_instances
from rec_attend_d2.modeling.inputs import StepInputs
from rec_attend_d2.modeling.step_types import Proposal, select

T = 3
SEMANTIC_MAPS = {
    "PREPROCESSOR.NAME": "GivenMaps",
    "PREPROCESSOR.ANGLE_BINS": 8,
    "PREPROCESSOR.FOREGROUND_CLASSES": 3,
    "BOX_PROPOSER.INPUTS": ["image", "memory", "angle", "foreground"],
}


class ScriptedScorer(nn.Module):
    """Gives scores from a table [B, T], one column per call; an image that leaves the batch had one below 0.5."""

    def __init__(self, table: Tensor):
        super().__init__()
        self.table = table
        self.calls = 0
        self.batch_sizes: list[int] = []

    def forward(self, hidden: Tensor, features: Tensor) -> Tensor:
        if len(hidden) < len(self.table):
            self.table = self.table[self.table[:, self.calls - 1] >= 0.5]
        self.calls += 1
        self.batch_sizes.append(len(hidden))
        return self.table[:, self.calls - 1].clone()


@torch.no_grad()
def infer(model: RecAttend, batch: list[dict]) -> list[Instances]:
    return [output["instances"] for output in model.eval()(batch)]


@pytest.mark.parametrize("original", [(65, 97), (32, 48), (21, 17)])
@pytest.mark.parametrize("stop_early", [True, False])
def test_instances_at_the_original_size_do_not_overlap(
    make_model, make_batch, original: tuple[int, int], stop_early: bool
):
    model = make_model({"TEST.STOP_EARLY": stop_early, "TEST.MASK_THRESHOLD": 0.002})
    model.stop_scorer = ScriptedScorer(torch.tensor([[0.9, 0.8, 0.7], [0.9, 0.8, 0.7]]))
    # Without instances, as at test time.
    batch = [
        {key: value for key, value in entry.items() if key != "instances"} for entry in make_batch([2, 1], original)
    ]
    results = infer(model, batch)
    assert len(results) == 2
    for instances in results:
        assert instances.image_size == original
        assert len(instances) >= 1
        assert instances.pred_masks.shape == (len(instances), *original)
        assert (instances.pred_masks.sum(0) <= 1).all()
        assert instances.pred_masks.flatten(1).any(1).all()
        assert {round(score, 5) for score in instances.scores.tolist()} <= {0.9, 0.8, 0.7}
        assert instances.pred_boxes.tensor.shape == (len(instances), 4)


def test_inference_works_where_gradients_are_on(make_model, make_batch):
    model = make_model({"TEST.SCORE_THRESHOLD": 0.0, "TEST.MASK_THRESHOLD": 0.002}).eval()
    instances = model(make_batch([2]))[0]["instances"]
    assert len(instances) > 0
    assert not instances.scores.requires_grad


STOPPING_SCORES = torch.tensor([[0.9, 0.4, 0.9], [0.3, 0.9, 0.9], [0.9, 0.9, 0.9], [0.6, 0.5, 0.49]])


def test_stopping_early_is_the_full_unroll_cut_at_the_first_low_score(make_model, make_batch):
    batch = make_batch([2, 1, 3, 0])
    overrides = {"TEST.MASK_THRESHOLD": 0.002, "TEST.BILATERAL_DIAMETER": 0}
    early = make_model(overrides)
    early(batch)  # norm statistics
    late = make_model({**overrides, "TEST.STOP_EARLY": False})
    late.load_state_dict(early.state_dict())
    # Steps after the first low score are no objects, whatever their own score says.
    counts = [1, 0, 3, 2]
    cut = STOPPING_SCORES * (torch.arange(3)[None] < torch.tensor(counts)[:, None])
    early.stop_scorer, late.stop_scorer = ScriptedScorer(STOPPING_SCORES), ScriptedScorer(cut)

    found = infer(early, batch)
    for stopped, full, count in zip(found, infer(late, batch), counts, strict=True):
        assert len(stopped) <= count
        assert torch.equal(stopped.pred_masks, full.pred_masks)
        assert torch.equal(stopped.scores, full.scores)
    assert len(found[1]) == 0 and len(found[2]) > 0
    # Whoever is done leaves the batch.
    assert early.stop_scorer.batch_sizes == [4, 3, 2] and late.stop_scorer.batch_sizes == [4, 4, 4]


def test_running_all_steps_keeps_objects_after_a_low_score(make_model, make_batch):
    model = make_model({"TEST.STOP_EARLY": False, "TEST.MASK_THRESHOLD": 0.002})
    model.stop_scorer = ScriptedScorer(torch.tensor([[0.1, 0.9, 0.2]]))
    (instances,) = infer(model, make_batch([1]))
    assert instances.scores.tolist() == pytest.approx([0.9])


@pytest.mark.parametrize(("scores", "calls"), [([0.1, 0.9, 0.9], 1), ([0.9, 0.1, 0.9], 2), ([0.9, 0.9, 0.1], 3)])
def test_stopping_early_saves_the_steps_after_it(make_model, make_batch, scores: list[float], calls: int):
    model = make_model()
    model.stop_scorer = ScriptedScorer(torch.tensor([scores]))
    infer(model, make_batch([1]))
    assert model.stop_scorer.calls == calls
    model.stop_early, model.stop_scorer = False, ScriptedScorer(torch.tensor([scores]))
    infer(model, make_batch([1]))
    assert model.stop_scorer.calls == T


def test_the_steps_of_inference_end_with_the_score_that_stops(make_model, make_batch):
    model = make_model().eval()
    model.stop_scorer = ScriptedScorer(torch.tensor([[0.9, 0.4, 0.9], [0.3, 0.9, 0.9]]))
    sequences = model.infer_inputs(make_batch([1, 1]))
    for sequence, scores in zip(sequences, ([0.9, 0.4], [0.3]), strict=True):
        torch.testing.assert_close(sequence.scores, torch.tensor([scores]))
        assert sequence.masks.shape[:2] == sequence.memories.shape[:2] == (1, len(scores))
    assert model.stop_scorer.calls == 2


def test_foreground_and_classes_reach_the_instances(make_model, make_batch):
    model = make_model({**SEMANTIC_MAPS, "TEST.USE_FOREGROUND": True, "TEST.MASK_THRESHOLD": 0.002})
    model.stop_scorer = ScriptedScorer(torch.tensor([[0.9, 0.1, 0.1], [0.9, 0.1, 0.1]]))
    batch = make_batch([1, 1], angle_bins=8, foreground_classes=3)
    for entry in batch:
        entry["foreground"] = torch.zeros(3, 32, 48)
        entry["foreground"][0, :, :24] = 1  # background on the left, second class on the right
        entry["foreground"][2, :, 24:] = 1
    for instances in infer(model, batch):
        assert instances.pred_classes.tolist() == [1]
        assert not instances.pred_masks[..., :47].any() and instances.pred_masks.any()


# ---------------------------------------------------------------- more objects than time steps


class KnowingProposer(nn.Module):
    """Proposes the first true instance that memory has not claimed; its hidden output tells whether there is one."""

    def __init__(self, targets: Targets, own: nn.Module):
        super().__init__()
        self.targets, self.own = targets, own
        self.steps: list[int] = []

    def forward(self, inputs: StepInputs, step: int) -> Proposal:
        self.steps.append(step)
        targets = self.targets_of(inputs.image)
        unclaimed = unclaimed_instances(inputs.memory[:, None], targets)[:, 0]
        rows, first = torch.arange(len(unclaimed)), unclaimed.int().argmax(1)
        boxes = CenterBoxes(targets.boxes.center[rows, first], targets.boxes.size[rows, first])
        hidden = unclaimed.any(1, keepdim=True).float()
        return dataclasses.replace(self.own(inputs, step), boxes=boxes, hidden=hidden)

    def targets_of(self, images: Tensor) -> Targets:
        """Those of the images [n, 3, H, W] that are still in the batch: their bright pixels tell which."""
        same = (images[:, None, 0] > 0.5) == (self.targets.masks.amax(1) > 0.5)[None]
        return select(self.targets, same.flatten(2).all(2).int().argmax(1))


class BrightHead(nn.Module):
    """What is bright is the object: logits of the patch's first channel, as long as memory is one of the others."""

    def forward(self, patch: Tensor, step: int) -> tuple[Tensor, Tensor]:
        return (patch[:, 0] - 0.5) * 20, patch[:, :1]


class HiddenScorer(nn.Module):
    """0.9 where the proposer knows of an object, else 0.1."""

    def forward(self, hidden: Tensor, features: Tensor) -> Tensor:
        return 0.1 + 0.8 * hidden[:, 0]


def grid_masks(counts: list[int]) -> Tensor:
    """Disjoint squares of 6 pixels, two rows of four: [B, 8, 32, 64]."""
    masks = torch.zeros(len(counts), 8, 32, 64)
    for b, count in enumerate(counts):
        for n in range(count):
            y, x = 4 + 16 * (n // 4), 5 + 15 * (n % 4)
            masks[b, n, y : y + 6, x : x + 6] = 1
    return masks


def find_squares(cfg, counts: list[int]) -> tuple[list[int], RecAttend]:
    """How many of the squares a model finds that knows them, each of which has to be right, and the model."""
    masks = grid_masks(counts)
    model = build_model(cfg)
    model.box_proposer = KnowingProposer(Targets.from_masks(masks, 0.2, 2.0), model.box_proposer)
    model.segmentation_head, model.stop_scorer = BrightHead(), HiddenScorer()
    images = (masks.amax(1, keepdim=True).expand(-1, 3, -1, -1) * 255).to(torch.uint8)
    found = []
    for truth, instances in zip(masks, infer(model, [{"image": image} for image in images]), strict=True):
        overlap = (instances.pred_masks[:, None] & truth[None].bool()).flatten(2).sum(2)
        union = (instances.pred_masks[:, None] | truth[None].bool()).flatten(2).sum(2)
        right = overlap / union > 0.8
        assert (right.sum(1) == 1).all() and (right.sum(0) <= 1).all()
        found.append(len(instances))
    return found, model


@pytest.mark.parametrize(("limit", "steps", "expected"), [(20, 9, [8, 2, 0]), (8, 8, [8, 2, 0]), (5, 5, [5, 2, 0])])
def test_the_model_goes_on_beyond_its_time_steps(fast_cfg, limit: int, steps: int, expected: list[int]):
    cfg = fast_cfg({"TEST.MAX_STEPS": limit})
    found, model = find_squares(cfg, [8, 2, 0])
    assert model.time_steps == T
    assert found == expected
    # One step more than the largest image has objects, in which the scorer stops, or as many as are allowed.
    assert model.box_proposer.steps == list(range(steps))


def test_without_a_limit_of_its_own_inference_takes_the_time_steps(fast_cfg):
    found, model = find_squares(fast_cfg(), [8, 2])
    assert found == [T, 2] and model.box_proposer.steps == list(range(T))


def test_a_smaller_limit_than_the_time_steps_holds(fast_cfg):
    assert find_squares(fast_cfg({"TEST.MAX_STEPS": 1}), [8, 2, 0])[0] == [1, 1, 0]


@pytest.mark.parametrize("norm", ["shared", "group", "none"])
def test_norms_without_time_steps_allow_more_steps(fast_cfg, norm: str):
    model = build_model(fast_cfg({"NORM": norm, "TEST.MAX_STEPS": T + 2}))
    model.stop_scorer = ScriptedScorer(torch.full((2, T + 2), 0.9))
    infer(model, [{"image": torch.randint(0, 255, (3, 32, 64), dtype=torch.uint8)} for _ in range(2)])
    assert model.stop_scorer.calls == T + 2


def test_more_steps_than_there_are_statistics_for_are_refused(tiny_cfg):
    with pytest.raises(ValueError, match=r"MODEL.REC_ATTEND.TEST.MAX_STEPS is 4.*NORM 'per_step'.*TIME_STEPS = 3"):
        build_model(tiny_cfg({"TEST.MAX_STEPS": 4}))
    assert build_model(tiny_cfg({"TEST.MAX_STEPS": 3})).max_steps == 3
