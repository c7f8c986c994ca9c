#!/usr/bin/env python3
"""Make the environment this project runs in: PyTorch, Detectron2, this package and its requirements.

    python3 tools/install_environment.py --venv .venv   # a virtual environment, made where it is missing
    python tools/install_environment.py                 # the environment `python` belongs to
    python install_environment.py --detectron2          # PyTorch and Detectron2 alone, where a wheel was installed

What the environment already has is not changed, only added to (setuptools excepted, see setup.py); a second call that
finds everything in place returns at once. Uses the standard library only: it runs before anything is installed.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "rec_attend_d2"
MINIMUM_PYTHON = (3, 10)

# The pair this project is tested with; used only where the environment has no PyTorch yet.
TORCH_PINS = ["torch==2.14.1", "torchvision==0.29.1"]
# What building Detectron2 from source needs beside PyTorch and a C++ compiler. The bound is setup.py's.
BUILD_REQUIREMENTS = ["setuptools<81", "wheel", "ninja"]

DETECTRON2_URL = "https://github.com/facebookresearch/detectron2.git"
REACHABILITY_TIMEOUT_S = 20
# Never ask for a password, and give up on a connection that has stalled.
GIT_ENVIRONMENT = {"GIT_TERMINAL_PROMPT": "0", "GIT_HTTP_LOW_SPEED_LIMIT": "1000", "GIT_HTTP_LOW_SPEED_TIME": "30"}

# Detectron2 as of its commit 3eef7a58 (30 April 2024), repackaged by the authors of another paper for the package
# index. The hash fixes the exact file. It is tagged CPython 3.10 because of one compiled module nothing here needs;
# the rest is pure Python and runs on any later version.
FALLBACK_NAME = "sal-detectron2"
FALLBACK_REQUIREMENT = (
    "sal-detectron2==0.7.2 --hash=sha256:491af0c7f79bdb2d178e46f6cb16a97c4ac968d45c41ea3f6b6435d59bbee561"
)
FALLBACK_PYTHON = "3.10"

# Runs in a new interpreter: one that was running during the installation does not see an editable install.
CHECK_PROGRAM = """
import sys, torch, torchvision, detectron2, detectron2.engine, detectron2.model_zoo, rec_attend_d2
from rec_attend_d2.version import __version__
print(f"python {sys.version.split()[0]}, torch {torch.__version__}, torchvision {torchvision.__version__}, "
      f"detectron2 {detectron2.__version__}, rec_attend_d2 {__version__}, "
      f"GPU {'yes' if torch.cuda.is_available() else 'no'}")
"""


class InstallError(Exception):
    """The environment could not be made; the message says at which step and what to do."""


def say(message: str) -> None:
    print(f"[environment] {message}", flush=True)


def run(step: str, command: list[str], extra_env: dict[str, str] | None = None) -> None:
    """Run ``command`` with its output shown. Raises InstallError naming ``step`` where it fails."""
    code = subprocess.run(command, env={**os.environ, **(extra_env or {})}, stdin=subprocess.DEVNULL).returncode
    if code != 0:
        raise InstallError(f"{step} failed: the command's own message stands above.\n  {' '.join(command)}")


def pip(step: str, *arguments: str, extra_env: dict[str, str] | None = None) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments]
    run(step, command, extra_env)


# --- the virtual environment ------------------------------------------------------------------------------------


def has_pip(python: Path) -> bool:
    """Whether ``python`` exists, starts and has pip: false for an environment left half made."""
    if not python.exists():
        return False
    return subprocess.run([str(python), "-c", "import pip"], capture_output=True).returncode == 0


def make_venv(folder: Path) -> Path:
    """Make the virtual environment ``folder`` where it is missing and return its interpreter."""
    python = folder / "bin" / "python"
    if not has_pip(python):
        say(f"making a virtual environment in {folder} with Python {sys.version.split()[0]}")
        run("Making the virtual environment", [sys.executable, "-m", "venv", str(folder)])
    if not has_pip(python):
        raise InstallError(
            f"{python} does not start or has no pip. Remove {folder} and call again; on Debian and Ubuntu the "
            "system package python3-venv has to be installed."
        )
    return python


# --- PyTorch and Detectron2 -------------------------------------------------------------------------------------


def is_importable(module: str) -> bool:
    importlib.invalidate_caches()
    return importlib.util.find_spec(module) is not None


def is_installed(distribution: str) -> bool:
    """Whether pip knows ``distribution``; false for one whose installation was cut short."""
    importlib.invalidate_caches()
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def installed_versions() -> list[str]:
    """One ``name==version`` per package of this environment: constraints that freeze it for pip.

    Left free are this project, and setuptools, which may be too new for Detectron2.
    """
    importlib.invalidate_caches()
    distributions = ((dist.metadata["Name"], dist.version) for dist in importlib.metadata.distributions())
    return sorted(
        {f"{name}=={version}" for name, version in distributions if name not in (None, PACKAGE, "setuptools")}
    )


def is_official_source_reachable() -> bool:
    """Whether Detectron2's repository answers within REACHABILITY_TIMEOUT_S seconds; says why where it does not."""
    command = ["git", "ls-remote", "--exit-code", DETECTRON2_URL, "HEAD"]
    try:
        answer = subprocess.run(
            command,
            env={**os.environ, **GIT_ENVIRONMENT},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=REACHABILITY_TIMEOUT_S,
        )
    except FileNotFoundError:
        say("git is not installed, so Detectron2's source cannot be fetched")
        return False
    except subprocess.TimeoutExpired:
        say(f"{DETECTRON2_URL} did not answer within {REACHABILITY_TIMEOUT_S} s")
        return False
    if answer.returncode != 0:
        say(f"{DETECTRON2_URL} cannot be reached: {answer.stderr.strip()}")
    return answer.returncode == 0


def build_official_detectron2() -> bool:
    """Build and install Detectron2 from its makers' source. False where the build fails."""
    say("building Detectron2 from its official source (minutes)")
    try:
        pip("Fetching the build tools", "install", "--quiet", *BUILD_REQUIREMENTS)
        # Its setup.py imports torch, which pip's isolated build environments do not have.
        source = f"git+{DETECTRON2_URL}"
        pip("Building Detectron2", "install", "--no-build-isolation", source, extra_env=GIT_ENVIRONMENT)
    except InstallError as error:
        say(str(error))
        return False
    return True


def install_fallback_detectron2() -> None:
    """Install the hash-pinned build of Detectron2 from the package index into this environment."""
    say(f"installing the pinned build of Detectron2 from the package index: {FALLBACK_REQUIREMENT}")
    with tempfile.TemporaryDirectory() as scratch:
        requirements = Path(scratch, "requirements.txt")
        requirements.write_text(FALLBACK_REQUIREMENT + "\n", encoding="utf-8")
        staged = Path(scratch, "staged")
        pip(
            "Installing the pinned build of Detectron2",
            *("install", "--quiet", "--no-deps", "--only-binary=:all:", "--no-compile"),
            # pip takes a file tagged for another Python version only together with --target.
            *("--python-version", FALLBACK_PYTHON, "--target", str(staged)),
            *("--require-hashes", "-r", str(requirements)),
        )
        move_fallback(staged, Path(sysconfig.get_paths()["purelib"]))


def move_fallback(staged: Path, site_packages: Path) -> None:
    """Move Detectron2 and its metadata from ``staged`` to ``site_packages``, and nothing else the file holds.

    Left behind are a top-level package ``tools`` (Detectron2's scripts), which would hide this project's own
    ``tools`` folder from imports, and the module ``_C`` compiled against one past PyTorch on CPython 3.10, which
    would crash or not depending on the interpreter. Detectron2 works without it.
    """
    for library in (staged / "detectron2").glob("_C.*.so"):
        library.unlink()
    for wanted in [staged / "detectron2", *staged.glob("sal_detectron2-*.dist-info")]:
        # An earlier attempt may have been cut short.
        shutil.rmtree(site_packages / wanted.name, ignore_errors=True)
        shutil.move(str(wanted), str(site_packages / wanted.name))


def install_detectron2() -> None:
    """Install PyTorch and Detectron2 where this environment has none."""
    if is_importable("detectron2"):
        say("Detectron2 is there and is used as it is")
        return
    if not is_installed("torch"):
        say(f"installing {' and '.join(TORCH_PINS)} (about 3 GB to fetch)")
        pip("Installing PyTorch", "install", "--quiet", *TORCH_PINS)
    if not (is_official_source_reachable() and build_official_detectron2()):
        install_fallback_detectron2()


# --- this package -----------------------------------------------------------------------------------------------


def requirements_to_install(declared: list[str], has_opencv: bool) -> list[str]:
    """The declared requirements, extras included, as pip takes them.

    ``declared`` are lines as in a package's metadata (``name>=1; extra == "dev"``). All of OpenCV's packages install
    the same module, so one on top of another breaks it: with ``has_opencv`` it is left out.
    """
    requirements = [line.split(";")[0].strip() for line in declared]
    return [line for line in requirements if not (has_opencv and line.startswith("opencv"))]


def install_package() -> None:
    """Install this package in editable mode and those of its requirements that are missing.

    Raises InstallError where the environment has one of them in a version outside setup.py's bounds.
    """
    say(f"installing {PACKAGE} and what it requires")
    pip(f"Installing {PACKAGE}", "install", "--quiet", "--no-deps", "--editable", str(ROOT))
    importlib.invalidate_caches()
    declared = importlib.metadata.requires(PACKAGE) or []
    requirements = requirements_to_install(declared, has_opencv=is_importable("cv2"))
    with tempfile.TemporaryDirectory() as scratch:
        constraints = Path(scratch, "constraints.txt")
        constraints.write_text("\n".join(installed_versions()) + "\n", encoding="utf-8")
        step = (
            "Adding the missing requirements without changing the packages that are there (where pip reports a "
            "conflict: update that package, or have a new environment made with `make VENV=<new folder> ...`)"
        )
        # No warning of conflicts: pip would report, as an error, the fallback's claim to need numpy<2. What is there
        # stays as it is by the constraints.
        options = ["--quiet", "--no-warn-conflicts", "--constraint", str(constraints)]
        pip(step, "install", *options, *requirements)


# --- the whole --------------------------------------------------------------------------------------------------


def fingerprint(root: Path) -> str:
    """Hash of all that decides what is installed, the checkout's place included (the install is editable)."""
    digest = hashlib.sha256(f"{root}\n{sys.version}\n".encode())
    for name in ("setup.py", "pyproject.toml", "rec_attend_d2/version.py", "tools/install_environment.py"):
        digest.update((root / name).read_bytes())
    return digest.hexdigest()


def complete_environment() -> None:
    """Bring the environment of the running interpreter to what this project needs."""
    stamp = Path(sys.prefix, f"{PACKAGE}-environment.sha256")
    expected = fingerprint(ROOT)
    if stamp.is_file() and stamp.read_text() == expected and is_importable("detectron2") and is_importable(PACKAGE):
        return
    say(f"completing the environment in {sys.prefix}")
    install_detectron2()
    install_package()
    run("Importing what was installed", [sys.executable, "-W", "ignore", "-c", CHECK_PROGRAM])
    stamp.write_text(expected)
    say("ready")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--venv", type=Path, help="virtual environment to make or complete, not the running one")
    parser.add_argument("--detectron2", action="store_true", help="add PyTorch and Detectron2, not this package")
    arguments = parser.parse_args()
    try:
        if sys.version_info < MINIMUM_PYTHON:
            wanted = ".".join(map(str, MINIMUM_PYTHON))
            raise InstallError(
                f"Python {wanted} or newer is needed and {sys.executable} is {sys.version.split()[0]}. "
                "Name another one: make PYTHON=/path/to/python3.11 ..."
            )
        if arguments.venv is not None:
            python = make_venv(arguments.venv.absolute())
            # From here on inside the new environment.
            rest = ["--detectron2"] if arguments.detectron2 else []
            os.execv(str(python), [str(python), str(Path(__file__).resolve()), *rest])
        elif arguments.detectron2:
            install_detectron2()
        else:
            complete_environment()
    except InstallError as error:
        sys.exit(f"[environment] error: {error}")


if __name__ == "__main__":
    main()
