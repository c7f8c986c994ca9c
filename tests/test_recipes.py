"""The recipes of all data sets on miniature data: stages, fast recipe, evaluators and submissions in one go each."""

import importlib
import json
import math
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog

from miniature.cityscapes import write_cityscapes
from miniature.coco import write_coco
from miniature.cvppp import write_cvppp
from miniature.kitti import write_kitti
from rec_attend_d2.config import load_config
from rec_attend_d2.data import register_datasets
from rec_attend_d2.data.datasets import register_builtin_datasets
from rec_attend_d2.engine import Trainer, write_results

ROOT = Path(__file__).resolve().parents[1]
QUICK = ROOT / "tests" / "configs"
RECIPES = {"CVPPP": ["stage_b", "stage_c"], "KITTI": ["stage_a", "stage_b", "stage_c"]}
RECIPES |= {"Cityscapes": RECIPES["KITTI"], "COCO": RECIPES["KITTI"]}
# Results of each stage besides the data set's own, and those of the full model.
STAGE_RESULTS = {"stage_a": {"foreground"}, "stage_b": {"bbox", "box_counting"}}
FULL_RESULTS = {
    "CVPPP": {"segm", "counting", "lsc"},
    "KITTI": {"segm", "counting", "coverage"},
    "Cityscapes": {"cityscapes", "counting"},
    "COCO": {"segm", "counting"},
}
# Format of the submission, its ending, and where the evaluator's results have the same metrics.
SUBMISSIONS = {
    "CVPPP": ("cvppp", ".zip", "lsc"),
    "Cityscapes": ("cityscapes", ".zip", "cityscapes"),
    "COCO": ("coco", ".json", "segm"),
}


@pytest.fixture(scope="module")
def miniature_root(tmp_path_factory) -> Iterator[Path]:
    """All data sets in miniature, registered."""
    root = tmp_path_factory.mktemp("miniature")
    write_cityscapes(root, {"train": 2, "train_extra": 2, "val": 2, "test": 1}, (64, 128))
    write_kitti(root, {"train": 2, "valid_man": 2, "test_man": 1})
    write_cvppp(root, {"A1": 6, "A2": 1, "A3": 1, "A4": 1}, {"A1": 1, "A2": 1, "A3": 1, "A4": 1})
    write_coco(root, images=5, size=(48, 64))
    register_builtin_datasets(str(root))
    yield root
    register_builtin_datasets()


def train(config: Path, folder: Path, weights: Path | None = None, options: Sequence[str] = ()) -> dict:
    cfg = load_config(str(config), ["OUTPUT_DIR", str(folder), "MODEL.WEIGHTS", str(weights or ""), *options])
    register_datasets(cfg)
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(cfg.dump())
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    results = trainer.train()
    write_results(results, str(folder))
    return results


@pytest.fixture(scope="module")
def trained(miniature_root, tmp_path_factory) -> Callable[[str], dict[str, tuple[Path, dict]]]:
    """A function from a recipe to folder and results of its stages, which are trained once."""
    done: dict[str, dict[str, tuple[Path, dict]]] = {}

    def of(recipe: str) -> dict[str, tuple[Path, dict]]:
        if recipe not in done:
            root, weights = tmp_path_factory.mktemp(recipe), None
            done[recipe] = {}
            for stage in RECIPES[recipe]:
                folder = root / stage
                done[recipe][stage] = folder, train(QUICK / recipe / f"{stage}.yaml", folder, weights)
                weights = folder / "model_final.pth"
        return done[recipe]

    return of


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_stages_run_and_are_scored(trained, recipe: str):
    for stage, (folder, results) in trained(recipe).items():
        assert set(results) == STAGE_RESULTS.get(stage, FULL_RESULTS[recipe])
        losses = [json.loads(line).get("total_loss") for line in (folder / "metrics.json").read_text().splitlines()]
        assert all(math.isfinite(loss) for loss in losses if loss is not None)


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_fast_recipe_runs(miniature_root, tmp_path, recipe: str):
    results = train(QUICK / recipe / "fast.yaml", tmp_path / "fast")
    assert set(results) == FULL_RESULTS[recipe]


def test_own_data_of_several_categories_is_scored_by_category(miniature_root, tmp_path):
    coco = miniature_root / "coco"
    entry = ["own_objects", str(coco / "annotations" / "instances_val2017.json"), str(coco / "val2017")]
    categories = [category["name"] for category in json.loads(Path(entry[1]).read_text())["categories"]]
    names = ["DATASETS.TRAIN", "('own_objects',)", "DATASETS.TEST", "('own_objects',)"]
    options = ["DATASETS.COCO_FILES", str([entry]), *names, "MODEL.REC_ATTEND.NUM_CLASSES", str(len(categories))]
    folder = tmp_path / "own"
    results = train(QUICK / "fast.yaml", folder, options=options)
    assert {f"AP-{name}" for name in categories} <= set(results["segm"])
    entries = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
    assert any(entry.get("loss_class", 0) > 0 for entry in entries)


@pytest.fixture
def make_submission(monkeypatch, capsys) -> Callable[..., str]:
    """Runs the tool in this process and returns what it printed."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    tool = importlib.import_module("make_submission")

    def run(*arguments) -> str:
        monkeypatch.setattr(sys, "argv", ["make_submission.py", *map(str, arguments)])
        tool.main()
        return capsys.readouterr().out

    return run


@pytest.mark.parametrize("recipe", SUBMISSIONS)
def test_a_submission_scores_as_the_evaluator_did(trained, make_submission, tmp_path, recipe: str):
    form, suffix, task = SUBMISSIONS[recipe]
    folder, results = trained(recipe)["stage_c"]
    options = ["--config-file", folder / "config.yaml", "--format", form]
    path = tmp_path / f"answer{suffix}"
    printed = make_submission(*options, "--output", path, "MODEL.WEIGHTS", folder / "model_final.pth")
    again = make_submission(*options, "--check", path)
    for text in (printed, again):
        assert f"{path} is valid" in text
        shown = dict(line.split() for line in text[text.index("----") :].splitlines()[1:])
        compared = [name for name in shown if name in results[task]]
        assert len(compared) >= 3
        for name in compared:
            assert float(shown[name]) == pytest.approx(results[task][name], abs=1e-3, nan_ok=True), name


@pytest.mark.parametrize(
    ("recipe", "name", "images"),
    [("Cityscapes", "rec_attend_cityscapes_test", 1), ("CVPPP", "cvppp_all_test", None)],
)
def test_a_submission_for_a_split_without_labels(trained, make_submission, tmp_path, recipe: str, name: str, images):
    folder, _ = trained(recipe)["stage_c"]
    path = tmp_path / "answer.zip"
    options = ["--config-file", folder / "config.yaml", "--format", SUBMISSIONS[recipe][0], "--dataset", name]
    printed = make_submission(*options, "--output", path, "MODEL.WEIGHTS", folder / "model_final.pth")
    assert f"{path} is valid" in printed
    if not any("annotations" in record for record in DatasetCatalog.get(name)):
        assert "has no labels" in printed
    members = zipfile.ZipFile(path).namelist()
    assert members == ["answer.h5"] if recipe == "CVPPP" else sum(m.endswith(".txt") for m in members) == images


def test_a_broken_submission_is_refused(trained, make_submission, tmp_path):
    folder, _ = trained("Cityscapes")["stage_c"]
    path = tmp_path / "answer.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("stray.txt", "")
    with pytest.raises(SystemExit, match=r"(?s)is not valid for 'rec_attend_cityscapes_val':.*stray.txt"):
        make_submission("--config-file", folder / "config.yaml", "--format", "cityscapes", "--check", path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--format", "cityscapes", "--output", "x.json"], "x.json should end with .zip"),
        (["--format", "coco", "--output", "x.json", "MODEL.WEIGHTS", ""], "add MODEL.WEIGHTS"),
        (["--format", "coco", "--output", "x.json", "MODEL.WEIGHTS", "nowhere.pth"], "nowhere.pth.* does not exist"),
        (["--format", "coco", "--dataset", "nothing", "--check", "x.json"], "'nothing', which is not registered"),
        (["--format", "coco", "--check", "no_such_file.json"], "no_such_file.json"),
    ],
)
def test_bad_arguments(miniature_root, make_submission, arguments: list[str], message: str):
    with pytest.raises(SystemExit, match=message):
        make_submission("--config-file", QUICK / "COCO" / "stage_c.yaml", *arguments)


def test_a_stage_without_instances_makes_no_submission(trained, make_submission, tmp_path):
    folder, _ = trained("Cityscapes")["stage_a"]
    weights = ["MODEL.WEIGHTS", folder / "model_final.pth"]
    options = ["--config-file", folder / "config.yaml", "--format", "cityscapes", "--output", tmp_path / "a.zip"]
    with pytest.raises(SystemExit, match="RecAttendPreprocessor predicts no instances"):
        make_submission(*options, *weights)


def test_the_miniatures_come_from_one_command(run_tool, tmp_path):
    process: subprocess.CompletedProcess = run_tool("make_miniature", "--output", tmp_path, "--only", "kitti", "coco")
    assert process.returncode == 0, process.stderr[-3000:]
    assert (tmp_path / "kitti" / "train.txt").is_file() and (tmp_path / "coco" / "annotations").is_dir()
    assert not (tmp_path / "cvppp").exists()
    again = run_tool("make_miniature", "--output", tmp_path, "--only", "coco")
    assert again.returncode != 0 and "exists already" in again.stderr
