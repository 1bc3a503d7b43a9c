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
