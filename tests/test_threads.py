"""The choice of a number of CPU threads."""

import pytest
import torch

from rec_attend_d2 import threads
from rec_attend_d2.threads import candidates, choose_threads, fastest, seconds_per_pass


@pytest.fixture
def free(monkeypatch):
    """A process with four cores, whose user did not choose."""
    before = torch.get_num_threads()
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "usable_cores", lambda: 4)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("cores", "counts"), [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (8, [1, 2, 4, 8])])
def test_every_number_of_cores_is_tried_along_with_the_powers_of_two_below(cores: int, counts: list[int]):
    assert candidates(cores) == counts


@pytest.mark.parametrize(
    ("seconds", "chosen"),
    [
        ({1: 1.0, 2: 0.5, 4: 0.3}, 4),
        ({1: 1.0, 2: 0.5, 4: 0.48}, 2),  # hardly faster
        ({1: 1.0, 2: 20.0}, 1),  # busy cores; four are not tried at all
    ],
)
def test_the_fastest_is_chosen(free, seconds: dict[int, float], chosen: int):
    assert choose_threads("cpu", seconds.__getitem__) == chosen
    assert torch.get_num_threads() == chosen


def test_the_choice_is_said(free, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr(threads, "fastest", lambda counts, seconds: 2)
    threads.choose_and_say("cpu", said.append)
    threads.choose_and_say("cuda", said.append)
    assert said == ["CPU threads: 2 of 4, the fastest just now (OMP_NUM_THREADS sets another number)."]


def refuse(count: int) -> float:
    raise AssertionError("nothing is to be measured")


def test_whoever_sets_the_variable_has_chosen(free, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    torch.set_num_threads(3)
    assert choose_threads("cpu", refuse) is None
    assert torch.get_num_threads() == 3


def test_nothing_is_chosen_for_cuda_or_a_single_core(free, monkeypatch):
    assert choose_threads("cuda:0", refuse) is None
    monkeypatch.setattr(threads, "usable_cores", lambda: 1)
    assert choose_threads("cpu", refuse) is None


def test_measuring_draws_no_random_number_and_works_without_gradient(free, monkeypatch):
    monkeypatch.setattr(threads, "_TRIAL", 0.001)
    state = torch.get_rng_state()
    with torch.no_grad():
        assert fastest([1], seconds_per_pass) == 1
        assert seconds_per_pass(1) > 0
    assert torch.equal(torch.get_rng_state(), state)
