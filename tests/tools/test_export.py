"""tools/export.py: an exported network scores the same; bad input is an error of one line."""

from pathlib import Path

import pytest
from desk import Desk


@pytest.fixture
def weights(desk: Desk) -> Path:
    return desk.save_random_weights()


def test_an_exported_network_scores_the_same(desk: Desk, weights: Path) -> None:
    dense = ("MODEL.SPARSITY.PRUNE", "none")
    exported = desk.run("export", *desk.words(*dense))
    assert exported.code == 0, exported.err
    assert "checked on 6 people" in exported.out
    assert "heatmaps differ from PyTorch's by" in exported.out
    path = weights.with_suffix(".onnx")
    assert str(path) in exported.out
    expected = desk.on_cfg("test", *dense)
    tested = desk.on_cfg("test", *dense, "TEST.MODEL_FILE", path)
    assert tested.code == 0, tested.err
    assert tested.out == expected.out
    desk.on_cfg("test", "TEST.MODEL_FILE", path).fails_with("MODEL.SPARSITY.PRUNE")
    desk.on_cfg("export", "TEST.MODEL_FILE", path).fails_with("is not a checkpoint")


def test_bad_input_is_reported_in_one_line(desk: Desk, weights: Path) -> None:
    def fails(message: str, *words: object) -> None:
        desk.run("export", *words, *desk.words()).fails_with(message)

    before = sorted(weights.parent.iterdir())
    desk.on_cfg("export", "TEST.MODEL_FILE", "none.pth").fails_with("none.pth")
    desk.on_cfg("export", "MODEL.DIM", 64).fails_with("final_state.pth")
    fails("a.xml", "--out", desk.folder / "a.xml")
    fails("cannot write", "--out", desk.yaml / "a.onnx")
    fails("none.jpg", "--images", desk.folder / "none.jpg")
    fails("no images", "--images", desk.data / "annot")
    desk.on_cfg("export", "DATASET.TEST_SET", "other").fails_with("--images")
    unknown = desk.run("export", *desk.words(), "--format", "tflite")
    assert (unknown.code, "onnx" in unknown.err) == (2, True)
    assert [file for file in sorted(weights.parent.iterdir()) if file.suffix != ".log"] == before
