"""From pixels to heatmaps, with the flip test, and back to joints in the image."""

from collections.abc import Callable

import numpy as np
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from yacs.config import CfgNode

from lib.dataset.skeleton import MPII
from lib.dataset.transforms import crop_matrix, transform_points
from lib.inference.pipeline import PixelsToHeatmaps, normalise, predict_heatmaps, to_image
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
