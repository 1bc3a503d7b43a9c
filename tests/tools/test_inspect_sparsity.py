"""tools/inspect_sparsity.py: its page and plots, and errors of bad input."""

import os
from pathlib import Path

import pytest
from desk import Desk, Outcome

import lib.models
from lib.models import ModelSpec, PoseNetwork


@pytest.fixture
def weights(desk: Desk) -> Path:
    return desk.save_random_weights(desk.folder / "weights.pth")


def inspect(desk: Desk, image: Path | str, *words: object) -> Outcome:
    return desk.on_cfg("inspect_sparsity", "--input", image, *words)


def test_every_pruning_mode_has_a_page(desk: Desk, weights: Path) -> None:
    image = desk.data / "images/valid_000001.jpg"
    folder = desk.results / "inspect/valid_000001"
    for prune in ("connection", "token", "none"):
        key = ("MODEL.SPARSITY.PRUNE", prune, "TEST.MODEL_FILE", weights)
        done = inspect(desk, image, *key)
        assert done.code == 0, done.err
        assert str(folder / "index.html") in done.out
        text = (folder / "index.html").read_text()
        for word in ("valid_000001.jpg", "small", "weights.pth", f'["pruning","{prune}'):
            assert word in text, word
    assert (desk.results / "inspect_sparsity.log").stat().st_size > 0


def test_default_weights_a_box_and_a_folder(desk: Desk, weights: Path) -> None:
    desk.results.mkdir(parents=True)
    weights.rename(desk.results / "final_state.pth")
    image = desk.data / "images/valid_000001.jpg"
    done = inspect(desk, image, "--box=-5,3,40.5,50", "--out", desk.folder / "a/b")
    assert done.code == 0, done.err
    assert "box -5,3,40.5,50" in (desk.folder / "a/b/index.html").read_text()
    assert not (desk.results / "inspect").exists()


def test_image_names_can_contain_any_character(desk: Desk, weights: Path) -> None:
    content = (desk.data / "images/valid_000001.jpg").read_bytes()
    for name in (b"\xff\n\"'<img src=x onerror=alert(1)>{{data}}&.jpg", b"...jpg"):
        image = os.fsdecode(os.path.join(os.fsencode(desk.folder), name))
        Path(image).write_bytes(content)
        done = inspect(desk, image, "TEST.MODEL_FILE", weights)
        assert done.code == 0, done.err
        assert "Logging error" not in done.err
    folders = list((desk.results / "inspect").iterdir())
    assert len(folders) == 2
    assert all("<img src=x" not in (folder / "index.html").read_text() for folder in folders)


def test_a_network_without_attention_is_an_error(
    desk: Desk, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(lib.models.MODELS, "toy", ModelSpec(build=lambda cfg: PoseNetwork()))
    done = inspect(desk, desk.data / "images/valid_000001.jpg", "MODEL.NAME", "toy")
    done.fails_with("MODEL.NAME = 'toy': this network has no attention to inspect")


def test_bad_input_is_an_error_of_one_line(desk: Desk, weights: Path) -> None:
    image = desk.data / "images/valid_000001.jpg"
    key = ("TEST.MODEL_FILE", weights)
    inspect(desk, "none.jpg", *key).fails_with("none.jpg")
    inspect(desk, desk.yaml, *key).fails_with("small.yaml")
    inspect(desk, desk.data, *key).fails_with(str(desk.data))
    inspect(desk, image, "--box", "500,0,9,9", *key).fails_with("--box 500,0,9,9")
    inspect(desk, image, "TEST.MODEL_FILE", image).fails_with(image.name)
    inspect(desk, image).fails_with("final_state.pth")
    inspect(desk, image, "--out", desk.yaml / "x", *key).fails_with("small.yaml/x")
    assert not (desk.results / "inspect").exists()
    for box in ("1,2,3", "a,b,c,d", "nan,0,1,1", "1e999,0,1,1", ""):
        failed = inspect(desk, image, f"--box={box}", *key)
        assert failed.code == 2
        assert "--box" in failed.err.strip().splitlines()[-1]
