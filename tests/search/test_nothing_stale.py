"""What a store kept for other images or settings is not used again: each case once spoilt a study."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from mlflow.tracking import MlflowClient
from PIL import Image

from search import load_study
from tests.search.conftest import Outcome

pytestmark = pytest.mark.slow  # each is two searches or more, in a store of its own

Run = Callable[..., Outcome]


@pytest.fixture
def client(tracking_root: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{tracking_root / 'mlflow.db'}")


@pytest.fixture
def one_trial(tiny: tuple[str, ...], tmp_path: Path, make_stripes: Callable[..., Path]) -> tuple[str, ...]:
    """Arguments of a search of one trial on images that the test may change."""
    make_stripes(tmp_path / "images", {"a": 8, "b": 8, "c": 8})
    return (*tiny, f"data.path={tmp_path / 'images'}", "search.trials=1", "search.evidence=false")


def losses(client: MlflowClient, root: Path, study: str) -> list[float]:
    """Validation loss of the first trial after each epoch."""
    return [m.value for m in client.get_metric_history(load_study(study, root).trials[0].run_id, "val_loss")]


@pytest.mark.long  # two searches or more
def test_a_brighter_image_that_is_set_aside_changes_nothing(
    one_trial: tuple[str, ...], tmp_path: Path, tracking_root: Path, run_search_warm: Run
) -> None:
    for file in (tmp_path / "images").rglob("*.png"):
        Image.fromarray(np.asarray(Image.open(file)).astype(np.uint16) * 16).save(file)
    arguments = (*one_trial, "data.on_bad=set_aside")
    assert run_search_warm(*arguments, "search.study=twelve bits").code == 0
    (tmp_path / "images" / "rare").mkdir()
    Image.fromarray(np.full((32, 32), 60000, np.uint16)).save(tmp_path / "images" / "rare" / "0.png")
    outcome = run_search_warm(*arguments, "search.study=twelve bits and one")
    assert outcome.code == 0 and "class 'rare' has 1 usable images" in outcome.out, outcome.err
    alone, beside = (load_study(name, tracking_root) for name in ("twelve bits", "twelve bits and one"))
    assert beside.trials[0].curve == alone.trials[0].curve
    assert alone.winner is not None and beside.winner is not None
    assert beside.winner.test == alone.winner.test
    assert run_search_warm(*arguments, "search.study=twelve bits", "search.trials=2").code == 0


@pytest.mark.long  # two searches or more
def test_a_head_fitted_by_batches_of_another_size_is_not_taken(
    one_trial: tuple[str, ...], tracking_root: Path, run_search_warm: Run
) -> None:
    seen = set((tracking_root / "cache" / "activations").glob("*/head-*.safetensors"))
    folders = []
    for size in (4, 8):
        assert run_search_warm(*one_trial, f"trainer.batch_size={size}", f"search.study=by {size}").code == 0
        heads = set((tracking_root / "cache" / "activations").glob("*/head-*.safetensors"))
        folders.append({file.parent for file in heads - seen})
        seen = heads
    assert len(folders[0]) == 1 and folders[1] == folders[0]


@contextmanager
def kept_checkpoint(study: Path) -> Iterator[Path]:
    """A link, made in the block, to a checkpoint of the study's first trial: what stays of a study that is killed."""
    kept, over = study.with_suffix(".kept"), threading.Event()

    def keep() -> None:
        while not kept.exists() and not over.wait(0.002):
            if (file := study.with_suffix(".waiting") / "slot-0.pt").exists():
                os.link(file, kept)

    watching = threading.Thread(target=keep)
    watching.start()
    try:
        yield kept
    finally:
        over.set()
        watching.join()


def test_a_checkpoint_of_other_data_is_not_gone_on_with(
    one_trial: tuple[str, ...], tmp_path: Path, tracking_root: Path, client: MlflowClient, run_search_warm: Run
) -> None:
    arguments = (*one_trial, "trainer.epochs=4", "executor.checkpoint_seconds=0")
    study = tracking_root / "studies" / "begun anew"
    with kept_checkpoint(study) as kept:
        assert run_search_warm(*arguments, "search.study=begun anew").code == 0
    study.with_suffix(".journal").unlink()
    study.with_suffix(".waiting").mkdir()
    shutil.copy(kept, study.with_suffix(".waiting") / "slot-0.pt")
    for old, new in (("a", "x"), ("b", "a"), ("x", "b")):
        (tmp_path / "images" / old).rename(tmp_path / "images" / new)
    for name in ("begun anew", "undisturbed"):
        assert run_search_warm(*arguments, f"search.study={name}").code == 0
    assert losses(client, tracking_root, "begun anew") == losses(client, tracking_root, "undisturbed")
