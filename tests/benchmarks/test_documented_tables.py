"""Tables in the documents are those of the results beside them: a measurement repeated must be written down again."""

from __future__ import annotations

import json
import math
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
_FORMER, _TODAY = "search of 30 trials / one plain fine-tuning, ", "default search / one plain fine-tuning, "
PRICES = {
    "simulated, 954 training images, today's default": f"{_TODAY}simulated",
    "simulated, a former default of thirty trials": f"{_FORMER}simulated",
    "NEU, 10 images a class, 60 training images, former": f"{_FORMER}neu_10",
    "planted, best frozen throughout, 150 images a class, former": f"{_FORMER}planted_L",
    "NEU, 150 images a class, 900 training images, former": f"{_FORMER}neu_150",
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
    (row,) = [r for r in result("search_price.json") if r["what"] == PRICES[words]]
    (cells,) = rows_of("performance.md", words)
    plain = row["plain_seconds"]
    assert cells[1] == f"{row['search_seconds']:.0f} s"
    assert cells[2] in (f"{plain:.0f} s", f"{plain:.1f} s")
    assert cells[3].strip("*") == f"{row['value']:.1f}"


def replayed() -> dict[tuple[str, str], dict[str, Any]]:
    return {(row["task"], row["strategy"]): row for row in result("replay.json")}


def cost(row: dict[str, Any], digits: int) -> str:
    return "never" if math.isinf(row["reach"][0]) else f"{row['reach'][0]:.{digits}f}"


def test_replays_of_neu_with_ten_images_a_class() -> None:
    known = replayed()
    found = [rows for name in known if len(rows := rows_of("results.md", name[1])) and name[0] == "neu_10"]
    tables = [cells for rows in found for cells in rows if len(cells) == 5 and cells[2].endswith("%")]
    assert len(tables) > 20
    for name, reach, reached, whole, regret in tables:
        row = known["neu_10", name]
        assert reach.split()[0] == cost(row, 2)
        assert (reached, whole) == (f"{row['reached']:.0%}", f"{row['cost'][0]:.0f}")
        assert regret == interval(row["regret_points"])


@pytest.mark.parametrize(
    ("header", "tasks"),
    [
        ("strategy", ("simulated", "magnetic_tile", "neu_40", "planted_0", "planted_middle", "planted_L")),
        ("rule", ("neu_10", "simulated", "magnetic_tile", "neu_40", "planted_0", "planted_middle", "planted_L")),
    ],
)
def test_replays_of_the_other_tables(header: str, tasks: tuple[str, ...]) -> None:
    known = replayed()
    assert any(len(cells) == len(tasks) + 1 for cells in rows_of("results.md", header))
    names = {name for _, name in known}
    rows = [cells for name in names for cells in rows_of("results.md", name) if len(cells) == len(tasks) + 1]
    assert len(rows) >= 9
    for name, *cells in rows:
        for task, cell in zip(tasks, cells, strict=True):
            row = known[task, name]
            regret = re.sub(r"-(0\.0)\b", r"+\1", f"{row['regret_points'][0]:+.1f}")
            assert cell == f"{cost(row, 3)}, {regret}, {row['cost'][0]:.0f}"


def test_what_a_prior_is_worth_in_replays() -> None:
    for row in result("evidence_claim.json"):
        cells = ["{:+.2f} ({:+.2f} to {:+.2f})".format(*row[key]) for key in ("lowers_regret_points", "against_points")]
        assert [row["prior"], *cells, f"{row['cost_ratio']:.2f}"] in rows_of("results.md", row["prior"])


def test_what_trust_does_in_replays() -> None:
    words = {"trust": "as above", "only above 1": "only where above 1", "only below 1": "only where below 1",
             "permuted blocks": "blocks permuted"}  # fmt: skip
    for row in result("trust.json"):
        ((_, let_on, stopped, points, epochs),) = rows_of("evidence.md", words[row["variant"]])
        assert let_on == f"{row['let_on']:.1f}, {row['let_on_below_median']:.1f}"
        assert stopped == f"{row['stopped']:.1f}, {row['stopped_above_median']:.1f}"
        assert points == "{:+.2f} ({:+.2f} to {:+.2f})".format(*row["winner_points"])
        assert epochs == "{:+.1f} ({:+.1f} to {:+.1f})".format(*row["epochs"])
