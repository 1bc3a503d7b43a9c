"""Fixtures of all tests, and a guard against the `lib` of another checkout."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from coco_set import write_coco
from desk import Desk, open_desk
from yacs.config import CfgNode

import lib
from lib.config import get_cfg
from lib.dataset.synthetic.people import make_synthetic

ROOT = Path(__file__).resolve().parents[1]

if Path(lib.__file__).resolve().parent != ROOT / "lib":
    pytest.exit(
        f"`lib` comes from {lib.__file__}, not from this checkout: run `make install` here",
        returncode=3,
    )


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and golden arrays; tests that need it are skipped without it."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("no folder of real data next to this checkout")
    return folder


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small synthetic data set: 20 people to train on, 6 to test on."""
    root = tmp_path_factory.mktemp("data") / "synthetic"
    make_synthetic(root, {"train": 20, "valid": 6}, seed=0, image_size=64)
    return root


@pytest.fixture(scope="session")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small data set in COCO's layout, with two people an image and a crowd."""
    root = tmp_path_factory.mktemp("data") / "coco"
    write_coco(root, {"train2017": 8, "val2017": 5})
    return root


@pytest.fixture
def desk(tmp_path: Path, people: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Desk]:
    """A folder with a copy of `people` and a small configuration, to run commands on."""
    with open_desk(tmp_path, people, capsys) as desk:
        yield desk


@pytest.fixture(scope="session")
def small_cfg() -> Callable[..., CfgNode]:
    """Build the configuration of a small network; overrides by key of MODEL or SPARSITY.

    64×48 images (w, h), 4×6 visual tokens, width 32, five layers pruned after 1 and 3.
    """

    def make(**sparsity: object) -> CfgNode:
        cfg = get_cfg()
        model = cfg.MODEL
        model.IMAGE_SIZE, model.HEATMAP_SIZE, model.PATCH_SIZE = [64, 48], [16, 12], [4, 2]
        model.DIM, model.TRANSFORMER_DEPTH, model.TRANSFORMER_HEADS = 32, 5, 4
        model.SPARSITY.PRUNE_LAYERS = [1, 3]
        for key, value in sparsity.items():
            (model.SPARSITY if key in model.SPARSITY else model)[key] = value
        return cfg

    return make
