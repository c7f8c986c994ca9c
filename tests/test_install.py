"""The installation: setup.py, the Makefile and tools/install_environment.py agree with the code and each other."""

import ast
import importlib.util
import re
import runpy
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
import setuptools

ROOT = Path(__file__).resolve().parent.parent
OWN_MODULES = {"rec_attend_d2", "miniature"} | {path.stem for path in (ROOT / "tools").glob("*.py")}
# Installed by tools/install_environment.py, see the comment in setup.py.
NOT_DECLARED = {"detectron2"}
# Where the package index knows a module under another name.
DISTRIBUTION_OF = {
    "cv2": "opencv-python-headless",
    "PIL": "pillow",
    "skimage": "scikit-image",
    "yaml": "pyyaml",
    "hydra": "hydra-core",
    "pkg_resources": "setuptools",
}


@pytest.fixture
def setup_arguments(monkeypatch: pytest.MonkeyPatch) -> dict:
    """What setup.py hands to ``setuptools.setup``."""
    arguments: dict = {}
    monkeypatch.setattr(setuptools, "setup", arguments.update)
    runpy.run_path(str(ROOT / "setup.py"))
    return arguments


@pytest.fixture
def installer() -> ModuleType:
    """A fresh copy of tools/install_environment.py as a module."""
    spec = importlib.util.spec_from_file_location("install_environment", ROOT / "tools" / "install_environment.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def third_party_imports() -> dict[str, str]:
    """Top-level module -> one file that imports it, for all code of the package, the tools and the demo."""
    found = {}
    for path in [*ROOT.glob("rec_attend_d2/**/*.py"), *ROOT.glob("tools/*.py"), *ROOT.glob("demo/*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [node.module]
            for name in names:
                found[name.split(".")[0]] = str(path.relative_to(ROOT))
    return {name: path for name, path in found.items() if name not in sys.stdlib_module_names | OWN_MODULES}


def declared_distributions(setup_arguments: dict) -> set[str]:
    lines = [*setup_arguments["install_requires"], *sum(setup_arguments["extras_require"].values(), [])]
    return {re.match(r"[A-Za-z0-9_.-]+", line).group().lower().replace("_", "-") for line in lines}


def test_setup_runs_without_the_heavy_libraries():
    """Where torch, Detectron2 and OpenCV cannot be imported, setup.py still tells the version of version.py."""
    program = (
        "import runpy, sys\n"
        "for name in ('torch', 'torchvision', 'detectron2', 'cv2', 'numpy', 'rec_attend_d2'):\n"
        "    sys.modules[name] = None\n"  # importing it now raises ImportError
        "sys.argv = ['setup.py', '--version']\n"
        "runpy.run_path('setup.py', run_name='__main__')\n"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    version = runpy.run_path(str(ROOT / "rec_attend_d2" / "version.py"))["__version__"]
    assert result.stdout.strip().splitlines()[-1] == version
    assert re.fullmatch(r"\d+\.\d+\.\d+", version)


def test_every_package_folder_is_installed(setup_arguments: dict):
    folders = {path.parent for path in ROOT.glob("rec_attend_d2/**/*.py")}
    assert set(setup_arguments["packages"]) == {".".join(folder.relative_to(ROOT).parts) for folder in folders}


def test_every_imported_library_is_declared(setup_arguments: dict):
    declared = declared_distributions(setup_arguments)
    imported = third_party_imports()
    assert "torch" in imported and "detectron2" in imported
    missing = {
        f"{name} (imported in {path})"
        for name, path in imported.items()
        if name not in NOT_DECLARED and DISTRIBUTION_OF.get(name, name).lower().replace("_", "-") not in declared
    }
    assert not missing


def test_python_and_setuptools_bounds_agree(setup_arguments: dict, installer: ModuleType):
    major, minor = installer.MINIMUM_PYTHON
    assert setup_arguments["python_requires"] == f">={major}.{minor}"
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'target-version = "py{major}{minor}"' in project
    assert "setuptools<81" in setup_arguments["install_requires"]
    assert "setuptools<81" in installer.BUILD_REQUIREMENTS
    assert re.search(r'^requires = \["setuptools>=\d+,<81"\]$', project, re.MULTILINE)


def test_citation_has_the_version_of_the_package(setup_arguments: dict):
    citation = (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert re.search(r"^version: (.+)$", citation, re.MULTILINE).group(1) == setup_arguments["version"]


def test_make_lists_every_target():
    targets = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE).group(1)
    assert {"demo", "test", "lint", "types", "clean", "help"} <= set(targets.split())
    result = subprocess.run(["make", "VENV=unused"], cwd=ROOT, capture_output=True, text=True, check=True)
    listed = re.findall(r"^  make (\w+) +\S", result.stdout, re.MULTILINE)
    assert listed == targets.split()


def test_fallback_is_pinned_by_its_hash(installer: ModuleType):
    expected = "491af0c7f79bdb2d178e46f6cb16a97c4ac968d45c41ea3f6b6435d59bbee561"
    assert installer.FALLBACK_REQUIREMENT == f"{installer.FALLBACK_NAME}==0.7.2 --hash=sha256:{expected}"


def test_fallback_brings_detectron2_and_nothing_else(installer: ModuleType, tmp_path: Path):
    staged, site_packages = tmp_path / "staged", tmp_path / "site-packages"
    for name in (
        "detectron2/__init__.py",
        "detectron2/_C.cpython-310-x86_64-linux-gnu.so",
        "detectron2/layers/nms.py",
        "tools/__init__.py",
        "sal_detectron2-0.7.2.dist-info/METADATA",
    ):
        (staged / name).parent.mkdir(parents=True, exist_ok=True)
        (staged / name).write_text(name)
    # What an interrupted attempt left, and another package's folder that happens to be called tools.
    for name in ("detectron2/half.py", "tools/other.py"):
        (site_packages / name).parent.mkdir(parents=True, exist_ok=True)
        (site_packages / name).write_text(name)

    installer.move_fallback(staged, site_packages)

    assert {str(path.relative_to(site_packages)) for path in site_packages.rglob("*") if path.is_file()} == {
        "detectron2/__init__.py",
        "detectron2/layers/nms.py",
        "sal_detectron2-0.7.2.dist-info/METADATA",
        "tools/other.py",
    }


@pytest.mark.parametrize(
    ("script", "reachable", "message"),
    [
        ('test "$GIT_TERMINAL_PROMPT" = 0 && echo 0123 HEAD', True, ""),
        ("echo no such host >&2; exit 128", False, "no such host"),
        ("exec sleep 30", False, "did not answer"),
    ],
)
def test_official_source_is_asked_for_a_limited_time(
    script: str, reachable: bool, message: str, installer: ModuleType, tmp_path: Path, monkeypatch, capsys
):
    git = tmp_path / "git"
    git.write_text(f"#!/bin/sh\n{script}\n")
    git.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(installer, "REACHABILITY_TIMEOUT_S", 1)
    start = time.monotonic()
    assert installer.is_official_source_reachable() is reachable
    assert time.monotonic() - start < 10
    assert message in capsys.readouterr().out


def test_fallback_is_used_where_the_build_fails(installer: ModuleType, monkeypatch):
    steps = []

    def fake_pip(step: str, *arguments: str, extra_env: dict | None = None) -> None:
        steps.append(step)
        if step == "Building Detectron2":
            raise installer.InstallError("no compiler")

    monkeypatch.setattr(installer, "pip", fake_pip)
    monkeypatch.setattr(installer, "is_importable", lambda module: False)
    monkeypatch.setattr(installer, "is_installed", lambda distribution: True)
    monkeypatch.setattr(installer, "is_official_source_reachable", lambda: True)
    monkeypatch.setattr(installer, "move_fallback", lambda staged, site_packages: steps.append("move"))
    installer.install_detectron2()
    assert steps == [
        "Fetching the build tools",
        "Building Detectron2",
        "Installing the pinned build of Detectron2",
        "move",
    ]


def test_requirements_leave_an_installed_opencv_alone(installer: ModuleType):
    declared = ["torch>=2.0", "opencv-python-headless>=4.7", 'pytest>=8; extra == "dev"']
    assert installer.requirements_to_install(declared, has_opencv=True) == ["torch>=2.0", "pytest>=8"]
    assert installer.requirements_to_install(declared, has_opencv=False)[1] == "opencv-python-headless>=4.7"


def test_environment_is_completed_again_only_after_a_change(installer: ModuleType, tmp_path: Path, monkeypatch, capsys):
    checkout, environment = tmp_path / "checkout", tmp_path / "environment"
    environment.mkdir()
    for name in ("setup.py", "pyproject.toml", "rec_attend_d2/version.py", "tools/install_environment.py"):
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_bytes((ROOT / name).read_bytes())
    calls = []
    monkeypatch.setattr(installer, "ROOT", checkout)
    monkeypatch.setattr(installer.sys, "prefix", str(environment))
    monkeypatch.setattr(installer, "is_importable", lambda module: True)
    monkeypatch.setattr(installer, "install_package", lambda: calls.append("package"))
    monkeypatch.setattr(installer, "run", lambda step, command: calls.append("check"))

    installer.complete_environment()
    installer.complete_environment()
    assert calls == ["package", "check"]

    (checkout / "setup.py").write_text("# other requirements\n")
    installer.complete_environment()
    assert calls == ["package", "check"] * 2


def test_detectron2_can_be_had_alone(installer: ModuleType, tmp_path: Path, monkeypatch):
    calls = []
    monkeypatch.setattr(installer, "install_detectron2", lambda: calls.append("detectron2"))
    monkeypatch.setattr(installer, "complete_environment", lambda: calls.append("all"))
    monkeypatch.setattr(installer, "make_venv", lambda folder: folder / "bin" / "python")
    monkeypatch.setattr(installer.os, "execv", lambda program, words: calls.append(words[2:]))
    for words in ([], ["--detectron2"], ["--venv", str(tmp_path)], ["--detectron2", "--venv", str(tmp_path)]):
        monkeypatch.setattr(installer.sys, "argv", ["install_environment.py", *words])
        installer.main()
    assert calls == ["all", "detectron2", [], ["--detectron2"]]


def test_failed_step_is_named(installer: ModuleType):
    with pytest.raises(installer.InstallError, match="Making tea failed"):
        installer.run("Making tea", [sys.executable, "-c", "raise SystemExit(3)"])
