"""Own times of phases, nested ones included, and the wrapping of methods from outside."""

import pytest
import torch
from torch import nn

from rec_attend_d2.benchmark.phases import OTHER, Probe, probing, profile
from rec_attend_d2.benchmark.phases import PhaseClock as Clock
from rec_attend_d2.benchmark.probes import training_probes
from rec_attend_d2.benchmark.runs import TrainingStep, build_random_model
from rec_attend_d2.benchmark.timing import CPUStopwatch, Timing, measure


class Inner(nn.Module):
    def __init__(self, stopwatch):
        super().__init__()
        self.stopwatch = stopwatch

    def forward(self, x):
        self.stopwatch.pass_time(3)
        return x + 1


class Toy(nn.Module):
    """One second of its own, an inner module twice (3 s each), 2 s of a helper that calls itself, 4 s of a function."""

    def __init__(self, stopwatch):
        super().__init__()
        self.stopwatch = stopwatch
        self.inner = Inner(stopwatch)
        self.function = lambda: stopwatch.pass_time(4)

    def helper(self, depth):
        self.stopwatch.pass_time(1)
        if depth:
            self.helper(depth - 1)

    @staticmethod
    def static(x):
        return 2 * x

    def forward(self, x):
        self.stopwatch.pass_time(1)
        x = self.inner(self.inner(x))
        self.helper(1)
        self.function()
        return self.static(x)


def probes(toy):
    return [
        Probe("toy", toy, "forward"),
        Probe("inner", toy.inner, "forward"),
        Probe("helper", toy, "helper"),
        Probe("function", toy, "function"),
        Probe("static", Toy, "static"),
    ]


def test_a_phase_does_not_count_what_is_inside_it(stopwatch):
    toy = Toy(stopwatch)

    def run():
        stopwatch.pass_time(0.5)
        toy(0)

    seconds = profile(run, probes(toy), stopwatch, repeats=3, warmup=1)
    assert seconds == {"inner": 6, "function": 4, "helper": 2, "toy": 1, OTHER: 0.5, "static": 0}
    assert list(seconds)[:2] == ["inner", "function"]
    assert stopwatch.now == 4 * sum(seconds.values())


def test_wrapping_changes_no_result_and_is_undone(stopwatch):
    toy = Toy(stopwatch)
    function, static = toy.function, vars(Toy)["static"]
    clock = Clock(stopwatch)
    with probing(probes(toy), clock):
        assert toy(1) == 6
        assert toy.forward.__wrapped__.__func__ is Toy.forward
    assert "forward" not in vars(toy) and "helper" not in vars(toy) and "forward" not in vars(toy.inner)
    assert toy.function is function and vars(Toy)["static"] is static
    assert toy(1) == 6


def test_everything_is_undone_after_an_error(stopwatch):
    toy = Toy(stopwatch)
    clock = Clock(stopwatch)
    with pytest.raises(AttributeError, match="nothing"), probing([*probes(toy), Probe("x", toy, "nothing")], clock):
        pass
    assert "forward" not in vars(toy)

    def fail():
        with probing(probes(toy), clock):
            toy.inner.forward(None)

    with pytest.raises(TypeError):
        clock.time(fail)
    assert "forward" not in vars(toy.inner)
    # The failed phase was left, so the next run starts from none.
    assert clock.time(lambda: stopwatch.pass_time(2)) == {OTHER: 2}


def test_the_median_of_repeats_after_warmup(stopwatch):
    durations = iter([100, 1, 9, 2, 3, 4])
    timing = measure(lambda: stopwatch.pass_time(next(durations)), stopwatch, repeats=5, warmup=1)
    assert timing == Timing(median=3, q1=2, q3=4, repeats=5)


COMMON = {"input", "preprocessor", "backward", "optimizer", "losses", "targets"}
RECURRENT = COMMON | {"control CNN", "glimpses", "attention", "memory", "matching", "stop scorer"}
PHASES = {
    "stage_b": RECURRENT | {"scheduled sampling"},
    "stage_c": RECURRENT | {"scheduled sampling", "segmentation head"},
    "fast": RECURRENT | {"segmentation head"},
    "Cityscapes/stage_a": COMMON,
}


@pytest.mark.parametrize("name", PHASES)
def test_the_phases_of_a_training_step(quick_cfg, name):
    cfg = quick_cfg(name)
    step = TrainingStep(cfg, build_random_model(cfg), 2)
    step()
    step()  # in a pool of states the first step is another one, from new images
    before = {key: value.grad.clone() for key, value in step.model.named_parameters() if value.grad is not None}
    weights = [value.clone() for value in step.model.parameters()]
    seconds = profile(step, training_probes(step), CPUStopwatch(), repeats=1, warmup=1)
    assert set(seconds) - {OTHER} == PHASES[name]
    assert all(value > 0 for value in seconds.values())
    for key, value in step.model.named_parameters():
        if key in before:
            torch.testing.assert_close(value.grad, before[key], msg=f"the repeated step differs in {key}")
    assert all(torch.equal(a, b) for a, b in zip(weights, step.model.parameters(), strict=True))
