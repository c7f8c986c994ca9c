"""Inference of the full model: instances at the original size, and stopping early."""

import pytest
import torch
from detectron2.structures import Instances
from torch import Tensor, nn

from rec_attend_d2.modeling import RecAttend

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
    overrides = {"TEST.MASK_THRESHOLD": 0.002}
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
    found, _ = model.run(make_batch([1, 1]))
    for steps, scores in zip(found, ([0.9, 0.4], [0.3]), strict=True):
        torch.testing.assert_close(torch.cat([step.score for step in steps]), torch.tensor(scores))
        assert all(step.cut.mask.shape == step.memory.shape == (1, 32, 48) for step in steps)
    assert model.stop_scorer.calls == 2


@pytest.mark.parametrize("stop_early", [True, False])
def test_images_whose_steps_ran_out_are_noted(make_model, make_batch, caplog, stop_early: bool):
    model = make_model({"TEST.STOP_EARLY": stop_early}).eval()
    model.stop_scorer = ScriptedScorer(torch.tensor([[0.9, 0.8, 0.1], [0.9, 0.8, 0.7]]))
    first, second = make_batch([1, 1])
    outputs = model([first, {**second, "file_name": "crowded.png"}])
    assert [output["notes"] for output in outputs] == [(), ("stopped at 3 steps",)]
    (warning,) = caplog.messages
    assert warning.startswith("crowded.png may have more objects") and "MODEL.REC_ATTEND.TIME_STEPS" in warning


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
