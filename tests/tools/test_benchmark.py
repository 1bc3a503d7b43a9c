"""tools/benchmark.py: bad arguments; tests/analysis/test_benchmark.py tests the numbers."""

import pytest
from desk import Desk


@pytest.mark.parametrize(
    "words",
    [["--batch", "0"], ["--rounds", "0"], ["--runtime", "fast"], ["--plot", "p.png", "--step"]],
)
def test_bad_arguments_of_the_benchmark_are_errors(desk: Desk, words: list[str]) -> None:
    outcome = desk.run("benchmark", "--cfg", desk.yaml, *words)
    assert outcome.code == 2
    assert "Traceback" not in outcome.err
    assert words[0].strip("-") in outcome.err


def test_several_configurations_are_one_table(desk: Desk) -> None:
    other = desk.folder / "other.yaml"
    other.write_text(desk.yaml.read_text())
    words = (
        "--batch",
        "1",
        "--precision",
        "fp32",
        "--rounds",
        "1",
        "MODEL.SPARSITY.JOINT_DEPTH",
        0,
    )
    plot = desk.folder / "plot.png"
    outcome = desk.run("benchmark", "--cfg", desk.yaml, other, *words, "--plot", plot)
    assert outcome.code == 0, outcome.err
    rows = [line.split("|")[1].strip() for line in outcome.out.splitlines() if "| eager |" in line]
    assert rows == ["small"] * 3 + ["other"] * 3
    assert plot.read_bytes().startswith(b"\x89PNG")
    refused = desk.run("benchmark", "--cfg", desk.yaml, other, "--data")
    assert (refused.code, "several configurations" in refused.err) == (2, True)
    desk.run("benchmark", "--cfg", desk.yaml, "none.yaml").fails_with("none.yaml")


@pytest.mark.parametrize("flag", ["--growth", "--no-training", "--batch"])
def test_one_configuration_is_a_table_and_a_plot(desk: Desk, flag: str) -> None:
    plot = desk.folder / "plot.png"
    words = ("--rounds", 1, "--train-batch", 2, "--plot", plot, flag, *([2] * (flag == "--batch")))
    outcome = desk.on_cfg("benchmark", *words, "--precision", "fp32")
    assert outcome.code == 0, outcome.err
    lines = [line.split("|") for line in outcome.out.splitlines() if line.startswith("| ")]
    batches = {(line[3].strip(), line[6].strip()) for line in lines[2:]}
    expected = {
        "--growth": {("infer", "1")},
        "--no-training": {("infer", "1"), ("infer", "16")},
        "--batch": {("infer", "2"), ("train", "2")},
    }
    assert batches == expected[flag]
    assert plot.read_bytes().startswith(b"\x89PNG")


def test_a_precision_that_no_runtime_has_is_an_error(desk: Desk) -> None:
    words = ("--no-training", "--runtime", "onnx", "--precision", "bf16")
    desk.on_cfg("benchmark", *words).fails_with(
        "--runtime onnx does not compute in --precision bf16"
    )
