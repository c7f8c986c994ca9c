"""Random numbers that depend on what they are drawn for and not on what was drawn before.

A resumed training, one with more workers or one with an evaluation in between then draws the same ones.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.utils import comm


def derive_seed(*numbers: int) -> int:
    """A seed of 32 bits for a purpose that ``numbers`` (each at least 0) name; other numbers, unrelated seeds."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def run_seed(cfg: CfgNode) -> int:
    """SEED, or where that is negative a random number that all processes of the training share."""
    return cfg.SEED if cfg.SEED >= 0 else comm.shared_random_seed()


def seed_all(seed: int) -> None:
    """Seed Python, NumPy and PyTorch, on all devices."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@contextmanager
def seeded(*numbers: int) -> Iterator[None]:
    """Within it Python, NumPy and PyTorch on the CPU draw what :func:`derive_seed` says; after it they go on as before.

    Generators of other devices stay untouched: reading their state would make the device wait.
    """
    states = random.getstate(), np.random.get_state(), torch.random.default_generator.get_state()
    seed = derive_seed(*numbers)
    random.seed(seed)
    np.random.seed(seed)
    torch.random.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.random.default_generator.set_state(states[2])
