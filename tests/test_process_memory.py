"""Memory of this process."""

import numpy as np

from rec_attend_d2.process_memory import peak_memory, resident_bytes


def test_resident_memory_is_this_process_s():
    before, _ = resident_bytes()
    held = np.ones(80_000_000, np.uint8)
    present, largest = resident_bytes()
    assert present - before > 0.9 * held.nbytes and largest >= present
    released = 0.1 * held.nbytes
    del held
    # Linux counts pages per processor and adds them up now and then, so the largest value may shrink by a few.
    assert peak_memory("cpu") > largest - released
