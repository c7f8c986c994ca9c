"""Models with tensors in and out: the original's results, and clear errors where there is no such model."""

import re
import sys

import pytest
import torch

from rec_attend_d2.export import ExportError, StopLoopModel, UnrolledModel

OUTPUTS = ["masks", "scores", "centers", "sizes"]


@pytest.mark.parametrize("name", ["stage_c", "fast"])
def test_the_unrolled_model_is_the_original(name, quick_model, images):
    model = quick_model(name)
    batch = images(model, 2)
    module = UnrolledModel(model)
    with torch.no_grad():
        sequence = model.unroll(batch, model.preprocessor(batch, []))
        outputs = module(batch)
    assert list(outputs) == OUTPUTS
    for name, value in outputs.items():
        assert torch.allclose(value, getattr(sequence, name), atol=1e-5), name
        assert torch.equal(module.reference(batch)[name], getattr(sequence, name))


def test_the_number_of_steps_can_be_chosen_and_the_given_model_stays(quick_model, images):
    model = quick_model("fast")
    outputs = UnrolledModel(model, 5).reference(images(model, 1))
    height, width = model.image_size
    assert {name: tuple(value.shape) for name, value in outputs.items()} == {
        "masks": (1, 5, height, width),
        "scores": (1, 5),
        "centers": (1, 5, 2),
        "sizes": (1, 5, 2),
    }
    assert (model.time_steps, model.max_steps) == (3, 5)


def test_classes_and_foreground_are_further_outputs(quick_model, images):
    model = quick_model("fast", "MODEL.REC_ATTEND.NUM_CLASSES", "3")
    outputs = UnrolledModel(model, 2).reference(images(model, 1))
    assert list(outputs) == [*OUTPUTS, "class_probabilities"]
    assert outputs["class_probabilities"].shape == (1, 2, 3)

    model = quick_model("KITTI/stage_c")
    outputs = UnrolledModel(model, 2).reference(images(model, 1))
    assert list(outputs) == [*OUTPUTS, "foreground"]
    assert outputs["foreground"].shape == (1, 1, *model.image_size)


def test_the_stop_loops_reference_ends_with_zeros(quick_model, images):
    model = quick_model("fast")
    model.stop_threshold = 1.1  # no score is that high
    outputs = StopLoopModel(model).reference(images(model, 2))
    assert outputs["steps"] == 1
    assert outputs["masks"].shape[1] == model.max_steps == 5
    assert outputs["sizes"][:, 0].min() > 0
    for name in OUTPUTS:
        assert outputs[name][:, 1:].count_nonzero() == 0


@pytest.mark.parametrize(
    ("module", "name", "options", "steps", "message"),
    [
        (UnrolledModel, "stage_b", [], None, "MODEL.META_ARCHITECTURE is 'RecAttendBoxProposer', but only the full"),
        (UnrolledModel, "stage_c", [], 0, "0 steps finds nothing; give at least 1"),
        (UnrolledModel, "stage_c", [], 4, "4 steps are asked for, but with MODEL.REC_ATTEND.NORM 'per_step'"),
        (StopLoopModel, "fast", ["MODEL.REC_ATTEND.TEST.STOP_EARLY", "False"], None, "TEST.STOP_EARLY is False"),
        (
            UnrolledModel,
            "stage_c",
            [
                "MODEL.REC_ATTEND.PREPROCESSOR.NAME",
                "GivenMaps",
                "MODEL.REC_ATTEND.PREPROCESSOR.FOREGROUND_CLASSES",
                "1",
            ],
            None,
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
        StopLoopModel(quick_model("fast"))
