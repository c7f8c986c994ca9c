"""What is measured: the steps that are taken, the work that is counted, memory, post-processing and starts."""

import copy

import pytest
import torch

from rec_attend_d2.benchmark import compute, startup, suite
from rec_attend_d2.benchmark.batches import synthetic_batch
from rec_attend_d2.benchmark.compute import count_flops, matmul_peak
from rec_attend_d2.benchmark.postprocessing import postprocessing_time
from rec_attend_d2.benchmark.processes import last_line
from rec_attend_d2.benchmark.runs import (
    Inference,
    TrainingStep,
    build_random_model,
    check_steps,
    known_scores,
    possible_objects,
    stopping,
)
from rec_attend_d2.benchmark.startup import training_times
from rec_attend_d2.benchmark.suite import Effort, growth_values, inference_rows
from rec_attend_d2.benchmark.training_memory import TrainingMemory

ONCE = Effort(repeats=1, warmup=0, threads=1)


@pytest.mark.parametrize("objects", [0, 1, 3])
def test_an_image_with_n_objects_takes_one_step_more(quick_cfg, objects):
    cfg = quick_cfg("fast")
    model = build_random_model(cfg)
    run = Inference(model, synthetic_batch(cfg, 2, 2))
    head_calls = []
    handle = model.segmentation_head.register_forward_hook(lambda *_: head_calls.append(1))
    with known_scores(model, objects) as counter, stopping(model, early=True):
        run()
        run()
    handle.remove()
    assert counter.steps == objects + 1 and len(head_calls) == 2 * (objects + 1)


def test_the_model_is_itself_again_afterwards(quick_cfg):
    cfg = quick_cfg("stage_c")
    model = build_random_model(cfg)
    run = Inference(model, synthetic_batch(cfg, 1, 2))
    run()
    own = run.results[0]["instances"].scores
    with known_scores(model, 2), stopping(model, early=False):
        run()
        assert set(run.results[0]["instances"].scores.tolist()) <= {0.0, 1.0}
    run()
    assert torch.equal(run.results[0]["instances"].scores, own)


def test_only_numbers_of_objects_that_leave_a_step_to_stop(quick_cfg):
    assert possible_objects(build_random_model(quick_cfg("stage_c")), [1, 2, 3]) == [1, 2]  # T is 3
    assert possible_objects(build_random_model(quick_cfg("stage_b")), [1, 2]) == []


def test_a_model_that_ignores_the_scores_is_not_measured(quick_cfg):
    model = build_random_model(quick_cfg("stage_c"))
    check_steps(model, 2, 2, len)
    with pytest.raises(RuntimeError, match="RecAttend took 3 steps .* scores say 2"):
        check_steps(model, 3, 2, len)


@pytest.mark.parametrize(
    ("name", "runs"),
    [
        ("stage_c", {"inference, all steps": 3, "inference, 1 object, then stop": 2}),
        ("stage_b", {"inference, all steps": 3}),
        ("Cityscapes/stage_a", {"inference": None}),
    ],
)
def test_inference_of_every_kind_of_model(quick_cfg, name, runs):
    cfg = quick_cfg(name)
    rows = {row["run"]: row for row in inference_rows(cfg, build_random_model(cfg), 2, [1], ONCE)}
    assert {run: rows[run].get("steps") for run in runs} == runs
    assert rows.keys() - runs.keys() <= {"inference, all steps, networks only"}
    for row in rows.values():
        assert row["batch"] == 2 and row["flops"] > 0 and row["seconds"]["repeats"] == 1
        assert row["images_per_second"] == pytest.approx(2 / row["seconds"]["median"])


def test_flops_of_all_steps_grow_with_the_steps(quick_cfg):
    counted = []
    for steps in (2, 4):
        cfg = quick_cfg("stage_c", "MODEL.REC_ATTEND.TIME_STEPS", steps)
        counted.append(count_flops(TrainingStep(cfg, build_random_model(cfg), 1)))
    assert counted[1] == pytest.approx(2 * counted[0], rel=0.05)


def test_a_multiplication_and_an_addition_count_as_two_backward_too():
    a, b = torch.ones(3, 4, requires_grad=True), torch.ones(4, 5, requires_grad=True)
    assert count_flops(lambda: a @ b) == 2 * 3 * 4 * 5
    assert count_flops(lambda: (a @ b).sum().backward()) == 3 * 2 * 3 * 4 * 5


def test_the_peak_is_measured_for_every_size(monkeypatch):
    monkeypatch.setitem(compute.MATRIX_SIDES, "cpu", (16, 32))
    rates = matmul_peak("cpu")
    assert list(rates) == ["16", "32"] and min(rates.values()) > 0


def test_the_pool_starts_every_step_from_the_same_memory(quick_cfg):
    cfg = quick_cfg("fast")
    step = TrainingStep(cfg, build_random_model(cfg), 2)
    seen = []
    forward = step.model.forward

    def spy(batch):
        seen.append([copy.copy(entry["state"]) for entry in batch])
        return forward(batch)

    step.model.forward = spy
    for _ in range(3):
        step()
    assert seen[0][0].memory is None
    assert all(torch.equal(a.memory, b.memory) for a, b in zip(seen[1], seen[2], strict=True))
    assert [state.steps for state in seen[2]] == [1, 1]


def test_the_increase_is_beyond_the_idle_process():
    assert TrainingMemory(peak=10, idle=4).increase == 6


def test_growth_values(quick_cfg, monkeypatch):
    monkeypatch.setattr(suite, "training_memory", lambda *arguments: TrainingMemory(10, 4))
    values = growth_values(quick_cfg("stage_c"), 1, ONCE)
    assert values.keys() == {"training step", "inference, all steps", "training memory"}
    assert values["training memory"] == 6 and min(values.values()) > 0


@pytest.mark.parametrize("name", ["stage_c", "fast", "Cityscapes/stage_c"])
def test_postprocessing_finds_the_objects_it_is_given(quick_cfg, name):
    timing, found = postprocessing_time(quick_cfg(name), repeats=2, warmup=0, image_size=(64, 128), objects=4)
    assert found == 4 and timing.repeats == 2 and timing.median > 0


def test_there_is_no_postprocessor_to_time_in_other_models(quick_cfg):
    with pytest.raises(ValueError, match="'RecAttendBoxProposer' has no TEST.POSTPROCESSOR.*--postprocessing"):
        postprocessing_time(quick_cfg("stage_b"), 1, 0)


def test_the_start_of_a_training(quick_cfg, tmp_path):
    tool = tmp_path / "train_net.py"
    tool.write_text(
        "import sys, time\n"
        "assert open(sys.argv[2]).read() and 'SOLVER.MAX_ITER' in sys.argv\n"
        "print('Starting training from iteration 0'); time.sleep(0.2); print('iter: 0  total_loss: 1')\n"
    )
    times = training_times(quick_cfg("stage_c"), tool, repeats=2, threads=1)
    before, after = times.values()
    assert before.repeats == after.repeats == 2
    assert 0 < before.median < after.median and after.q1 >= 0.2


def test_a_training_that_fails_is_reported(quick_cfg, tmp_path):
    tool = tmp_path / "train_net.py"
    tool.write_text("raise SystemExit('no data')")
    with pytest.raises(RuntimeError, match="train_net.py failed with exit code 1: no data"):
        training_times(quick_cfg("stage_c"), tool, 1, 1)
    with pytest.raises(ValueError, match="does not train .*'GeneralizedRCNN'.*--startup"):
        training_times(quick_cfg("stage_c", "MODEL.META_ARCHITECTURE", "GeneralizedRCNN"), tool, 1, 1)


def test_imports_are_timed_apart(monkeypatch, tmp_path):
    (tmp_path / "detectron2").mkdir()
    (tmp_path / "detectron2" / "__init__.py").write_text("import time; time.sleep(1)")
    (tmp_path / "rec_attend_d2.py").write_text("import detectron2, time; time.sleep(0.1)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    times = startup.import_times(repeats=1, threads=1)
    assert times["import detectron2"].median >= 1 > times["import rec_attend_d2"].median >= 0.1


def test_a_process_that_fails_is_reported():
    assert last_line(["-c", "import os; print(1); print(os.environ['OMP_NUM_THREADS'])"], threads=3) == "3"
    with pytest.raises(RuntimeError, match="exit code 1: ValueError: bad"):
        last_line(["-c", "raise ValueError('bad')"], threads=1)
