"""From arguments to a config, and results to a file."""

import json
import math

from rec_attend_d2.engine import write_results


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def test_undefined_figures_are_null(tmp_path):
    path = write_results({"segm": {"AP": 12.5, "APl": math.nan}, "counting": {"num_images": 3}}, str(tmp_path))
    with open(path) as file:
        assert json.load(file, parse_constant=refuse) == {
            "segm": {"AP": 12.5, "APl": None},
            "counting": {"num_images": 3},
        }
