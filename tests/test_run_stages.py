"""tools/run_stages.py: stages in order, each from the weights of the one before, resumable at any point."""

import importlib
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
QUICK = ROOT / "tests" / "configs"


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    return importlib.import_module("run_stages")


@pytest.fixture(scope="module")
def finished(run_tool, tmp_path_factory) -> tuple[Path, str]:
    """Folder of the two stages of the quick schedule, and what running them printed."""
    output = tmp_path_factory.mktemp("stages")
    process = run_tool("run_stages", "--config-dir", QUICK, "--output", output, "SOLVER.MAX_ITER", "2")
    assert process.returncode == 0, process.stderr[-3000:]
    return output, process.stdout + process.stderr


def test_every_stage_starts_from_the_weights_of_the_one_before(finished):
    output, printed = finished
    assert f"from {output / 'stage_b' / 'model_final.pth'}" in printed
    first = torch.load(output / "stage_b" / "model_final.pth", weights_only=True)["model"]
    second = torch.load(output / "stage_c" / "model_final.pth", weights_only=True)["model"]
    key = "box_proposer.glimpse.lstm.gates.weight"
    # Two steps of Adam with learning rate 0.001.
    assert 0 < (first[key] - second[key]).abs().max() < 0.003


def test_the_summary_has_the_figures_of_all_stages(finished):
    output, printed = finished
    summary = printed[printed.rindex("┌") :]
    for stage, evaluator, figure in (("stage_b", "box_counting", "best_box_IoU"), ("stage_c", "counting", "SBD")):
        results = json.loads((output / stage / "metrics_final.json").read_text())
        assert f"{figure} {results[evaluator][figure]:.4g}" in summary
        assert str(output / stage / "model_final.pth") in summary


def test_what_is_finished_is_not_trained_again_and_what_is_not_goes_on(finished, run_tool, tmp_path):
    output = tmp_path / "stages"
    shutil.copytree(finished[0], output)
    for folder in ("stage_b", "stage_c"):  # as if trained here
        config = output / folder / "config.yaml"
        config.write_text(config.read_text().replace(str(finished[0]), str(output)))
    weights = (output / "stage_b" / "model_final.pth").stat().st_mtime_ns
    # Stage C was interrupted after its first checkpoint.
    (output / "stage_c" / "metrics_final.json").unlink()
    (output / "stage_c" / "last_checkpoint").write_text("model_0000001.pth")
    process = run_tool("run_stages", "--config-dir", QUICK, "--output", output, "SOLVER.MAX_ITER", "2")
    assert process.returncode == 0, process.stderr[-3000:]
    assert "stage_b is finished" in process.stdout
    assert (output / "stage_b" / "model_final.pth").stat().st_mtime_ns == weights
    assert "Starting training from iteration 2" in process.stdout + process.stderr
    assert (output / "stage_c" / "metrics_final.json").is_file()


def test_finished_stages_of_other_settings_are_not_taken_for_these(finished, tool):
    stages = tool.plan(QUICK, finished[0], None, ["SOLVER.MAX_ITER", "2", "SOLVER.BASE_LR", "0.5"])
    with pytest.raises(tool.StagesError, match="stage_b holds a finished training with other SOLVER.BASE_LR"):
        tool.run(stages[0], 0)


def test_stages_can_be_left_out(tool, tmp_path):
    (stage,) = tool.plan(QUICK, tmp_path, "stage_c", ["SEED", "3"])
    assert stage.name == "stage_c" and stage.options == ("SEED", "3") and stage.folder == tmp_path / "stage_c"
    # From the weights of its config.
    assert stage.config().MODEL.WEIGHTS == "./output/quick_stage_b/model_final.pth"


def test_without_an_output_folder_the_configs_say_where(tool):
    first, second = tool.plan(QUICK, None, None, [])
    assert first.folder == ROOT / "output" / "quick_stage_b"
    assert second.options == ("MODEL.WEIGHTS", str(first.folder / "model_final.pth"))


@pytest.mark.parametrize("folder", ["CVPPP", "KITTI", "Cityscapes", "COCO"])
def test_the_recipes_have_stages(tool, tmp_path, folder: str):
    stages = tool.plan(ROOT / "configs" / folder, tmp_path, None, [])
    expected = ["RecAttendPreprocessor", "RecAttendBoxProposer", "RecAttend"]
    configs = [stage.config() for stage in stages]
    assert [cfg.MODEL.META_ARCHITECTURE for cfg in configs] == expected[-len(stages) :]
    assert len(stages) == (2 if folder == "CVPPP" else 3)
    for cfg, before in zip(configs[1:], stages[:-1], strict=True):
        assert cfg.MODEL.WEIGHTS == str(before.folder / "model_final.pth")


def test_a_stage_that_fails_is_named(run_tool, tmp_path):
    process = run_tool("run_stages", "--config-dir", QUICK, "--output", tmp_path, "SOLVER.OPTIMIZER", "Nonsense")
    assert process.returncode != 0
    assert "SOLVER.OPTIMIZER is 'Nonsense'" in process.stderr
    assert "run_stages: stage_b failed with exit code 1" in process.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["configs/nowhere", None, []], "has none of stage_a, stage_b, stage_c"),
        (["configs/Rosettes", "stage_a", []], "--from names 'stage_a', but .* has stage_b, stage_c"),
        (["configs/Rosettes", None, ["NO.SUCH_KEY", "1"]], "stage_b.yaml: .*NO"),
    ],
)
def test_bad_input(tool, tmp_path, arguments: list, message: str):
    folder, first, options = arguments
    with pytest.raises(tool.StagesError, match=message):
        tool.plan(ROOT / folder, tmp_path, first, options)


def test_the_message_reaches_the_user(tool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "argv", ["run_stages.py", "--config-dir", "nowhere"])
    with pytest.raises(SystemExit, match="run_stages: --config-dir .*nowhere"):
        tool.main()
