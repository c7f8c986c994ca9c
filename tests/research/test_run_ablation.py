"""research/run_ablation.py: its variants, what a run trains, keeps and reports, and what it refuses."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from rec_attend_d2.config import load_config

ROOT = Path(__file__).resolve().parents[2]
QUICK = "tests/configs/stage_c.yaml"
FIGURES = {"SBD": 0.5, "abs_DiC": 2.0, "count_accuracy": 0.25, "FBD": 0.75}


@pytest.fixture
def tool(script, tmp_path, monkeypatch):
    """The script; its trainings go to a folder of the test."""
    module = script("run_ablation")
    monkeypatch.setattr(module, "ROOT", tmp_path)
    for name in ("configs", "tests", "tools"):
        (tmp_path / name).symlink_to(ROOT / name)
    return module


@pytest.fixture
def write(tmp_path):
    """A function from options by variant name to a file of variants of the quick config."""

    def write(variants: dict[str, list], base: str = QUICK) -> Path:
        common = ["MODEL.WEIGHTS", "", "SOLVER.MAX_ITER", 2]
        nodes = [{"name": name, "change": f"change {name}", "options": options} for name, options in variants.items()]
        path = tmp_path / "variants.yaml"
        path.write_text(yaml.safe_dump({"base": base, "common": common, "variants": nodes}))
        return path

    return write


@pytest.fixture
def trained(tool, monkeypatch) -> list[str]:
    """Names of the variants that are trained; a training leaves what tools/train_net.py does. "bad" fails."""
    names: list[str] = []

    def run(command, *, cwd, env, stdout, stderr):
        assert command[:4] == [sys.executable, "tools/train_net.py", "--resume", "--config-file"]
        assert env["OMP_NUM_THREADS"] == "1"
        folder = Path(command[-1])
        names.append(folder.name)
        if folder.name == "bad":
            stdout.write("Traceback\nValueError: no such thing\n")
            return subprocess.CompletedProcess(command, 1)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(load_config(ROOT / command[4], command[5:]).dump())
        with (folder / "metrics.json").open("a") as file:
            file.write(json.dumps({"iteration": 10, "time": 6.0}) + "\n")
        (folder / "metrics_final.json").write_text(json.dumps({"counting": {**FIGURES, "DiC": 1.0}}))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(tool.subprocess, "run", run)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return names


@pytest.fixture
def run(tool, trained, tmp_path, monkeypatch):
    """Runs the script on a file of variants and returns the rows it wrote by name."""

    def run(path: Path) -> dict[str, dict]:
        monkeypatch.setattr(sys, "argv", ["run_ablation.py", "--config-file", str(path), "--results", "rows.json"])
        tool.main()
        return {row["name"]: row for row in json.loads((tmp_path / "rows.json").read_text())["variants"]}

    return run


def test_every_variant_changes_just_what_it_names(script, tmp_path):
    tool = script("run_ablation")
    base, *others = tool.read_variants(ROOT / "research" / "ablation.yaml")
    (tmp_path / "config.yaml").write_text(load_config(ROOT / base.base, base.options).dump())
    for variant in others:
        cfg = load_config(ROOT / variant.base, variant.options)
        different = tool.different_settings(cfg, tmp_path / "config.yaml")
        own = variant.options[len(base.options) :]
        assert different and set(different) <= set(own[::2]), variant.name
        # The same budget.
        assert cfg.SOLVER.MAX_ITER * cfg.SOLVER.IMS_PER_BATCH == 1600


def test_a_run_trains_every_variant_once_and_writes_its_row(run, write, trained, tmp_path):
    path = write({"base": [], "seed": ["SEED", 3]})
    rows = run(path)
    assert trained == ["base", "seed"]
    assert rows["seed"]["metrics"] == FIGURES
    assert (rows["seed"]["change"], rows["seed"]["iterations"], rows["seed"]["batch"]) == ("change seed", 2, 2)
    command = rows["seed"]["command"]
    assert command.startswith(f"python tools/train_net.py --config-file {QUICK} MODEL.WEIGHTS '' SOLVER.MAX_ITER 2 ")
    assert command.endswith(" SEED 3 OUTPUT_DIR output/rows/seed") and str(tmp_path) not in json.dumps(rows)
    # Interrupted, it goes on, and the first attempt's time is not added.
    (tmp_path / "output" / "rows" / "seed" / "metrics_final.json").unlink()
    assert run(path) == rows and trained == ["base", "seed", "seed"]
    # A folder with another training is not taken for this one.
    with pytest.raises(SystemExit, match="holds a training with other SEED"):
        run(write({"base": [], "seed": ["SEED", 4]}))
    assert len(trained) == 3


def test_a_failed_variant_is_named(run, write):
    with pytest.raises(SystemExit, match="bad failed with exit code 1, see .*bad.log: ValueError: no such thing"):
        run(write({"base": [], "bad": ["SEED", 3]}))


@pytest.mark.parametrize(
    ("variants", "base", "message"),
    [
        ({"base": [], "typo": ["SEEED", 1]}, QUICK, "Variant 'typo' .*SEEED"),
        ({"base": []}, "nowhere.yaml", "nowhere.yaml"),
    ],
)
def test_a_wrong_file_is_refused_before_any_training(run, write, trained, tmp_path, variants, base, message):
    with pytest.raises(SystemExit, match=message):
        run(write(variants, base))
    (tmp_path / "other.yaml").write_text("base: 1")
    with pytest.raises(SystemExit, match="other.yaml is no list of variants: KeyError"):
        run(tmp_path / "other.yaml")
    assert trained == []
