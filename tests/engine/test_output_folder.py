"""One training in a folder at a time, never over another one, and resumed only as what it was."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rec_attend_d2.engine import Trainer
from rec_attend_d2.engine.output_folder import Refused, check_resumable, check_unused, hold_folder

HOLDS = """
import sys, time
from pathlib import Path
from rec_attend_d2.engine.output_folder import hold_folder
hold_folder(Path(sys.argv[1]))
print(flush=True)
time.sleep(600)
"""


def test_a_folder_is_one_trainings_until_its_process_ends(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", HOLDS, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        child.stdout.read(1)
        with pytest.raises(
            Refused, match=f"'{tmp_path}' is being trained in by process {child.pid} on .* another OUTP"
        ):
            hold_folder(tmp_path)
    finally:
        child.kill()
        child.wait()
    hold_folder(tmp_path)
    hold_folder(tmp_path)  # the process itself may go on


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(Refused, match="file/output' cannot be written to .* give another OUTPUT_DIR"):
        hold_folder(tmp_path / "file" / "output")


@pytest.mark.parametrize(("name", "used"), [("model_0000009.pth", True), ("last_checkpoint", True), ("log.txt", False)])
def test_a_training_is_not_written_over(tmp_path, name, used):
    check_unused(tmp_path)
    (tmp_path / name).touch()
    if used:
        with pytest.raises(Refused, match=f"holds a training .{name}.* add --resume .* another OUTPUT_DIR, or remove"):
            check_unused(tmp_path)
    else:
        check_unused(tmp_path)


@pytest.fixture
def trained(make_cfg, run_training):
    """Config of a finished training."""
    cfg = make_cfg("fast", "DATASETS.TEST", (), "SOLVER.MAX_ITER", 2)
    run_training(cfg)
    return cfg


def changed(cfg, *options):
    cfg = cfg.clone()
    cfg.merge_from_list(list(options))
    return cfg


def test_another_training_is_not_resumed(trained, make_cfg):
    path = str(Path(trained.OUTPUT_DIR) / "model_final.pth")
    more = ["SOLVER.MAX_ITER", 4, "TEST.LOSS_IMAGES", 1, "MODEL.REC_ATTEND.TEST.SCORE_THRESHOLD", 0.7]
    assert check_resumable(changed(trained, *more), path) == sorted(more[::2])
    for key, old, new in (
        ("INPUT.WINDOW_SIZE", 64, 96),
        ("MODEL.REC_ATTEND.FAST.WIDTH", 0.125, 0.25),
        ("MODEL.REC_ATTEND.FAST.OBJECTS_PER_GLANCE", 0, 1),
        ("INPUT.OBJECT_SIZE", 24.0, 12.0),
    ):
        with pytest.raises(Refused, match=f"{key} is {new} and was {old}. Resume .* MODEL.WEIGHTS {path}"):
            check_resumable(changed(trained, key, new), path)
    with pytest.raises(Refused, match="MODEL.META_ARCHITECTURE is 'RecAttend' and was 'FastRecAttend'"):
        check_resumable(make_cfg("stage_c"), path)


def test_other_images_or_weights_are_not_resumed(trained):
    path = Path(trained.OUTPUT_DIR) / "model_final.pth"
    content = torch.load(path, weights_only=True)
    count, checksum = content["trainer"]["data"]["images"]
    content["trainer"]["data"]["images"] = (count, checksum + 1)
    torch.save(content, path)
    with pytest.raises(ValueError, match="has 5 images, and the interrupted training had as many others: resume it"):
        Trainer(trained).resume_or_load()
    # A checkpoint of an older version, which does not say what it was trained with.
    del content["trainer"]["config"], content["trainer"]["data"]
    torch.save(content, path)
    with pytest.raises(ValueError, match="holds weights of another configuration:\n .* in the file, .* in the model"):
        Trainer(changed(trained, "MODEL.REC_ATTEND.FAST.WIDTH", 0.25)).resume_or_load()
    trainer = Trainer(trained)
    trainer.resume_or_load()
    assert trainer.start_iter == 2


def test_a_finished_training_is_one_with_results(trained):
    def finished(*options):
        trainer = Trainer(changed(trained, *options))
        trainer.resume_or_load()
        return trainer.is_finished

    assert finished() and not finished("SOLVER.MAX_ITER", 3)
    tested = ["DATASETS.TEST", trained.DATASETS.TRAIN]
    assert not finished(*tested)
    (Path(trained.OUTPUT_DIR) / "metrics_final.json").touch()
    assert finished(*tested)
