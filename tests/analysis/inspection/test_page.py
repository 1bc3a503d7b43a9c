"""The page contains the results, and escapes names."""

import base64
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from yacs.config import CfgNode

from lib.analysis.inspection.gather import Inspection, inspect
from lib.analysis.inspection.page import page
from lib.models import build_model

MakeCfg = Callable[..., CfgNode]
ABOUT = {"image": "a.jpg", "checkpoint": "final_state.pth"}
HOSTILE = (
    "</script><script>alert(1)</script> \"'<!-- <img src=x onerror=alert(2)> {{data}}&amp;\u2028"
)


def inspected(small_cfg: MakeCfg, **sparsity: object) -> Inspection:
    torch.manual_seed(0)
    cfg = small_cfg(**sparsity)
    return inspect(cfg, build_model(cfg), np.zeros((60, 80, 3), np.uint8), None)


def data_of(text: str) -> dict:
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])


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
def test_the_page_contains_the_results(prune: str, small_cfg: MakeCfg) -> None:
    result = inspected(small_cfg, PRUNE=prune)
    data = data_of(page(result, ABOUT))
    weights = np.frombuffer(base64.b64decode(data["toVisual"]), dtype="<f4")
    assert np.array_equal(weights.reshape(result.to_visual.shape), result.to_visual)
    assert np.allclose(data["visualShare"], result.to_visual.sum(axis=2), atol=1e-4)
    assert np.allclose(data["jointLayers"], result.joint_layers, atol=1e-4)
    assert np.array_equal(data["mask"], result.mask)
    for content, stage in zip(data["stages"], result.stages, strict=True):
        assert content["kept"] == stage.kept
        assert content["attendedBy"] == stage.attended_by.tolist()
        if prune == "connection":
            bits = np.frombuffer(base64.b64decode(content["connections"]), dtype=np.uint8)
            assert np.array_equal(np.unpackbits(bits).reshape(24, 24), stage.connections)
        assert content["savedGmacs"] == stage.saved_gmacs
    assert data["denseGmacs"] == result.dense_gmacs


def test_a_network_without_joint_layers_has_no_mask(small_cfg: MakeCfg) -> None:
    data = data_of(page(inspected(small_cfg, JOINT_DEPTH=0), ABOUT))
    assert data["mask"] is None
    assert data["jointLayers"] == []


def test_names_are_escaped(small_cfg: MakeCfg) -> None:
    result = inspected(small_cfg)
    text = page(result, {"image": HOSTILE, HOSTILE: HOSTILE})
    assert data_of(text)["about"] == [["image", HOSTILE], [HOSTILE, HOSTILE]]
    plain, hostile = Elements(page(result, ABOUT)), Elements(text)
    assert hostile.tags == plain.tags
    assert hostile.title.rstrip("\n") == f"Sparsity: {HOSTILE}"
    for html_sink in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write"):
        assert html_sink not in text


def test_the_page_loads_no_other_resource(small_cfg: MakeCfg) -> None:
    text = page(inspected(small_cfg), ABOUT)
    assert not re.findall(r"https?://", text)
    assert "default-src 'none'" in text
    for tag, attributes in Elements(text).tags:
        for name in ("src", "href"):
            assert attributes.get(name, "data:").startswith("data:"), tag


def test_every_control_has_a_label(small_cfg: MakeCfg) -> None:
    text = page(inspected(small_cfg), ABOUT)
    controls = [tag for tag, _ in Elements(text).tags if tag in ("select", "input")]
    assert len(re.findall(r"<label>[^<]*<(?:select|input)", text)) == len(controls) == 5
    (canvas,) = [attributes for tag, attributes in Elements(text).tags if tag == "canvas"]
    assert canvas["tabindex"] == "0"
    assert canvas["aria-label"]
    assert re.findall(r"<button[^>]*>([^<]+)</button>", text) == ["Save image"]


@pytest.mark.parametrize("prune", ["none", "connection", "token"])
def test_a_browser_shows_it_without_an_error(
    prune: str, small_cfg: MakeCfg, tmp_path: Path
) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no browser installed")
    result = inspected(small_cfg, PRUNE=prune, JOINT_DEPTH=0 if prune == "none" else 2)
    (tmp_path / "page.html").write_text(page(result, {"image": HOSTILE}), encoding="utf-8")
    shown = subprocess.run(
        [browser, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
         "--dump-dom", "--virtual-time-budget=5000", f"--user-data-dir={tmp_path / 'profile'}",
         (tmp_path / "page.html").as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "CONSOLE" not in shown.stderr, shown.stderr
    assert 'data-ready="yes"' in shown.stdout
    views = {"none": 1, "connection": 5, "token": 3}[prune]
    joint_layers = 0 if prune == "none" else 2
    assert shown.stdout.count("<option") == views + 16 + 5 + joint_layers
    assert len(re.findall("<script", shown.stdout)) == 2
