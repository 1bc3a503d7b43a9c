"""An exported network is eager's own, whatever ties; a wrong or hostile file is refused."""

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor
from yacs.config import CfgNode

from lib.config import get_cfg
from lib.core.export import write as exporting
from lib.core.export.check import Check, Replay, compare, probe_onnx
from lib.core.export.write import crops_of_pictures, export
from lib.core.model_file import digest, load_runner, read_onnx
from lib.models import build_model
from lib.utils.checkpoint import save_weights
from lib.utils.drawing import save_image
from lib.utils.errors import UserError

CPU = torch.device("cpu")


class Made(NamedTuple):
    """A file that was exported, and from what."""

    cfg: CfgNode
    weights: Path
    path: Path
    crops: Tensor
    check: Check


def make(folder: Path, prune: str, decode: bool) -> Made:
    """Export a small network in which all visual tokens attend alike: the pruning's scores tie."""
    cfg = get_cfg()
    model = cfg.MODEL
    model.IMAGE_SIZE, model.HEATMAP_SIZE, model.PATCH_SIZE = [64, 48], [16, 12], [4, 2]
    model.DIM, model.TRANSFORMER_DEPTH, model.TRANSFORMER_HEADS = 32, 3, 4
    model.SPARSITY.PRUNE, model.SPARSITY.PRUNE_LAYERS, model.SPARSITY.JOINT_DEPTH = prune, [0], 1
    torch.manual_seed(0)
    network = build_model(cfg)
    with torch.no_grad():
        network.transformer.blocks[0].attention.qkv.weight[:64] *= 1e-6  # q and k
        network.transformer.blocks[1].attention.qkv.weight *= 8  # so that what was kept matters
    save_weights(network.state_dict(), folder / "weights.pth")
    crops = torch.randint(0, 256, (3, 48, 64, 3), dtype=torch.uint8)
    path = folder / "network.onnx"
    check = export(cfg, folder / "weights.pth", path, crops, kind="onnx", decode=decode)
    return Made(cfg, folder / "weights.pth", path, crops, check)


@pytest.fixture(scope="module")
def heatmaps(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("heatmaps"), "connection", decode=False)


@pytest.fixture(scope="module")
def joints(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("joints"), "token", decode=True)


@pytest.mark.parametrize("kind", ["heatmaps", "joints"])
def test_what_ties_is_kept_otherwise_and_what_follows_is_the_same(
    kind: str, request: pytest.FixtureRequest
) -> None:
    made = request.getfixturevalue(kind)
    check = made.check
    rows = 24 if kind == "heatmaps" else 1
    assert check.choices == 3 * rows * 17  # ceil(0.7 · 24), of three crops
    assert 0 < check.otherwise < check.choices
    assert 0 <= check.shortfall <= 1e-4
    assert check.heatmaps <= 1e-5
    assert check.joints <= 0.01
    assert 0 < check.steady <= check.all_joints == 3 * 16
    assert "otherwise than eager" in str(check)
    network = exporting._network(made.cfg, made.weights)
    with torch.no_grad():
        plain = network(made.crops)[0]
    inside = dict(zip((p := probe_onnx(made.path)).outputs, p.open.all(made.crops), strict=False))
    # A comparison that takes no notice of ties would refuse it.
    assert (plain - inside["heatmaps"]).abs().max() > 1e-4 * (plain.max() - plain.min())
    worse = {"heatmaps": 2e-4, "shortfall": 2e-4, "joints": 0.06, "steady": 0}
    assert not check.fault
    for name, value in worse.items():
        assert dataclasses.replace(check, **{name: value}).fault
        assert dataclasses.replace(check, **{name: float("nan")}).fault or name == "steady"


def test_a_file_says_what_it_is_and_nothing_of_this_machine(joints: Made) -> None:
    model = read_onnx(joints.path)
    facts = {entry.key: entry.value for entry in model.metadata_props}
    assert facts["format"] == "1"
    assert facts["MODEL.SPARSITY.PRUNE"] == '"token"'
    assert facts["joint_names"].count(",") == 15
    assert facts["color_order"] == "RGB"
    assert "pixels of the crop" in facts["output"]
    assert [value.name for value in model.graph.output] == ["joints", "scores"]
    assert model.graph.input[0].name == "images"
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert b".py" not in joints.path.read_bytes()
    assert sorted(file.name for file in joints.path.parent.iterdir()) == [
        "network.onnx", "weights.pth", "weights.safetensors",
    ]  # fmt: skip


def edited(made: Made, change: Callable[[Any], object]) -> Any:
    """The file's content, changed, with a checksum that is right again."""
    model = read_onnx(made.path)
    change(model)
    for entry in model.metadata_props:
        if entry.key == "sha256":
            entry.value = digest(model)
    return model


def scale_a_weight(model: Any) -> None:
    tensor = next(t for t in model.graph.initializer if len(t.dims) > 1 and t.data_type == 1)
    array = onnx.numpy_helper.to_array(tensor) * np.float32(1.01)
    tensor.raw_data = array.tobytes()


def keep_fewer(model: Any) -> None:
    node = next(node for node in model.graph.node if node.op_type == "TopK")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([16]), "fewer"))
    node.input[1] = "fewer"


@pytest.mark.parametrize(
    ("change", "told"),
    [(scale_a_weight, "heatmaps"), (keep_fewer, "exactly 17")],
)
def test_a_wrong_export_is_refused_and_leaves_nothing(
    change: Callable, told: str, heatmaps: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong, weights = edited(heatmaps, change), heatmaps.weights
    monkeypatch.setattr(exporting, "trace", lambda *_: None)
    monkeypatch.setattr(exporting, "to_onnx", lambda *_: copy.deepcopy(wrong))
    path = tmp_path / "network.onnx"
    path.write_bytes(b"the one before")
    with pytest.raises(UserError, match=told):
        export(heatmaps.cfg, weights, path, heatmaps.crops, kind="onnx", decode=False)
    assert path.read_bytes() == b"the one before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_replayed_choice_is_judged() -> None:
    scores = torch.tensor([[0.1, 0.4, 0.4, 0.3]])
    tie = Replay([torch.tensor([[2]])])
    tie(scores, 1)
    assert (tie.count, tie.shortfall) == (1, 0.0)
    weak = Replay([torch.tensor([[1, 3]])])
    assert weak(scores, 2).tolist() == [[1, 3]]
    assert (weak.count, weak.otherwise) == (2, 1)
    assert weak.shortfall == pytest.approx(0.25)
    gone = Replay([torch.tensor([[0]])])
    gone(torch.tensor([[-torch.inf, 0.5]]), 1)
    assert gone.shortfall == torch.inf  # what was pruned never returns
    for wrong in ([[1]], [[1, 1]], [[1, 4]], [[1, -1]], [[1, 2, 3]]):
        with pytest.raises(UserError, match="exactly 2"):
            Replay([torch.tensor(wrong)])(scores, 2)
    assert sorted(Replay([])(scores, 2)[0].tolist()) == [1, 2]


def test_decoded_joints_are_those_of_the_heatmaps(joints: Made) -> None:
    network = exporting._network(joints.cfg, joints.weights)
    right = compare(network, probe_onnx(joints.path), joints.crops)
    assert not right.fault
    network.size = (65, 48)  # pixels of another crop
    wrong = compare(network, probe_onnx(joints.path), joints.crops)
    assert "joints differ" in wrong.fault


def put_weights_elsewhere(model: Any) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")


def give_something_else(model: Any) -> None:
    node = next(node for node in model.graph.node if node.op_type == "Relu")
    for other in model.graph.node:
        other.output[:] = ["x" if name == "heatmaps" else name for name in other.output]
    node.output[0], before = "heatmaps", node.output[0]
    for other in model.graph.node:
        other.input[:] = ["heatmaps" if name == before else name for name in other.input]


def set_fact(key: str, value: str) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        next(entry for entry in model.metadata_props if entry.key == key).value = value

    return change


HOSTILE = {
    "weights elsewhere": (put_weights_elsewhere, "other files"),
    "no facts": (lambda model: model.ClearField("metadata_props"), "not written by"),
    "a later format": (set_fact("format", "2"), "format 2"),
    "other pruning": (set_fact("MODEL.SPARSITY.KEEP_RATIO", "0.5"), "KEEP_RATIO"),
    "other joints": (set_fact("MODEL.NUM_JOINTS", "17"), "NUM_JOINTS"),
    "another output": (lambda model: setattr(model.graph.output[0], "name", "x"), "heatmaps"),
    "another input": (lambda model: setattr(model.graph.input[0], "name", "x"), "takes x"),
    "no such operator": (lambda m: setattr(m.graph.node[3], "op_type", "Evil"), "does not run"),
    "another shape": (give_something_else, "heatmaps"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_hostile_file_is_told_in_one_line(what: str, heatmaps: Made, tmp_path: Path) -> None:
    change, told = HOSTILE[what]
    path = tmp_path / "hostile.onnx"
    path.write_bytes(edited(heatmaps, change).SerializeToString())
    with pytest.raises(UserError, match=told) as caught:
        load_runner(heatmaps.cfg, path, CPU)
    assert "\n" not in str(caught.value)


def test_a_damaged_file_is_noticed(heatmaps: Made, joints: Made, tmp_path: Path) -> None:
    path, whole = tmp_path / "damaged.onnx", heatmaps.path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1  # among the weights
    for content, told in ((b"", "export.py"), (whole[:-100], "damaged "), (flipped, "checksum")):
        path.write_bytes(content)
        with pytest.raises(UserError, match=told):
            load_runner(heatmaps.cfg, path, CPU)
    with pytest.raises(UserError, match="--decode"):
        load_runner(joints.cfg, joints.path, CPU)
    for key, value in (("RUNTIME", "compiled"), ("PRECISION", "bf16")):
        cfg = heatmaps.cfg.clone()
        cfg.TEST[key] = value
        with pytest.raises(UserError, match=value):
            load_runner(cfg, heatmaps.path, CPU)


def test_openvino_reads_either_file(heatmaps: Made, tmp_path: Path) -> None:
    pytest.importorskip("openvino")
    cfg = heatmaps.cfg.clone()
    wanted = load_runner(cfg, heatmaps.path, CPU)(heatmaps.crops[:1])
    cfg.TEST.RUNTIME = "openvino"
    assert load_runner(cfg, heatmaps.path, CPU)(heatmaps.crops[:1]).shape == wanted.shape
    path = tmp_path / "network.xml"
    check = export(cfg, heatmaps.weights, path, heatmaps.crops, kind="openvino", decode=True)
    assert check.heatmaps <= 1e-5
    assert check.choices == 3 * 24 * 17
    assert {file.name for file in tmp_path.iterdir()} == {"network.xml", "network.bin"}
    with pytest.raises(UserError, match="--decode"):
        load_runner(cfg, path, CPU)
    path.with_suffix(".bin").unlink()
    with pytest.raises(UserError, match=r"network\.bin"):
        load_runner(cfg, path, CPU)


def test_pictures_are_taken_whole(tmp_path: Path) -> None:
    cfg = get_cfg()
    cfg.MODEL.IMAGE_SIZE = [64, 48]
    picture = np.zeros((30, 80, 3), dtype=np.uint8)
    picture[:, :, 0] = 200
    save_image(tmp_path / "a.png", picture)
    save_image(tmp_path / "b.png", picture[:1, :1])
    (tmp_path / "c.txt").write_text("no picture")
    crops, where = crops_of_pictures(cfg, [tmp_path])
    assert crops.shape == (2, 48, 64, 3)
    assert "2 pictures" in where
    assert crops[0, 24, [0, 32, 63]].tolist() == [[200, 0, 0]] * 3  # from edge to edge
    assert crops[0, [2, 45], 32].tolist() == [[0, 0, 0]] * 2  # black beyond
    with pytest.raises(UserError, match=r"c\.txt"):
        crops_of_pictures(cfg, [tmp_path / "c.txt"])
