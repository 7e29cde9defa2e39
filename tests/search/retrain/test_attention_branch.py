"""Months of a champion with an attention branch: its head is the branch and all behind it, and it takes a new class."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from search.retrain.champion import widened
from search.tracking.models import resolve_model
from tests.search.retrain.conftest import Months, write_month

HEAD = "model.head=attention_branch"


@pytest.mark.slow
@pytest.mark.long  # not the default
def test_a_month_trains_it_on_and_a_new_class_leaves_it_looking_where_it_looked(tmp_path: Path) -> None:
    months = Months(write_month(tmp_path / "months", "2020-01"), "branched", tmp_path / "mlruns")
    assert months.retrain(HEAD).code == 0
    model = resolve_model("models:/branched@champion", months.root)
    assert model.card.attention_block == "c3"
    months.arrives("2020-02")
    refused = months.retrain()
    assert refused.code == 2
    assert "model.head=plain is not that of the champion, version 1 of model branched: attention_branch" in refused.err
    outcome = months.retrain(HEAD, "retrain.depth=head")
    assert outcome.code in (0, 1), outcome.err
    row = months.ledger.latest()["2020-02"]
    assert row.outcome in ("promoted", "kept") and row.numbers["depth"] == 2
    images = torch.rand(3, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    branch = "blocks.c5.branch"
    with torch.no_grad():
        wide = widened(model, ("crack", *model.card.classes), seed=3).net.eval()
        before, after = (net.get_submodule(branch)(net.prefix(images, 2)) for net in (model.net.eval(), wide))
        torch.testing.assert_close(after, before)
        torch.testing.assert_close(wide(images)[:, 1:], model.net(images))
