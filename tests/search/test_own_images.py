"""Every shipped experiment with images of one's own: a folder without months, a manifest with them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lightning_modules.errors import InputError
from search.settings.compose import group_options

SMALL = {  # networks that are built in no time, or whose weights need not be there
    "fostering_resnet50": ["model.weights=none", "data.size=[64,64]"],
    "thesis_random": ["model.width=0.05", "data.size=[32,32]"],
}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory, make_stripes: Callable[..., Path]) -> dict[str, list[str]]:
    """Arguments by kind of the images."""
    root = tmp_path_factory.mktemp("own")
    counts = {"a": 22, "b": 22}
    make_stripes(root / "plain", counts)
    for seed, month in enumerate(("2024-01", "2024-02")):
        make_stripes(root / "months" / month, counts, seed=seed)
    for kind in ("plain", "months"):
        files = sorted((root / kind).rglob("*.png"))
        rows = (f"{file.relative_to(root)};{file.parent.name};{file.parts[-3]}\n" for file in files)
        (root / f"{kind}.csv").write_text("Path;Label;Month\n" + "".join(rows).replace(";plain\n", ";\n"))
    return {
        name: [f"data={'manifest' if name.endswith('.csv') else 'folder'}", f"data.path={root / name}"]
        for name in ("plain", "months", "plain.csv", "months.csv")
    }


@pytest.mark.parametrize("experiment", group_options()["experiment"])
@pytest.mark.parametrize("kind", ["plain", "months.csv"])
def test_are_loaded_and_split(
    experiment: str, kind: str, own: dict[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import search.pipeline
    import search.thesis.experiment
    from search.__main__ import main

    found: list[Any] = []

    def build_task(settings: Any, images: Any, splits: Any, **_: Any) -> None:
        found.extend((settings, images, splits))
        raise InputError("loaded")

    monkeypatch.setattr(search.pipeline, "build_task", build_task)
    monkeypatch.setattr(search.thesis.experiment, "build_task", build_task)
    words = [f"experiment={experiment}", *own[kind], *SMALL.get(experiment, ["data.size=[32,32]"])]
    assert main([*words, "executor.threads=1", f"tracking.root={tmp_path}"]) == 2
    settings, images, splits = found
    assert settings.data.images is None
    assert len(images.index.records) == (88 if kind.startswith("months") else 44)
    assert images.index.has_months == kind.startswith("months")
    assert len(splits.folds[0].train) and len(splits.folds[0].val) and len(splits.test)


@pytest.mark.slow
def test_a_quick_search_of_ones_own_images(
    own: dict[str, list[str]], run_search_warm: Callable[..., SimpleNamespace], tracking_root: Path
) -> None:
    words = ("experiment=quick", *own["plain.csv"], "executor.threads=1", f"tracking.root={tracking_root}")
    done = run_search_warm(*words, "search.study=quick own")
    assert done.code == 0, done.err
    assert "Images: 44 in 2 classes" in done.out and "6 trials" in done.out and "Test scores on" in done.out
