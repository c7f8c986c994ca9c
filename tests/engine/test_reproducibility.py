"""Trainings with one seed have equal losses to the last digit, also when they were interrupted."""

from pathlib import Path

import pytest
import torch

RECIPES = {
    "stage_b": [],
    "stage_c": [],
    "fast": ["SOLVER.WARMUP_ITERS", 0],
}


@pytest.fixture(params=RECIPES)
def cfg(request, make_cfg):
    """Five iterations of every kind of training."""
    recipe = request.param.split("-")[0]
    return make_cfg(
        recipe, *RECIPES[request.param], "DATASETS.TEST", (), "SOLVER.MAX_ITER", 5, "SOLVER.CHECKPOINT_PERIOD", 2
    )


def go_back(folder: str, name: str) -> None:
    """Let the training in ``folder`` have been interrupted after writing ``name``."""
    (Path(folder) / "last_checkpoint").write_text(name)


def test_one_seed_gives_equal_losses_and_another_does_not(cfg, run_training, tmp_path):
    def losses(folder, *options):
        own = cfg.clone()
        own.merge_from_list(["OUTPUT_DIR", str(tmp_path / folder), *options])
        return run_training(own)

    first = losses("first")
    assert len(first) == 5 and len({entry["total_loss"] for entry in first}) == 5
    assert losses("workers", "DATALOADER.NUM_WORKERS", 2) == first
    other = losses("other", "SEED", 2)
    assert all(a["total_loss"] != b["total_loss"] for a, b in zip(first, other, strict=True))


def test_an_interrupted_training_has_the_losses_of_an_uninterrupted_one(cfg, run_training):
    whole = run_training(cfg)
    final = torch.load(Path(cfg.OUTPUT_DIR) / "model_final.pth", weights_only=True)["model"]
    go_back(cfg.OUTPUT_DIR, "model_0000001.pth")
    cfg.DATALOADER.NUM_WORKERS = 1
    assert run_training(cfg, seed_globally=5) == whole[2:]
    resumed = torch.load(Path(cfg.OUTPUT_DIR) / "model_final.pth", weights_only=True)["model"]
    assert all(torch.equal(value, final[name]) for name, value in resumed.items())


def test_evaluations_change_nothing(make_cfg, run_training, tmp_path):
    cfg = make_cfg("fast", "SOLVER.MAX_ITER", 4, "DATASETS.TEST", ())
    without = run_training(cfg)
    cfg = make_cfg("fast", "SOLVER.MAX_ITER", 4, "OUTPUT_DIR", str(tmp_path / "other"), "TEST.EVAL_PERIOD", 2)
    losses = run_training(cfg)
    assert any(name.startswith("val_") for entry in losses for name in entry)
    assert [{name: entry[name] for name in entry if not name.startswith("val_")} for entry in losses] == without


def test_without_a_seed_a_resumed_training_goes_on_with_its_own(make_cfg, run_training):
    cfg = make_cfg("fast", "DATASETS.TEST", (), "SEED", -1, "SOLVER.MAX_ITER", 5, "SOLVER.CHECKPOINT_PERIOD", 2)
    whole = run_training(cfg)
    go_back(cfg.OUTPUT_DIR, "model_0000001.pth")
    assert run_training(cfg, seed_globally=5) == whole[2:]


def test_a_checkpoint_of_an_older_version_still_resumes(make_cfg, run_training):
    cfg = make_cfg("fast", "DATASETS.TEST", (), "SOLVER.MAX_ITER", 3, "SOLVER.CHECKPOINT_PERIOD", 2)
    run_training(cfg)
    path = Path(cfg.OUTPUT_DIR) / "model_0000001.pth"
    content = torch.load(path, weights_only=True)
    del content["trainer"]["data"], content["trainer"]["hooks"]["SeedHook"]
    torch.save(content, path)
    go_back(cfg.OUTPUT_DIR, path.name)
    assert len(run_training(cfg)) == 1
