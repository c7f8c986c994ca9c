"""The hook that adapts the number of CPU threads while a training runs."""

import logging

import pytest

from rec_attend_d2.engine.hooks import ThreadsHook


class Training:
    """Runs a hook on a clock of its own; ``answers`` are what the choices give, the last one again and again."""

    def __init__(self, answers: list[int]):
        self.now = 0.0
        self.answers = answers
        self.measured_at: list[float] = []
        self.hook = ThreadsHook("cpu", lambda: self.now, self.choose)
        self.hook.before_train()

    def choose(self, device: str) -> int:
        assert device == "cpu"
        self.measured_at.append(self.now)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def iterate(self, count: int, seconds: float) -> None:
        for _ in range(count):
            self.hook.before_step()
            self.now += seconds
            self.hook.after_step()
            self.now += 100.0 * seconds  # an evaluation, which is not the iteration's time


def test_slow_iterations_are_measured_at_once(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    training = Training([2, 1])
    training.iterate(20, 0.001)
    assert len(training.measured_at) == 1
    training.iterate(2, 0.02)
    training.iterate(1, 0.001)  # a hiccup
    training.iterate(2, 0.02)
    assert len(training.measured_at) == 1
    training.iterate(1, 0.02)
    assert len(training.measured_at) == 2
    training.iterate(30, 0.02)  # which is the new normal
    lines = [record.message for record in caplog.records]
    assert len(lines) == 2 and lines[0].startswith("CPU threads: 2 of") and lines[1].startswith("CPU threads: 1 of")


def test_it_measures_now_and_then_whether_other_programs_have_ended():
    training = Training([1])
    for _ in range(10_000):
        training.hook.before_step()
        training.now += 0.1
        training.hook.after_step()
    pauses = [later - earlier for earlier, later in zip(training.measured_at, training.measured_at[1:], strict=False)]
    assert pauses == pytest.approx([10, 20, 40, 80, 160, 300, 300], abs=0.2)


def test_it_is_there_only_where_there_is_a_choice(make_cfg, monkeypatch):
    from rec_attend_d2 import threads
    from rec_attend_d2.engine import Trainer

    def has_hook() -> bool:
        return any(isinstance(hook, ThreadsHook) for hook in Trainer(make_cfg("stage_c"))._hooks)

    assert not has_hook()  # the tests set OMP_NUM_THREADS
    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(threads, "usable_cores", lambda: 2)
    assert has_hook()
