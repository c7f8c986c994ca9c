"""tools/benchmark.py: a whole comparison as a user runs it, its report in a browser, and what it refuses."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rec_attend_d2.benchmark.models import ComparisonError

ROOT = Path(__file__).resolve().parents[1]
OURS, RCNN = "ours=tests/configs/fast.yaml", "rcnn=tests/configs/mask_rcnn.yaml"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
    # Whatever a page wants from the network it does not get.
    *("--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=10000", "--enable-logging=stderr"),
]
# Tells of itself in the document: errors, and of every picture whether it is there.
PROBE = """<script>
const problems = [];
addEventListener("error", event => problems.push(String(event.message || event.target.outerHTML).slice(0, 200)), true);
addEventListener("load", () => {
  const pictures = [...document.images].map(image => [image.complete, image.naturalWidth, image.alt.length]);
  const loaded = performance.getEntriesByType("resource").map(entry => entry.name.slice(0, 30));
  const result = document.createElement("pre");
  result.id = "probe";
  result.textContent = "PROBE" + JSON.stringify({problems, pictures, loaded}) + "PROBE";
  document.body.append(result);
});
</script>"""


@pytest.fixture
def tool(monkeypatch):
    """tools/benchmark.py as a module; relative paths are the project's."""
    monkeypatch.chdir(ROOT)
    monkeypatch.syspath_prepend(str(ROOT / "tools"))
    return importlib.import_module("benchmark")


@pytest.fixture
def run(tool, monkeypatch, capsys):
    """Runs the tool in this process and returns what it printed."""

    def call(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["benchmark.py", *map(str, arguments)])
        tool.main()
        return capsys.readouterr().out

    return call


@pytest.fixture(scope="module")
def arguments(squares) -> list[str]:
    """Of a comparison of two tiny models on the tiny data set."""
    files = str([["squares_benchmark", str(squares / "squares.json"), str(squares)]])
    data = ["--train", "squares_benchmark", "--test", "squares_benchmark", "--opts", "DATASETS.COCO_FILES", files]
    return [OURS, RCNN, "--iterations", "2", "--threads", "1", "--device", "cpu", "--threshold-images", "2", *data]


@pytest.fixture(scope="module")
def finished(run_tool, arguments, tmp_path_factory) -> Path:
    """Folder of that comparison."""
    output = tmp_path_factory.mktemp("comparison")
    process = run_tool("benchmark", "--output", output, *arguments)
    assert process.returncode == 0, process.stdout[-500:] + process.stderr[-3000:]
    assert "ours: train ..." in process.stdout and "rcnn: evaluate ..." in process.stdout
    return output


def test_the_json_holds_every_figure(finished):
    content = json.loads((finished / "comparison.json").read_text())
    assert [model["name"] for model in content["models"]] == ["ours", "rcnn"]
    for model in content["models"]:
        results, training = model["results"], model["training"]
        for name in ("AP", "AP50", "SBD", "abs_DiC", "count_accuracy", "MWCov", "MUCov", "AvgFP", "AvgFN"):
            assert results["metrics"][name] is not None
        assert results["seconds_per_image"]["median"] > 0 and results["inference_memory"] > 1e8
        assert training["iterations"] == 2 and [point["iterations"] for point in training["curve"]] == [1, 2]
        assert training["cpu_seconds"] > 0 and training["peak_memory"] > 1e8
        predictions = json.loads((finished / model["name"] / "predictions.json").read_text())
        assert {p["image_id"] for p in predictions} <= {1, 2, 3, 4}
    assert [group["size"] for group in content["groups"]["by_count"]] == [1, 1, 1, 1]
    assert str(ROOT) not in content["command"] and "tools/benchmark.py" in content["command"]


def test_the_markdown_shows_what_the_json_holds(finished):
    content = json.loads((finished / "comparison.json").read_text())
    text = (finished / "report.md").read_text()
    for model in content["models"]:
        assert f"{model['results']['metrics']['MWCov']:.3f}" in text
    links = [part.split(")")[0] for part in text.split("](")[1:]]
    assert len(links) == 9 and all((finished / link).is_file() for link in links)


def browse(page: str, folder: Path) -> tuple[dict, str]:
    """What the probe found in a page, and what the browser printed to its console."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip("No Chromium here (apt-get install chromium), so the report was not opened in a browser.")
    path = folder / "page.html"
    path.write_text(page.replace("<head>", f"<head>{PROBE}", 1), encoding="utf-8")
    command = [browser, *QUIET, f"--user-data-dir={folder / 'profile'}", "--dump-dom", path.as_uri()]
    environment = {**os.environ, "HOME": str(folder)}
    process = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    parts = process.stdout.split("PROBE")
    assert len(parts) >= 3, process.stderr[-3000:]
    console = "\n".join(line for line in process.stderr.splitlines() if ":CONSOLE" in line)
    return json.loads(parts[-2]), console


def test_a_browser_shows_the_report_whole(finished, tmp_path):
    found, console = browse((finished / "report.html").read_text(encoding="utf-8"), tmp_path)
    # Curves, four kinds of groups, and all four images.
    assert len(found["pictures"]) == 9
    assert all(complete and width > 100 and words for complete, width, words in found["pictures"])
    assert found["problems"] == [] and console == ""
    assert all(name.startswith("data:") for name in found["loaded"])


def test_a_browser_would_tell_what_is_missing(tmp_path):
    broken = '<img alt="a" src="data:image/png;base64,AAAA"><script>console.error("no"); undefined_function()</script>'
    found, console = browse(f"<!DOCTYPE html><html><head></head><body>{broken}</body></html>", tmp_path)
    assert found["pictures"][0][1] == 0
    assert len(found["problems"]) == 2 and "undefined_function" in "".join(found["problems"])
    assert '"no"' in console


def test_what_is_done_is_not_done_again(finished, arguments, run, tool, monkeypatch):
    monkeypatch.setattr(tool.subprocess, "run", lambda *_, **__: pytest.fail("a part was run again"))
    before = (finished / "comparison.json").read_text()
    printed = run("--output", finished, *arguments)
    assert printed.count("is done") == 4
    after = json.loads((finished / "comparison.json").read_text())
    assert after["models"] == json.loads(before)["models"]


def changed(arguments: list[str], key: str, value: str) -> list[str]:
    """The arguments with an option of the tool changed; what follows --opts is the models'."""
    if key in arguments:
        position = arguments.index(key)
        return [*arguments[: position + 1], value, *arguments[position + 2 :]]
    return [*arguments[:2], key, value, *arguments[2:]]


def test_other_settings_need_another_folder(finished, arguments, run):
    with pytest.raises(SystemExit, match="ours holds a model with another iterations. Choose another --output"):
        run("--output", finished, *changed(arguments, "--iterations", "5"))
    with pytest.raises(SystemExit, match="ours holds a model with another seed"):
        run("--output", finished, *changed(arguments, "--seed", "2"))
    with pytest.raises(SystemExit, match="ours holds a model with another options"):
        run("--output", finished, *arguments, "SOLVER.BASE_LR", "0.5")


def test_an_edited_config_needs_another_folder(finished, arguments, run):
    settings = finished / "rcnn" / "settings.yaml"
    before = settings.read_text()
    settings.write_text(before.replace("IMS_PER_BATCH: 2", "IMS_PER_BATCH: 3"))
    with pytest.raises(SystemExit, match="rcnn holds a model with another SOLVER.IMS_PER_BATCH"):
        run("--output", finished, *arguments)
    settings.write_text(before)


def test_finished_weights_are_not_trained(finished, arguments, tool, tmp_path, monkeypatch):
    weights = finished / "rcnn" / "model_final.pth"
    command = ["benchmark.py", "--output", "unused", *arguments[:4], "--weights", f"rcnn={weights}", *arguments[4:]]
    monkeypatch.setattr(sys, "argv", command)
    specs = tool.make_specs(tool.parse_arguments())
    parts = []
    monkeypatch.setattr(tool, "run_part", lambda part, folder, threads: parts.append((folder.name, part)))
    for spec in specs:
        tool.run_model(spec, tmp_path / spec.name)
    assert parts == [("ours", "train"), ("ours", "evaluate"), ("rcnn", "evaluate")]
    assert [spec.recipe for spec in specs] == ["tests/configs/fast.yaml"] * 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([OURS, RCNN], "A budget is either --minutes or --iterations"),
        ([OURS, RCNN, "--minutes", "1", "--iterations", "1"], "A budget is either"),
        ([OURS, OURS, "--iterations", "1"], "Two models are named 'ours'"),
        (["a/b=tests/configs/fast.yaml", RCNN, "--iterations", "1"], "'a/b' can't name a folder"),
        ([OURS, "rcnn=none.yaml", "--iterations", "1"], "none.yaml.*does not exist"),
        ([OURS, RCNN, "--iterations", "1", "--test", "rosettes_vall"], "rosettes_vall.*not registered"),
        ([OURS, RCNN, "--iterations", "1", "--weights", "x=a.pth"], "--weights names x; the models are ours, rcnn"),
        ([OURS, RCNN, "--iterations", "1", "--weights", "ours=a.pth"], "--weights names 'a.pth', which does not exist"),
        ([OURS, RCNN, "--iterations", "1", "--opts", "MODEL.NONE", "1"], "MODEL.NONE|NONE"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_trained(arguments, message, run, tool, tmp_path, monkeypatch):
    monkeypatch.setattr(tool.subprocess, "run", lambda *_, **__: pytest.fail("something was trained"))
    with pytest.raises(SystemExit, match=message):
        run("--output", tmp_path, *arguments)


def test_a_recipe_makes_the_training_images_of_a_baseline_alone(tool, monkeypatch):
    command = ["benchmark.py", "--output", "unused", RCNN, "--iterations", "1", "--points", "2", "--recipe"]
    monkeypatch.setattr(sys, "argv", [*command, "tests/configs/fast.yaml"])
    (spec,) = tool.make_specs(tool.parse_arguments())
    assert (spec.recipe, spec.points) == ("tests/configs/fast.yaml", 2)
    monkeypatch.setattr(sys, "argv", [*command, "tests/configs/mask_rcnn.yaml"])
    with pytest.raises(ComparisonError, match="--recipe names tests/configs/mask_rcnn.yaml, which is no config of"):
        tool.make_specs(tool.parse_arguments())


def test_a_part_that_fails_is_named(tool, tmp_path, monkeypatch):
    def fail(command, env, stdout, stderr):
        stdout.write("Traceback\nValueError: no such thing\n")
        return subprocess.CompletedProcess(command, 1)

    monkeypatch.setattr(tool.subprocess, "run", fail)
    with pytest.raises(ComparisonError, match=r"train failed with exit code 1, see .*train.log: ValueError: no"):
        tool.run_part("train", tmp_path, 1)
