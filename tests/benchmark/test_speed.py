"""What is measured: the steps that are taken, the work that is counted, memory and post-processing."""

import time

import pytest
import torch

from rec_attend_d2.benchmark import measuring
from rec_attend_d2.benchmark.measuring import count_flops, matmul_peak, measure
from rec_attend_d2.benchmark.probes import known_objects
from rec_attend_d2.benchmark.processes import last_line
from rec_attend_d2.benchmark.speed import (
    Effort,
    build_random_model,
    inference_batch,
    inference_rows,
    postprocessing_time,
    training_step,
)

ONCE = Effort(repeats=1, warmup=0)


@torch.no_grad()
@pytest.mark.parametrize(("name", "objects", "steps"), [("stage_c", 0, 1), ("stage_c", 2, 3)])
def test_the_papers_model_takes_a_step_more_than_there_are_objects(quick_cfg, name, objects, steps):
    cfg = quick_cfg(name)
    model, batch = build_random_model(cfg).eval(), inference_batch(cfg, 2)
    head_calls = []
    handle = model.segmentation_head.register_forward_hook(lambda *_: head_calls.append(1))
    with known_objects(model, objects, stop=True) as counter:
        model(batch)
        model(batch)
    handle.remove()
    assert counter.steps == steps and len(head_calls) == 2 * steps


@torch.no_grad()
@pytest.mark.parametrize(("objects", "boxes"), [(0, [1]), (1, [1, 1]), (8, [8, 1])])
def test_the_fast_model_claims_all_objects_in_its_first_glance(quick_cfg, objects, boxes):
    cfg = quick_cfg("fast")
    model, batch = build_random_model(cfg).eval(), inference_batch(cfg, 2)
    patches = []
    handle = model.segmentation_head.register_forward_hook(lambda _, given, found: patches.append(len(given[0])))
    own = model(batch)[0]["instances"]
    patches.clear()
    with known_objects(model, objects, stop=True) as counter:
        outputs = model(batch)
    handle.remove()
    assert counter.steps == len(boxes) and patches == [2 * count for count in boxes]  # of two images
    assert [len(output["instances"]) for output in outputs] == [objects, objects]
    assert model(batch)[0]["instances"].scores.tolist() == own.scores.tolist()


@torch.no_grad()
def test_the_model_is_itself_again_afterwards(quick_cfg):
    cfg = quick_cfg("stage_c")
    model, batch = build_random_model(cfg).eval(), inference_batch(cfg, 1)
    own = model(batch)[0]["instances"].scores
    with known_objects(model, 2, stop=False) as counter:
        assert set(model(batch)[0]["instances"].scores.tolist()) <= {0.0, 1.0}
    assert counter.steps == 3
    assert torch.equal(model(batch)[0]["instances"].scores, own)


def test_a_model_that_ignores_the_scores_is_not_measured(quick_cfg):
    cfg = quick_cfg("stage_c")
    model = build_random_model(cfg)
    model.max_steps = 2  # of T = 3
    with pytest.raises(RuntimeError, match="RecAttend took 2 steps in 'inference, all steps', but its scores say 3"):
        list(inference_rows(cfg, model, 1, [], ONCE))


@pytest.mark.parametrize(
    ("name", "runs"),
    [
        ("fast", {"inference, 1 object apart, then stop": 2, "inference, 9 objects apart, then stop": 2}),
        ("stage_c", {"inference, all steps": 3, "inference, 1 object, then stop": 2}),
        ("stage_b", {"inference, all steps": 3}),
        ("Cityscapes/stage_a", {"inference": None}),
    ],
)
def test_inference_of_every_kind_of_model(quick_cfg, name, runs):
    cfg = quick_cfg(name)
    # After 9 objects the paper's model has no step left to stop at.
    rows = {row["run"]: row for row in inference_rows(cfg, build_random_model(cfg), 2, [1, 9], ONCE)}
    assert {run: rows[run].get("steps") for run in runs} == runs
    networks = {"inference, all steps, networks only"} if name.startswith("stage") else set()
    assert rows.keys() - runs.keys() == networks
    for row in rows.values():
        assert row["batch"] == 2 and row["flops"] > 0 and row["seconds"]["repeats"] == 1
        assert row["images_per_second"] == pytest.approx(2 / row["seconds"]["median"])


def test_flops_of_all_steps_grow_with_the_steps(quick_cfg):
    counted = []
    for steps in (2, 4):
        cfg = quick_cfg("stage_c", "MODEL.REC_ATTEND.TIME_STEPS", steps)
        counted.append(count_flops(training_step(cfg, build_random_model(cfg), 1)))
    assert counted[1] == pytest.approx(2 * counted[0], rel=0.05)


def test_a_multiplication_and_an_addition_count_as_two_backward_too():
    a, b = torch.ones(3, 4, requires_grad=True), torch.ones(4, 5, requires_grad=True)
    assert count_flops(lambda: a @ b) == 2 * 3 * 4 * 5
    assert count_flops(lambda: (a @ b).sum().backward()) == 3 * 2 * 3 * 4 * 5


def test_the_peak_is_measured_for_every_size(monkeypatch):
    monkeypatch.setitem(measuring.MATRIX_SIDES, "cpu", (16, 32))
    rates = matmul_peak("cpu")
    assert list(rates) == ["16", "32"] and min(rates.values()) > 0


def test_the_median_of_repeats_after_warmup(monkeypatch):
    durations = iter([100.0, 1, 9, 2, 3, 4])
    monkeypatch.setattr(measuring, "seconds_of", lambda run, device: next(durations))
    assert measure(lambda: None, "cpu", repeats=5, warmup=1) == {"median": 3, "q1": 2, "q3": 4, "repeats": 5}
    monkeypatch.undo()
    assert 0.05 <= measure(lambda: time.sleep(0.05), "cpu", 1, 0)["median"] < 1


@pytest.mark.parametrize("name", ["stage_b", "stage_c", "fast", "Cityscapes/stage_a"])
def test_every_training_step_is_the_same_and_changes_nothing(quick_cfg, name):
    cfg = quick_cfg(name)
    model = build_random_model(cfg)
    step = training_step(cfg, model, 2)
    step()
    weights = [value.clone() for value in model.parameters()]
    gradients = []
    for _ in range(2):
        step()
        gradients.append([value.grad.clone() for value in model.parameters() if value.grad is not None])
    assert gradients[0] and all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("name", ["stage_c", "Cityscapes/stage_c"])
def test_postprocessing_finds_the_objects_it_is_given(quick_cfg, name):
    seconds, found = postprocessing_time(quick_cfg(name), ONCE, image_size=(64, 128), objects=4)
    assert found == 4 and seconds["repeats"] == 1 and seconds["median"] > 0


@pytest.mark.parametrize(("name", "architecture"), [("stage_b", "RecAttendBoxProposer"), ("fast", "FastRecAttend")])
def test_there_is_no_postprocessor_to_time_in_other_models(quick_cfg, name, architecture):
    with pytest.raises(ValueError, match=f"'{architecture}' has no post-processing of whole masks.*--postprocessing"):
        postprocessing_time(quick_cfg(name), ONCE)


def test_a_process_that_fails_is_reported():
    assert last_line(["-c", "import os; print(1); print(os.environ['OMP_NUM_THREADS'])"], threads=3) == "3"
    with pytest.raises(RuntimeError, match="exit code 1: ValueError: bad"):
        last_line(["-c", "raise ValueError('bad')"], threads=1)


def test_the_machine_is_described(tmp_path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: Some CPU @ 3 GHz\n\nprocessor\t: 1\nmodel name\t: Other\n")
    assert measuring.cpu_name(cpuinfo) == "Some CPU @ 3 GHz"
    assert measuring.cpu_name(tmp_path / "missing") != ""
    machine = measuring.describe_environment("cpu", 3)
    assert (machine["device"], machine["threads"]) == ("cpu", 3)
    assert machine["device_name"] == machine["cpu_name"] == measuring.cpu_name()
