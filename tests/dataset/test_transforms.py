"""The crop, its inverse and related maps agree with published numbers and with each other."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lib.dataset import transforms
from lib.dataset.augment import View
from lib.dataset.images import decode_image
from lib.dataset.transforms import (
    box_error,
    box_to_center_scale,
    crop_image,
    crop_matrix,
    reduced_matrix,
    reduction,
    rescale_joints,
    transform_points,
)

coordinate = st.floats(-2000, 2000)
scale = st.floats(0.1, 10)
angle = st.floats(-180, 180)
side = st.integers(16, 512)


def smooth_image(width: int, height: int) -> np.ndarray:
    """Return slow waves with a phase per channel, which show any shift or mirroring."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    waves = [np.sin(x / 31 + phase) + np.cos(y / 23 + x / 57 - phase) for phase in range(3)]
    return np.clip(127 + 60 * np.stack(waves, -1), 0, 255).astype(np.uint8)


def jpeg(image: np.ndarray) -> bytes:
    return cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])[1].tobytes()


def test_crop_matrix_agrees_with_the_published_code(shared: Path) -> None:
    golden = np.load(shared / "golden" / "crop_affine.npz")
    size = golden["output_size"].tolist()
    for center, box, rotation, matrix, inverse in zip(
        *(golden[key] for key in ("center", "scale", "rotation", "matrix", "inverse")), strict=True
    ):
        # The published code computes three points in float32: 4 digits at 1,000 pixels.
        ours = crop_matrix(center, box, rotation, size)
        assert np.abs(ours - matrix).max() < 1e-5 * np.ptp(matrix)
        corners = center + box * 100 * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
        theirs = transform_points(corners, matrix)
        np.testing.assert_allclose(transform_points(corners, ours), theirs, rtol=0, atol=1e-3)
        back = transform_points(theirs, inverse)
        again = transform_points(theirs, crop_matrix(center, box, rotation, size, inverse=True))
        np.testing.assert_allclose(again, back, rtol=0, atol=1e-3)


@settings(max_examples=25, deadline=None)
@given(coordinate, coordinate, scale, angle, side, side)
def test_inverse_undoes_the_crop(x, y, box, rotation, width, height) -> None:  # noqa: ANN001
    matrix = crop_matrix((x, y), (box, box), rotation, (width, height))
    inverse = crop_matrix((x, y), (box, box), rotation, (width, height), inverse=True)
    points = np.array([[x, y], [0, 0], [1000, -300]])
    again = transform_points(transform_points(points, matrix), inverse)
    np.testing.assert_allclose(again, points, rtol=0, atol=1e-7)


def test_box_fills_the_crop_from_first_to_last_pixel() -> None:
    matrix = crop_matrix((300, 200), (1.0, 2.0), 0, (64, 48))
    left, right = transform_points(np.array([[300 - 99.5, 200], [300 + 99.5, 200]]), matrix)
    np.testing.assert_allclose(left, (0, 23.5), atol=1e-9)
    np.testing.assert_allclose(right, (63, 23.5), atol=1e-9)


def test_mirrored_crop_is_the_crop_of_the_mirrored_image() -> None:
    """HRNet mirrors image and center, then rotates: the mirror of the opposite rotation."""
    image, center, size = smooth_image(200, 150), np.array([90.0, 70.0]), (64, 64)
    mirrored_center = (199 - center[0], center[1])
    hrnet = crop_image(
        np.ascontiguousarray(image[:, ::-1]),
        crop_matrix(mirrored_center, (0.5, 0.5), 20, size),
        size,
    )
    view = View(center, np.array([0.5, 0.5]), rotation=-20, mirrored=True)
    ours = crop_image(image, view.matrix(size), size)
    assert np.abs(ours.astype(int) - hrnet).mean() < 0.1


def test_crop_is_black_outside_and_keeps_pixels_inside() -> None:
    image = smooth_image(40, 40)
    crop = crop_image(image, np.array([[1.0, 0, 20], [0, 1, 20]]), (60, 50))
    assert crop.shape == (50, 60, 3)
    assert crop.dtype == np.uint8
    assert not crop[:20].any()
    np.testing.assert_array_equal(crop[20:, 20:], image[:30, :40])


@pytest.mark.parametrize("smooth", [False, True])
@pytest.mark.parametrize("center", [(300, 200), (5, 390)])
def test_a_smooth_crop_has_its_content_at_the_same_place(
    smooth: bool, center: tuple[int, int]
) -> None:
    """A blurred spot and the image's border stay where the matrix puts them."""
    image = np.full((400, 600, 3), 60, np.uint8)
    cv2.circle(image, (310, 205), 40, (255, 255, 255), -1)
    image = cv2.GaussianBlur(image, (0, 0), 12)
    matrix = crop_matrix(center, [2.5, 2.5], 20.0, [64, 64])
    crop = crop_image(image, matrix, [64, 64], smooth)
    difference = crop.astype(int) - crop_image(image, matrix, [64, 64])
    assert np.abs(difference).mean() < 1
    assert np.abs(difference).max() <= (30 if smooth else 0)  # at the image's border


@pytest.mark.parametrize("zoom", [0.05, 0.2, 0.5])
def test_a_smooth_crop_averages_noise(zoom: float) -> None:
    """Bilinear crops of noise keep much of its deviation, averages lose it with the zoom."""
    noise = np.random.default_rng(0).integers(0, 256, (1400, 1400, 3), np.uint8)
    matrix = crop_matrix([700, 700], [64 / zoom / 200] * 2, 0.0, [64, 64])
    rough, smooth = (
        crop_image(noise, matrix, [64, 64], s)[8:-8, 8:-8].std() for s in (False, True)
    )
    assert smooth < 1.6 * zoom * 255 / 12**0.5
    assert smooth < 0.8 * rough


def test_an_image_too_large_to_warp_is_subsampled(monkeypatch: pytest.MonkeyPatch) -> None:
    image, size = smooth_image(120, 80), (24, 32)
    matrix = crop_matrix((60, 40), (0.15, 0.2), 20, size)
    whole = crop_image(image, matrix, size)
    limits = {"MAX_SOURCE_SIDE": (70, 30), "MAX_SOURCE_BYTES": (image.nbytes - 1, 3000)}
    for name, limit in [(name, limit) for name, values in limits.items() for limit in values]:
        with monkeypatch.context() as patch:
            patch.setattr(transforms, name, limit)
            cropped = crop_image(image, matrix, size)
        assert (cropped != whole).any()
        assert np.abs(cropped.astype(int) - whole).mean() < 6


@pytest.mark.parametrize("factor", [2, 4, 8])
@pytest.mark.parametrize("shape", [(640, 480), (637, 479)])
def test_reduced_decoding_gives_the_same_crop(factor: int, shape: tuple[int, int]) -> None:
    data, size = jpeg(smooth_image(*shape)), (40, 50)
    matrix = crop_matrix((310, 235), (1.5, 1.5), 30, size)
    full = crop_image(decode_image(data, "full"), matrix, size).astype(int)
    image = decode_image(data, "reduced", factor)
    assert image.shape[:2] == (-(-shape[1] // factor), -(-shape[0] // factor))
    reduced = crop_image(image, reduced_matrix(matrix, factor), size)
    assert np.abs(reduced - full).mean() < 1.0
    # Without the half pixels the crop is farther off, so this test would notice.
    naive = crop_image(image, matrix * [factor, factor, 1], size)
    assert np.abs(naive - full).mean() > 2 * np.abs(reduced - full).mean()


def test_reduced_matrix_maps_the_same_points() -> None:
    matrix = crop_matrix((100, 80), (2, 2), 40, (64, 64))
    whole = np.array([[12.0, 4.0], [99.5, 33.25]])
    for factor in (1, 2, 4, 8):
        small = (whole + 0.5) / factor - 0.5
        np.testing.assert_allclose(
            transform_points(small, reduced_matrix(matrix, factor)),
            transform_points(whole, matrix),
            atol=1e-9,
        )


@settings(max_examples=25, deadline=None)
@given(st.floats(0.1, 30), side)
def test_a_reduced_image_is_not_coarser_than_the_crop(box: float, width: int) -> None:
    factor = reduction((box, box), (width, width))
    zoom = crop_matrix((0, 0), (box, box), 0, (width, width))[0, 0]
    assert factor in (1, 2, 4, 8)
    assert factor == 1 or zoom * factor <= 1
    assert factor == 8 or zoom * factor * 2 > 1


@pytest.mark.parametrize(("image", "heatmap"), [((256, 256), (64, 64)), ((192, 256), (48, 64))])
def test_heatmap_cells_are_pixels_of_a_crop_of_the_heatmaps_size(
    image: tuple[int, int], heatmap: tuple[int, int]
) -> None:
    points = np.array([[310.0, 120.0], [250.5, 260.25], [280.0, 190.0]])
    box = ((280, 190), (0.9, 1.2), 15)
    crop, cells = (transform_points(points, crop_matrix(*box, size)) for size in (image, heatmap))
    rescaled = rescale_joints(torch.from_numpy(crop), image, heatmap)
    np.testing.assert_allclose(rescaled, cells, atol=1e-9)
    np.testing.assert_allclose(rescale_joints(rescaled, heatmap, image), crop, atol=1e-9)
    assert rescale_joints(rescaled.float(), heatmap, image).dtype == torch.float32


@pytest.mark.parametrize("box", [(40, 30, 20, 90), (40, 30, 90, 20)])
def test_a_crop_contains_its_box_with_a_margin(box: tuple[int, ...]) -> None:
    size = (48, 64)
    x, y, width, height = box
    matrix = crop_matrix(*box_to_center_scale(box, size), 0, size)
    first, last = transform_points(np.array([[x, y], [x + width - 1, y + height - 1]]), matrix)
    np.testing.assert_allclose(first + last, (47, 63), atol=1e-9)  # both have the same middle
    share = (last - first) / (47, 63)
    assert share.max() == pytest.approx(1 / 1.25, abs=0.01)


@pytest.mark.parametrize(
    ("box", "error"),
    [
        ((0, 0, 100, 50), None),
        ((-50, -20, 51, 21), None),
        ((99.5, 49.5, 10, 10), None),
        ((-50, 0, 50, 10), "outside"),
        ((100, 0, 5, 5), "outside"),
        ((0, 50, 5, 5), "outside"),
        ((0, -9, 5, 9), "outside"),
        ((5, 5, 0, 9), "pixel"),
        ((5, 5, 9, -1), "pixel"),
        ((0.1, 0.1, 0.5, 0.5), "pixel"),
        ((0, 0, np.inf, 5), "finite"),
        ((np.nan, 0, 5, 5), "finite"),
        ((-1e8, 0, 2e8, 5), "beyond any image"),
    ],
)
def test_boxes_that_cannot_be_cropped(box: tuple[float, ...], error: str | None) -> None:
    text = box_error(box, (50, 100, 3))
    assert text is None if error is None else error in text


def test_the_biased_crop_agrees_with_the_published_code(shared: Path) -> None:
    golden = np.load(shared / "golden" / "hrnet_crop_decode.npz")
    size = golden["output_size"].tolist()
    for center, box, rotation, matrix, inverse in zip(
        *(golden[key] for key in ("center", "scale", "rotation", "matrix", "inverse")), strict=True
    ):
        # The published code computes three points in float32.
        ours = crop_matrix(center, box, rotation, size, unbiased=False)
        assert np.abs(ours - matrix).max() < 1e-5 * np.ptp(matrix)
        back = crop_matrix(center, box, rotation, size, inverse=True, unbiased=False)
        assert np.abs(back - inverse).max() < 1e-5 * np.ptp(inverse)
        product = np.vstack([ours, [0, 0, 1]]) @ np.vstack([back, [0, 0, 1]])
        np.testing.assert_allclose(product, np.eye(3), atol=1e-9)


@pytest.mark.parametrize("unbiased", [True, False])
def test_joints_are_rescaled_as_crops_are(unbiased: bool) -> None:
    box, points = ((300.0, 200.0), (1.2, 1.6), 0.0), np.array([[310.0, 180.5], [250, 240]])
    crop, cells = (
        transform_points(points, crop_matrix(*box, size, unbiased=unbiased))
        for size in ((192, 256), (48, 64))
    )
    rescaled = rescale_joints(torch.from_numpy(crop), (192, 256), (48, 64), unbiased)
    np.testing.assert_allclose(rescaled, cells, atol=1e-9)
