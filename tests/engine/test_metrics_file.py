"""metrics.json over interruptions."""

import json

import pytest
from detectron2.utils.events import EventStorage

from rec_attend_d2.engine.metrics_file import MetricsWriter, read_rows


def log(path, first: int, values: list[dict[str, float]]) -> None:
    """A training from the iteration ``first`` on that logs and writes ``values``, one entry per iteration."""
    writer = MetricsWriter(path, lambda: first)
    with EventStorage(first) as storage:
        for storage.iter, entry in enumerate(values, start=first):
            storage.put_scalars(**entry, smoothing_hint=False)
            writer.write()
    writer.close()


def test_rows_hold_what_was_logged_in_an_iteration(tmp_path):
    path = tmp_path / "metrics.json"
    log(path, 0, [{"loss": 3.0}, {"loss": 2.0, "SBD": 0.5}, {}])
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"iteration": 0, "loss": 3.0},
        {"iteration": 1, "loss": 2.0, "SBD": 0.5},
    ]


@pytest.mark.parametrize("cut", ["", '{"iteration": 3, "lo', '{"iteration": 3, "loss": 9.0}', "\x00\x00", "[1]"])
def test_a_resumed_training_goes_on_with_the_rows_before_it(tmp_path, cut):
    path = tmp_path / "metrics.json"
    log(path, 0, [{"loss": 3.0}, {"loss": 2.0}, {"loss": 1.0}])
    with path.open("a") as file:
        file.write(cut)
    # The evaluation of iteration 1 is made up for.
    writer = MetricsWriter(path, lambda: 2)
    with EventStorage(2) as storage:
        storage.iter = 1
        storage.put_scalar("SBD", 0.5, smoothing_hint=False)
        storage.iter = 2
        storage.put_scalar("loss", 0.5, smoothing_hint=False)
        writer.write()
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"iteration": 0, "loss": 3.0},
        {"iteration": 1, "loss": 2.0, "SBD": 0.5},
        {"iteration": 2, "loss": 0.5},
    ]


def test_no_file_has_no_rows(tmp_path):
    assert read_rows(tmp_path / "metrics.json") == []
