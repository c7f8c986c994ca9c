"""Memory of this process."""

import numpy as np

from rec_attend_d2.process_memory import peak_memory, resident_bytes


def test_resident_memory_is_this_process_s():
    before, _ = resident_bytes()
    held = np.ones(80_000_000, np.uint8)
    present, largest = resident_bytes()
    assert present - before > 0.9 * held.nbytes and largest >= present
    del held
    assert peak_memory("cpu") >= largest
