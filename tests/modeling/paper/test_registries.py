"""Every choice is looked up by its config key: unknown names are refused, a user's own parts are used."""

import pytest
import torch
from detectron2.modeling import build_model
from fvcore.common.registry import Registry
from torch import Tensor

from rec_attend_d2.modeling import STOP_SCORER_REGISTRY
from rec_attend_d2.modeling.paper.stop_scorer import LinearStopScorer
from rec_attend_d2.registry import look_up

# Config key below MODEL.REC_ATTEND, and the names that the config's comments promise.
CHOICES = {
    "NORM": {"per_step", "shared", "none"},
    "INIT": {"kaiming", "truncated_normal"},
    "PREPROCESSOR.NAME": {"NoPreprocessor", "GivenMaps", "ForegroundFCN", "BackboneFCN", "ImageEncoder"},
    "BOX_PROPOSER.NAME": {"GlimpseLSTMBoxProposer", "PlaceProposer"},
    "ATTENTION.FILTER_VARIANCE": {"from_size", "learned", "unit"},
    "SEGMENTATION_HEAD.NAME": {"PatchConvDeconvHead", "ResidualPatchHead"},
    "STOP_SCORER.NAME": {"LinearStopScorer", "PooledStopScorer"},
    "LOSS.MATCHER": {"best", "in_order"},
    "LOSS.BOX_OVERLAP": {"maps", "corners"},
    "LOSS.MASK": {"iou", "bce", "weighted_coverage"},
    "LOSS.BOX": {"iou", "bce", "weighted_coverage", "mse", "huber"},
    "SCHEDULED_SAMPLING.TRUTH_CHOICE": {"unclaimed", "any"},
}


@pytest.mark.parametrize("key", CHOICES)
def test_an_unknown_name_is_refused_with_its_key_and_the_alternatives(tiny_cfg, key: str):
    with pytest.raises(ValueError) as error:
        build_model(tiny_cfg({key: "Nonsense"}))
    message = str(error.value)
    assert f"MODEL.REC_ATTEND.{key} is 'Nonsense'" in message
    assert all(name in message for name in CHOICES[key])


def test_the_fast_models_encoder_is_refused_by_the_papers_model(tiny_cfg):
    with pytest.raises(ValueError, match="PREPROCESSOR.NAME 'ImageEncoder' is a part of FastRecAttend"):
        build_model(tiny_cfg({"PREPROCESSOR.NAME": "ImageEncoder"}))


def test_a_part_of_ones_own_is_used(tiny_cfg, make_batch, monkeypatch: pytest.MonkeyPatch):
    class Optimist(LinearStopScorer):
        def forward(self, hidden: Tensor, features: Tensor) -> Tensor:
            return torch.full_like(hidden[:, 0], 0.75)

    monkeypatch.setitem(STOP_SCORER_REGISTRY._obj_map, "Optimist", Optimist)
    with torch.no_grad():
        (steps,), _ = build_model(tiny_cfg({"STOP_SCORER.NAME": "Optimist"})).eval().run(make_batch([1]))
    assert [step.score.item() for step in steps] == [0.75] * 3


@pytest.mark.parametrize("kind", ["registry", "dict"])
def test_look_up_lists_what_there_is_in_order(kind: str):
    choices = {"zebra": len, "cat": max}
    if kind == "registry":
        registry = Registry("ANIMALS")
        for name, item in choices.items():
            registry._do_register(name, item)
        choices = registry
    assert look_up(choices, "cat", "A.KEY") is max
    with pytest.raises(ValueError, match="^A.KEY is 'dog', which is not known. Choose one of: cat, zebra.$"):
        look_up(choices, "dog", "A.KEY")
