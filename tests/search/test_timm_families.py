"""The table of timm's families: every one of them, and a search with some drawn at random gives what it says."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "timm_families.md"


def _rows() -> dict[str, list[str]]:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    return {row[0]: row for row in cells[2:]}


def test_the_table_has_every_family_and_each_is_searched_or_refused() -> None:
    import timm

    rows = _rows()
    assert sorted(rows) == sorted(timm.list_modules())
    assert all(row[5] == "yes" or row[2] == "" for row in rows.values())


def test_one_block_is_noted(capsys: pytest.CaptureFixture[str]) -> None:
    """By hand: the only family of one block (swinv2_cr) needs 224 pixels and minutes."""
    from typing import Any, cast

    from rich.console import Console

    from search.pipeline import _describe_study
    from search.settings.schema import Settings

    for blocks in (1, 2):
        net = SimpleNamespace(architecture="timm:one", pretrained=True, num_blocks=blocks, attention_block=None)
        task = SimpleNamespace(net=net, device="cpu", index=SimpleNamespace(tiles=None))
        task.all, record = (task,), SimpleNamespace(name="s")
        run = SimpleNamespace(task=task, record=record, settings=Settings(), say=Console().print)
        _describe_study(cast(Any, run), 0, existed=False, repaired=0)
        said = "nothing lies between freezing all of it and nothing" in capsys.readouterr().out
        assert said == (blocks == 1)


@pytest.mark.slow
@pytest.mark.parametrize("draw", [5, *(pytest.param(draw, marks=pytest.mark.long) for draw in range(5))])
def test_a_family_drawn_at_random(
    draw: int,
    tiny: tuple[str, ...],
    run_search_warm: Callable[..., SimpleNamespace],
    tmp_path: Path,
) -> None:
    import timm
    import torch

    family, network, *_, said, _maps, _seconds = random.Random(17).sample(sorted(_rows().values()), 6)[draw]
    side = 32 if said != "yes" else int(_rows()[family][4])
    network = network.strip("`")
    torch.save(timm.create_model(network, num_classes=2).state_dict(), tmp_path / "weights.pth")
    outcome = run_search_warm(
        *tiny, "model=timm", f"model.name=timm:{network}", f"model.weights={tmp_path / 'weights.pth'}",
        f"data.size=[{side},{side}]", "search.trials=2", "trainer.epochs=1", f"search.study={network}", cwd=tmp_path,
    )  # fmt: skip
    assert outcome.code == (0 if said == "yes" else 2), outcome.err
    assert said == "yes" or (outcome.err.count("\n") == 1 and outcome.err.startswith("search: ")), outcome.err
