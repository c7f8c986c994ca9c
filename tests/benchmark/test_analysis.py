"""What a model is said to cost is what it computes, part by part and step by step."""

import pytest
import torch
from fvcore.nn import ActivationCountAnalysis, FlopCountAnalysis
from torch import nn

from rec_attend_d2.benchmark.analysis import (
    OWN,
    WHOLE,
    StepCounts,
    analyze,
    count_steps,
    parameter_counts,
    trace,
    trainable_parameters,
)
from rec_attend_d2.benchmark.analysis_report import counts_table, parameters_table, tables, uncounted_line
from rec_attend_d2.benchmark.batches import synthetic_batch
from rec_attend_d2.benchmark.compute import count_flops
from rec_attend_d2.benchmark.runs import Unroll, build_random_model


class Small(nn.Module):
    """Two layers, of which the second is applied twice, and a product of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.ReLU())
        self.head = nn.Conv2d(4, 4, 1, bias=False)
        self.head.requires_grad_(False)

    def forward(self, batched_inputs: list[dict]) -> torch.Tensor:
        features = self.body(batched_inputs[0]["image"][None])
        features = self.head(self.head(features))
        return torch.matmul(features, features)


BATCH = [{"image": torch.zeros(3, 5, 5)}]
CONV1, CONV2, PRODUCT = 3 * 4 * 25, 4 * 4 * 25, 4 * 5 * 25


def test_operations_belong_to_the_part_that_does_them():
    counted = trace(Small().eval(), BATCH, FlopCountAnalysis, depth=2)
    expected = {"body": CONV1, "body.0": CONV1, "head": 2 * CONV2, OWN: PRODUCT}
    assert {name: count for name, count in counted.parts.items() if count and name != WHOLE} == expected
    assert counted.parts[WHOLE] == CONV1 + 2 * CONV2 + PRODUCT
    assert counted.uncounted["aten::relu"] in (0, 1)
    assert "body.0" not in trace(Small().eval(), BATCH, FlopCountAnalysis, depth=1).parts


def test_parameters():
    model = Small()
    assert parameter_counts(model, 1) == {WHOLE: 28, "body": 12, "head": 16}
    assert parameter_counts(model, 2)["body.0"] == 12
    assert trainable_parameters(model) == 12


@pytest.mark.parametrize("name", ["fast", "stage_b", "stage_c"])
def test_every_step_is_counted_as_it_is_computed(quick_cfg, name):
    cfg = quick_cfg(name)
    model = build_random_model(cfg).eval()
    batch = synthetic_batch(cfg, 1, 2)
    model.time_steps = 3
    counts, uncounted = count_steps(model, batch, FlopCountAnalysis, depth=1)
    assert model.time_steps == 3
    whole = trace(model, batch, FlopCountAnalysis, depth=1)
    assert {name: count.total(3) for name, count in counts.items()} == {k: v for k, v in whole.parts.items() if v}
    assert {name: count.total(3) for name, count in uncounted.items()} == whole.uncounted
    # Both count matrix products and convolutions, the other one a multiplication and an addition as two.
    assert whole.parts[WHOLE] == pytest.approx(count_flops(Unroll(model, batch)) / 2, rel=0.05)


def test_what_is_done_once_is_in_the_first_step_alone(quick_cfg):
    cfg = quick_cfg("fast")
    counts, _ = count_steps(build_random_model(cfg).eval(), synthetic_batch(cfg, 1, 2), FlopCountAnalysis, depth=1)
    assert counts["preprocessor"].first > 0 == counts["preprocessor"].further
    assert counts["segmentation_head"].first == counts["segmentation_head"].further > 0


def test_models_without_steps_have_one_figure():
    counts, _ = count_steps(Small().eval(), BATCH, ActivationCountAnalysis, depth=1)
    assert counts["body"] == StepCounts(4 * 25, 0) and counts["head"].total(1) == 2 * 4 * 25


def test_one_step_does_not_show_the_next(quick_cfg):
    cfg = quick_cfg("stage_c", "MODEL.REC_ATTEND.TIME_STEPS", 1)
    with pytest.raises(ValueError, match="TIME_STEPS is 1; give at least 2"):
        analyze(cfg, ["flops"], None, 1)


def test_steps_are_asked_of_models_that_have_them(quick_cfg):
    with pytest.raises(ValueError, match="RecAttendPreprocessor has no time steps; leave out --steps"):
        analyze(quick_cfg("Cityscapes/stage_a"), ["flops"], 3, 1)


def test_the_report_holds_what_is_asked_for(quick_cfg):
    report = analyze(quick_cfg("stage_c"), ["flops", "structure"], 7, 1)
    assert (report["model"], report["image_size"], report["steps"]) == ("RecAttend", [32, 48], 7)
    assert "parameters" not in report and report["structure"].startswith("RecAttend(")
    row = report["flops"]["parts"]["stop_scorer"]
    assert row["total"] == row["first"] + 6 * row["further"]
    words = tables(report)
    assert "one image of 32 x 48 pixels, 7 time steps" in words and "7 steps" in words and "aten::exp" in words
    assert "(memory)" in words


def test_tables_indent_parts_of_parts():
    parts = {name: {"first": 1_000_000, "further": 2_500_000, "total": 6_000_000} for name in (OWN, WHOLE, "a", "a.b")}
    lines = counts_table(parts, "flops", 3).splitlines()
    assert [line.split("  1.000")[0].rstrip() for line in lines[-4:]] == ["all", "  a", "    b", f"  {OWN}"]
    assert lines[-1].split()[-3:] == ["1.000", "2.500", "6.000"]
    assert "further" not in counts_table(parts, "activations", None)
    assert parameters_table({"trainable": 12, "parts": {WHOLE: 2800, "a": 28}}).splitlines()[2].split() == [
        "all",
        "2,800",
    ]
    assert uncounted_line({"x": {"total": 1}, "y": {"total": 5}}) == "Operations not counted: y 5x, x 1x."
    assert uncounted_line({}) == "Every operator is counted."
