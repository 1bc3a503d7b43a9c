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


NETWORKS = ("tokenpose_s", "tokenpose_t", "tokenpose_b", "tokenpose_l", "hrnet", "resnet")


@pytest.fixture(scope="session")
def network_cfg() -> Callable[..., CfgNode]:
    """Build the configuration of a small network of each kind; overrides as for `small_cfg`.

    64×64 images, 16×16 heatmaps, 16 visual tokens, six layers in all, pruned after 1 and 3.
    """

    def make(name: str, **overrides: object) -> CfgNode:
        cfg = get_cfg()
        model, extra = cfg.MODEL, cfg.MODEL.EXTRA
        model.NAME = f"pose_{name}"
        model.IMAGE_SIZE, model.HEATMAP_SIZE = [64, 64], [16, 16]
        model.PATCH_SIZE = [16, 16] if name == "tokenpose_t" else [4, 4]
        model.DIM, model.TRANSFORMER_HEADS = 32, 4
        model.TRANSFORMER_DEPTH = 2 if name == "tokenpose_l" else 6
        model.SPARSITY.PRUNE_LAYERS, model.SPARSITY.JOINT_DEPTH = [1, 3], 1
        if name in ("tokenpose_b", "tokenpose_l", "hrnet"):
            for branches in (2, 3, 4) if name == "hrnet" else (2, 3):
                extra[f"STAGE{branches}"] = CfgNode(
                    {
                        "NUM_MODULES": 1, "NUM_BRANCHES": branches, "BLOCK": "BASIC",
                        "NUM_BLOCKS": [1] * branches, "FUSE_METHOD": "SUM",
                        "NUM_CHANNELS": [8 * 2**branch for branch in range(branches)],
                    }
                )  # fmt: skip
        if name == "resnet":
            extra.NUM_LAYERS, extra.NUM_DECONV_LAYERS = 18, 3
            extra.NUM_DECONV_FILTERS, extra.NUM_DECONV_KERNELS = [8, 8, 8], [4, 4, 4]
        for key, value in overrides.items():
            (model.SPARSITY if key in model.SPARSITY else model)[key] = value
        return cfg

    return make


@pytest.fixture(params=NETWORKS)
def network_name(request: pytest.FixtureRequest) -> str:
    """The name of each kind of network, for `network_cfg`."""
    return request.param


@pytest.fixture(params=[name for name in NETWORKS if name.startswith("tokenpose")])
def tokenpose_name(request: pytest.FixtureRequest) -> str:
    """The name of each TokenPose, for `network_cfg`."""
    return request.param
