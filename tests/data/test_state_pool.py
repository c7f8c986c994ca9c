"""The pool of unfinished images."""

from collections.abc import Iterator

import pytest
import torch

from rec_attend_d2.data import ImageState, StatePoolLoader, state_pool

MEMORY = torch.zeros(2, 3)


def images(sizes: list[int]) -> Iterator[list[dict]]:
    """Endless batches of the given sizes, again and again, of images numbered as they come."""
    number = 0
    while True:
        for size in sizes:
            yield [{"image_id": number + i} for i in range(size)]
            number += size


def simulate(loader: StatePoolLoader, iterations: int, objects: dict[int, int]) -> list[list[int]]:
    """Train for a while: every glance claims one of an image's ``objects``. Returns the images of each iteration."""
    history = []
    for _, batch in zip(range(iterations), loader, strict=False):
        history.append([entry["image_id"] for entry in batch])
        for entry in batch:
            state = entry["state"]
            state.advance(MEMORY, claimed=objects.get(entry["image_id"], 0) > state.glances)
    return history


@pytest.mark.parametrize("sizes", [[1], [3], [2, 5]], ids=str)
def test_images_stay_until_a_glance_claims_nothing(sizes: list[int]):
    objects = {0: 3, 1: 0, 2: 1, 3: 0, 4: 2, 5: 0}
    history = simulate(StatePoolLoader(images(sizes), 2), 6, objects)
    # An image with n objects is trained n + 1 times; the rest of the pool moves up, new ones come last.
    assert history == [[0, 1], [0, 2], [0, 2], [0, 3], [4, 5], [4, 6]]


def test_no_image_is_left_out_or_comes_again():
    objects = {n: (5 * n) % 4 for n in range(40)}
    history = simulate(StatePoolLoader(images([4]), 3), 30, objects)
    seen = [n for batch in history for n in batch]
    finished = set(seen) - set(history[-1])
    assert set(seen) == set(range(max(seen) + 1)) and len(finished) > 20
    assert all(len(set(batch)) == 3 for batch in history)
    for n in finished:
        iterations = [index for index, batch in enumerate(history) if n in batch]
        assert iterations == list(range(iterations[0], iterations[0] + objects[n] + 1))


def test_an_image_gives_up_after_so_many_glances(monkeypatch):
    monkeypatch.setattr(state_pool, "MAX_GLANCES", 3)
    history = simulate(StatePoolLoader(images([1]), 1), 5, {0: 100, 1: 0, 2: 100})
    assert [n for (n,) in history] == [0, 0, 0, 1, 2]


def test_a_state_counts_glances():
    state, memory = ImageState(), torch.ones(2, 3)
    assert state.memory is None
    for claimed, glances in ((True, 1), (True, 2), (False, 3)):
        assert not state.finished
        state.advance(memory, claimed)
        assert state.glances == glances
    assert state.finished and state.memory is memory


def test_every_visit_of_an_image_has_a_state_of_its_own():
    entry = {"image_id": 0}
    loader = iter(StatePoolLoader(iter(lambda: [entry, entry], None), 2))
    states = [image["state"] for _ in range(2) for image in next(loader)]
    assert len({id(state) for state in states}) == 2  # nothing was trained, so both stay
    states[0].advance(MEMORY, claimed=False)
    first, second = next(loader)
    assert first["state"] is states[1] and second["state"].memory is None
    assert entry == {"image_id": 0}


def test_a_pool_without_slots_is_refused():
    with pytest.raises(ValueError, match=r"at least 1 slot, got 0 \(SOLVER.IMS_PER_BATCH\)"):
        StatePoolLoader(images([1]), 0)
