"""Collecting evidence on a tiny task: balanced, seeded, cancellable, and it leaves the network alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_modules.images.splits import make_splits
from lightning_modules.images.store import load_images
from search.errors import TrialCancelledError
from search.evidence.collecting import collect_evidence
from search.evidence.probe import balanced_rows, probe_rows, tuned_rows
from search.settings.schema import DataSettings, ModelSettings, SearchSettings, Settings, TrainerSettings
from search.trial.keys import state_digest
from search.trial.task import Task, build_task


@pytest.fixture(scope="module")
def make_task(tmp_path_factory: pytest.TempPathFactory, make_stripes: Callable[..., Path]) -> Callable[..., Task]:
    folder = tmp_path_factory.mktemp("evidence")
    images = make_stripes(folder / "images", {"a": 14, "b": 7, "c": 7})

    def build(*, model: str = "efficientnet_lite0", seed: int = 0, **search: object) -> Task:
        settings = Settings(
            seed=seed,
            data=DataSettings(source="folder", size=(32, 32), views=2),
            model=ModelSettings(model, "none" if model == "lenet5" else "imagenet"),
            search=SearchSettings(**{"evidence": True, **search}),  # type: ignore[arg-type]
            trainer=TrainerSettings(epochs=4, batch_size=8, accelerator="cpu"),
        )
        found = load_images("folder", images, size=(32, 32), cache=folder / "store")
        return build_task(settings, found, make_splits(found.index, seed=seed), cache=folder / f"cache-{seed}")

    return build


@pytest.mark.slow
def test_the_seed_decides_and_the_network_is_left_alone(make_task: Callable[..., Task]) -> None:
    task = make_task(prior="cam_stability", prior_floor=0.3)
    before = state_digest(task.net)
    first, again = collect_evidence(task), collect_evidence(make_task(prior="cam_stability", prior_floor=0.3))
    assert first is not None and again is not None
    assert state_digest(task.net) == before
    for name, scorer in first.scorers.items():
        np.testing.assert_array_equal(scorer.values, again.scorers[name].values)
        np.testing.assert_array_equal(scorer.probabilities, again.scorers[name].probabilities)
        assert scorer.probabilities.min() >= 0.3 / 9 * (1 - 1e-9)
    np.testing.assert_array_equal(first.training_rows, again.training_rows)
    other = collect_evidence(make_task(seed=1))
    assert other is not None
    assert (other.scorers["cam_stability"].values != first.scorers["cam_stability"].values).any()
    assert first.steering is not None and other.steering is None, "one has a prior, the other leaves it to the sampler"
    np.testing.assert_array_equal(first.steering, first.scorers["cam_stability"].probabilities)


def test_probe_images_are_those_of_the_first_fold(make_task: Callable[..., Task]) -> None:
    task = make_task()
    training, validation = probe_rows(task)
    fold, labels = task.splits.folds[0], task.index.labels
    assert set(training) <= set(fold.train) and set(validation) <= set(fold.val)
    assert set(labels[training]) == set(labels[validation]) == {0, 1, 2}
    np.testing.assert_array_equal(tuned_rows(task), fold.train)


@pytest.mark.slow
def test_a_second_fine_tuning_adds_agreement_of_change(make_task: Callable[..., Task]) -> None:
    evidence = collect_evidence(make_task(), again=True)
    assert evidence is not None
    values = evidence.scorers["agreement_of_change"].values
    seen = values[np.isfinite(values)]  # the deepest maps of such small images are a single cell
    assert len(seen) >= 4 and (seen > -0.999).all(), "the two fine-tunings differ in their seed"


def test_it_stops_at_once_when_cancelled(make_task: Callable[..., Task]) -> None:
    with pytest.raises(TrialCancelledError):
        collect_evidence(make_task(), cancelled=lambda: True)


def test_random_weights_give_no_evidence_and_one_line(make_task: Callable[..., Task]) -> None:
    lines: list[str] = []
    assert collect_evidence(make_task(model="lenet5"), on_note=lines.append) is None
    assert lines == ["No evidence: random weights have nothing to freeze."]
    assert collect_evidence(make_task(model="lenet5", evidence=False), on_note=lines.append) is None
    assert len(lines) == 1, "nothing was asked for"


def test_a_class_without_validation_images_is_left_out(make_task: Callable[..., Task]) -> None:
    task = make_task()
    fold = task.splits.folds[0]
    only = fold.val[task.index.labels[fold.val] == 0]
    poor = replace(task, splits=replace(task.splits, folds=(replace(fold, val=only), *task.splits.folds[1:])))
    lines: list[str] = []
    assert collect_evidence(poor, on_note=lines.append) is None
    assert lines[0].startswith("No evidence: fewer than two classes")


@given(
    counts=st.lists(st.integers(0, 30), min_size=1, max_size=12),
    most=st.integers(1, 60),
    seed=st.integers(0, 99),
)
def test_balanced_rows_take_equally_many_of_each_class(counts: list[int], most: int, seed: int) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    rows = np.arange(len(labels)) + 100
    chosen = balanced_rows(rows, labels, most, np.random.default_rng(seed))
    assert len(set(chosen)) == len(chosen) and set(chosen) <= set(rows)
    found = np.bincount(labels[chosen - 100], minlength=len(counts))
    each = max(1, most // max(1, sum(c > 0 for c in counts)))
    np.testing.assert_array_equal(found, np.minimum(counts, each))
