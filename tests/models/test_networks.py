"""Every published network: its numbers, its weights by their published names, its sparsity."""

import json
import logging
import re
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from timm.models.hrnet import HighResolutionNet
from torch import Tensor
from yacs.config import CfgNode

from lib.analysis.inspection.gather import record_attention
from lib.config import get_cfg, load_cfg
from lib.models import build_model
from lib.models.pretrained import load_initial_weights
from lib.models.pruning import Stage
from lib.models.tokenpose_spec import patch_grid
from lib.models.transformer import Attention
from lib.utils.checkpoint import load_weights
from lib.utils.errors import UserError
from lib.utils.macs import count_macs

NetworkCfg = Callable[..., CfgNode]
EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
RULES = (
    "coco_tokenpose_t_256_192_patch1612_dim192_depth12_heads16",
    "coco_tokenpose_b_256_192_patch43_dim192_depth12_heads8",
    "mpii_tokenpose_l_D6_256x256_patch44_dim192_depth6",
    "mpii_w32_256x256_adam_lr1e-3",
    "mpii_res50_256x256_d256x3_adam_lr1e-3",
)
PARAMETERS = {  # of the published files, in millions, as their authors state them
    "tokenpose_t_256": 5.8, "tokenpose_s_v1_256_192_patch43_dim192_depth12_heads8": 6.6,
    "tokenpose_s_v2": 6.2, "tokenpose_b": 13.5, "tokenpose_L_D24_256": 27.5,
    "tokenpose_L_D24_384": 29.8, "tokenpose_l_D6": 21.4, "w32": 28.5, "w48": 63.6,
    "res50": 34.0, "res101": 53.0, "res152": 68.6,
}  # fmt: skip
PUBLISHED = sorted(
    path
    for path in EXPERIMENTS.glob("*/*/*.yaml")
    if path.parts[-3] == "coco" or path.stem.startswith(("w", "res", "tokenpose_l_D6"))
)


def difference(output: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the range of what is expected."""
    return float((output - expected).abs().max() / (expected.max() - expected.min()))


@pytest.mark.parametrize("name", ["tokenpose_t", "tokenpose_b", "tokenpose_l"])
def test_it_agrees_with_its_published_code(name: str, shared: Path, tmp_path: Path) -> None:
    golden = np.load(shared / "golden" / f"{name}.npz")
    cfg = get_cfg()
    cfg.MODEL.NAME, cfg.MODEL.SPARSITY.PRUNE, cfg.MODEL.SPARSITY.JOINT_DEPTH = (
        f"pose_{name}",
        "none",
        0,
    )
    for key in golden.files:
        if key in cfg.MODEL:
            cfg.MODEL[key] = golden[key].tolist()
    for branches in (2, 3):
        cfg.MODEL.EXTRA[f"STAGE{branches}"] = CfgNode(
            {
                "NUM_MODULES": int(golden["STAGE_NUM_MODULES"]), "BLOCK": "BASIC",
                "NUM_BLOCKS": [int(golden["STAGE_NUM_BLOCKS"])] * branches,
                "NUM_CHANNELS": [int(golden["BASE_CHANNEL"]) * 2**i for i in range(branches)],
            }
        )  # fmt: skip
    model = build_model(cfg)
    weights = {k[8:]: torch.from_numpy(golden[k]) for k in golden.files if k.startswith("weights/")}
    torch.save({"state_dict": {f"module.{k}": v for k, v in weights.items()}}, tmp_path / "w.pth")
    load_weights(model, tmp_path / "w.pth")
    with torch.no_grad():
        output = model.eval()(torch.from_numpy(golden["input"]))
    assert difference(output, torch.from_numpy(golden["output"])) <= 1e-5


def weight_by_rule(seed: int, name: str, shape: tuple[int, ...]) -> Tensor:
    generator = np.random.Generator(np.random.PCG64(zlib.crc32(f"{seed}:{name}".encode())))
    last = name.rpartition(".")[2]
    if last == "running_var" or (last == "weight" and len(shape) == 1):
        value = generator.uniform(0.5, 1.5, shape)
    elif last in ("bias", "running_mean"):
        value = generator.normal(0, 0.1, shape)
    else:
        is_matrix = len(shape) > 1 and shape[0] != 1
        value = generator.normal(0, 1, shape) * (np.prod(shape[1:]) ** -0.5 if is_matrix else 0.5)
    return torch.from_numpy(value.astype(np.float32))


@pytest.mark.parametrize("name", RULES)
def test_a_published_file_gives_the_published_network(
    name: str, shared: Path, tmp_path: Path
) -> None:
    golden = np.load(shared / "golden" / f"rule_{name}.npz")
    seed, size = int(golden["seed"]), golden["image_size"].tolist()
    sizes = ("MODEL.IMAGE_SIZE", size, "MODEL.HEATMAP_SIZE", [side // 4 for side in size])
    model = build_model(load_cfg(EXPERIMENTS / str(golden["yaml"]), sizes))
    assert sum(weight.numel() for weight in model.parameters()) == golden["parameters"]
    weights = {
        str(name): weight_by_rule(seed, str(name), tuple(json.loads(str(shape))))
        for name, shape, by_rule in zip(
            golden["names"], golden["shapes"], golden["by_rule"], strict=True
        )
        if by_rule
    }
    torch.save(weights, tmp_path / "published.pth")
    load_weights(model, tmp_path / "published.pth")
    generator = np.random.Generator(np.random.PCG64(seed + 99))
    images = torch.from_numpy(generator.normal(0, 1, (1, 3, size[1], size[0])).astype(np.float32))
    with torch.no_grad():
        output = model.eval()(images)
    assert difference(output, torch.from_numpy(golden["output"])) <= 1e-4


def test_all_22_published_files_are_there() -> None:
    assert len(PUBLISHED) == 22


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda path: path.stem)
def test_a_published_file_has_the_published_number_of_parameters(path: Path) -> None:
    with torch.device("meta"):  # no numbers are drawn
        model = build_model(load_cfg(path))
    count = sum(weight.numel() for weight in model.parameters()) / 1e6
    (expected,) = (value for name, value in PARAMETERS.items() if path.stem.startswith(name))
    assert count == pytest.approx(expected, abs=0.06)
    gmacs = count_macs(model, tuple(load_cfg(path).MODEL.IMAGE_SIZE))
    page = (EXPERIMENTS.parent / "docs/networks.md").read_text()
    assert f"| {path.relative_to(EXPERIMENTS.parent)} | {count:.2f} | {gmacs:.2f} |" in page


@pytest.mark.parametrize("mode", ["none", "connection", "token"])
def test_every_weight_has_a_gradient(mode: str, network_name: str, network_cfg: NetworkCfg) -> None:
    torch.manual_seed(0)
    model = build_model(network_cfg(network_name, PRUNE=mode))
    heatmaps = model(torch.randn(2, 3, 64, 64))
    assert heatmaps.shape == (2, 16, 16, 16)
    heatmaps.square().mean().backward()
    for name, weight in model.named_parameters():
        assert weight.grad is not None, name
        # timm's ResNets begin with residual branches of zero.
        assert weight.grad.abs().sum() > 0 or network_name == "resnet", name


@pytest.mark.parametrize("mode", ["connection", "token"])
def test_pruned_connections_are_exactly_zero(
    mode: str, tokenpose_name: str, network_cfg: NetworkCfg
) -> None:
    torch.manual_seed(0)
    model = build_model(network_cfg(tokenpose_name, PRUNE=mode)).eval()
    images = torch.randn(2, 3, 64, 64)
    stages: list[Stage] = []
    weights: list[Tensor] = []

    def record(module: Attention, inputs: tuple, output: tuple) -> None:
        tokens, bias, *_ = inputs
        if tokens.shape[1] > 16:  # not a joint layer
            weights.append(Attention.forward(module, tokens, bias, None, tokens.shape[1])[1])

    for block in model.transformer.blocks:
        block.attention.register_forward_hook(record)
    with torch.no_grad():
        model(images, stages)
    assert [stage.layer for stage in stages] == [1, 3]
    for stage, kept in zip(stages, (12, 9), strict=True):  # of 16
        assert (stage.alive_tokens(16).sum(dim=1) >= kept).all()
        for after in weights[stage.layer + 1 : -1]:  # the last layer has rows of keypoints only
            if mode == "token":
                assert after.shape[3] <= 16 + kept
            else:
                visual = after[:, :, 16:, 16:]
                assert (visual.masked_select(~stage.connections[:, None]) == 0).all()
                assert ((visual > 0).sum(dim=3) <= kept).all()


def test_token_pruning_needs_fewer_operations(tokenpose_name: str, network_cfg: NetworkCfg) -> None:
    none, token = (
        count_macs(build_model(network_cfg(tokenpose_name, PRUNE=mode)), (64, 64))
        for mode in ("none", "token")
    )
    assert token < 0.999 * none


def test_inspection_shows_all_layers_in_order(tokenpose_name: str, network_cfg: NetworkCfg) -> None:
    cfg = network_cfg(tokenpose_name, PRUNE="token")
    maps = record_attention(build_model(cfg).eval(), torch.randn(1, 3, 64, 64))
    assert patch_grid(cfg) == (4, 4)
    assert maps.to_visual.shape == (1, 6, 16, 16)
    assert ((maps.to_visual > 0).sum(dim=3)[0, :, 0]).tolist() == [16, 16, 12, 12, 9, 9]
    total = maps.to_visual.sum(dim=3) + maps.to_keypoints.sum(dim=3)
    torch.testing.assert_close(total, torch.ones_like(total))


def test_a_batch_gives_the_same_as_single_images(
    network_name: str, network_cfg: NetworkCfg
) -> None:
    torch.manual_seed(0)
    model, images = build_model(network_cfg(network_name)).eval(), torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        together, alone = model(images), torch.cat([model(image[None]) for image in images])
    assert difference(alone, together) <= 1e-5


def imagenet_hrnet(width: int) -> dict[str, Tensor]:
    """Weights with the names of HRNet's ImageNet files, with their classification head."""
    stages = {
        f"stage{branches}": {
            "num_modules": 1, "num_branches": branches, "block_type": "BASIC",
            "num_blocks": (1,) * branches, "fuse_method": "SUM",
            "num_channels": tuple(width * 2**i for i in range(branches)),
        }
        for branches in (2, 3, 4)
    }  # fmt: skip
    first = {
        "num_modules": 1, "num_branches": 1, "block_type": "BOTTLENECK", "num_blocks": (4,),
        "num_channels": (64,), "fuse_method": "SUM",
    }  # fmt: skip
    return HighResolutionNet({"stem_width": 64, "stage1": first, **stages}).state_dict()


LAYERS = "conv1 bn1 conv2 bn2 layer1 transition1 stage2 transition2 stage3 transition3 stage4"


@pytest.mark.parametrize("layers", [("*",), tuple(LAYERS.split())])
@pytest.mark.parametrize("name", ["hrnet", "tokenpose_b", "tokenpose_l"])
def test_hrnet_starts_from_its_imagenet_weights(
    name: str, layers: tuple[str, ...], network_cfg: NetworkCfg, tmp_path: Path
) -> None:
    weights, model = imagenet_hrnet(8), build_model(network_cfg(name))
    torch.save(weights, tmp_path / "imagenet.pth")
    load_initial_weights(model, tmp_path / "imagenet.pth", layers)
    for key, value in model.backbone.state_dict().items():
        assert torch.equal(value, weights[key]) or key.endswith("num_batches_tracked"), key


def test_published_weights_that_are_not_there_are_one_line(network_cfg: NetworkCfg) -> None:
    with pytest.raises(UserError, match=r"PRETRAINED: no/w32\.pth: cannot .* docs/networks"):
        load_initial_weights(build_model(network_cfg("hrnet")), "no/w32.pth")


@pytest.mark.parametrize("name", ["hrnet", "tokenpose_b"])
@pytest.mark.parametrize("layers", [("*",), ("stage2", "stage3")])
def test_weights_of_a_wider_hrnet_are_one_clear_line(
    name: str, layers: tuple[str, ...], network_cfg: NetworkCfg, tmp_path: Path
) -> None:
    model = build_model(network_cfg(name))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    torch.save(imagenet_hrnet(12), tmp_path / "wide.pth")
    with pytest.raises(
        UserError, match=r"wide.pth: it has another backbone, without backbone\."
    ) as error:
        load_initial_weights(model, tmp_path / "wide.pth", layers)
    assert "\n" not in str(error.value)
    wide = network_cfg(name)
    for key in ("STAGE2", "STAGE3", "STAGE4"):
        if key in wide.MODEL.EXTRA:
            stage = wide.MODEL.EXTRA[key]
            stage.NUM_CHANNELS = [count * 3 // 2 for count in stage.NUM_CHANNELS]
    torch.save(build_model(wide).state_dict(), tmp_path / "pose.pth")
    with pytest.raises(UserError, match=r"weights of other shapes: backbone\.") as error:
        load_weights(model, tmp_path / "pose.pth")
    assert len(str(error.value)) < 1000
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_simple_baseline_starts_from_torchvisions_weights(
    network_cfg: NetworkCfg, tmp_path: Path
) -> None:
    """As resnet50-19c8e357.pth; those of a deeper ResNet, with the same names, are refused."""
    weights = timm.create_model("resnet18").state_dict()  # torchvision's names
    torch.save(weights, tmp_path / "resnet18.pth")
    model = build_model(network_cfg("resnet"))
    load_initial_weights(model, tmp_path / "resnet18.pth")
    for key, value in model.backbone.state_dict().items():
        assert torch.equal(value, weights[key.removeprefix("network.model.")]), key
    torch.save(timm.create_model("resnet34").state_dict(), tmp_path / "resnet34.pth")
    with pytest.raises(UserError, match="these are not the weights of resnet18"):
        load_initial_weights(model, tmp_path / "resnet34.pth")


def test_a_published_simple_baseline_is_a_pose_network(
    network_cfg: NetworkCfg, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = build_model(network_cfg("resnet")), build_model(network_cfg("resnet"))
    published = {
        key.removeprefix("backbone.network.model."): value
        for key, value in first.state_dict().items()
    }
    torch.save(published, tmp_path / "pose_resnet.pth.tar")
    with caplog.at_level(logging.INFO):
        load_initial_weights(second, tmp_path / "pose_resnet.pth.tar")
    assert "initialised 117 of 117 weights" in caplog.text
    assert torch.equal(first.final_layer.weight, second.final_layer.weight)


@pytest.mark.parametrize("head", ["keypoint_head.", "head."])  # of mmpose 0.x and 1.x
@pytest.mark.parametrize("name", ["resnet", "hrnet"])
def test_names_of_mmpose_load(
    name: str, head: str, network_cfg: NetworkCfg, tmp_path: Path
) -> None:
    first, second = build_model(network_cfg(name)), build_model(network_cfg(name))
    weights = {
        re.sub(r"^(?=final|deconv)", head, key.replace("network.model.", "")): value
        for key, value in first.state_dict().items()
    }
    torch.save({"meta": {"epoch": 1}, "state_dict": weights}, tmp_path / "epoch_1.pth")
    load_weights(second, tmp_path / "epoch_1.pth")
    for key, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[key]), key


STAGE = {"NUM_MODULES": 1, "BLOCK": "BASIC", "NUM_BLOCKS": [1, 1], "NUM_CHANNELS": [8, 8]}


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("hrnet", {"STAGE4": None}, r"MODEL\.EXTRA\.STAGE4: HRNet needs NUM_MODULES"),
        ("tokenpose_b", {"STAGE2": {**STAGE, "NUM_BLOCKS": [1]}}, "STAGE2: HRNet needs"),
        ("tokenpose_b", {"STAGE2": {**STAGE, "NUM_BRANCHES": 3}}, "STAGE2: .*NUM_BRANCHES 2"),
        ("tokenpose_b", {"STAGE2": {**STAGE, "BLOCK": "basic"}}, "STAGE2: .*BLOCK BASIC or"),
        ("tokenpose_b", {"STAGE2": {**STAGE, "FUSE_METHOD": "CAT"}}, "STAGE2: .*SUM"),
        ("tokenpose_b", {"STAGE2": {**STAGE, "NUM_CHANNEL": [8, 8]}}, "STAGE2: HRNet needs"),
        ("tokenpose_b", {"STAGE2": {**STAGE, "NUM_MODULES": True}}, "STAGE2: HRNet needs"),
        ("tokenpose_b", {"STAGE2": 3}, "STAGE2: HRNet needs"),
        ("tokenpose_l", {"NUM_DECONV_LAYERS": 3}, "NUM_DECONV_LAYERS = 3: pose_tokenpose_l has no"),
        ("tokenpose_s", {"NUM_LAYERS": 50}, "NUM_LAYERS = 50: pose_tokenpose_s has no such key"),
        ("hrnet", {"NUM_DECONV_LAYERS": 3}, "NUM_DECONV_LAYERS = 3: pose_hrnet has no such key"),
        ("resnet", {"STAGE2": STAGE}, "pose_resnet has no such key"),
        ("resnet", {"NUM_LAYERS": 51}, r"NUM_LAYERS = 51: must be one of \(18, 34, 50, 101, 152\)"),
        ("resnet", {"NUM_LAYERS": [50]}, r"NUM_LAYERS = \[50\]: must be one of"),
        ("resnet", {"NUM_DECONV_KERNELS": None}, "needs NUM_DECONV_FILTERS and"),
    ],
)
def test_keys_of_another_network_are_one_line(
    name: str, change: dict, message: str, network_cfg: NetworkCfg
) -> None:
    cfg = network_cfg(name)
    for key, value in change.items():
        cfg.MODEL.EXTRA[key] = CfgNode(value) if isinstance(value, dict) else value
        if value is None:
            del cfg.MODEL.EXTRA[key]
    with pytest.raises(UserError, match=message) as error:
        build_model(cfg)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("name", "factor"), [("hrnet", 32), ("tokenpose_b", 16)])
def test_images_fit_the_branches_of_hrnet(name: str, factor: int, network_cfg: NetworkCfg) -> None:
    cfg = network_cfg(name, IMAGE_SIZE=[64, 64 + factor // 2], HEATMAP_SIZE=[16, 16 + factor // 8])
    with pytest.raises(UserError, match=rf"MODEL\.IMAGE_SIZE = .* divisible by {factor} for HRNet"):
        build_model(cfg)


@pytest.mark.parametrize("name", ["resnet", "tokenpose_t", "tokenpose_l"])
def test_a_timm_backbone_replaces_the_networks_own(name: str, network_cfg: NetworkCfg) -> None:
    """A plain ViT under deconvolutions is ViTPose, with the ViT's own normalisation."""
    cfg = network_cfg(name, BACKBONE="vit_tiny_patch16_224", BACKBONE_STRIDE=16, PATCH_SIZE=[1, 1])
    if name == "resnet":
        cfg.MODEL.EXTRA.NUM_DECONV_FILTERS = cfg.MODEL.EXTRA.NUM_DECONV_KERNELS = [4, 4]
        cfg.MODEL.EXTRA.NUM_DECONV_LAYERS = 2
    model = build_model(cfg)
    assert model.mean == timm.get_pretrained_cfg("vit_tiny_patch16_224").mean == (0.5, 0.5, 0.5)
    assert model(torch.randn(2, 3, 64, 64)).shape == (2, 16, 16, 16)


def test_own_networks_are_normalised_as_on_imagenet(
    network_name: str, network_cfg: NetworkCfg
) -> None:
    model = build_model(network_cfg(network_name))
    assert (model.mean, model.std) == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
