"""The page holds what was seen, exactly enough, and nothing in it can break out of it."""

import base64
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from yacs.config import CfgNode

from lib.core.inspection.gather import Inspection, StageSeen, inspect
from lib.core.inspection.page import page
from lib.models import build_model

MakeCfg = Callable[..., CfgNode]
ABOUT = {"picture": "a.jpg", "checkpoint": "final_state.pth"}
HOSTILE = (
    "</script><script>alert(1)</script> \"'<!-- <img src=x onerror=alert(2)> {{data}}&amp;\u2028"
)


def seen_with(small_cfg: MakeCfg, **sparsity: object) -> Inspection:
    torch.manual_seed(0)
    cfg = small_cfg(**sparsity)
    return inspect(cfg, build_model(cfg), np.zeros((60, 80, 3), np.uint8), None)


def data_of(text: str) -> dict:
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])


def unpacked(packed: dict, shape: tuple[int, ...]) -> np.ndarray:
    """Weights as the page's script reads them."""
    level = np.frombuffer(base64.b64decode(packed["values"]), dtype=np.uint8) / 255
    largest = np.array(packed["largest"]).reshape(*shape[:-1], 1)
    return level.reshape(shape) ** 2 * largest


class Elements(HTMLParser):
    """The tags of a page with their attributes, and the text of its title."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.title = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1][0] == "title":
            self.title += data


@pytest.mark.parametrize("prune", ["none", "connection", "token"])
def test_the_page_holds_what_was_seen(prune: str, small_cfg: MakeCfg) -> None:
    seen = seen_with(small_cfg, PRUNE=prune, NUM_JOINTS=17)
    data = data_of(page(seen, ABOUT))
    for key, weights in (
        ("toVisual", seen.to_visual),
        ("toKeypoints", seen.to_keypoints),
        ("within", seen.joint_layers),
    ):
        found = unpacked(data[key], weights.shape)
        largest = weights.max(axis=-1, keepdims=True)
        assert (np.abs(found - weights) <= largest / 200).all()  # (q/255)² at steps of 1/255
        assert np.array_equal(found == 0, weights < largest * (0.5 / 255) ** 2)
    assert np.allclose(data["keypointShare"], seen.to_keypoints.sum(axis=2), atol=1e-4)
    assert np.array_equal(data["mask"], seen.mask)
    assert [stage["kept"] for stage in data["stages"]] == [stage.kept for stage in seen.stages]
    for packed, stage in zip(data["stages"], seen.stages, strict=True):
        bits = np.frombuffer(base64.b64decode(packed["alive"]), dtype=np.uint8)
        assert np.array_equal(np.unpackbits(bits, count=24), stage.alive)
        if prune == "connection":
            bits = np.frombuffer(base64.b64decode(packed["connections"]), dtype=np.uint8)
            rows = np.unpackbits(bits.reshape(24, -1), axis=1, count=24)
            assert np.array_equal(rows, stage.connections)
    work = data["work"]
    layers = sum(layer["own"] for layer in data["layers"]) + sum(data["jointLayers"])
    assert work["stem"] + work["patches"] + work["head"] + layers == work["own"]


def test_a_network_without_joint_layers_has_no_mask(small_cfg: MakeCfg) -> None:
    data = data_of(page(seen_with(small_cfg, JOINT_DEPTH=0), ABOUT))
    assert data["mask"] is None
    assert data["jointLayers"] == data["within"]["largest"] == []


def test_names_cannot_break_out(small_cfg: MakeCfg) -> None:
    seen = seen_with(small_cfg)
    text = page(seen, {"picture": HOSTILE, HOSTILE: HOSTILE})
    assert data_of(text)["about"] == [["picture", HOSTILE], [HOSTILE, HOSTILE]]
    plain, hostile = Elements(page(seen, ABOUT)), Elements(text)
    assert hostile.tags == plain.tags
    assert hostile.title.rstrip("\n") == f"Sparsity: {HOSTILE}"
    assert "innerHTML" not in text
    assert "insertAdjacentHTML" not in text


def test_the_page_asks_nobody_for_anything(small_cfg: MakeCfg) -> None:
    text = page(seen_with(small_cfg), ABOUT)
    assert set(re.findall(r"https?://[^\"' ]+", text)) == {"http://www.w3.org/2000/svg"}
    assert "default-src 'none'" in text
    for tag, attributes in Elements(text).tags:
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith("data:"), tag


def test_many_patches_still_fit_into_three_megabytes(small_cfg: MakeCfg) -> None:
    """64×64 patches and twelve layers, noise that nothing packs."""
    seen = seen_with(small_cfg)
    rng = np.random.default_rng(0)
    count, joints = 64 * 64, len(seen.scores)
    kept = rng.random((count, count)) < 0.5
    many = replace(
        seen,
        picture=rng.integers(0, 256, (512, 512, 3), dtype=np.uint8),
        grid=(64, 64),
        to_visual=rng.random((12, joints, count), dtype=np.float32),
        to_keypoints=rng.random((12, joints, joints), dtype=np.float32),
        stages=[StageSeen(layer, 9, 5, kept[0], kept, 0) for layer in (3, 6, 9)],
    )
    text = page(many, ABOUT)
    assert len(text) <= 3e6
    data = data_of(text)
    step = data["step"]
    assert step > 1
    bits = np.frombuffer(base64.b64decode(data["stages"][0]["connections"]), dtype=np.uint8)
    rows = np.unpackbits(bits.reshape(-1, count // 8), axis=1)
    wanted = [kept[64 * r + c] for r in range(0, 64, step) for c in range(0, 64, step)]
    assert np.array_equal(rows, wanted)


@pytest.mark.parametrize("prune", ["none", "connection", "token"])
def test_a_browser_shows_it_without_an_error(
    prune: str, small_cfg: MakeCfg, tmp_path: Path
) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no browser here")
    seen = seen_with(small_cfg, PRUNE=prune, JOINT_DEPTH=0 if prune == "none" else 2)
    (tmp_path / "page.html").write_text(page(seen, {"picture": HOSTILE}), encoding="utf-8")
    shown = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
         "--dump-dom", "--virtual-time-budget=5000", f"--user-data-dir={tmp_path / 'profile'}",
         (tmp_path / "page.html").as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "CONSOLE" not in shown.stderr, shown.stderr
    assert 'data-ready="yes"' in shown.stdout
    assert shown.stdout.count('name="joint"') == 16
    assert shown.stdout.count('name="layer"') == (5 if prune == "none" else 7)
    assert shown.stdout.count('name="stage"') == (0 if prune == "none" else 2)
    assert len(re.findall("<script", shown.stdout)) == 2
