"""``rec-attend train`` in a folder in which another process trains."""

import subprocess
import sys

import pytest

from rec_attend_d2.cli import main

HOLDS = """
import sys, time
from pathlib import Path
from rec_attend_d2.engine.output_folder import hold_folder
hold_folder(Path(sys.argv[1]))
print(flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("option", [[], ["--overwrite"]])
def test_one_training_at_a_time(squares, tmp_path, option):
    output = tmp_path / "model"
    (output / "data").mkdir(parents=True)
    child = subprocess.Popen([sys.executable, "-c", HOLDS, str(output)], stdout=subprocess.PIPE)
    try:
        child.stdout.read(1)
        data = ["--images", str(squares), "--coco", str(squares / "squares.json")]
        with pytest.raises(SystemExit, match=f"by process {child.pid} on .* or give another --output"):
            main(["train", *data, "--output", str(output), *option])
    finally:
        child.kill()
        child.wait()
    assert (output / "data").is_dir()
