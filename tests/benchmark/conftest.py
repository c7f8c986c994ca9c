"""Tiny configs of every kind of model."""

from collections.abc import Callable
from pathlib import Path

import pytest
from detectron2.config import CfgNode

from rec_attend_d2.config import load_config

QUICK = Path(__file__).resolve().parents[2] / "tests" / "configs"


@pytest.fixture
def quick_cfg() -> Callable[..., CfgNode]:
    """A function from the name of a quick config, and options, to the config on the CPU, without weights."""

    def make(name: str, *options: object) -> CfgNode:
        return load_config(
            str(QUICK / f"{name}.yaml"), ["MODEL.DEVICE", "cpu", "MODEL.WEIGHTS", "", *map(str, options)]
        )

    return make
