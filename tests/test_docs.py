"""The pages of documentation: every command in them is run or at least accepted, links and config keys exist.

The commands of RUN are run word for word, in this order, in a folder that looks like the project's: with data where the
pages say, and with configs whose networks, images and schedules are tiny.
"""

import argparse
import json
import logging
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from detectron2.data import DatasetCatalog, MetadataCatalog

from rec_attend_d2.cli import COMMANDS, main
from rec_attend_d2.config import load_config
from rec_attend_d2.data.datasets import register_builtin_datasets
from rec_attend_d2.data.datasets.rosettes import SEED, render_plant

ROOT = Path(__file__).resolve().parents[1]
QUICK = ROOT / "tests" / "configs"
PAGES = ["README.md", "INSTALL.md", "GETTING_STARTED.md", "MODEL_ZOO.md", "datasets/README.md", "docs/differences.md"]
PAGES += [
    f"docs/{name}.md"
    for name in ("ablation", "config", "reliability", "how_it_works", "training", "paper_model", "speed")
]
PAGES += [f"docs/{name}.md" for name in ("benchmarks", "submissions", "large_pictures", "clusters", "export")]

MINE = "--config-file my.yaml"
MY_WEIGHTS = "MODEL.WEIGHTS output/mine/model_best.pth"
NUCLEI = "--config-file configs/Nuclei/fast.yaml"
NUCLEI_WEIGHTS = "MODEL.WEIGHTS output/nuclei_fast/model_final.pth"
# Command -> arguments added to it, which keep the test short.
COUNT, TRAIN = "rec-attend count --model", "rec-attend train"
RUN = {
    f"{COUNT} nuclei new_images --output results --labels --objects --pictures": "--processes 1",
    f"{TRAIN} --images data/images --labels data/labels --output model": "--minutes 0.3",
    f"{COUNT} model new_images --output results": "--processes 1",
    "rec-attend evaluate --model model --images test/images --labels test/labels --output test_report": "",
    f"{TRAIN} --plan model/plan.yaml --output another_model": "--minutes 0.2",
    "python tools/labels_to_coco.py --images data/images --labels data/labels --output data/train.json "
    "--val-fraction 0.2 --val-output data/val.json --category cell": "",
    f"python tools/visualize_data.py {MINE} --output output/data_pictures": "--images 1",
    f"python tools/train_net.py {MINE}": "",
    f"python tools/find_learning_rate.py {MINE} --output output/rate": "--iterations 60 --lowest 1e-4 --highest 0.1 "
    "SOLVER.IMS_PER_BATCH 4",
    f"python tools/train_net.py {MINE} --eval-only {MY_WEIGHTS}": "",
    f"python tools/train_net.py {MINE} --eval-only {MY_WEIGHTS} MODEL.REC_ATTEND.TEST.SCORE_THRESHOLD 0.3": "",
    f"python tools/visualize_steps.py {MINE} --output output/step_pictures --images 4 {MY_WEIGHTS}": "",
    f"python demo/demo.py {MINE} --input new_images --csv counts.csv --output pictures --opts {MY_WEIGHTS}": "",
    "python tools/train_net.py --config-file configs/Rosettes/fast.yaml DATASETS.COCO_FILES \"[['my_train', "
    "'data/train.json', 'data/images'], ['my_val', 'data/val.json', 'data/images']]\" DATASETS.TRAIN "
    "\"('my_train',)\" DATASETS.TEST \"('my_val',)\" OUTPUT_DIR output/mine": "OUTPUT_DIR output/readme",
    f"python tools/train_net.py {NUCLEI}": "",
    f"python tools/train_net.py {NUCLEI} --eval-only {NUCLEI_WEIGHTS}": "",
    f"python tools/visualize_steps.py {NUCLEI} --output pictures --images 4 {NUCLEI_WEIGHTS}": "",
    f"{COUNT} rosettes new_images --output seen --steps": "--processes 1",
    f"{COUNT} nuclei slide.tif --output slide_results --labels --geojson": "--processes 1",
    f"{COUNT} nuclei new_images --output counted": "--processes 1",
    f"{COUNT} nuclei new_images --output shared --shard 1/2": "--processes 1",
    f"{COUNT} nuclei new_images --output shared --shard 2/2": "--processes 1",
}
SUBMISSION = "python tools/make_submission.py --config-file configs/"
# Commands that take long even on tiny data -> the test that runs the tool. Here only their options are checked.
RUN_ELSEWHERE = {
    f"python tools/run_stages.py --config-dir configs/{name}": "tests/test_run_stages.py"
    for name in ("Cityscapes", "CVPPP", "KITTI", "COCO")
} | {
    f"{SUBMISSION}Cityscapes/stage_c.yaml --format cityscapes --dataset rec_attend_cityscapes_test --output "
    "submission.zip MODEL.WEIGHTS output/cityscapes_stage_c/model_final.pth": "tests/test_recipes.py",
    f"{SUBMISSION}CVPPP/stage_c.yaml --format cvppp --dataset cvppp_all_test --output answer.zip MODEL.WEIGHTS "
    "output/cvppp_stage_c/model_final.pth": "tests/test_recipes.py",
    f"{SUBMISSION}CVPPP/stage_c.yaml --format cvppp --dataset cvppp_all_test "
    "--check answer.zip": "tests/test_recipes.py",
    f"{SUBMISSION}COCO/stage_c.yaml --format coco --dataset coco_2017_val_zebra --output zebra.json MODEL.WEIGHTS "
    "output/coco_zebra_stage_c/model_final.pth": "tests/test_recipes.py",
    "python research/score_results.py --dataset fields_val stardist=output/stardist_fields/"
    "predictions.json": "tests/research/test_score_results.py",
    "python research/try_reliability.py --output docs/results/reliability/"
    "trainings.json": "tests/research/test_try_reliability.py",
    "python research/try_bad_inputs.py --output docs/results/reliability/bad_inputs.json": "tests/test_bad_inputs.py",
    "python research/update_reliability.py": "tests/research/test_reliability.py",
    "python research/try_paper_speed.py": "tests/research/test_speed_table.py",
    "python research/draw_front_page.py": "tests/research/test_front_page.py",
    "python research/update_speed_table.py": "tests/research/test_speed_table.py",
    f"{COUNT} model --video film.avi --output counted.mp4": "tests/cli/test_count.py",
    "python tools/check_device.py --device cuda": "tests/test_check_device.py",
    "python tools/convert_weights.py --weights W.h5 --options model_opt.yaml --output model.pth --config-output "
    "model.yaml --estimate-statistics rosettes_train": "tests/checkpoint/test_original_weights.py",
    "python tools/benchmark_speed.py --config-file configs/CVPPP/stage_c.yaml --batch-sizes 1,5 --objects 5 "
    "--threads 2": "tests/test_benchmark_speed.py",
    "python tools/benchmark_speed.py --config-file configs/CVPPP/stage_c.yaml --batch-sizes 1,5 --objects 5 "
    "--threads 2 --repeats 3 --startup --postprocessing "
    "--output docs/speed/cvppp.json": "tests/test_benchmark_speed.py",
    "python tools/benchmark_speed.py --config-file configs/CVPPP/stage_c.yaml --batch-sizes 5 --objects 5 --threads 2 "
    "--repeats 3 --output docs/speed/cvppp_recomputed.json "
    "MODEL.REC_ATTEND.TRAINING.RECOMPUTE True": "tests/test_benchmark_speed.py",
    "python tools/benchmark_speed.py --config-file configs/CVPPP/stage_c.yaml --batch-sizes 1 --objects 5 --threads 2 "
    "--repeats 2 --warmup 1 --growth --output docs/speed/cvppp_growth.json": "tests/test_benchmark_speed.py",
    "python tools/benchmark.py ours=configs/Nuclei/fast.yaml "
    "mask_rcnn=configs/baselines/Nuclei/mask_rcnn_R_50_FPN.yaml --output output/compare_nuclei --minutes 20 "
    "--threads 2": "tests/test_benchmark.py",
    "python tools/export_model.py --config-file configs/Rosettes/fast.yaml --format onnx --stop-loop --steps 30 "
    "--output plants.onnx MODEL.WEIGHTS weights/rosettes.pth": "tests/test_export_model.py",
    "python tools/analyze_model.py --config-file configs/CVPPP/stage_c.yaml": "tests/test_analyze_model.py",
    "python tools/make_miniature.py --output /tmp/miniature": "tests/test_recipes.py",
    "python tools/install_environment.py": "tests/test_install.py",
}


# --- reading the pages ------------------------------------------------------------------------------------------------


def page_text(page: str) -> str:
    """The page without its table of bad inputs, which is wrong on purpose."""
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.sub(r"<!-- inputs: .*<!-- end of inputs -->", "", text, flags=re.S)


def normal(command: str) -> str:
    """Its words with single spaces between them, without comment."""
    return shlex.join(shlex.split(command, comments=True))


def commands_of(page: str) -> list[str]:
    """Commands of a page, in indented or fenced blocks and between backticks, in their order."""
    start = r"(?:python (?:tools|demo|research)/|rec-attend \w+ --|make |bash )"
    text = re.sub(r"\\\n\s*", "", page_text(page))
    blocks = [text[slice(*match.span(1))] for match in re.finditer(r"^ *```\w*\n(.*?)^ *```", text, re.M | re.S)]
    found = re.findall(rf"^ {{4,}}({start}.*)$", text, re.M) + re.findall(rf"`({start}[^`]+)`", text)
    found += [line for block in blocks for line in re.findall(rf"^({start}.*)$", block, re.M)]
    return list(dict.fromkeys(normal(command) for command in found))


def blocks_of(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page_text(page), re.M | re.S)


def anchors_of(path: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ +(.+?) *$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


DOCUMENTED = {page: commands_of(page) for page in PAGES}
FOUND = {command for found in DOCUMENTED.values() for command in found}
# What can be run in this process; the rest is make's.
OURS = sorted(command for command in FOUND if command.startswith(("python ", "rec-attend ")))
OTHER = sorted(FOUND - set(OURS))


def has_tool(command: str) -> bool:
    program, tool = command.split()[:2]
    return tool in COMMANDS if program == "rec-attend" else (ROOT / tool).is_file()


# --- the folder they run in -------------------------------------------------------------------------------------------


def write_pictures(folder: Path, count: int, first: int = 0, labels: Path | None = None) -> list[np.ndarray]:
    """Small plants as PNG files, and label images of them; returns the masks."""
    found = []
    for made in (folder, labels):
        if made is not None:
            made.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        image, masks = render_plant(SEED, number, size=48)
        cv2.imwrite(str(folder / f"plate{number}.png"), image)
        if labels is not None:
            numbers = np.arange(1, len(masks) + 1, dtype=np.uint8)[:, None, None]
            cv2.imwrite(str(labels / f"plate{number}.png"), (masks * numbers).sum(axis=0, dtype=np.uint8))
        found.append(masks)
    return found


def write_nuclei(folder: Path) -> None:
    """The data set "nuclei" in miniature: a square in each image."""
    write_pictures(folder / "images", 2)
    for split, number in (("train", 0), ("val", 1)):
        image = {"id": 1, "file_name": f"plate{number}.png", "height": 48, "width": 48}
        square = {"segmentation": [[9, 9, 29, 9, 29, 29, 9, 29]], "bbox": [9, 9, 20, 20], "area": 400, "iscrowd": 0}
        content = {"images": [image], "annotations": [{"id": 1, "image_id": 1, "category_id": 1, **square}]}
        content["categories"] = [{"id": 1, "name": "nucleus"}]
        (folder / f"{split}.json").write_text(json.dumps(content))


def write_tiny_config(real: Path, path: Path) -> None:
    """A config that differs from ``real`` in the size of networks and images and in the schedule alone."""
    cfg = load_config(str(real), [])
    own = {"TRAIN": list(cfg.DATASETS.TRAIN), "TEST": list(cfg.DATASETS.TEST), "COCO_FILES": cfg.DATASETS.COCO_FILES}
    content = {"_BASE_": [str(real), str(QUICK / "fast.yaml")], "DATASETS": own, "OUTPUT_DIR": cfg.OUTPUT_DIR}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content))


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Iterator[Path]:
    """The project's folder after the preparations that the pages ask for, with tiny configs."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("tools", "demo", "weights", "rec_attend_d2", "research"):
        (folder / name).symlink_to(ROOT / name)
    (folder / "configs").mkdir()
    for name in ("Base-RecAttend.yaml", "Fast-RecAttend.yaml", "Cityscapes", "CVPPP", "KITTI", "COCO"):
        (folder / "configs" / name).symlink_to(ROOT / "configs" / name)
    for name in ("Nuclei", "Rosettes"):
        for real in (ROOT / "configs" / name).glob("*.yaml"):
            if real.stem in ("fast", "demo"):
                write_tiny_config(real, folder / "configs" / name / real.name)
            else:
                (folder / "configs" / name).mkdir(exist_ok=True)
                (folder / "configs" / name / real.name).symlink_to(real)
    (my_config,) = blocks_of("docs/config.md", "yaml")
    (folder / "documented.yaml").write_text(my_config.replace('"configs/', f'"{ROOT}/configs/'))
    write_tiny_config(folder / "documented.yaml", folder / "my.yaml")

    write_pictures(folder / "data" / "images", 5, labels=folder / "data" / "labels")
    (folder / "test").symlink_to(folder / "data")
    write_nuclei(folder / "datasets" / "nuclei")
    write_pictures(folder / "new_images", 2, first=8)
    (folder / "plant.png").symlink_to(folder / "new_images" / "plate8.png")
    cv2.imwrite(str(folder / "slide.tif"), cv2.imread(str(folder / "plant.png")))
    register_builtin_datasets(str(folder / "datasets"))
    before = set(DatasetCatalog.list())
    yield folder
    register_builtin_datasets()
    for name in set(DatasetCatalog.list()) - before:
        DatasetCatalog.remove(name)
        MetadataCatalog.remove(name)


@pytest.fixture
def inside(folder, monkeypatch) -> Iterator[Path]:
    """The working directory is that folder; afterwards loggers are as they were."""
    names = ("rec_attend_d2", "detectron2", "fvcore")
    loggers = [logging.getLogger(name) for name in names]
    before = [(list(logger.handlers), logger.propagate, logger.level) for logger in loggers]
    monkeypatch.chdir(folder)
    for scripts in ("tools", "research"):
        monkeypatch.syspath_prepend(str(ROOT / scripts))
    yield folder
    for logger, (handlers, propagate, level) in zip(loggers, before, strict=True):
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


@pytest.fixture
def run(inside, monkeypatch) -> Callable[[str], None]:
    """Runs a command in this process, which has imported the heavy libraries already."""

    def call(command: str) -> None:
        program, script, *arguments = shlex.split(command)
        if program == "rec-attend":
            return main([script, *arguments])
        monkeypatch.setattr(sys, "argv", [script, *arguments])
        runpy.run_path(script, run_name="__main__")

    return call


# --- tests ------------------------------------------------------------------------------------------------------------


def test_the_reader_of_pages_sees_all_kinds_of_commands(tmp_path, monkeypatch):
    text = "    make a   # why\n\n* x:\n\n      python tools/b.py --c \\\n        d\n\nUse `bash e`.\n\n"
    (tmp_path / "page.md").write_text(text + "```bash\npython demo/f.py\n```\nmake not a command\n")
    monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
    assert commands_of("page.md") == ["make a", "python tools/b.py --c d", "bash e", "python demo/f.py"]


def test_every_documented_command_is_in_the_tables():
    tables = {normal(command) for command in [*RUN, *RUN_ELSEWHERE]}
    documented = {command for page in PAGES if page != "MODEL_ZOO.md" for command in DOCUMENTED[page]}
    documented &= set(OURS)
    assert documented - tables == set(), "run these here, or name the test that does"
    assert tables - documented == set(), "no page has these any more"


@pytest.mark.parametrize("test", sorted(set(RUN_ELSEWHERE.values())))
def test_what_is_run_elsewhere_is_run_there(test: str):
    text = (ROOT / test).read_text(encoding="utf-8")
    for command in (command for command, where in RUN_ELSEWHERE.items() if where == test):
        assert Path(command.split()[1]).stem in text, command


class Parsed(Exception):
    """Raised with the result in place of going on."""


@pytest.mark.parametrize("command", OURS)
def test_options_and_config_keys_are_accepted(run, command: str, monkeypatch):
    parse_args = argparse.ArgumentParser.parse_args

    def stop(parser, *arguments, **named):
        raise Parsed(parse_args(parser, *arguments, **named))

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    assert has_tool(command), "there is no such script"
    with pytest.raises(Parsed) as parsed:
        run(command)
    (options,) = parsed.value.args
    if hasattr(options, "config_dir"):
        configs = sorted(Path(options.config_dir).glob("stage_*.yaml"))
        assert configs
    else:
        configs = [options.config_file] if hasattr(options, "config_file") else []
    for config in configs:
        load_config(str(config), getattr(options, "opts", []))


def test_the_commands_run_as_documented(run, folder):
    for command, added in RUN.items():
        run(f"{command} {added}")
    output = folder / "output"
    assert len((folder / "shared" / "counts.csv").read_text().splitlines()) == 1 + 2  # of both shards
    assert json.loads((output / "mine" / "metrics_final.json").read_text())["counting"]["num_images"] == 1
    for expected in ("pictures", "seen/steps", "output/data_pictures", "output/step_pictures"):
        assert any((folder / expected).glob("*.png")), expected
    for expected in ("results/counts.csv", "results/objects.csv", "model/report.html", "test_report/report.html"):
        assert (folder / expected).is_file(), expected
    assert (output / "rate" / "learning_rate.png").is_file()
    assert (output / "mine" / "inference" / "my_val" / "counting_per_image.csv").is_file()


def test_the_programs_run_as_documented(inside):
    """The Python blocks, after the commands that train what they load."""
    image = cv2.imread("plant.png")
    given = {"list_of_images": [image, image[:40]]}
    blocks = [block for page in PAGES for block in blocks_of(page, "python")]
    assert len(blocks) >= 3
    for block in blocks:
        names = dict(given)
        exec(compile(block.replace("plate9.png", "plate8.png"), "page", "exec"), names)
        assert {"plant", "plate", "found"} & set(names)


@pytest.mark.parametrize("command", OTHER)
def test_make_knows_its_targets(command: str, tmp_path):
    program, target, *settings = shlex.split(command)
    assert program == "make"
    listed = subprocess.run(["make", "-n", target, f"VENV={tmp_path}", *settings], cwd=ROOT, capture_output=True)
    assert listed.returncode == 0 and listed.stdout, listed.stderr.decode()


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str):
    text = re.sub(r"^```.*?^```", "", page_text(page), flags=re.M | re.S)
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if not link.startswith("http")]
    for link in links:
        name, _, anchor = link.partition("#")
        path = (ROOT / page).parent / name if name else ROOT / page
        assert path.exists(), link
        if anchor:
            assert anchor in anchors_of(path), link


@pytest.mark.parametrize("page", PAGES)
def test_config_keys_exist(page: str):
    cfg = load_config("", [])
    roots = "|".join(key for key in [*cfg, *cfg.MODEL.REC_ATTEND] if isinstance(key, str))
    for key in set(re.findall(rf"(?<![\w.])((?:{roots})(?:\.[A-Z][A-Z_0-9]*)+)\b", page_text(page))):
        for node in (cfg, cfg.MODEL.REC_ATTEND):
            for part in key.split("."):
                node = node.get(part) if isinstance(node, dict) else None
            if node is not None:
                break
        assert node is not None, key


def test_the_settings_of_both_recipes_are_as_the_page_says():
    table = page_text("docs/differences.md").split("## What the fast recipe changes")[1]
    rows = [re.findall(r"\| *`?([\w.-]+)", line) for line in table.splitlines() if line.startswith("| `")]
    assert len(rows) >= 4
    recipes = [ROOT / "configs" / "CVPPP" / "stage_c.yaml", ROOT / "configs" / "Fast-RecAttend.yaml"]
    for key, *values in rows:
        for recipe, value in zip(recipes, values, strict=True):
            cfg = load_config(str(recipe), [])
            first, *rest = key.split(".")
            node = next(node for node in (cfg.MODEL.REC_ATTEND, cfg.MODEL, cfg) if first in node)[first]
            for part in rest:
                node = node[part]
            assert node == (value if isinstance(node, str) else float(value)), key
