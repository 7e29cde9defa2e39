"""`retrain history` on a page of 80 columns."""

from __future__ import annotations

import io
from types import SimpleNamespace

from rich.console import Console

from search.retrain.commands import _print_history
from search.retrain.ledger import PromotionRow

REASON = (
    "the challenger has 54 of 60 new images right, the champion 48 (95 %: +1.7 to +20.4 points), none of the old ones "
    "is forgotten (models:/thawline/2, runs/0123456789abcdef0123456789abcdef) and no class collapses"
)


def _row(kind: str, month: str | None, before: str | None, after: str, numbers: dict[str, float]) -> PromotionRow:
    return PromotionRow(1, kind, month, before, after, before, REASON, numbers, "r", "done", "2026-01-02T03:04", None)


def test_it_is_readable_at_80_columns() -> None:
    rows = [
        _row("bootstrap", "2026-01", None, "1", {}),
        _row("promotion", "2026-02", "1", "2", {"accuracy_before": 0.8, "accuracy_after": 0.9}),
        _row("rollback", None, "2", "1", {}),
    ]
    out = io.StringIO()
    ledger = SimpleNamespace(promotions=lambda: rows, latest=dict)
    _print_history(Console(file=out, width=80), ledger, "thawline")  # type: ignore[arg-type]
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "Champions of model thawline"
    assert lines[1].split() == ["2026-01-02", "bootstrap", "version", "1"]
    promotion = next(line for line in lines if "promotion 2026-02" in line)
    assert promotion.split()[3:] == ["1", "->", "2", "accuracy", "0.800->0.900"]
    assert " ".join(lines[2 : lines.index(promotion)]).split() == REASON.split()
    assert all(line.startswith("    ") and len(line) > 40 for line in lines[2:4])  # no column of single words
