"""tools/benchmark.py: bad arguments; tests/analysis/test_benchmark.py tests the numbers."""

import pytest
from desk import Desk


@pytest.mark.parametrize(
    "words", [["--batch", "0"], ["--rounds", "0"], ["--runtime", "fast"], ["--plot", "p.png"]]
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
