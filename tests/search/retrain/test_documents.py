"""What the pages on retraining say: settings that exist, numbers that were measured."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from pathlib import Path

import pytest

from search.settings.retrain import RetrainSettings
from search.significance import smallest_detectable

REPOSITORY = Path(__file__).parents[3]
HOW_TO = REPOSITORY / "docs" / "retraining.md"
STATISTICS = REPOSITORY / "docs" / "retraining_statistics.md"
DIFFERENCES = (-5, -3, -1, 0, 1, 3, 5, 10)


def measured() -> dict[str, float]:
    rows = json.loads((REPOSITORY / "benchmarks" / "results" / "promotion_rule.json").read_text(encoding="utf-8"))
    return {row["what"]: row["value"] for row in rows}


def tables(page: Path) -> list[list[list[str]]]:
    """Tables of a page: rows of cells, without the line below the header."""
    found: list[list[list[str]]] = [[]]
    for line in page.read_text(encoding="utf-8").splitlines():
        if not line.startswith("|"):
            found.append([])
        elif not re.fullmatch(r"[|\-: ]+", line):
            found[-1].append([cell.strip().strip("*") for cell in line.strip("|").split("|")])
    return [one for one in found if one]


def percent(cell: str) -> float:
    return float(cell.removesuffix(" %")) / 100


@pytest.mark.parametrize("page", [HOW_TO, STATISTICS], ids=lambda page: page.stem)
def test_every_setting_named_exists(page: Path) -> None:
    named = set(re.findall(r"`retrain\.(\w+)", page.read_text(encoding="utf-8")))
    assert named and named <= {field.name for field in fields(RetrainSettings)}


def test_the_defaults_told_are_the_defaults() -> None:
    settings, words = RetrainSettings(), HOW_TO.read_text(encoding="utf-8")
    assert (settings.trials, settings.epochs, settings.lr_range) == (6, 5, 3.0) and "Six trials of five epochs" in words
    assert (settings.test_fraction, settings.regression_fraction) == (0.4, 0.2) and "A fifth of their images" in words
    assert (settings.pool_images, settings.pool_months, settings.constant_share) == (100, 3, 0.5)
    assert (settings.margin, settings.guard) == (0.05, 0.3)


def test_the_tables_are_what_was_measured() -> None:
    values = measured()
    rule, extremes, margins = (
        one for one in tables(STATISTICS) if one[0][0] in ("truly better, points", "margin")
    )  # fmt: skip
    for row in rule[1:]:
        images = int(row[0].split()[0])
        for points, cell in zip(DIFFERENCES, row[1:], strict=True):
            assert percent(cell) == pytest.approx(
                values[f"promoted: margin 5, {images} images, truly {points:+d} points"], abs=0.00501
            )
    for name, row in zip(("more right", "significant"), extremes[1:], strict=True):
        for points, cell in zip(DIFFERENCES, row[1:], strict=True):
            assert percent(cell) == pytest.approx(
                values[f"promoted: {name}, 100 images, truly {points:+d} points"], abs=0.00501
            )
    for row in margins[1:]:
        margin = row[0].split()[0]
        for points, cell in zip((-5, 0, 3, 5), row[1:], strict=True):
            assert percent(cell) == pytest.approx(
                values[f"promoted: margin {margin}, 100 images, truly {points:+d} points"], abs=0.00501
            )
    words = re.sub(r"\s+", " ", STATISTICS.read_text(encoding="utf-8"))
    found = re.search(
        r"promoted (\d+) % of the time where it is equal there, (\d+) % where it is 2 points worse, (\d+) % at 5, "
        r"(\d+) % at 8, ([\d.]+) % at 12",
        words,
    )
    assert found is not None
    for worse, share in zip((0, 2, 5, 8, 12), found.groups(), strict=True):
        assert float(share) / 100 == pytest.approx(
            values[f"promoted: {worse} points worse on the regression set"], abs=0.00501
        )
    shares = [v for k, v in values.items() if k.startswith("coverage of Tango's")]
    assert f"{100 * min(shares):.1f} to {100 * max(shares):.1f} %" in words


def test_what_images_can_show_is_what_the_function_says() -> None:
    (table,) = (one for one in tables(STATISTICS) if one[0][0] == "held-out images")
    for row in table[1:]:
        images = int(row[0].replace(",", ""))
        for share, cell in zip((0.05, 0.1, 0.2), row[1:], strict=True):
            assert float(cell) == pytest.approx(100 * smallest_detectable(images, round(share * images)), abs=0.051)
