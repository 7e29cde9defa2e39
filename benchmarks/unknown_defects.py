"""Is a kind of defect that nobody has shown the network told as unknown? `python -m benchmarks.unknown_defects`.

One class at a time is left out of the images, the default configuration (trial 0 of a search) is trained on the others
as a search refits it, alone and not in a committee, and the images of the class that was left out are mixed with the
test images of those that are known. Scores, each larger for the stranger image:

- knn: the product's, the distance to the third nearest training image (`lightning_modules.decisions.reference_images`);
- mahalanobis: the smallest Mahalanobis distance to a class mean, one covariance for all classes, shrunk (Lee et al.
  2018, arXiv 1807.03888; Ledoit and Wolf 2004 in scikit-learn), on the same features;
- energy: -ln sum exp(logits) (Liu et al. 2020, arXiv 2010.03759);
- confidence: 1 - the largest probability.

AUROC is of the two kinds of images, its interval a bootstrap within each; `detected_at_5` is the share of the unknown
that lies beyond the 95 % quantile of the known *test* images. For knn `alarms` and `detected` are those of the product:
the limit is set on held-out training images at 5 % false alarms, as it is without any unknown image at hand.

    python -m benchmarks.unknown_defects                        every task, every class
    python -m benchmarks.unknown_defects neu:scratches          one class of one task

Writes benchmarks/results/unknown_defects.json, keeping the rows of classes that were not run.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.special import logsumexp
from sklearn.covariance import LedoitWolf
from sklearn.metrics import roc_auc_score

from benchmarks.real_images import DATA, refusal
from benchmarks.results_file import read_rows, write_rows
from lightning_modules.decisions.reference_images import distances, unit_length
from lightning_modules.images.store import ImageSet
from lightning_modules.networks.blocknet import BlockNet
from lightning_modules.networks.penultimate import answer
from lightning_modules.training.scores import exact_interval
from search.outcome.reference import reference_images, task_features, training_distances
from search.retrain.month.images import image_subset, shown_images
from search.settings.compose import compose_settings
from search.study.sampler import slot_seed
from search.trial.preparation import load, prepare_process, resolved, split
from search.trial.space import build_space
from search.trial.task import build_task
from search.trial.training import train_final, trial_network

__all__ = ["auroc", "main", "run"]

Floats = NDArray[np.float64]

TASKS = {
    "neu": ("data=manifest", f"data.path={DATA}/neu/manifest.csv", "data.size=[96,96]", "data.max_train_per_class=40"),
    "magnetic_tile": ("data=manifest", f"data.path={DATA}/magnetic_tile/manifest.csv", "data.size=[96,96]"),
    "simulated": ("data=simulated", "data.images=1600", "data.size=[64,64]"),
}
_SHARED = ("data.test=random", "trainer.epochs=6", "executor=inline", "executor.threads=1")
_RATE = 0.05
_RESAMPLES = 1000


def run(name: str, left_out: str, seed: int, root: Path) -> dict[str, Any]:
    """Leave one class out of one task.

    Raises:
        ValueError: the task has no such class.
    """
    started = time.perf_counter()
    console = Console(stderr=True)
    settings = compose_settings([*TASKS[name], *_SHARED, f"seed={seed}", f"tracking.root={root}"])
    prepare_process(settings)
    images = load(settings, console)
    if left_out not in images.index.classes:
        raise ValueError(f"{name} has no class {left_out!r}; accepted: {', '.join(images.index.classes)}")
    position = images.index.classes.index(left_out)
    inside = np.flatnonzero(images.index.labels != position)
    others = tuple(one for one in images.index.classes if one != left_out)
    known = image_subset(images, inside, others, root / "benchmarks" / f"without-{name}-{position}", console.print)
    settings = resolved(settings, known)
    task = build_task(settings, known, split(settings, known.index), cache=root / "cache", on_note=console.print)
    fold, slot = task.splits.folds[0], slot_seed(seed, 0)
    params = build_space(settings.space, task.net).default
    epochs = settings.trainer.epochs
    first = trial_network(task, params, slot, epochs)
    rows = task.trainable(np.union1d(fold.train, fold.val))
    winner = train_final(task, params, slot, rows, epochs)
    _, features = task_features(task, first, fold.val)
    held_out = training_distances(task, first, fold.train, features)
    reference = reference_images(
        task, winner, rows, held_out, np.arange(len(held_out)), most=len(task.image_rows(fold.train))
    )

    strange = np.flatnonzero(images.index.labels == position)
    parts = [_answers(winner, known, task.splits.test), _answers(winner, images, strange)]
    trained, labels = _answers(winner, known, rows), known.index.labels[rows]
    scores = {
        "knn": [distances(unit_length(part[1]), reference.features)[0].astype(np.float64) for part in parts],
        "mahalanobis": _mahalanobis(unit_length(trained[1]), labels, [unit_length(part[1]) for part in parts]),
        "energy": [-logsumexp(part[0], axis=1) for part in parts],
        "confidence": [1 - np.exp(part[0].max(1) - logsumexp(part[0], axis=1)) for part in parts],
    }
    limit = reference.limit(_RATE)
    alarms, detected = ((part > limit) for part in scores["knn"])
    right = (parts[0][0].argmax(1) == known.index.labels[task.splits.test]).mean()
    return {
        "task": name, "left_out": left_out, "seed": seed, "known": len(parts[0][0]), "unknown": len(strange),
        "held_out": len(held_out), "trained": len(rows), "accuracy": float(right),
        "scores": {kind: _summary(*pair, seed) for kind, pair in scores.items()},
        "limit": limit, "alarms": _share(alarms), "detected": _share(detected),
        "seconds": round(time.perf_counter() - started, 1),
    }  # fmt: skip


@torch.no_grad()
def _answers(net: BlockNet, images: ImageSet, rows: NDArray[np.int64]) -> tuple[Floats, NDArray[np.float32]]:
    """Logits and features of the images at `rows`."""
    net.eval()
    found = [answer(net, batch) for batch in shown_images(net, images, rows)]
    logits, features = (torch.cat([getattr(one, kind) for one in found]).float() for kind in ("logits", "features"))
    return logits.double().cpu().numpy(), features.cpu().numpy()


def _mahalanobis(
    trained: NDArray[np.float32], labels: NDArray[np.int64], parts: Sequence[NDArray[np.float32]]
) -> list[Floats]:
    means = np.stack([trained[labels == label].mean(0) for label in np.unique(labels)])
    shape = LedoitWolf(assume_centered=True).fit(trained - means[np.searchsorted(np.unique(labels), labels)])

    def smallest(features: NDArray[np.float32]) -> Floats:
        squares = [shape.mahalanobis(features - mean) for mean in means]
        return np.sqrt(np.min(squares, axis=0)).astype(np.float64)

    return [smallest(part) for part in parts]


def auroc(known: Floats, unknown: Floats) -> float:
    """The probability that an unknown image scores higher than a known one, ties half."""
    truth = np.repeat([0, 1], [len(known), len(unknown)])
    return float(roc_auc_score(truth, np.concatenate([known, unknown])))


def _summary(known: Floats, unknown: Floats, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    drawn = [auroc(rng.choice(known, len(known)), rng.choice(unknown, len(unknown))) for _ in range(_RESAMPLES)]
    low, high = np.quantile(drawn, (0.025, 0.975))
    beyond = unknown > np.quantile(known, 1 - _RATE)
    return {"auroc": [auroc(known, unknown), float(low), float(high)], "detected_at_5": _share(beyond)}


def _share(hits: NDArray[np.bool_]) -> list[float]:
    """With its exact 95 % interval."""
    return [float(hits.mean()), *exact_interval(int(hits.sum()), len(hits))]


def _classes(name: str, root: Path) -> tuple[str, ...]:
    settings = compose_settings([*TASKS[name], *_SHARED, f"tracking.root={root}"])
    return load(settings, Console(stderr=True)).index.classes


def main(words: list[str]) -> int:
    """Run the classes given, as TASK or TASK:CLASS, or all; prints a row a class."""
    root = Path("mlruns")
    asked = [word.partition(":") for word in words or TASKS]
    if why := refusal([name for name, _, _ in asked], TASKS):
        print(f"unknown_defects: {why}", file=sys.stderr)
        return 2
    rows = read_rows("unknown_defects")
    for name, _, chosen in asked:
        for left_out in [chosen] if chosen else _classes(name, root):
            try:
                row = run(name, left_out, 0, root)
            except ValueError as error:
                print(f"unknown_defects: {error}", file=sys.stderr)
                return 2
            key = partial(_key, row)
            rows = [one for one in rows if not key(one)] + [row]
            write_rows("unknown_defects", rows)
    Console().print(_table(rows))
    return 0


def _key(row: dict[str, Any], other: dict[str, Any]) -> bool:
    return all(row[name] == other[name] for name in ("task", "left_out", "seed"))


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    kinds = ("knn", "mahalanobis", "energy", "confidence")
    table = Table("task", "left out", *(f"AUROC, {kind}" for kind in kinds), "false alarms (5 %)", "detected")
    for row in rows:
        scores = [_with_interval(row["scores"][kind]["auroc"]) for kind in kinds]
        table.add_row(row["task"], row["left_out"], *scores, *(_with_interval(row[n]) for n in ("alarms", "detected")))
    return table


def _with_interval(value: Sequence[float]) -> str:
    return f"{value[0]:.3f} ({value[1]:.3f} to {value[2]:.3f})"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
