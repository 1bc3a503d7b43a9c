"""Heatmaps: encoding and decoding are inverse, batched or not, and agree with published code."""

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.dataset.heatmap import decode, encode, flip_heatmaps
from lib.dataset.skeleton import COCO, MPII, Skeleton
from lib.inference.pipeline import to_image

SIZES = st.tuples(st.integers(1, 40), st.integers(1, 40))


def random_joints(
    size: tuple[int, int], batch: int, joints: int, margin: float = 0
) -> torch.Tensor:
    """Joints [batch,joints,2] at least `margin` cells inside the map."""
    generator = torch.Generator().manual_seed(batch * 100 + joints)
    room = torch.tensor(size, dtype=torch.float32) - 1 - 2 * margin
    return margin + room * torch.rand(batch, joints, 2, generator=generator)


def random_maps(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def dark_by_loops(heatmap: np.ndarray, kernel: int) -> np.ndarray:
    """DARK of one map in plain loops, float64."""
    height, width = heatmap.shape
    y, x = np.unravel_index(heatmap.argmax(), heatmap.shape)
    if heatmap[y, x] <= 0:
        return np.zeros(2)
    joint = np.array([x, y], dtype=np.float64)
    if not (1 < x < width - 2 and 1 < y < height - 2):
        return joint
    radius, sigma = kernel // 2, 0.3 * ((kernel - 1) / 2 - 1) + 0.8
    taps = np.exp(-(np.arange(-radius, radius + 1) ** 2) / (2 * sigma**2))
    taps /= taps.sum()
    padded = np.pad(heatmap.astype(np.float64), radius)
    blurred = np.zeros((height, width))
    for row in range(height):
        for column in range(width):
            window = padded[row : row + kernel, column : column + kernel]
            blurred[row, column] = taps @ window @ taps
    f = np.log(np.maximum(blurred * heatmap.max() / blurred.max(), 1e-10))
    gradient = [(f[y, x + 1] - f[y, x - 1]) / 2, (f[y + 1, x] - f[y - 1, x]) / 2]
    mixed = (f[y + 1, x + 1] - f[y - 1, x + 1] - f[y + 1, x - 1] + f[y - 1, x - 1]) / 4
    hessian = np.array(
        [
            [(f[y, x + 2] - 2 * f[y, x] + f[y, x - 2]) / 4, mixed],
            [mixed, (f[y + 2, x] - 2 * f[y, x] + f[y - 2, x]) / 4],
        ]
    )
    return joint - np.linalg.solve(hessian, gradient)


def test_targets_equal_the_published_ones(shared: Path) -> None:
    golden = np.load(shared / "golden/gaussian_targets.npz")
    target, weight = encode(
        torch.tensor(golden["joints"]).float(),
        torch.tensor(golden["joints_vis"]).float(),
        tuple(golden["HEATMAP_SIZE"].tolist()),
        float(golden["SIGMA"]),
    )
    np.testing.assert_allclose(target, golden["target"], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(weight, golden["target_weight"][..., 0])


@pytest.mark.parametrize("refine", [False, True])
def test_decoding_equals_the_published_one(shared: Path, refine: bool) -> None:
    golden = np.load(shared / "golden/dark_decode.npz")
    heatmaps = torch.tensor(golden["heatmaps"])
    joints, scores = decode(heatmaps, int(golden["BLUR_KERNEL"]), refine)
    # To image coordinates, as the golden joints: box width - 1 pixels are map width - 1 cells.
    last_cell = heatmaps.shape[-1] - 1
    pixels = (golden["scale"][:, None] * 200 - 1) / last_cell
    in_image = golden["center"][:, None] + (joints.double().numpy() - last_cell / 2) * pixels
    expected = golden[f"preds_post_{refine}"]
    np.testing.assert_allclose(in_image, expected, rtol=0, atol=1e-6 * np.ptp(expected))
    np.testing.assert_array_equal(scores, golden["maxvals"][..., 0])


@settings(max_examples=20, deadline=None)
@given(width=st.integers(20, 40), height=st.integers(20, 40), batch=st.integers(0, 2))
def test_decode_is_the_inverse_of_encode(width: int, height: int, batch: int) -> None:
    joints = random_joints((width, height), batch, 3, margin=7)
    heatmaps, weight = encode(joints, torch.ones(batch, 3), (width, height), sigma=2)
    decoded, scores = decode(heatmaps)
    torch.testing.assert_close(decoded, joints, rtol=0, atol=1e-3)
    # The highest cell is at most half a cell away on either axis.
    assert (scores >= np.exp(-0.5 / 8) - 1e-6).all()
    assert (weight == 1).all()


def test_target_is_a_gaussian_around_the_unrounded_joint() -> None:
    x, y, sigma = 4.25, 6.5, 1.5
    target, _ = encode(torch.tensor([[[x, y]]]), torch.ones(1, 1), (9, 12), sigma)
    assert target.shape == (1, 1, 12, 9)
    row, column = np.mgrid[:12, :9]
    expected = np.exp(-((column - x) ** 2 + (row - y) ** 2) / (2 * sigma**2))
    np.testing.assert_allclose(target[0, 0], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("x", "kept"), [(37.99, True), (38.0, False), (-7.99, True), (-8.0, False), (0.0, True)]
)
@pytest.mark.parametrize("axis", [0, 1])
def test_joints_count_if_their_box_overlaps_the_map(x: float, kept: bool, axis: int) -> None:
    joint = torch.full((1, 1, 2), 10.0)
    joint[..., axis] = x
    target, weight = encode(joint, torch.ones(1, 1), (32, 32), sigma=2)
    assert weight.item() == kept
    assert (target.max() > 0) == kept


def test_joints_that_are_not_annotated_have_empty_maps() -> None:
    joints = torch.tensor([[[float("nan"), 5.0], [float("inf"), 5.0], [5.0, 5.0]]])
    target, weight = encode(joints, torch.zeros(1, 3), (10, 10), sigma=2)
    assert not target.any()
    assert not weight.any()


@settings(max_examples=20, deadline=None)
@given(size=SIZES, joints=st.integers(1, 3))
def test_a_batch_is_its_single_maps(size: tuple[int, int], joints: int) -> None:
    coordinates = random_joints(size, 3, joints)
    visible = torch.tensor([1.0, 0.0, 1.0])[:, None].expand(3, joints)
    target, weight = encode(coordinates, visible, size, sigma=2)
    heatmaps = target + 0.1 * random_maps(*target.shape)
    decoded, scores = decode(heatmaps)
    for index in range(3):
        one = slice(index, index + 1)
        for whole, single in zip(
            (target, weight, decoded, scores),
            (*encode(coordinates[one], visible[one], size, sigma=2), *decode(heatmaps[one])),
            strict=True,
        ):
            torch.testing.assert_close(whole[one], single, rtol=0, atol=0)


@pytest.mark.parametrize(("size", "kernel"), [((24, 16), 11), ((16, 24), 17), ((12, 12), 3)])
def test_decoding_equals_plain_loops(size: tuple[int, int], kernel: int) -> None:
    width, height = size
    joints = random_joints(size, 3, 5)
    heatmaps, _ = encode(joints, torch.ones(3, 5), size, sigma=2)
    heatmaps = heatmaps + 0.02 * random_maps(3, 5, height, width)
    decoded, _ = decode(heatmaps, kernel)
    expected = [[dark_by_loops(heatmap, kernel) for heatmap in maps] for maps in heatmaps.numpy()]
    np.testing.assert_allclose(decoded, expected, atol=1e-4)


def test_cells_are_floored_after_rescaling() -> None:
    # Around a single peak the blurred map is zero, so some of the 5×5 cells are floored.
    heatmap = torch.zeros(1, 1, 16, 16)
    heatmap[..., 8, 8], heatmap[..., 8, 9], heatmap[..., 9, 8] = 1e-6, 9e-7, -3e-7
    decoded, _ = decode(heatmap, blur_kernel=3)
    np.testing.assert_allclose(decoded[0, 0], dark_by_loops(heatmap[0, 0].numpy(), 3), atol=1e-4)


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_a_map_without_a_positive_cell_gives_the_origin(value: float) -> None:
    decoded, _ = decode(torch.full((1, 1, 16, 16), value))
    assert decoded.tolist() == [[[0.0, 0.0]]]


def test_decoding_is_finite_without_a_maximum() -> None:
    flat = torch.ones(16, 16)  # no curvature
    pit = torch.full((16, 16), -1.0)
    pit[8, 8] = 0.01  # blurred, no cell is positive
    line = torch.zeros(16, 16)
    line[:, 8] = 1.0  # curved across only
    decoded, scores = decode(torch.stack((flat, pit, line))[None])
    assert decoded.isfinite().all()
    torch.testing.assert_close(scores, torch.tensor([[1.0, 0.01, 1.0]]))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_decoding_computes_in_float32(dtype: torch.dtype) -> None:
    heatmaps = random_maps(2, 3, 16, 12).to(dtype)
    with torch.autocast("cpu", torch.bfloat16):
        decoded, scores = decode(heatmaps)
    assert decoded.dtype == scores.dtype == torch.float32
    for half, full in zip((decoded, scores), decode(heatmaps.float()), strict=True):
        torch.testing.assert_close(half, full, rtol=0, atol=0)


def test_decoding_does_not_change_its_input() -> None:
    heatmaps = random_maps(1, 2, 16, 16)
    before = heatmaps.clone()
    decode(heatmaps)
    assert torch.equal(heatmaps, before)


@pytest.mark.parametrize("skeleton", [MPII, COCO])
def test_flipped_maps_are_those_of_the_image(skeleton: Skeleton) -> None:
    size, visible = (16, 24), torch.ones(2, skeleton.num_joints)
    joints = random_joints(size, 2, skeleton.num_joints)
    mirrored = joints[:, skeleton.flip_order]
    mirrored = torch.stack((size[0] - 1 - mirrored[..., 0], mirrored[..., 1]), dim=-1)
    straight, _ = encode(joints, visible, size, sigma=2)
    heatmaps, _ = encode(mirrored, visible, size, sigma=2)
    flipped = flip_heatmaps(heatmaps, skeleton.flip_order)
    torch.testing.assert_close(flipped, straight, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "refine"), [("preds_quarter", "quarter"), ("preds_argmax", False)]
)
def test_quarter_cells_are_those_of_hrnet(
    shared: Path, name: str, refine: bool | Literal["quarter"]
) -> None:
    golden = np.load(shared / "golden/hrnet_crop_decode.npz")
    heatmaps = torch.tensor(golden["heatmaps"])
    joints, scores = decode(heatmaps, refine=refine)
    center, scale = golden["center"][:6], golden["scale"][:6]
    size = (heatmaps.shape[3], heatmaps.shape[2])
    in_image = to_image(joints.double().numpy(), center, scale, size, unbiased=False)
    np.testing.assert_allclose(in_image, golden[name], rtol=0, atol=1e-5 * np.ptp(golden[name]))
    np.testing.assert_array_equal(scores, golden["maxvals"][..., 0])


def test_quarter_cells_at_the_border_and_of_flat_maps() -> None:
    heatmaps = torch.zeros(1, 4, 8, 8)
    heatmaps[0, 0, 4, 1], heatmaps[0, 0, 4, 2] = 1, 0.5  # HRNet refines from cell 2 on
    heatmaps[0, 1, 4, 6], heatmaps[0, 1, 4, 7] = 1, 0.5
    heatmaps[0, 2, 3, 3] = 1  # equal neighbours
    joints, _ = decode(heatmaps, refine="quarter")
    assert joints[0].tolist() == [[1, 4], [6.25, 4], [3, 3], [0, 0]]


def test_flipped_maps_are_shifted_as_hrnet_does(shared: Path) -> None:
    golden = np.load(shared / "golden/hrnet_crop_decode.npz")
    heatmaps = torch.tensor(golden["heatmaps"][:3])
    order = list(range(heatmaps.shape[1]))
    for left, right in golden["flip_pairs"].tolist():
        order[left], order[right] = right, left
    for shift, name in ((False, "flipped_back"), (True, "flipped_back_shifted")):
        np.testing.assert_array_equal(flip_heatmaps(heatmaps, order, shift), golden[name])
