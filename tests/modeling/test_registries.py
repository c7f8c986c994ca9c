"""Every part is looked up by its config key: unknown names are refused, a user's own parts are used."""

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from fvcore.common.registry import Registry

from rec_attend_d2.layers.step_norm import STEP_NORMS
from rec_attend_d2.modeling import (
    ATTENTION_REGISTRY,
    BOX_LOSS_REGISTRY,
    BOX_OVERLAP_REGISTRY,
    BOX_PROPOSER_REGISTRY,
    CONTROL_CNN_REGISTRY,
    FILTER_VARIANCE_REGISTRY,
    FIRST_GLIMPSE_REGISTRY,
    MASK_LOSS_REGISTRY,
    MATCHER_REGISTRY,
    MEMORY_REGISTRY,
    POSTPROCESSOR_REGISTRY,
    PREPROCESSOR_REGISTRY,
    SAMPLING_REGISTRY,
    SCORE_TRUTH_REGISTRY,
    SEGMENTATION_HEAD_REGISTRY,
    STEP_MASK_LOSS_REGISTRY,
    STOP_SCORER_REGISTRY,
    TRAINING_MODE_REGISTRY,
    TRUTH_CHOICE_REGISTRY,
)
from rec_attend_d2.modeling.memory import MaxMemory
from rec_attend_d2.registry import look_up, register_as

# Config key below MODEL.REC_ATTEND, its registry, and the names that the config's comments promise.
KEYS = [
    ("NORM", STEP_NORMS, {"per_step", "shared", "group", "none"}),
    ("PREPROCESSOR.NAME", PREPROCESSOR_REGISTRY, {"NoPreprocessor", "GivenMaps", "ImageEncoder"}),
    ("MEMORY.NAME", MEMORY_REGISTRY, {"MaxMemory", "NoOverwriteMemory", "BoundaryMemory"}),
    ("BOX_PROPOSER.NAME", BOX_PROPOSER_REGISTRY, {"GlimpseLSTMBoxProposer", "DenseBoxProposer"}),
    ("BOX_PROPOSER.CONTROL_CNN", CONTROL_CNN_REGISTRY, {"ConvControlCNN", "FeatureControlCNN"}),
    ("BOX_PROPOSER.FIRST_GLIMPSE", FIRST_GLIMPSE_REGISTRY, {"uniform", "learned"}),
    ("SEGMENTATION_HEAD.NAME", SEGMENTATION_HEAD_REGISTRY, {"PatchConvDeconvHead", "ResidualPatchHead"}),
    ("STOP_SCORER.NAME", STOP_SCORER_REGISTRY, {"LinearStopScorer", "PooledStopScorer"}),
    ("LOSS.MATCHER", MATCHER_REGISTRY, {"HungarianMatcher", "FixedOrderMatcher"}),
    ("TEST.POSTPROCESSOR", POSTPROCESSOR_REGISTRY, {"StrongestInstance"}),
    ("ATTENTION.NAME", ATTENTION_REGISTRY, {"GaussianAttention", "BilinearAttention"}),
    ("ATTENTION.FILTER_VARIANCE", FILTER_VARIANCE_REGISTRY, {"from_size", "learned", "unit"}),
    (
        "TRAINING.MODE",
        TRAINING_MODE_REGISTRY,
        {"Sequential", "SequentialSteps", "ParallelTeacherForcing", "StatePool"},
    ),
    ("LOSS.BOX_OVERLAP", BOX_OVERLAP_REGISTRY, {"maps", "corners"}),
    ("LOSS.MASK", MASK_LOSS_REGISTRY, {"iou", "bce", "weighted_coverage"}),
    ("LOSS.BOX", BOX_LOSS_REGISTRY, {"iou", "bce", "weighted_coverage", "mse", "huber"}),
    ("SCHEDULED_SAMPLING.TRUTH_CHOICE", TRUTH_CHOICE_REGISTRY, {"unclaimed", "any"}),
]
# The same of keys that only the parts of the fast recipe read.
FAST_KEYS = [
    ("NORM", STEP_NORMS, {"per_step", "shared", "group", "none"}),
    ("ATTENTION.SAMPLING", SAMPLING_REGISTRY, {"bilinear", "gaussian"}),
    ("LOSS.STEP_MASK", STEP_MASK_LOSS_REGISTRY, {"patch_bce", "patch_dice", "image_iou"}),
    ("LOSS.SCORE_TRUTH", SCORE_TRUTH_REGISTRY, {"hit", "anything_left"}),
]


@pytest.mark.parametrize(
    ("key", "registry", "names"), [pytest.param(*entry, id=entry[0]) for entry in [*KEYS, *FAST_KEYS[1:]]]
)
def test_promised_names_are_registered(key: str, registry: Registry | dict, names: set[str]):
    assert names <= (registry.keys() if isinstance(registry, dict) else {name for name, _ in registry})


def check_refusal(cfg: CfgNode, key: str, names: set[str]) -> None:
    """A model with the name "Nonsense" is refused, in words that name the key and the alternatives."""
    with pytest.raises(ValueError) as error:
        build_model(cfg)
    message = str(error.value)
    assert f"MODEL.REC_ATTEND.{key}" in message
    assert "Nonsense" in message
    assert all(name in message for name in names)


INITIALIZERS = ("INIT", None, {"kaiming", "truncated_normal"})


@pytest.mark.parametrize(("key", "names"), [pytest.param(e[0], e[2], id=e[0]) for e in [*KEYS, INITIALIZERS]])
def test_an_unknown_name_is_refused_with_its_key_and_the_alternatives(tiny_cfg, key: str, names: set[str]):
    check_refusal(tiny_cfg({key: "Nonsense"}), key, names)


@pytest.mark.parametrize(("key", "names"), [pytest.param(e[0], e[2], id=e[0]) for e in [*FAST_KEYS, INITIALIZERS]])
def test_an_unknown_name_is_refused_by_the_parts_of_the_fast_recipe(fast_cfg, key: str, names: set[str]):
    value = ["Nonsense"] if key == "LOSS.STEP_MASK" else "Nonsense"
    check_refusal(fast_cfg({key: value}), key, names)


def test_a_part_of_ones_own_is_used(tiny_cfg, make_batch, monkeypatch: pytest.MonkeyPatch):
    class HalfMemory(MaxMemory):
        def update(self, memory: torch.Tensor, claimed: torch.Tensor, extra=None) -> torch.Tensor:
            return torch.full_like(memory, 0.5)

    monkeypatch.setitem(MEMORY_REGISTRY._obj_map, "HalfMemory", HalfMemory)
    model = build_model(tiny_cfg({"MEMORY.NAME": "HalfMemory"})).eval()
    sequence = model.unroll(model.preprocess_image(make_batch([1])))
    assert (sequence.memories[:, 0] == 0).all() and (sequence.memories[:, 1:] == 0.5).all()


@pytest.mark.parametrize(
    ("key", "registry", "loss"),
    [("LOSS.MASK", MASK_LOSS_REGISTRY, "loss_mask"), ("LOSS.BOX", BOX_LOSS_REGISTRY, "loss_box")],
)
def test_a_loss_of_ones_own_is_used(
    tiny_cfg, make_batch, monkeypatch: pytest.MonkeyPatch, key: str, registry: Registry, loss: str
):
    monkeypatch.setitem(registry._obj_map, "always_seven", lambda comparison: 7 + 0 * comparison.pred_maps.sum())
    losses = build_model(tiny_cfg({key: "always_seven"}))(make_batch([1]))
    assert losses[loss].item() == 7


def test_register_as_uses_the_given_name_and_returns_the_function():
    registry = Registry("ANIMALS")

    @register_as(registry, "the cat")
    def meow() -> str:
        return "meow"

    assert meow() == "meow"
    assert look_up(registry, "the cat", "A.KEY") is meow
    assert "meow" not in registry


def test_registering_a_name_twice_is_an_error():
    registry = Registry("ANIMALS")
    register_as(registry, "cat")(len)
    with pytest.raises(AssertionError, match="cat"):
        register_as(registry, "cat")(max)


def test_look_up_lists_what_there_is_in_order():
    registry = Registry("ANIMALS")
    for name in ("zebra", "cat"):
        register_as(registry, name)(len)
    with pytest.raises(ValueError, match="^A.KEY is 'dog', which is not known. Choose one of: cat, zebra.$"):
        look_up(registry, "dog", "A.KEY")
    with pytest.raises(ValueError, match="^A.KEY is 'dog', which is not known. Choose one of: cat, zebra.$"):
        look_up({"zebra": 1, "cat": 2}, "dog", "A.KEY")
