"""Models with tensors in and out: the original's results, and clear errors where there is no such model."""

import re
import sys

import pytest
import torch

from rec_attend_d2.export import ExportError, StopLoopModel, UnrolledModel
from rec_attend_d2.modeling.fast.claims import mask_pixels
from rec_attend_d2.modeling.steps import Feeder, StepInputs, select

OUTPUTS = ["masks", "scores", "centers", "sizes"]


def first_inputs(model, batch: torch.Tensor) -> StepInputs:
    return StepInputs(batch, torch.zeros_like(batch[:, 0]), model.preprocessor(batch, []))


def test_the_unrolled_paper_model_is_the_original(quick_model, images):
    model = quick_model("stage_c")
    batch = images(model, 2)
    module = UnrolledModel(model, 3)
    with torch.no_grad():
        steps = model.sequence(first_inputs(model, batch), Feeder()).steps
        outputs = module(batch)
    boxes = steps.where.boxes
    expected = dict(zip(OUTPUTS, (steps.cut.mask, steps.score, boxes.center, boxes.size), strict=True))
    assert list(outputs) == OUTPUTS
    for name, value in outputs.items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-5)
        assert torch.equal(module.reference(batch)[name], expected[name])


def test_the_unrolled_fast_model_is_the_original_one_by_one(quick_model, images):
    model = quick_model("fast")
    torch.nn.init.normal_(model.box_proposer.place.weight)
    torch.nn.init.constant_(model.segmentation_head.mask.bias, 3.0)
    model.stop_threshold = 0.0
    batch = images(model, 1)
    outputs = UnrolledModel(model, 3)(batch)
    model.box_proposer.objects_per_glance = 1
    with torch.no_grad():
        steps = [step for _, step in model.unroll(first_inputs(model, batch), 3, Feeder())]
    for number, step in enumerate(steps):
        score = step.score[0] * step.claimed[0]
        torch.testing.assert_close(outputs["scores"][0, number], score, rtol=0, atol=1e-5)
        torch.testing.assert_close(outputs["centers"][0, number], step.where.boxes.center[0], rtol=0, atol=1e-3)
        pixels = mask_pixels(step.cut.patch_mask, step.where.boxes, batch.shape[2:])
        mask = torch.zeros(batch.shape[2:]).index_put((pixels.y, pixels.x), pixels.value)
        torch.testing.assert_close(outputs["masks"][0, number], mask, rtol=0, atol=1e-4)
    assert outputs["scores"][0, 0] > 0


def test_classes_and_foreground_are_further_outputs(quick_model, images):
    model = quick_model("fast", "MODEL.REC_ATTEND.NUM_CLASSES", "3")
    outputs = UnrolledModel(model, 2).reference(images(model, 1))
    assert list(outputs) == [*OUTPUTS, "class_probabilities"]
    assert outputs["class_probabilities"].shape == (1, 2, 3)
    assert outputs["masks"].shape == (1, 2, 64, 64)

    model = quick_model("KITTI/stage_c")
    outputs = UnrolledModel(model, 2).reference(images(model, 1))
    assert list(outputs) == [*OUTPUTS, "foreground"]
    assert outputs["foreground"].shape == (1, 1, *model.image_size)


@pytest.mark.parametrize("name", ["fast", "stage_c"])
def test_the_stop_loops_reference_ends_with_zeros(name, quick_model, images):
    model = quick_model(name)
    model.stop_threshold = 1.1  # no score is that high
    outputs = StopLoopModel(model, 3).reference(images(model, 2))
    assert outputs["steps"] == 1 and outputs["masks"].shape[1] == 3
    assert outputs["sizes"][:, 0].min() > 0 and outputs["scores"].sum() == 0
    for key in OUTPUTS:
        assert outputs[key][:, 1:].count_nonzero() == 0


def test_the_loop_finds_what_the_model_finds(quick_model, images):
    model = quick_model("fast")
    torch.nn.init.normal_(model.box_proposer.place.weight)
    model.stop_threshold, model.box_proposer.objects_per_glance = 0.3, 1
    batch = images(model, 2)
    with torch.no_grad():
        taken = model.unroll(first_inputs(model, batch), 4, Feeder(), stop=True)
    outputs = StopLoopModel(model, 4).reference(batch)
    assert outputs["steps"] == len(taken)
    for number, (rows, step) in enumerate(taken):
        claimed = outputs["scores"][:, number] > 0
        assert claimed.nonzero()[:, 0].tolist() == select(torch.tensor(rows), step.claimed).tolist()


@pytest.mark.parametrize(
    ("module", "name", "options", "steps", "message"),
    [
        (UnrolledModel, "stage_b", [], 3, "MODEL.META_ARCHITECTURE is 'RecAttendBoxProposer', but only models that"),
        (UnrolledModel, "stage_c", [], 0, "0 steps finds nothing; give at least 1"),
        (UnrolledModel, "stage_c", [], 4, "4 steps are asked for, but with MODEL.REC_ATTEND.NORM 'per_step'"),
        (StopLoopModel, "stage_c", ["MODEL.REC_ATTEND.TEST.STOP_EARLY", "False"], 3, "TEST.STOP_EARLY is False"),
        (
            UnrolledModel,
            "stage_c",
            [
                "MODEL.REC_ATTEND.PREPROCESSOR.NAME",
                "GivenMaps",
                "MODEL.REC_ATTEND.PREPROCESSOR.FOREGROUND_CLASSES",
                "1",
            ],
            3,
            "PREPROCESSOR.NAME 'GivenMaps' takes its maps from annotations",
        ),
    ],
)
def test_what_cannot_be_exported_is_a_clear_error(module, name, options, steps, message, quick_model):
    model = quick_model(name, *options)
    with pytest.raises(ExportError, match=re.escape(message)):
        module(model, steps)


def test_a_pytorch_without_loops_is_a_clear_error(quick_model, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch._higher_order_ops.while_loop", None)
    with pytest.raises(
        ExportError, match="cannot put a loop into a graph: update it, or export a fixed number of steps"
    ):
        StopLoopModel(quick_model("fast"), 3)
