"""The table of costs, the cheapest decision, and what is read back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_modules.decisions.costs import Costs, costs_json, parse_costs, read_costs
from lightning_modules.errors import InputError

CLASSES = ("good", "긁힘")
TABLE = "true,decided,cost\ngood,긁힘,5\ngood,by hand,2\n긁힘,good,100\n긁힘,by hand,2\n"


def written(folder: Path, text: str) -> Path:
    (folder / "costs.csv").write_text(text, encoding="utf-8")
    return folder / "costs.csv"


def read(folder: Path, text: str, classes: tuple[str, ...] = CLASSES) -> Costs:
    return read_costs(written(folder, text), classes, on_note=print)


def test_a_table_in_any_order_and_with_further_classes(tmp_path: Path) -> None:
    expected = [[0, 5, 2], [100, 0, 2]]
    assert read(tmp_path, TABLE).table.tolist() == expected
    rows = [row.split(",") for row in reversed(TABLE.splitlines()[1:])]
    semicolons = "Cost;true;decided\n1;dent;good\n" + "".join(f"{c};{true};{done}\n" for true, done, c in rows)
    assert read(tmp_path, semicolons).table.tolist() == expected
    assert read(tmp_path, f"{TABLE}good,good,0.5\n").table[0, 0] == 0.5  # a right decision may cost something


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TABLE.replace("긁힘,good,100\n", ""), "no cost of '긁힘' decided as 'good'; a row for each pair of 2 classes"),
        ("true,decided,cost\ngood,by hand,2\n", "no cost of 'good' decided as '긁힘' and 2 more"),
        (f"{TABLE}good,by hand,3\n", "row 6: 'good' decided as 'by hand' is there twice"),
        (f"{TABLE}good,good,-1\n", r"row 6: cost must be a number in 0\.\.1e\+12, got '-1'"),
        (f"{TABLE}good,good,nan\n", "row 6: cost must be a number"),
        (f"{TABLE}good,good,\n", "row 6: cost must be a number"),
        (f"{TABLE}by hand,good,1\n", "row 6: 'by hand' is a decision, no true class"),
        ("true,decided\ngood,good\n", "has no column cost"),
    ],
)
def test_what_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read(tmp_path, text)


def test_a_class_called_by_hand_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a class is called 'by hand', which is a decision; rename it"):
        read(tmp_path, TABLE, ("good", "by hand"))


def test_the_cheapest_is_not_the_most_probable(tmp_path: Path) -> None:
    costs = read(tmp_path, TABLE)
    probabilities = np.array([[0.99, 0.01], [0.97, 0.03], [0.5, 0.5], [0.0, 1.0]])
    assert costs.expected(probabilities)[0].tolist() == pytest.approx([1.0, 4.95, 2.0])
    assert costs.cheapest(probabilities).tolist() == [0, -1, -1, 1]
    assert costs.of(np.array([0, -1, 1]), np.array([1, 1, 1])).tolist() == [100.0, 2.0, 0.0]


def test_of_equals_the_most_probable_class_and_by_hand_last() -> None:
    free = Costs(np.zeros((3, 4)))
    assert free.cheapest(np.array([[0.2, 0.5, 0.3]])).tolist() == [1]


@given(st.lists(st.lists(st.floats(0, 9), min_size=4, max_size=4), min_size=3, max_size=3), st.integers(0, 2**32 - 1))
def test_nothing_is_expected_to_be_cheaper(table: list[list[float]], seed: int) -> None:
    costs, probabilities = Costs(np.array(table)), np.random.default_rng(seed).dirichlet(np.ones(3), 5)
    expected = costs.expected(probabilities)
    chosen = expected[np.arange(5), costs.cheapest(probabilities)]
    assert (chosen <= expected.min(1) + 1e-9).all()


def test_it_reads_back() -> None:
    costs = Costs(np.array([[0, 1 / 3, 2], [5, 0, 1e-9]]))
    assert np.array_equal(parse_costs(costs_json(costs), 2).table, costs.table)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no JSON"),
        ("[]", "no costs of a model"),
        ('{"format": 2, "costs": []}', "format 2, accepted is 1"),
        ('{"format": 1, "costs": [[0, 1, 2]]}', "2 rows of 3 numbers"),
        ('{"format": 1, "costs": [[0, 1, 2], [0, 1]]}', "2 rows of 3 numbers"),
        ('{"format": 1, "costs": [[0, 1, 2], [0, 1, -1]]}', "2 rows of 3 numbers"),
        ('{"format": 1, "costs": [[0, 1, 2], [0, 1, true]]}', "2 rows of 3 numbers"),
        ('{"format": 1, "costs": [[0, 1, 2], [0, 1, NaN]]}', "2 rows of 3 numbers"),
    ],
)
def test_what_no_model_of_ours_has_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_costs(text, 2)
