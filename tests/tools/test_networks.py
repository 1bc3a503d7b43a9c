"""The commands on each kind of network, and tables of several."""

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from desk import SMALL, Desk
from yacs.config import CfgNode

ROOT = Path(__file__).resolve().parents[2]
NetworkCfg = Callable[..., CfgNode]


def use(desk: Desk, cfg: CfgNode) -> None:
    desk.yaml.write_text(yaml.safe_dump(SMALL | {"MODEL": yaml.safe_load(cfg.MODEL.dump())}))
    desk.results = desk.folder / f"output/synthetic/{cfg.MODEL.NAME}/small"


@pytest.mark.parametrize("name", ["tokenpose_t", "tokenpose_b", "tokenpose_l", "hrnet", "resnet"])
def test_it_trains_is_tested_predicts_and_is_inspected(
    name: str, desk: Desk, network_cfg: NetworkCfg
) -> None:
    use(desk, network_cfg(name, PRUNE="token"))
    trained = desk.on_cfg("train", "TRAIN.END_EPOCH", 1)
    assert trained.code == 0, trained.err
    tested = desk.on_cfg("test")
    assert tested.code == 0, tested.err
    assert f"| pose_{name} |" in tested.out
    image = desk.data / "images/valid_000001.jpg"
    weights = ("TEST.MODEL_FILE", desk.results / "final_state.pth")
    predicted = desk.on_cfg("predict", "--input", image, "--out", desk.folder / "out", *weights)
    assert predicted.code == 0, predicted.err
    inspected = desk.on_cfg("inspect_sparsity", "--input", image)
    if name.startswith("tokenpose"):
        assert inspected.code == 0, inspected.err
    else:
        inspected.fails_with(f"MODEL.NAME = 'pose_{name}': this network has no attention")


def test_several_networks_stand_in_one_table(desk: Desk, network_cfg: NetworkCfg) -> None:
    files = []
    for name in ("tokenpose_l", "hrnet"):
        use(desk, network_cfg(name, PRUNE="token"))
        files.append(desk.yaml.rename(desk.folder / f"{name}.yaml"))
    words = ("--cfg", *files)
    counted = desk.run("benchmark", *words, "--count")
    assert counted.code == 0, counted.err
    assert [line.split("|")[1].strip() for line in counted.out.splitlines()[2:]] == [
        *map(str, files)
    ]
    timed = desk.run("benchmark", *words, "--rounds", 1, "--batch", 1, "--precision", "fp32")
    assert timed.code == 0, timed.err
    table = [line for line in timed.out.splitlines() if line.startswith("| ")][2:]
    assert [line.split("|")[1].strip() for line in table] == 3 * ["tokenpose_l"] + ["hrnet"]
    assert desk.run("benchmark", *words, "--growth").code == 2
    missing = desk.run("benchmark", "--cfg", files[0], "none.yaml", "--count")
    missing.fails_with("none.yaml")


def test_weights_of_another_network_are_an_error(desk: Desk, network_cfg: NetworkCfg) -> None:
    use(desk, network_cfg("tokenpose_b"))
    weights = desk.save_random_weights(desk.folder / "b.pth")
    use(desk, network_cfg("hrnet"))
    desk.on_cfg("test", "TEST.MODEL_FILE", weights).fails_with("b.pth does not fit this network")
    desk.on_cfg("train", "MODEL.NAME", "pose_resnet").fails_with("NUM_DECONV_FILTERS")
