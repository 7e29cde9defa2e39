"""Rows of the throughput benchmark, and what its command refuses. The timing itself is a benchmark, not a test."""

from __future__ import annotations

import pytest

from benchmarks.throughput import main, rows_of


def test_rows_hold_every_case_and_the_ratios() -> None:
    rates = {(1, False): 200.0, (2, False): 280.0, (1, True): 100.0, (2, True): 110.0}
    steps = {(1, False): 0.16, (2, False): 0.24, (1, True): 0.32, (2, True): 0.60}
    rows = rows_of(rates, steps)
    assert all(list(row) == ["what", "value", "unit", "goal", "better"] for row in rows)
    found = {row["what"]: (row["value"], row["better"]) for row in rows}
    assert len(found) == len(rows) == 12
    assert found["training everything, 2 x 1 threads, float32"] == (280.0, "higher")
    assert found["a step of everything, 1 x 2 threads, bfloat16 autocast"] == (0.32, "lower")
    assert found["images a second, 2 x 1 / 1 x 2 threads, float32"] == (1.4, "higher")
    assert found["step in bfloat16 autocast / float32, 2 x 1 threads"] == (2.5, "lower")


def test_unknown_arguments_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--smok"]) == 2
    assert capsys.readouterr().err == "throughput: unknown argument '--smok'; accepted: --smoke\n"
