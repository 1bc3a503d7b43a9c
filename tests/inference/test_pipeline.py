"""From pixels to heatmaps, with the flip test, and back to joints in the image."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from yacs.config import CfgNode

from lib.config import get_cfg
from lib.dataset.heatmap import encode
from lib.dataset.skeleton import MPII
from lib.dataset.transforms import crop_matrix, transform_points
from lib.inference.pipeline import (
    Decoding,
    PixelsToHeatmaps,
    build_decoding,
    normalise,
    predict,
    predict_heatmaps,
    to_image,
)
from lib.models import build_model


def test_normalise_subtracts_the_mean_and_divides_by_the_deviation() -> None:
    image = torch.randint(0, 256, (2, 5, 7, 3), dtype=torch.uint8)
    mean, std = IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
    expected = ((image / 255 - torch.tensor(mean)) / torch.tensor(std)).permute(0, 3, 1, 2)
    torch.testing.assert_close(normalise(image, mean, std), expected, atol=1e-5, rtol=1e-5)


def test_images_are_normalised_with_the_networks_mean_and_std(
    small_cfg: Callable[..., CfgNode],
) -> None:
    network = build_model(small_cfg()).eval()
    images = torch.randint(0, 256, (2, 48, 64, 3), dtype=torch.uint8)
    imagenet = PixelsToHeatmaps(network)(images)
    network.mean, network.std = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    expected = network((images.permute(0, 3, 1, 2) / 255 - 0.5) / 0.5)
    torch.testing.assert_close(PixelsToHeatmaps(network)(images), expected, atol=1e-4, rtol=1e-3)
    assert not torch.allclose(imagenet, expected, atol=1e-3)


def test_the_flip_test_averages_with_the_flipped_image(small_cfg: Callable[..., CfgNode]) -> None:
    run = PixelsToHeatmaps(build_model(small_cfg())).eval()
    images = torch.randint(0, 256, (2, 48, 64, 3), dtype=torch.uint8)
    with torch.no_grad():
        both = predict_heatmaps(run, images, MPII.flip_order)
        plain = predict_heatmaps(run, images, None)
        flipped = predict_heatmaps(run, images.flip(2), None)[:, MPII.flip_order].flip(3)
        swapped = predict_heatmaps(run, images.flip(2), MPII.flip_order)
    torch.testing.assert_close(both, (plain + flipped) / 2)
    torch.testing.assert_close(swapped[:, MPII.flip_order].flip(3), both)


def test_to_image_is_the_inverse_of_the_crop() -> None:
    rng = np.random.default_rng(0)
    joints = rng.uniform(0, 500, (4, 16, 2))
    center, scale = rng.uniform(200, 300, (4, 2)), rng.uniform(1, 3, (4, 1)).repeat(2, 1)
    size = (48, 64)
    cells = [
        transform_points(j, crop_matrix(c, s, 0.0, size))
        for j, c, s in zip(joints, center, scale, strict=True)
    ]
    np.testing.assert_allclose(to_image(np.stack(cells), center, scale, size), joints, atol=1e-9)


@pytest.mark.parametrize("unbiased", [True, False])
def test_predictions_land_where_the_crop_took_them(unbiased: bool) -> None:
    size, cells = (16, 12), torch.tensor([[[5.0, 4.0]]])
    heatmaps, _ = encode(cells, torch.ones(1, 1), size, sigma=1)
    center, scale = np.array([[200.0, 150.0]]), np.array([[1.0, 0.75]])
    batch = {"image": torch.zeros(1, 48, 64, 3), "center": torch.from_numpy(center)}
    batch["scale"] = torch.from_numpy(scale)
    decoding = Decoding(refine=False, unbiased=unbiased)
    result = predict(lambda images: heatmaps, [batch], torch.device("cpu"), decoding)
    zoom = 15 / 199 if unbiased else 16 / 200
    middle = np.array([7.5, 5.5] if unbiased else [8, 6])
    np.testing.assert_allclose(result.joints[0, 0], center[0] + ([5, 4] - middle) / zoom)


def test_hrnet_s_way_of_testing_is_three_keys() -> None:
    cfg = get_cfg()
    assert build_decoding(cfg, MPII) == Decoding(MPII.flip_order)
    cfg.TEST.SHIFT_HEATMAP, cfg.TEST.REFINEMENT = True, "quarter"
    assert build_decoding(cfg, MPII) == Decoding(MPII.flip_order, "quarter")  # needs no shift
    cfg.DATASET.UNBIASED = False
    expected = Decoding(MPII.flip_order, "quarter", shift=True, unbiased=False)
    assert build_decoding(cfg, MPII) == expected
    cfg.TEST.POST_PROCESS = False
    assert build_decoding(cfg, MPII).refine is False
