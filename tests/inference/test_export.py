"""An exported file computes what eager computes; a wrong, damaged or hostile one is rejected."""

import copy
import math
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from yacs.config import CfgNode

from lib.config import get_cfg
from lib.inference import tracing
from lib.inference.export import Check, compare, crops_of_images, export
from lib.inference.pipeline import Decoding, PixelsToJoints
from lib.inference.runtimes import load_runner
from lib.inference.tracing import Outputs
from lib.models import MODELS, ModelSpec, PoseNetwork, build_model, pruning
from lib.models.tokenpose import TokenPose
from lib.utils.checkpoint import load_weights, read_weights, save_weights
from lib.utils.drawing import save_image
from lib.utils.errors import UserError
from lib.utils.files import SHA256_KEY, seal

CPU = torch.device("cpu")
pytestmark = pytest.mark.xdist_group("export")  # its fixtures are made once


class Exported(NamedTuple):
    """An exported file, and what it was exported from."""

    cfg: CfgNode
    weights: Path
    path: Path
    crops: Tensor
    check: Check


def small(prune: str) -> CfgNode:
    cfg = get_cfg()
    model = cfg.MODEL
    model.IMAGE_SIZE, model.HEATMAP_SIZE, model.PATCH_SIZE = [64, 48], [16, 12], [4, 2]
    model.DIM, model.TRANSFORMER_DEPTH, model.TRANSFORMER_HEADS = 32, 4, 4
    model.SPARSITY.PRUNE, model.SPARSITY.PRUNE_LAYERS, model.SPARSITY.JOINT_DEPTH = prune, [0, 2], 1
    return cfg


def random_crops(count: int, height: int = 48) -> Tensor:
    return torch.randint(0, 256, (count, height, 64, 3), dtype=torch.uint8)


def export_network(folder: Path, cfg: CfgNode, suffix: str, decode: bool) -> Exported:
    torch.manual_seed(0)
    weights, path, crops = folder / "weights.pth", folder / f"network{suffix}", random_crops(3)
    save_weights(build_model(cfg).state_dict(), weights)
    formats = {".onnx": "onnx", ".xml": "openvino", ".safetensors": "weights"}
    file_format = formats[suffix]
    check = export(cfg, weights, path, crops, file_format=file_format, decode=decode)
    return Exported(cfg, weights, path, crops, check)


@pytest.fixture(scope="module")
def heatmaps(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export_network(tmp_path_factory.mktemp("heatmaps"), small("connection"), ".onnx", False)


@pytest.fixture(scope="module")
def joints(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export_network(tmp_path_factory.mktemp("joints"), small("token"), ".onnx", True)


@pytest.mark.parametrize("output", ["heatmaps", "joints"])
def test_a_correct_export_agrees_up_to_rounding(
    output: str, request: pytest.FixtureRequest
) -> None:
    check = request.getfixturevalue(output).check
    assert check.agrees
    assert 0 < check.median <= check.maximum <= 1e-5
    assert check.joints == (1 if output == "joints" else None)


@pytest.mark.parametrize("output", ["heatmaps", "joints"])
def test_an_exported_file_runs_as_eager_at_any_batch_size(
    output: str, request: pytest.FixtureRequest
) -> None:
    file = request.getfixturevalue(output)
    exported = load_runner(file.cfg, file.path, CPU)
    eager = load_runner(file.cfg, file.weights, CPU)
    for count in (1, 2, 5):
        crops = random_crops(count)
        with torch.no_grad():
            torch.testing.assert_close(exported(crops), eager(crops), rtol=1e-4, atol=1e-5)


def test_a_file_describes_itself_without_paths_of_this_machine(joints: Exported) -> None:
    model = onnx.load_model(joints.path)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata["MODEL.SPARSITY.PRUNE"] == '"token"'
    assert metadata["skeleton"] == "mpii"
    assert metadata["joint_names"].count(",") == 15
    names = [value.name for value in (*model.graph.input, *model.graph.output)]
    assert names == ["images", "heatmaps", "joints", "scores"]
    assert metadata.keys() >= set(names)
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert b".py" not in joints.path.read_bytes()
    assert sorted(file.name for file in joints.path.parent.iterdir()) == [
        "network.onnx", "weights.pth", "weights.safetensors",
    ]  # fmt: skip


def test_weights_are_those_of_the_checkpoint_rounded_to_fp16(tmp_path: Path) -> None:
    cfg, path = small("connection"), tmp_path / "half.safetensors"
    weights = build_model(cfg).state_dict()
    file, crops = tmp_path / "weights.pth", random_crops(3)
    options: dict[str, Any] = {"file_format": "weights", "decode": False}
    save_weights(weights, file)
    check = export(cfg, file, path, crops, **options)
    assert 1e-6 < check.median < 1e-2
    stored, network = read_weights(path), build_model(cfg)
    assert {v.dtype for v in stored.values() if v.is_floating_point()} == {torch.float16}
    load_weights(network, path)
    for name, value in network.state_dict().items():
        assert value.dtype == weights[name].dtype
        assert torch.equal(value, weights[name].half().to(value.dtype)), name
    before = path.read_bytes()
    for name, factor, message in (
        ("head.1.weight", 1e-9, "is not written"),  # zero in fp16
        ("backbone.bn1.running_var", 1e6, r"65504, which backbone\.bn1\.running_var exceeds"),
    ):
        weights[name] = weights[name] * factor
        save_weights(weights, file)
        with pytest.raises(UserError, match=message):
            export(cfg, file, path, crops, **options)
        assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("name", "prune"),
    [
        ("tokenpose_t", "connection"), ("tokenpose_b", "connection"), ("tokenpose_l", "token"),
        ("hrnet", "none"), ("resnet", "none"),
    ],
)  # fmt: skip
def test_every_network_can_be_exported(
    name: str, prune: str, network_cfg: Callable[..., CfgNode], tmp_path: Path
) -> None:
    cfg = network_cfg(name, PRUNE=prune)
    crops, path, weights = random_crops(3, 64), tmp_path / "network.onnx", tmp_path / "w.pth"
    torch.manual_seed(0)
    save_weights(build_model(cfg).state_dict(), weights)
    check = export(cfg, weights, path, crops, file_format="onnx", decode=False)
    assert check.agrees
    exported, eager = load_runner(cfg, path, CPU), load_runner(cfg, weights, CPU)
    with torch.no_grad():
        torch.testing.assert_close(exported(crops[:2]), eager(crops[:2]), rtol=1e-3, atol=1e-5)
    if name != "tokenpose_t":
        key = "NUM_LAYERS" if name == "resnet" else "STAGE2"
        cfg.MODEL.EXTRA[key] = 34 if name == "resnet" else cfg.MODEL.EXTRA.STAGE3
        with pytest.raises(UserError, match=r"network\.onnx has MODEL\.EXTRA .*export\.py"):
            load_runner(cfg, path, CPU)


class Toy(PoseNetwork):
    """A network without tokens, whose input is not normalised with ImageNet's numbers."""

    def __init__(self, num_joints: int) -> None:
        super().__init__()
        self.mean, self.std = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
        self.conv = nn.Conv2d(3, num_joints, 5, stride=4, padding=2)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(images)


@pytest.fixture
def toy_cfg(monkeypatch: pytest.MonkeyPatch) -> CfgNode:
    monkeypatch.setitem(MODELS, "toy", ModelSpec(build=lambda cfg: Toy(cfg.MODEL.NUM_JOINTS)))
    cfg = small("none")
    cfg.MODEL.NAME = "toy"
    return cfg


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_a_network_without_tokens_can_be_exported(
    suffix: str, tmp_path: Path, toy_cfg: CfgNode
) -> None:
    if suffix == ".xml":
        pytest.importorskip("openvino")
    toy = export_network(tmp_path, toy_cfg, suffix, decode=False)
    assert toy.check.maximum < 1e-5
    with torch.no_grad():
        expected = load_runner(toy_cfg, toy.weights, CPU)(toy.crops)
    heatmaps = load_runner(toy_cfg, toy.path, CPU)(toy.crops)
    torch.testing.assert_close(heatmaps, expected, rtol=1e-4, atol=1e-5)
    assert b"MODEL.SPARSITY" not in toy.path.read_bytes()
    if suffix == ".xml":
        toy.path.with_suffix(".bin").unlink()
        with pytest.raises(UserError, match=r"network\.bin"):
            load_runner(toy_cfg, toy.path, CPU)


def eager_file(network: PixelsToJoints, decode: bool = False) -> Outputs:
    """Return `network` in eager mode with the outputs of an exported file, to add faults to."""
    return lambda images: list(network(images)) if decode else [network.heatmaps(images)]


@pytest.fixture(params=["connection", "token"])
def network(request: pytest.FixtureRequest) -> PixelsToJoints:
    torch.manual_seed(1)
    return PixelsToJoints(build_model(small(request.param)), (64, 48), Decoding()).eval()


def change_a_weight(network: TokenPose) -> None:
    network.transformer.blocks[1].mlp[0].weight.data *= 1.01


def change_the_normalisation(network: TokenPose) -> None:
    network.mean = (0.5, 0.5, 0.5)


def prune_after_other_layers(network: TokenPose) -> None:
    network.transformer.prune_layers = (1, 2)


def prune_once_more(network: TokenPose) -> None:
    network.transformer.prune_layers = (0, 1, 2)


def keep_fewer(network: TokenPose) -> None:
    network.transformer.keep_ratio = 0.65


def prune_nothing(network: TokenPose) -> None:
    network.transformer.prune_layers = ()


def remove_the_joint_mask(network: TokenPose) -> None:
    network.joint_layers.bias.zero_()


@pytest.mark.parametrize(
    "fault",
    [
        change_a_weight, change_the_normalisation, prune_after_other_layers, prune_once_more,
        keep_fewer, prune_nothing, remove_the_joint_mask,
    ],
)  # fmt: skip
def test_a_wrong_network_is_rejected(fault: Callable, network: PixelsToJoints) -> None:
    wrong, crops = copy.deepcopy(network), random_crops(4)
    assert compare(network, eager_file(wrong), crops).agrees
    fault(wrong.heatmaps.network)
    check = compare(network, eager_file(wrong), crops)
    assert not check.agrees


OUTPUT_FAULTS: dict[str, Callable[[Tensor, Tensor, Tensor], object]] = {
    "one joint": lambda heatmaps, joints, scores: joints[:, 3, 0].add_(0.1),
    "x and y": lambda heatmaps, joints, scores: joints.copy_(joints.flip(-1).clone()),
    "crop pixels": lambda heatmaps, joints, scores: joints.mul_(65 / 64),
    "NaN joints": lambda heatmaps, joints, scores: joints.fill_(math.nan),
    "scores": lambda heatmaps, joints, scores: scores.mul_(1.01),
    "joint order": lambda heatmaps, joints, scores: heatmaps.copy_(heatmaps.roll(1, 1)),
    "a NaN": lambda heatmaps, joints, scores: heatmaps[-1, 0, 0].fill_(math.nan),
    "one crop": lambda heatmaps, joints, scores: heatmaps[-1].mul_(1.2),
}


@pytest.mark.parametrize("fault", OUTPUT_FAULTS)
def test_a_wrong_output_is_rejected(fault: str, network: PixelsToJoints) -> None:
    def wrong(images: Tensor) -> list[Tensor]:
        outputs = eager_file(network, decode=True)(images)
        OUTPUT_FAULTS[fault](*outputs)
        return outputs

    check = compare(network, wrong, random_crops(4))
    assert not check.agrees


@pytest.mark.parametrize(
    "decoding",
    [Decoding(refine=False), Decoding(blur_kernel=9), Decoding(refine="quarter", unbiased=False)],
)
def test_another_decoding_is_rejected(decoding: Decoding, network: PixelsToJoints) -> None:
    wrong = copy.deepcopy(network)
    wrong.decoding = decoding
    check = compare(network, eager_file(wrong, decode=True), random_crops(4))
    assert not check.agrees


def test_swapped_colors_are_rejected(network: PixelsToJoints) -> None:
    check = compare(network, lambda images: [network.heatmaps(images.flip(-1))], random_crops(4))
    assert not check.agrees


def test_another_choice_between_equal_scores_is_accepted(
    network: PixelsToJoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one crop every stage keeps another connection or token than eager."""

    def next_best(scores: Tensor, count: int) -> Tensor:
        order = scores.argsort(dim=-1, descending=True)
        return torch.cat((order[..., : count - 1], order[..., count : count + 1]), dim=-1)

    def run(images: Tensor) -> list[Tensor]:
        with monkeypatch.context() as patch:
            if len(images) == 1:  # the crop that runs alone
                patch.setattr(pruning, "topk_indices", next_best)
            return [network.heatmaps(images)]

    check = compare(network, run, random_crops(4))
    assert check.maximum > 1e-6
    assert check.agrees


def test_a_wrong_export_is_rejected_and_leaves_nothing(
    toy_cfg: CfgNode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    correct = tracing.trace

    def wrong(module: nn.Module, size: tuple[int, int]) -> Any:
        module = copy.deepcopy(module)
        module.network.conv.weight.data *= 1.01
        return correct(module, size)

    monkeypatch.setattr(tracing, "trace", wrong)
    path = tmp_path / "exported/network.onnx"
    path.parent.mkdir()
    path.write_bytes(b"previous")
    weights = tmp_path / "weights.pth"
    save_weights(build_model(toy_cfg).state_dict(), weights)
    with pytest.raises(UserError, match="not written"):
        export(toy_cfg, weights, path, random_crops(3), file_format="onnx", decode=False)
    assert path.read_bytes() == b"previous"
    assert list(path.parent.iterdir()) == [path]


def edited(exported: Exported, change: Callable[[Any], object]) -> bytes:
    """The file's content after a change, with a correct checksum if it has one."""
    model = onnx.load_model(exported.path)
    change(model)
    data = model.SerializeToString()
    return seal(data) if SHA256_KEY.encode() in data else data


def store_weights_elsewhere(model: Any) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")


def hide_weights_in_an_attribute(model: Any) -> None:
    node = next(node for node in model.graph.node if node.op_type == "Relu")
    branch = onnx.GraphProto()
    branch.initializer.add().external_data.add(key="location", value="/etc/passwd")
    node.attribute.append(onnx.helper.make_attribute("branch", branch))


def swap_the_output(model: Any) -> None:
    node = next(node for node in model.graph.node if node.op_type == "Relu")
    for other in model.graph.node:
        other.output[:] = ["x" if name == "heatmaps" else name for name in other.output]
    node.output[0], before = "heatmaps", node.output[0]
    for other in model.graph.node:
        other.input[:] = ["heatmaps" if name == before else name for name in other.input]


def set_metadata(key: str, value: str) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        next(entry for entry in model.metadata_props if entry.key == key).value = value

    return change


HOSTILE = {
    "weights elsewhere": (store_weights_elsewhere, "other files"),
    "weights elsewhere, hidden": (hide_weights_in_an_attribute, "other files"),
    "no metadata": (lambda model: model.ClearField("metadata_props"), "no checksum"),
    "another format": (set_metadata("format", "1"), "format 1, not 3"),
    "other pruning": (set_metadata("MODEL.SPARSITY.KEEP_RATIO", "0.5"), "KEEP_RATIO"),
    "other joints": (set_metadata("skeleton", "coco"), "skeleton coco, not mpii"),
    "another input": (lambda m: setattr(m.graph.input[0], "name", "x"), "hostile.onnx"),
    "no such operator": (lambda m: setattr(m.graph.node[3], "op_type", "Evil"), "cannot read"),
    "another shape": (swap_the_output, "not heatmaps"),
}


@pytest.mark.parametrize("fault", HOSTILE)
def test_a_hostile_file_is_reported_in_one_line(
    fault: str, heatmaps: Exported, tmp_path: Path
) -> None:
    change, message = HOSTILE[fault]
    path = tmp_path / "hostile.onnx"
    path.write_bytes(edited(heatmaps, change))
    with pytest.raises(UserError, match=message) as caught:
        load_runner(heatmaps.cfg, path, CPU)
    assert "\n" not in str(caught.value)


def test_a_damaged_file_is_rejected(heatmaps: Exported, tmp_path: Path) -> None:
    path, whole = tmp_path / "damaged.onnx", heatmaps.path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1  # a weight
    for content, message in (
        (whole[:-100], "damaged"),
        (flipped, "checksum"),
        (b"", "cannot read"),
    ):
        path.write_bytes(content)
        with pytest.raises(UserError, match=message):
            load_runner(heatmaps.cfg, path, CPU)


def flipped_copies(data: bytes, count: int) -> Iterator[tuple[int, bytes]]:
    """Copies with one flipped bit each, at positions spread over the file."""
    for number in range(count):
        position = number * len(data) // count
        damaged = bytearray(data)
        damaged[position] ^= 1 << number % 8
        yield position, bytes(damaged)


def damaged_copies(data: bytes) -> Iterator[bytes]:
    """Copies with one flipped bit, most of them where files keep metadata, or of another length."""
    size = len(data)
    for number, position in enumerate([*range(0, size, size // 60), *range(size - 3000, size, 29)]):
        yield data[:position] + bytes([data[position] ^ 1 << number % 8]) + data[position + 1 :]
    yield from (data[:-1], data + b"\0", data * 2, b"")


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_a_flipped_bit_in_any_place_is_detected(
    suffix: str, tmp_path: Path, toy_cfg: CfgNode
) -> None:
    if suffix == ".xml":
        pytest.importorskip("openvino")
    toy = export_network(tmp_path, toy_cfg, suffix, decode=False)
    for file in (toy.path, toy.path.with_suffix(".bin"))[: 1 if suffix == ".onnx" else 2]:
        whole = file.read_bytes()
        for damaged in damaged_copies(whole):
            file.write_bytes(damaged)
            with pytest.raises(UserError, match=r"network.* damaged") as error:
                load_runner(toy_cfg, toy.path, CPU)
            assert "\n" not in str(error.value)
        file.write_bytes(whole)
    load_runner(toy_cfg, toy.path, CPU)


def test_a_flipped_bit_in_rounded_weights_is_detected(tmp_path: Path, toy_cfg: CfgNode) -> None:
    """Or it is in the name of the checksum, and changes no weight."""
    path = export_network(tmp_path, toy_cfg, ".safetensors", decode=False).path
    whole, detected = read_weights(path), 0
    for damaged in damaged_copies(path.read_bytes()):
        path.write_bytes(damaged)
        try:
            weights = read_weights(path)
        except UserError:
            detected += 1
        else:
            assert all(torch.equal(weights[name], value) for name, value in whole.items())
    assert detected > 150


def test_a_file_that_does_not_fit_the_test_keys_is_rejected(heatmaps: Exported) -> None:
    for key, value in (("RUNTIME", "compiled"), ("RUNTIME", "openvino"), ("PRECISION", "bf16")):
        cfg = heatmaps.cfg.clone()
        cfg.TEST[key] = value
        with pytest.raises(UserError, match=value):
            load_runner(cfg, heatmaps.path, CPU)


def test_openvino_files_agree_and_need_both_files(tmp_path: Path) -> None:
    openvino = pytest.importorskip("openvino")
    exported = export_network(tmp_path, small("token"), ".xml", decode=True)
    assert exported.check.maximum <= 1e-5
    assert exported.check.joints == 1
    assert {file.name for file in tmp_path.iterdir()} == {
        "network.xml", "network.bin", "weights.pth", "weights.safetensors",
    }  # fmt: skip
    model = openvino.Core().read_model(str(exported.path))
    assert [port.any_name for port in model.outputs] == ["heatmaps", "joints", "scores"]
    eager = load_runner(exported.cfg, exported.weights, CPU)
    with torch.no_grad():
        expected = eager(exported.crops)
    heatmaps = load_runner(exported.cfg, exported.path, CPU)(exported.crops)
    torch.testing.assert_close(heatmaps, expected, rtol=1e-4, atol=1e-5)
    exported.path.with_suffix(".bin").unlink()
    with pytest.raises(UserError, match=r"network\.bin"):
        load_runner(exported.cfg, exported.path, CPU)


def test_images_are_fitted_into_the_crop(tmp_path: Path) -> None:
    cfg = get_cfg()
    cfg.MODEL.IMAGE_SIZE = [64, 48]
    image = np.zeros((30, 80, 3), dtype=np.uint8)
    image[:, :, 0] = 200
    save_image(tmp_path / "a.png", image)
    save_image(tmp_path / "b.png", image[:1, :1])
    (tmp_path / "c.txt").write_text("no image")
    with suppress(OSError):  # a file system that takes only UTF-8
        Path(os.fsdecode(bytes(tmp_path) + b"/\xff.png")).touch()  # OpenCV crashes on such names
    crops, source = crops_of_images(cfg, tmp_path)
    assert crops.shape == (2, 48, 64, 3)
    assert "2 images" in source
    assert crops[0, 24, [7, 32, 56]].tolist() == [[200, 0, 0]] * 3
    assert crops[0, 24, [5, 58]].tolist() == [[0, 0, 0]] * 2  # black beyond the image
    with pytest.raises(UserError, match=r"c\.txt"):
        crops_of_images(cfg, tmp_path / "c.txt")
