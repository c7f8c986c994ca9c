"""tools/run_ablation.py: the variants of configs/Nuclei, what a run trains, keeps and reports, and the table of it."""

import importlib
import json
import re
import shlex
import subprocess
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Instances

from rec_attend_d2.config import load_config
from rec_attend_d2.data.augmentation import build_augmentations
from rec_attend_d2.data.state_pool import ImageState
from rec_attend_d2.engine.ema import read_ema_decay

ROOT = Path(__file__).resolve().parents[1]
NUCLEI = ROOT / "configs" / "Nuclei" / "ablation.yaml"
NAMES = [variant["name"] for variant in yaml.safe_load(NUCLEI.read_text())["variants"]]
QUICK = "tests/configs/stage_c.yaml"
SIDE = 64
# Of two squares per image.
SQUARES = ((4, 4, 24, 28), (36, 30, 60, 56))
FIGURES = {"SBD": 0.5, "abs_DiC": 2.0, "count_accuracy": 0.25, "FBD": 0.75}


@pytest.fixture
def import_tool(monkeypatch):
    """A function from the name of a tool to its module; tools import each other as scripts beside each other do."""
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    return importlib.import_module


@pytest.fixture
def tool(import_tool):
    """tools/run_ablation.py as a module."""
    return import_tool("run_ablation")


@pytest.fixture
def write_ablation(tmp_path):
    """A function from options by variant name to a file of variants of the quick config, two iterations each."""

    def write(variants: dict[str, list], **changes) -> Path:
        common = ["MODEL.WEIGHTS", "", "SOLVER.MAX_ITER", 2, "TEST.EVAL_PERIOD", 0, "DATASETS.TRAIN", ["rosettes_val"]]
        nodes = [{"name": name, "change": f"change {name}", "options": options} for name, options in variants.items()]
        content = {"base": QUICK, "common": common, "variants": nodes, **changes}
        path = tmp_path / "ablation.yaml"
        path.write_text(yaml.safe_dump(content))
        return path

    return write


class FakeTraining:
    """Stands in for subprocess.run: leaves what a training leaves, or fails."""

    def __init__(self):
        self.commands: list[list[str]] = []
        self.environments: list[dict] = []
        self.failing: set[str] = set()
        self.figures: dict = FIGURES
        # Where trainings wait for each other.
        self.together = threading.Barrier(1)

    def __call__(self, command, *, cwd, env, stdout, stderr):
        assert (cwd, command[:3]) == (ROOT, [sys.executable, "tools/train_net.py", "--config-file"])
        self.commands.append(command)
        self.environments.append(env)
        self.together.wait()
        folder = Path(command[-1])
        folder.mkdir(parents=True, exist_ok=True)
        if folder.name in self.failing:
            stdout.write("Traceback\nValueError: no such thing\n")
            return subprocess.CompletedProcess(command, 1)
        (folder / "config.yaml").write_text(load_config(str(ROOT / command[3]), command[4:]).dump())
        with (folder / "metrics.json").open("a") as file:
            file.write(json.dumps({"iteration": 10, "time": 6.0}) + "\n")
        (folder / "metrics_final.json").write_text(json.dumps({"counting": {**self.figures, "DiC": 1.0}}))
        return subprocess.CompletedProcess(command, 0)

    def trained(self) -> list[str]:
        """Names of the variants trained so far."""
        return [Path(command[-1]).name for command in self.commands]


@pytest.fixture
def training(tool, monkeypatch) -> FakeTraining:
    fake = FakeTraining()
    monkeypatch.setattr(tool.subprocess, "run", fake)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return fake


@pytest.fixture
def run_main(tool, tmp_path, monkeypatch):
    """Runs the tool on a file of variants, with further arguments, and returns the rows it wrote by name."""

    def run(config_file: Path, *arguments: str) -> dict[str, dict]:
        results = tmp_path / "docs" / "results.json"
        argv = ["run_ablation.py", "--config-file", str(config_file), "--output", str(tmp_path / "output")]
        monkeypatch.setattr(sys, "argv", [*argv, "--results", str(results), *arguments])
        tool.main()
        return {row["name"]: row for row in json.loads(results.read_text())["variants"]}

    return run


# ---------------------------------------------------------------- the variants of configs/Nuclei


def tiny_batch() -> list[dict]:
    """Two images with two squares each, as the data loader gives them."""
    generator = torch.Generator().manual_seed(0)
    batch = []
    for _ in range(2):
        masks = torch.zeros(len(SQUARES), SIDE, SIDE, dtype=torch.bool)
        for mask, (top, left, bottom, right) in zip(masks, SQUARES, strict=True):
            mask[top:bottom, left:right] = True
        instances = Instances((SIDE, SIDE))
        instances.gt_masks = BitMasks(masks)
        instances.gt_classes = torch.zeros(len(masks), dtype=torch.int64)
        image = torch.randint(0, 256, (3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
        batch.append({"image": image, "height": SIDE, "width": SIDE, "instances": instances, "state": ImageState()})
    return batch


@pytest.mark.parametrize("name", NAMES)
def test_every_variant_of_nuclei_trains(tool, name):
    variant = next(variant for variant in tool.read_variants(NUCLEI) if variant.name == name)
    cfg = variant.config()
    size = [SIDE, SIDE]
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", "INPUT.IMAGE_SIZE", size, "MODEL.REC_ATTEND.TIME_STEPS", 3])
    cfg.INPUT.CROP.SIZE = size  # read by the variant that trains on windows
    build_augmentations(cfg)
    read_ema_decay(cfg)
    torch.manual_seed(0)
    model = build_model(cfg).train()
    losses = model(tiny_batch())
    assert {"loss_mask", "loss_box", "loss_score"} <= losses.keys()
    assert all(torch.isfinite(loss) for loss in losses.values())


@pytest.mark.parametrize("name", [name for name in NAMES if name != "base"])
def test_every_variant_of_nuclei_changes_just_what_it_names(tool, name, tmp_path):
    variants = {variant.name: variant for variant in tool.read_variants(NUCLEI)}
    (tmp_path / "config.yaml").write_text(variants["base"].config().dump())
    different = tool.different_settings(variants[name].config(), tmp_path / "config.yaml")
    own = variants[name].options[len(variants["base"].options) :]
    assert different and set(different) <= set(own[::2])


def test_all_variants_of_nuclei_have_the_same_budget(tool):
    budgets = set()
    for variant in tool.read_variants(NUCLEI):
        cfg = variant.config()
        # An iteration of all steps takes five times as long as one of single steps.
        cost = 5 if cfg.MODEL.REC_ATTEND.TRAINING.MODE == "SequentialSteps" else 1
        solver = cfg.SOLVER
        images = cost * solver.MAX_ITER * solver.IMS_PER_BATCH
        budgets.add((images, solver.BASE_LR, cfg.TEST.EVAL_PERIOD, cfg.SEED))
    assert len(budgets) == 1


# ---------------------------------------------------------------- a run


@pytest.mark.parametrize("word", ["SEED", "3", "", "['a', 'b']", "it's $HOME", "two words", '"'])
def test_a_command_is_read_as_it_was_meant(tool, word):
    assert shlex.split(tool._shell_word(word)) == [word]


def test_lists_are_easy_to_read(tool):
    assert tool._shell_word("['a', 'b']") == "\"['a', 'b']\""


def test_a_run_trains_every_variant_and_writes_its_row(write_ablation, training, run_main, tmp_path):
    rows = run_main(write_ablation({"base": [], "none": ["MODEL.REC_ATTEND.NORM", "none"]}))
    assert training.trained() == ["base", "none"]
    assert training.environments[0]["OMP_NUM_THREADS"] == "1"
    assert rows["none"]["metrics"] == FIGURES
    assert (rows["none"]["change"], rows["none"]["iterations"], rows["none"]["batch"]) == ("change none", 2, 2)
    assert rows["none"]["training_minutes"] == pytest.approx(1.0)
    command = rows["none"]["command"]
    assert command.startswith(f"python tools/train_net.py --config-file {QUICK} MODEL.WEIGHTS '' SOLVER.MAX_ITER 2 ")
    assert command.endswith(" MODEL.REC_ATTEND.NORM none OUTPUT_DIR output/results/none")
    assert str(tmp_path) not in json.dumps(rows)


def test_two_train_at_the_same_time(write_ablation, training, run_main):
    training.together = threading.Barrier(2, timeout=10)
    rows = run_main(write_ablation({"base": [], "none": ["MODEL.REC_ATTEND.NORM", "none"]}), "--jobs", "2")
    assert rows.keys() == {"base", "none"}


def test_threads_that_are_set_stay(write_ablation, training, run_main, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    run_main(write_ablation({"base": []}))
    assert training.environments[0]["OMP_NUM_THREADS"] == "3"


def test_an_interrupted_run_goes_on(write_ablation, training, run_main, tmp_path):
    config_file = write_ablation({"base": [], "none": ["MODEL.REC_ATTEND.NORM", "none"]})
    run_main(config_file)
    (tmp_path / "output" / "none" / "metrics_final.json").unlink()
    training.commands.clear()
    rows = run_main(config_file)
    assert training.trained() == ["none"]
    assert rows.keys() == {"base", "none"}
    assert rows["none"]["training_minutes"] == pytest.approx(1.0)  # the first attempt's are not added


def test_only_some_variants_run_and_the_rows_of_others_stay(write_ablation, training, run_main, tmp_path):
    config_file = write_ablation({"base": [], "none": ["MODEL.REC_ATTEND.NORM", "none"]})
    run_main(config_file)
    (tmp_path / "output" / "none" / "metrics_final.json").unlink()
    training.commands.clear()
    training.figures = {**FIGURES, "SBD": None}
    rows = run_main(config_file, "--only", "none")
    assert training.trained() == ["none"]
    assert list(rows) == ["base", "none"]
    assert (rows["base"]["metrics"]["SBD"], rows["none"]["metrics"]["SBD"]) == (0.5, None)


def test_a_failed_variant_is_named_and_the_others_run(write_ablation, training, run_main, tmp_path, capsys):
    config_file = write_ablation({"base": [], "bad": ["SEED", 3], "good": ["SEED", 4]})
    training.failing = {"bad"}
    with pytest.raises(SystemExit, match=r"^Failed: bad\."):
        run_main(config_file)
    printed = capsys.readouterr().out
    assert "bad: failed: exit code 1" in printed and "ValueError: no such thing" in printed
    rows = json.loads((tmp_path / "docs" / "results.json").read_text())["variants"]
    assert [row["name"] for row in rows] == ["base", "good"]


def test_a_folder_with_another_training_is_not_taken_for_this_one(write_ablation, training, run_main, capsys):
    run_main(write_ablation({"base": [], "seed": ["SEED", 3]}))
    training.commands.clear()
    with pytest.raises(SystemExit, match=r"^Failed: seed\."):
        run_main(write_ablation({"base": [], "seed": ["SEED", 4]}))
    assert "holds a training with other SEED" in capsys.readouterr().out
    assert training.commands == []


@pytest.mark.parametrize(
    ("variants", "changes", "message"),
    [
        ({"other": []}, {}, "needs a variant named 'base'"),
        ({"base": ["SEED", 1]}, {}, r"needs a variant named 'base' with options \[\]"),
        ({"base": [], "odd": ["SEED"]}, {}, "'options' of variant 'odd' .* must be a list"),
        ({"base": [], "typo": ["SEEED", 1]}, {}, "Variant 'typo' .*SEEED"),
        ({"base": [], "a/b": []}, {}, "'a/b' can't name a folder"),
        ({"base": []}, {"base": "nowhere.yaml"}, "nowhere.yaml"),
        ({"base": []}, {"budget": []}, "must have exactly the keys base, common, variants"),
    ],
)
def test_a_wrong_file_is_refused_before_any_training(write_ablation, training, run_main, variants, changes, message):
    with pytest.raises(SystemExit, match=message):
        run_main(write_ablation(variants, **changes))
    assert training.commands == []


def test_wrong_names_are_refused_before_any_training(write_ablation, training, run_main, tmp_path):
    config_file = write_ablation({"base": []})
    with pytest.raises(SystemExit, match="--only names bse. Choose from: base."):
        run_main(config_file, "--only", "bse")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "results.json").write_text('{"metrics": {}}')
    with pytest.raises(SystemExit, match="holds other results"):
        run_main(config_file)
    assert training.commands == []


def write_coco(folder: Path) -> list[str]:
    """An entry of DATASETS.COCO_FILES: two small images with a square each."""
    images, annotations = [], []
    for number in range(2):
        picture = np.full((24, 32), 30, np.uint8)
        picture[4:16, 6:20] = 200
        cv2.imwrite(str(folder / f"{number}.png"), picture)
        images.append({"id": number, "file_name": f"{number}.png", "height": 24, "width": 32})
        square = {"bbox": [6, 4, 14, 12], "area": 168, "segmentation": [[6, 4, 20, 4, 20, 16, 6, 16]], "iscrowd": 0}
        annotations.append({"id": number + 1, "image_id": number, "category_id": 1, **square})
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "square"}]}
    (folder / "squares.json").write_text(json.dumps(content))
    return ["squares", str(folder / "squares.json"), str(folder)]


def test_a_real_training_is_scored_and_not_repeated(write_ablation, run_main, tmp_path):
    data = ["DATASETS.COCO_FILES", [write_coco(tmp_path)], "DATASETS.TRAIN", ["squares"], "DATASETS.TEST", ["squares"]]
    common = [*data, "MODEL.WEIGHTS", "", "SOLVER.MAX_ITER", 2, "TEST.EVAL_PERIOD", 0]
    config_file = write_ablation({"base": []}, common=common)
    rows = run_main(config_file)
    assert rows["base"]["iterations"] == 2
    assert rows["base"]["metrics"].keys() == FIGURES.keys()
    assert 0 <= rows["base"]["training_minutes"] < 5
    log = tmp_path / "output" / "base.log"
    assert "Starting training from iteration 0" in log.read_text()
    log.unlink()
    assert run_main(config_file) == rows
    assert not log.exists()


# ---------------------------------------------------------------- the table


def test_the_page_has_the_ablations(import_tool):
    zoo = import_tool("update_model_zoo")
    ablations = zoo.render_ablations()
    content = f"\n{ablations}\n" if ablations else ""
    assert f"{zoo.ABLATION_BEGIN}{content}{zoo.ABLATION_END}" in (ROOT / "MODEL_ZOO.md").read_text()


def test_the_table_tells_the_difference_to_the_base(
    import_tool, tool, write_ablation, training, run_main, monkeypatch, tmp_path
):
    zoo = import_tool("update_model_zoo")
    monkeypatch.setattr(zoo, "RESULTS", tmp_path / "docs")
    monkeypatch.setattr(zoo, "COMPARISONS", tmp_path / "none")
    page = f"before\n{zoo.BEGIN}{zoo.END}{zoo.COMPARISON_BEGIN}{zoo.COMPARISON_END}between\n"
    page += f"{zoo.ABLATION_BEGIN}{zoo.ABLATION_END}after\n"
    monkeypatch.setattr(zoo, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["update_model_zoo.py"])
    (tmp_path / "MODEL_ZOO.md").write_text(page)
    zoo.main()
    assert (tmp_path / "MODEL_ZOO.md").read_text().endswith(f"between\n{zoo.ABLATION_BEGIN}{zoo.ABLATION_END}after\n")

    config_file = write_ablation({"base": [], "seed": ["SEED", 3]})
    run_main(config_file, "--only", "base")
    training.figures = {"SBD": 0.625, "abs_DiC": 1.5, "count_accuracy": None, "FBD": 0.75}
    run_main(config_file, "--only", "seed")
    monkeypatch.setattr(sys, "argv", ["update_model_zoo.py"])
    zoo.main()
    before, table = (tmp_path / "MODEL_ZOO.md").read_text().split(zoo.ABLATION_BEGIN)
    assert "change" not in before  # an ablation is no row of the first table
    rows = [[cell.strip() for cell in line.split(" | ")] for line in table.splitlines() if line.startswith("| ")]
    assert rows[1][:2] == ["| base", "change base (base)"]
    assert rows[1][2:6] == ["0.500", "2.000", "0.250", "0.750"]
    assert rows[2][:2] == ["| seed", "change seed"]
    assert rows[2][2:7] == ["0.625 (+0.125)", "1.500 (-0.500)", "", "0.750 (+0.000)", "2 x 2"]
    assert rows[2][7].split() == ["1", "min", "|"]
    assert re.search(r"\* seed:\n\n {6}python tools/train_net.py .* SEED 3 OUTPUT_DIR output/results/seed\n", table)
    assert table.endswith(f"{zoo.ABLATION_END}after\n")
