"""What the example says of its policies, from ledgers and answers that are known."""

from __future__ import annotations

import numpy as np
import pytest

from examples.a_year_of_months.__main__ import main
from examples.a_year_of_months.scoring import Month, Right, paired, rows_of, show, summary, wanted


def _month(month: str, outcome: str, before: str | None, after: str, challenger: str | None, passes: float) -> Month:
    numbers = {"seconds": passes / 10, "image_passes": passes, "action": "thaw", "depth": 3}
    return Month(month, outcome, "why", before, after, challenger, numbers)


LEDGERS = {
    "never": [_month(m, "bootstrap" if n == 3 else "not needed", "1", "1", None, 0 if n > 3 else 50)
              for n, m in enumerate(("2019-03", "2019-04", "2019-05", "2019-06"), 3)],
    "always": [_month("2019-03", "bootstrap", None, "1", None, 50), _month("2019-04", "kept", "1", "1", "2", 100),
               _month("2019-05", "promoted", "1", "3", "3", 100), _month("2019-06", "kept", "3", "3", "4", 100)],
    "ours": [_month("2019-03", "bootstrap", None, "1", None, 50), _month("2019-04", "promoted", "1", "2", "2", 10),
             _month("2019-05", "kept", "2", "2", "3", 20), _month("2019-06", "not needed", "2", "2", None, 0)],
}  # fmt: skip
SHARE = {"1": 0.5, "2": 0.75, "3": 0.6, "4": 0.9}  # of the images right, by version


@pytest.fixture(scope="module")
def right() -> Right:
    return {
        (policy, version, month): [n < 20 * SHARE[version] for n in range(20)]
        for policy, months in LEDGERS.items()
        for version, month in wanted(policy, months)
    }


def test_the_model_in_charge_meets_the_next_month(right: Right) -> None:
    rows = {(row["policy"], row["month"]): row for row in rows_of(LEDGERS, right)}
    assert {key: row["accuracy"] for key, row in rows.items()} == {
        ("never", "2019-03"): 0.5, ("never", "2019-04"): 0.5, ("never", "2019-05"): 0.5,
        # "always" puts its challenger to work whatever the comparison says.
        ("always", "2019-03"): 0.5, ("always", "2019-04"): 0.75, ("always", "2019-05"): 0.6,
        ("ours", "2019-03"): 0.5, ("ours", "2019-04"): 0.75, ("ours", "2019-05"): 0.75,
    }  # fmt: skip
    assert all(row["low"] < row["accuracy"] < row["high"] for row in rows.values())
    assert "right" not in rows["never", "2019-04"]
    assert rows["ours", "2019-04"]["right"] is True  # promoted, and .75 is more than .5
    assert rows["ours", "2019-05"]["right"] is True  # kept, and .6 is less than .75
    assert rows["always", "2019-04"]["right"] is False  # kept, although .75 is more than .5


def test_a_year_and_its_differences(right: Right, capsys: pytest.CaptureFixture[str]) -> None:
    rows = rows_of(LEDGERS, right)
    totals = {row["policy"]: row for row in summary(rows)}
    assert totals["ours"]["accuracy"] == pytest.approx((0.5 + 0.75 + 0.75) / 3)
    assert totals["ours"]["image_passes_of_always"] == pytest.approx(30 / 200)
    assert (totals["ours"]["right"], totals["ours"]["judged"]) == (2, 2)
    found = paired(right, LEDGERS, "ours", "never")
    assert found["accuracy"] == pytest.approx(np.mean([0, 0.25, 0.25]))
    assert found["low"] <= found["accuracy"] <= found["high"]
    show("simulated", rows, list(totals.values()), [found])
    assert "ours minus never: +16.7 points" in capsys.readouterr().out


def test_unknown_data_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tiles"]) == 2
    assert "unknown data 'tiles'; accepted: simulated, magnetic_tile" in capsys.readouterr().err
