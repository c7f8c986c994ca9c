"""Training modes: losses and gradients of every mode and combination of parts, and settings that are refused."""

import dataclasses

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Instances
from torch import Tensor

from rec_attend_d2.data import StatePoolLoader
from rec_attend_d2.layers.boxes import CenterBoxes
from rec_attend_d2.modeling import RecAttend
from rec_attend_d2.modeling.inputs import StepInputs

SINGLE_STEPS = ("ParallelTeacherForcing", "StatePool", "SequentialSteps")
LOSSES = {"loss_place", "loss_object", "loss_box", "loss_mask", "loss_score", "loss_weight_decay"}

LEARNED_GLIMPSE = {"BOX_PROPOSER.NAME": "GlimpseLSTMBoxProposer", "BOX_PROPOSER.FIRST_GLIMPSE": "learned"}
PAPER_PARTS = {
    "PREPROCESSOR.NAME": "NoPreprocessor",
    "PREPROCESSOR.FEATURE_CHANNELS": [],
    "BOX_PROPOSER.NAME": "GlimpseLSTMBoxProposer",
    "BOX_PROPOSER.CONTROL_CNN": "ConvControlCNN",
    "BOX_PROPOSER.INPUTS": ["image", "memory"],
    "BOX_PROPOSER.CONV_CHANNELS": [4, 6],
    "BOX_PROPOSER.CONV_POOLS": [4, 2],
    "BOX_PROPOSER.HIDDEN_DIM": 8,
    "ATTENTION.NAME": "GaussianAttention",
    "ATTENTION.PATCH_SIZE": [12, 16],
    "SEGMENTATION_HEAD.NAME": "PatchConvDeconvHead",
    "SEGMENTATION_HEAD.INPUTS": ["image", "memory"],
    "SEGMENTATION_HEAD.CONV_CHANNELS": [4, 6],
    "SEGMENTATION_HEAD.CONV_POOLS": [1, 2],
    "SEGMENTATION_HEAD.DECONV_CHANNELS": [6, 4, 1],
    "SEGMENTATION_HEAD.DECONV_STRIDES": [2, 1, 1],
    "STOP_SCORER.NAME": "LinearStopScorer",
    "LOSS.STEP_MASK": ["image_iou"],
}
# Config overrides, and losses that this combination of parts does not have.
COMBINATIONS: dict[str, tuple[dict, set[str]]] = {
    "fast recipe": ({}, set()),
    "learned glimpse on features": ({**LEARNED_GLIMPSE, "BOX_PROPOSER.COORDINATES": True}, set()),
    "the paper's parts": (PAPER_PARTS, {"loss_place", "loss_object"}),
    "the paper's parts, learned": (
        {**PAPER_PARTS, **LEARNED_GLIMPSE, "ATTENTION.FILTER_VARIANCE": "learned", "ATTENTION.LEARN_GAINS": True},
        set(),
    ),
    "boundaries and group norm": ({"MEMORY.NAME": "BoundaryMemory", "NORM": "group"}, set()),
    "no overwriting, any left": ({"MEMORY.NAME": "NoOverwriteMemory", "LOSS.SCORE_TRUTH": "anything_left"}, set()),
    "no norm, gaussian patches": ({"NORM": "none", "ATTENTION.SAMPLING": "gaussian"}, set()),
}


def check_gradients(model: RecAttend, losses: dict[str, Tensor]) -> None:
    """Every loss is finite, and every parameter has a gradient without the help of weight decay."""
    assert all(loss.ndim == 0 and torch.isfinite(loss) for loss in losses.values())
    sum(loss for name, loss in losses.items() if name != "loss_weight_decay").backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())


# ---------------------------------------------------------------- losses and gradients


@pytest.mark.parametrize("counts", [[3, 1], [2, 0], [0, 0]], ids=str)
@pytest.mark.parametrize("mode", SINGLE_STEPS)
@pytest.mark.parametrize(("overrides", "missing"), COMBINATIONS.values(), ids=COMBINATIONS.keys())
def test_losses_and_gradients(make_fast, fast_batch, overrides: dict, missing: set[str], mode: str, counts: list[int]):
    model = make_fast(mode, {**overrides, "TRAINING.DRAWN_MEMORY.EMPTY_SHARE": 1.0})
    losses = model(fast_batch(counts))
    assert set(losses) == LOSSES - missing
    assert losses["loss_score"] > 0
    if sum(counts):
        assert losses["loss_box"] > 0
    else:
        assert losses["loss_box"] == losses["loss_mask"] == 0
    check_gradients(model, losses)


@pytest.mark.parametrize("mode", ["ParallelTeacherForcing", "StatePool"])
@pytest.mark.parametrize(("overrides", "missing"), COMBINATIONS.values(), ids=COMBINATIONS.keys())
def test_a_batch_in_which_nothing_is_left(make_fast, fast_batch, claim, overrides: dict, missing: set[str], mode: str):
    model, batch = make_fast(mode, overrides), fast_batch([3, 1])
    claim(model, batch, [[0, 1, 2], [0]])
    losses = model(batch)
    assert losses["loss_box"] == losses["loss_mask"] == 0
    assert losses.get("loss_place", 0) == 0
    check_gradients(model, losses)


@pytest.mark.parametrize("mode", SINGLE_STEPS)
def test_objects_teach_every_part(make_fast, fast_batch, mode: str):
    model = make_fast(mode, {"TRAINING.DRAWN_MEMORY.EMPTY_SHARE": 1.0})
    losses = model(fast_batch([3, 3]))
    parts = {
        "loss_place": [model.preprocessor, model.box_proposer.control_cnn, model.box_proposer.place],
        "loss_object": [model.preprocessor, model.box_proposer.control_cnn, model.box_proposer.place],
        "loss_box": [model.box_proposer.box],
        "loss_score": [model.stop_scorer, model.segmentation_head, model.box_proposer.control_cnn],
    }
    if mode != "SequentialSteps":  # the others judge true boxes, too, which an untrained proposer does not find
        parts["loss_mask"] = [model.segmentation_head, model.preprocessor]
    for name, taught in parts.items():
        model.zero_grad()
        losses[name].backward(retain_graph=True)
        for part in taught:
            gradients = [parameter.grad for parameter in part.parameters() if parameter.grad is not None]
            assert max(gradient.abs().max() for gradient in gradients) > 0, name


@pytest.mark.parametrize("mode", ["ParallelTeacherForcing", "StatePool"])
def test_the_mask_loss_does_not_move_the_box(make_fast, fast_batch, mode: str):
    model = make_fast(mode)
    model(fast_batch([3, 2]))["loss_mask"].backward()
    assert all(parameter.grad is None or (parameter.grad == 0).all() for parameter in model.box_proposer.parameters())


def test_one_sequential_step_is_one_single_step(make_fast, fast_batch, claim):
    """Two ways to the same losses: both see an empty memory and cut out at the proposed box alone."""
    overrides = {"TIME_STEPS": 1, "TRAINING.TRUE_PATCHES": 0, "BOX_PROPOSER.INITIAL_SIZE": 0.4}
    results = []
    for mode in ("SequentialSteps", "StatePool"):
        torch.manual_seed(5)
        model, batch = make_fast(mode, overrides), fast_batch([1, 1, 0])
        torch.nn.init.normal_(model.box_proposer.place.weight)
        claim(model, batch, [[], [], []])
        results.append(model(batch))
    for name, loss in results[0].items():
        torch.testing.assert_close(results[1][name], loss, rtol=1e-4, atol=1e-6)


def test_a_few_steps_of_training_lower_the_loss(make_fast, fast_batch):
    model, history = make_fast("StatePool", {"TRAINING.OWN_STEPS": 1}), []
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)

    def images():
        while True:
            yield fast_batch([1, 1])

    for _, batch in zip(range(30), StatePoolLoader(images(), 2, max_steps=6, max_misses=2), strict=False):
        losses = model(batch)
        total = sum(losses.values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        if losses["loss_box"] > 0:  # a batch with nothing left is an easier one
            history.append(total.item())
    assert len(history) < 30 and sum(history[-3:]) < 0.85 * sum(history[:3])


# ---------------------------------------------------------------- a sequence of single steps


@pytest.mark.parametrize("mode", SINGLE_STEPS)
def test_images_may_have_more_objects_than_steps(make_fast, fast_batch, mode: str):
    model = make_fast(mode, {"TIME_STEPS": 1})
    assert model.extract_targets(fast_batch([3, 1])).valid.tolist() == [[True] * 3, [True, False, False]]
    assert all(torch.isfinite(loss) for loss in model(fast_batch([3, 1])).values())


def test_sequential_steps_judge_every_step_by_its_own_memory(make_fast, fast_batch, fast_masks):
    model, batch = make_fast("SequentialSteps", {"NORM": "group"}), fast_batch([3, 1])
    targets, masks = model.extract_targets(batch), fast_masks([3, 3])
    drawn = iter(masks.transpose(0, 1))
    # Every step claims one object after the other.
    model.attention.paste = lambda logits, window: next(drawn)
    judged, score_loss = [], model.criterion.score_loss
    model.criterion.score_loss = lambda scores, steps: judged.append((scores, steps)) or score_loss(scores, steps)
    model.criterion.mask_loss = lambda pairs: pairs.logits.sum()
    model(batch)
    ((scores, steps),) = judged
    assert scores.shape == (2, 3)
    assert steps.anything.tolist() == [[True] * 3, [True, False, False]]
    for b, count in enumerate((3, 1)):
        for t in range(3):
            assert steps.unclaimed[b, t].nonzero().flatten().tolist() == list(range(t, count))
    assert torch.equal(targets.valid, steps.unclaimed[:, 0])


def test_sequential_steps_judge_the_masks_of_hits(make_fast, fast_batch, fast_masks):
    model, batch = make_fast("SequentialSteps"), fast_batch([2, 1])
    targets = model.extract_targets(batch)
    propose = model.box_proposer.forward

    def at_truth(inputs: StepInputs, step: int):
        """Proposes one instance of the first image after the other, and a pixel of the second."""
        proposal = propose(inputs, step)
        number = min(step, 1)
        boxes = CenterBoxes(torch.full((2, 2), 16.0), torch.ones(2, 2))
        boxes.center[0], boxes.size[0] = targets.boxes.center[0, number], targets.boxes.size[0, number]
        return dataclasses.replace(proposal, boxes=boxes)

    model.box_proposer.forward = at_truth
    # Every step claims what it proposes, so that the third has nothing left to hit.
    drawn = iter([*fast_masks([2, 0]).transpose(0, 1)])
    model.attention.paste = lambda logits, window: next(drawn)
    judged = []
    model.criterion.mask_loss = lambda pairs: judged.append(pairs) or pairs.logits.sum()
    model(batch)
    (pairs,) = judged
    assert torch.equal(pairs.true_masks, targets.masks[0])
    assert pairs.logits.shape == pairs.truth.shape == (2, 12, 16)
    # The padded box of a rectangle: its truth is a rectangle in the middle.
    for truth in pairs.truth:
        assert truth[6, 8] > 0.9 and truth[0, 0] == truth[-1, -1] == 0


# ---------------------------------------------------------------- settings

REFUSED = [
    ({"TRAINING.MODE": "Nonsense"}, r"TRAINING.MODE is 'Nonsense'.*ParallelTeacherForcing.*SequentialSteps.*StatePool"),
    *[
        ({"TRAINING.MODE": mode, "NORM": "per_step"}, rf"TRAINING.MODE '{mode}'.*NORM to 'shared'")
        for mode in SINGLE_STEPS
    ],
    *[
        ({"TRAINING.MODE": "ParallelTeacherForcing", f"TRAINING.{key}": -1}, rf"TRAINING.{key} is -1; give 0 or more")
        for key in ("OWN_STEPS", "TRUE_PATCHES")
    ],
    ({"TRAINING.OWN_STEPS": 0}, r"TRAINING.OWN_STEPS must be at least 1 for StatePool"),
    ({"TRAINING.MODE": "Sequential", "LOSS.BOX": "huber"}, r"TRAINING.MODE 'Sequential'.*DenseBoxProposer"),
    ({"TRAINING.MODE": "Sequential", **LEARNED_GLIMPSE}, r"LOSS.BOX 'iou'.*BilinearAttention.*'huber' or 'mse'"),
    ({"TRAINING.DRAWN_MEMORY.EMPTY_SHARE": 2.0}, r"TRAINING.DRAWN_MEMORY.EMPTY_SHARE is 2.0"),
    (
        {"ATTENTION.NAME": "GaussianAttention"},
        r"SEGMENTATION_HEAD.NAME 'ResidualPatchHead' and ATTENTION.NAME 'GaussianAttention' do not fit",
    ),
    ({**PAPER_PARTS, "LOSS.STEP_MASK": ["image_iou", "patch_dice"]}, r"LOSS.STEP_MASK names \['patch_dice'\]"),
    ({"LOSS.STEP_MASK": ["nonsense"]}, r"LOSS.STEP_MASK is 'nonsense'"),
    ({"LOSS.SCORE_TRUTH": "nonsense"}, r"LOSS.SCORE_TRUTH is 'nonsense'"),
    ({"TEST.MAX_STEPS": -1}, r"TEST.MAX_STEPS is -1; give 0 or more"),
]


@pytest.mark.parametrize(("overrides", "message"), REFUSED, ids=[message for _, message in REFUSED])
def test_settings_that_do_not_work_are_refused(fast_cfg, overrides: dict, message: str):
    with pytest.raises(ValueError, match=f"MODEL.REC_ATTEND.{message}"):
        build_model(fast_cfg(overrides))


def test_settings_come_from_the_config(make_fast):
    settings = {"OWN_STEPS": 4, "TRUE_PATCHES": 3, "BOX_NOISE": 0.25}
    mode = make_fast("StatePool", {f"TRAINING.{key}": value for key, value in settings.items()}).training_mode
    assert {key: getattr(mode, key.lower()) for key in settings} == settings


CROP = {"INPUT.CROP.TYPE": "absolute", "INPUT.CROP.SIZE": [32, 32], "INPUT.AUGMENTATIONS": ["RandomCrop"]}


def cropped(cfg: CfgNode, changes: dict) -> CfgNode:
    """The config for training on windows, with other changes by key."""
    for key, value in {**CROP, **changes}.items():
        cfg.merge_from_list([key, value])
    return cfg


@pytest.mark.parametrize("mode", SINGLE_STEPS)
def test_training_on_windows_and_inference_on_whole_images(fast_cfg, fast_batch, mode: str):
    model = build_model(cropped(fast_cfg({"TRAINING.MODE": mode}), {}))
    batch = fast_batch([2, 3])
    windows = [
        {**e, "image": e["image"][:, :, 16:48], "instances": Instances((32, 32), gt_masks=cut_masks(e["instances"]))}
        for e in batch
    ]
    check_gradients(model, model(windows))
    with pytest.raises(ValueError, match=r"INPUT.CROP.SIZE is \(32, 32\)"):
        model(batch)
    model.eval()
    with torch.no_grad():
        assert [output["instances"].image_size for output in model(batch)] == [(32, 64)] * 2


def cut_masks(instances: Instances) -> BitMasks:
    """Masks in columns 16 to 47, without empty ones."""
    masks = instances.gt_masks.tensor[:, :, 16:48]
    return BitMasks(masks[masks.flatten(1).any(1)])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"MODEL.REC_ATTEND.BOX_PROPOSER.NAME": "GlimpseLSTMBoxProposer"}, "maps of one size: take 'RandomCrop' out"),
        ({"INPUT.CROP.SIZE": [24, 32]}, r"INPUT.CROP.SIZE is \[24, 32\]; .* multiples of 32"),
        ({"INPUT.AUGMENTATIONS": [], "INPUT.CROP.ENABLED": True}, "name 'RandomCrop' in INPUT.AUGMENTATIONS"),
    ],
)
def test_windows_that_do_not_fit(fast_cfg, changes: dict, message: str):
    with pytest.raises(ValueError, match=message):
        build_model(cropped(fast_cfg({"TRAINING.MODE": "StatePool"}), changes))
