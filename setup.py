"""Installs `lib`, so that tools, tests and notebooks import it as it stands in this checkout."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent

setup(
    name="improved-tokenpose-sparsity",
    version=re.search(r'__version__ = "(.+)"', (ROOT / "lib/__init__.py").read_text()).group(1),
    description="TokenPose with a sparse joint mask and dynamic attention pruning, on MPII",
    license="MIT",
    python_requires=">=3.10",
    # Named as a list and with a plain package_dir, so that the editable install is a path entry
    # that editors and type checkers follow.
    packages=find_packages(include=("lib", "lib.*")),
    package_dir={"": "."},
    package_data={"lib.core.inspection": ["page.html"]},
)
