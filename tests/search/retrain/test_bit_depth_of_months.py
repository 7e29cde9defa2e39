"""Months of images of more than 8 bits: their values mean what they meant when the first champion was trained."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from search.predict.__main__ import main as predict
from search.tracking.models import resolve_model
from tests.search.retrain.conftest import Months, write_month
from tests.search.test_bit_depth import NARROW, Depth, deeper, narrow, twelve_bits


def test_a_month_of_another_depth(months: Months) -> None:
    """The champion was trained on 8-bit images."""
    months.arrives("2020-02")
    deeper(months.images / "2020-02", twelve_bits)
    said = months.retrain("retrain.depth=none")
    assert said.code == 1 and "30 of 30 images have other values, such as 0-" in said.out, said.out
    assert "all below 16384: too dark for the model" in str(months.ledger.months()[-1].reason)
    months.arrives("2020-03")
    deeper(months.images / "2020-03", lambda grey: grey * 256)
    assert months.retrain("retrain.depth=none", "month=2020-03").code == 0


@pytest.mark.slow
@pytest.mark.long  # months of their own
def test_months_are_scaled_as_the_first_champion_was(tmp_path: Path) -> None:
    images, root = tmp_path / "months", tmp_path / "mlruns"
    months = Months(images, "narrow", root)

    def arrives(month: str, depth: Depth) -> None:
        deeper(write_month(images, month) / month, depth)

    arrives("2020-01", narrow)
    said = months.retrain()
    assert said.code == 0 and re.search(NARROW, said.out), (said.out, said.err)
    first = resolve_model("models:/narrow/1", root).card
    assert 51_000 < first.black_level < first.white_level < 53_000
    arrives("2020-02", lambda grey: narrow(grey) + 60)  # the lamp drifts
    said = months.retrain("retrain.depth=head")
    assert said.code == 0, (said.out, said.err)
    assert resolve_model("models:/narrow/2", root).card.value_range == first.value_range
    arrives("2020-03", lambda grey: narrow(grey) + 5000)
    said = months.retrain("retrain.depth=head")
    assert said.code == 1 and "30 of 30 images have other values" in said.out
    # What comes in decides nothing: nor is anything due when it is called again.
    assert months.retrain("retrain.depth=head").out.startswith("Nothing to do: ")
    words = [f"images={images / '2020-02'}", "model=models:/narrow@champion", f"root={root}", "device=cpu"]
    assert predict([*words, f"to={tmp_path / 'p.csv'}"]) == 0
