"""Tables in the documents are those of the results beside them: a measurement repeated must be written down again."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

REPOSITORY = Path(__file__).parents[2]
SCORERS = {
    "E1 faithful localisation": "faithful_localisation",
    "the same, map without gradients": "faithful_localisation_control",
    "E2 CAM stability": "cam_stability",
    "E3 train/validation disagreement": "train_validation_disagreement",
    "E4 agreement of change": "agreement_of_change",
    "linear probe": "linear_probe",
    "LogME": "logme",
    "Auto-RGN": "auto_rgn",
    "CKA": "cka",
}
PRICES = {
    "simulated, 954 training images": "simulated",
    "NEU, 10 images a class, 60 training images": "neu_10",
    "planted, best frozen throughout, 150 images a class": "planted_L",
    "NEU, 150 images a class, 900 training images": "neu_150",
}


def result(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((REPOSITORY / "benchmarks" / "results" / name).read_text("utf-8"))
    return found


def rows_of(page: str, first: str) -> list[list[str]]:
    """Cells of the rows of a page that begin with this cell."""
    lines = (REPOSITORY / "docs" / page).read_text("utf-8").splitlines()
    split = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|"))
    return [cells for cells in split if cells[0] == first]


def interval(values: list[float]) -> str:
    value, low, high = values
    return re.sub(r"-(0\.00)\b", r"\1", f"{value:.2f} ({low:.2f} to {high:.2f})")


@pytest.mark.parametrize("words", SCORERS)
def test_profiles_of_the_scorers(words: str) -> None:
    (row,) = [r for r in result("evidence_profiles.json") if (r["scorer"], r["unit"]) == (SCORERS[words], "z")]
    columns = ("same_task", "other_data_set", "labels_shuffled", "random_weights")
    assert [words, *(interval(row[column]) for column in columns)] in rows_of("results.md", words)


@pytest.mark.parametrize("prior", ["advisor", "static", "deepest"])
def test_what_the_advisor_is_worth(prior: str) -> None:
    regret = {
        row["task"]: row["regret_points"] for row in result("replay.json") if row["strategy"] == f"prior: {prior}"
    }
    expected = [prior, *(interval(regret[task]) for task in ("neu_10", "simulated", "magnetic_tile"))]
    assert expected in rows_of("experiments.md", prior)


@pytest.mark.parametrize("words", PRICES)
def test_prices_of_a_search(words: str) -> None:
    (row,) = [r for r in result("search_price.json") if r["what"].endswith(f", {PRICES[words]}")]
    (cells,) = rows_of("performance.md", words)
    plain = row["plain_seconds"]
    assert cells[1] == f"{row['search_seconds']:.0f} s"
    assert cells[2] in (f"{plain:.0f} s", f"{plain:.1f} s")
    assert cells[3].strip("*") == f"{row['value']:.1f}"
