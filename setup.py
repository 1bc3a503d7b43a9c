"""Installs `lib`, so that tools, tests and notebooks import it as it stands in this checkout."""

import re
from pathlib import Path

from setuptools import setup

ROOT = Path(__file__).parent

setup(
    name="improved-tokenpose-sparsity",
    version=re.search(r'__version__ = "(.+)"', (ROOT / "lib/__init__.py").read_text()).group(1),
    description="TokenPose with a sparse joint mask and dynamic attention pruning, on MPII",
    license="MIT",
    python_requires=">=3.10",
    # Named one by one and with a plain package_dir, so that the editable install is a path entry
    # that editors and type checkers follow.
    packages=["lib", "lib.config", "lib.core", "lib.dataset", "lib.models", "lib.utils"],
    package_dir={"": "."},
    package_data={"lib.core": ["inspection.html"]},
)
