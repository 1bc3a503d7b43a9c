"""tools/export.py: an exported network scores the same; bad input is an error of one line."""

from pathlib import Path

import pytest
from desk import Desk

from lib.utils.checkpoint import read_weights, save_checkpoint


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


def test_rounded_weights_score_as_their_values_do(desk: Desk, weights: Path) -> None:
    exported = desk.on_cfg("export", "--format", "weights")
    assert exported.code == 0, exported.err
    assert "heatmaps differ from PyTorch's by" in exported.out
    path = weights.with_name("final_state_fp16.safetensors")
    assert str(path) in exported.out
    whole = weights.with_suffix(".safetensors")  # of fp32; it has another name and is kept
    assert path.stat().st_size < 0.6 * whole.stat().st_size
    values = {name: value.half().to(value.dtype) for name, value in read_weights(whole).items()}
    save_checkpoint(values, desk.folder / "rounded.pth")
    tables = [
        desk.on_cfg("test", "TEST.MODEL_FILE", file).out
        for file in (path, desk.folder / "rounded.pth")
    ]
    assert "| Mean |" in tables[0]
    assert tables[0] == tables[1]
    decode = desk.on_cfg("export", "--format", "weights", "--decode")
    assert (decode.code, "--decode" in decode.err) == (2, True)
    int8 = desk.on_cfg("export", "--format", "weights", "--int8")
    assert (int8.code, "--int8" in int8.err) == (2, True)


def test_a_file_in_int8_is_calibrated_tested_and_described(desk: Desk, weights: Path) -> None:
    words = ("--int8", "--calibration", 4)
    exported = desk.run("export", *words, "--max-loss", 1e9, *desk.words())
    assert exported.code == 0, exported.err
    path = weights.with_name("final_state_int8.onnx")
    assert str(path) in exported.out
    tested = desk.on_cfg("test", "TEST.MODEL_FILE", path)
    assert tested.code == 0, tested.err
    (line,) = (line for line in exported.err.splitlines() if "int8: PCKh" in line)
    score = tested.out.splitlines()[2].split("|")[9].strip()  # Mean, with one digit more
    assert float(line.split("Mean ")[1].split(",")[0]) == pytest.approx(float(score), rel=1e-3)
    assert "6 people" in line
    assert line.partition("int8: ")[2] in tested.err
    path.unlink()
    refused = desk.run(
        "export", *words, "--max-loss=-1", "--images", desk.data / "images", *desk.words()
    )
    refused.fails_with("int8 is not written")
    assert not path.exists()
    missing = desk.run("export", *words, *desk.words("DATASET.TRAIN_SET", "none"))
    missing.fails_with("int8 is calibrated on DATASET.TRAIN_SET")


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
