"""Is a kind of defect that nobody has shown the network told as unknown? `python -m benchmarks.unknown_defects`.

One class at a time is left out of the images, the default configuration is trained on the others as a search trains it
and as it is refitted, alone and not in a committee, and images of the class that was left out are mixed with test
images of those that are known: at most `MOST` of either. It is trained at the default freeze depth, half of the L
blocks, and with all L frozen. Scores, each larger for the stranger image:

- knn: the product's, the distance to the third nearest training image (`lightning_modules.decisions.reference_images`);
- mahalanobis: the smallest Mahalanobis distance to a class mean, one covariance for all classes, shrunk (Lee et al.
  2018, arXiv 1807.03888; Ledoit and Wolf 2004), on the same features of length 1;
- energy: -ln sum exp(logits) (Liu et al. 2020, arXiv 2010.03759);
- confidence: 1 - the largest probability.

AUROC is of the two kinds of images, its interval a bootstrap within each; `at_5` is the share of the unknown beyond
the 95 % quantile of the known *test* images. `alarms` and `detected` are those of a product: the limit is set at 5 %
false alarms on validation images that the trial's network has not seen, and applied to the refitted network.

The rule that decides between knn and mahalanobis was fixed before these rows were made, but after NEU's scratches had
been seen once, in another split. At the default freeze depth, mahalanobis takes the place of knn if

1. `detected` gains: the mean over tasks, of the mean over the classes left out, has a 95 % interval above 0 (bootstrap
   over the classes of each task), and the mean is positive in at least two of the three tasks;
2. AUROC does not lose: the mean gain is not negative;
3. its limit holds: the interval of the mean of `alarms` does not lie above 5 %.

    python -m benchmarks.unknown_defects                        every task, every class that is missing
    python -m benchmarks.unknown_defects neu:scratches          one class of one task, again
    python -m benchmarks.unknown_defects table                  what is there

Writes benchmarks/results/unknown_defects.json.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.special import logsumexp
from sklearn.covariance import ledoit_wolf_shrinkage

from benchmarks.localisation_data import grouped_by_tile
from benchmarks.real_images import DATA, refusal
from benchmarks.results_file import read_rows, write_rows
from lightning_modules.decisions.conformal import CalibrationScores, categories
from lightning_modules.decisions.reference_images import distances, unit_length
from lightning_modules.images.store import ImageSet
from lightning_modules.networks.blocknet import BlockNet
from lightning_modules.networks.penultimate import answer
from lightning_modules.training.scores import exact_interval
from search.outcome.out_of_sample import image_groups
from search.outcome.reference import reference_images, task_features, training_distances
from search.retrain.month.images import image_subset, shown_images
from search.settings.compose import compose_settings
from search.study.sampler import slot_seed
from search.trial.preparation import load, prepare_process, resolved, split
from search.trial.result import TrialParams
from search.trial.space import build_space
from search.trial.task import Task, build_task
from search.trial.training import train_final

__all__ = ["SCORES", "Gaussian", "auroc", "gains", "main", "run"]

Floats = NDArray[np.float64]
Features = NDArray[np.float32]

ROOT = Path("mlruns") / "unknown_defects"
TASKS = {
    "neu": ("data=manifest", f"data.path={DATA}/neu/manifest.csv", "data.size=[96,96]"),
    "magnetic_tile": ("data=manifest", f"data.path={ROOT}/tiles.csv", "data.outside=allow", "data.size=[96,96]"),
    "simulated": ("data=simulated", "data.images=1600", "data.size=[64,64]"),
}
SCORES = ("knn", "mahalanobis", "energy", "confidence")
MOST = 300
_SHARED = (
    "data.test=rest", "data.max_train_per_class=20", "trainer.epochs=6", "executor=inline", "executor.threads=1",
    f"tracking.root={ROOT}",
)  # fmt: skip
_RATE = 0.05
_RESAMPLES = 1000


@dataclass(frozen=True, eq=False)
class Gaussian:
    """One normal distribution a class, with one covariance for all: (1 - s) of theirs and s times their mean variance.

    Attributes:
        means: (C, D).
        axes: (r, D), orthonormal, r < N images: the directions in which these differ from their class means.
        along: (r,) variance in each of them; across: in all others.
    """

    means: Floats
    axes: Floats
    along: Floats
    across: float

    @staticmethod
    def of(features: Features, labels: NDArray[np.int64]) -> Gaussian:
        """Of features (N, D) of images with these labels (N,)."""
        known, place = np.unique(labels, return_inverse=True)
        x = features.astype(np.float64)
        means = np.stack([x[place == one].mean(0) for one in range(len(known))])
        x -= means[place]
        shrinkage = ledoit_wolf_shrinkage(x, assume_centered=True)
        _, sizes, axes = np.linalg.svd(x, full_matrices=False)
        across = shrinkage * float((x**2).sum()) / x.size
        return Gaussian(means, axes, (1 - shrinkage) * sizes**2 / len(x) + across, across)

    def distances(self, features: Features) -> Floats:
        """(M,) the smallest Mahalanobis distance of each image to a class mean, of features (M, D)."""
        found = np.full(len(features), np.inf)
        for mean in self.means:
            z = features - mean
            inside = z @ self.axes.T
            rest = np.maximum((z**2).sum(1) - (inside**2).sum(1), 0)
            found = np.minimum(found, (inside**2 / self.along).sum(1) + rest / self.across)
        return np.sqrt(found)


def run(name: str, left_out: str, seed: int) -> list[dict[str, Any]]:
    """Leave one class out of one task; a row for each freeze depth.

    Raises:
        ValueError: the task has no such class.
    """
    settings = compose_settings([*TASKS[name], *_SHARED, f"seed={seed}"])
    prepare_process(settings)
    console = Console(stderr=True)
    images = load(settings, console)
    if left_out not in images.index.classes:
        raise ValueError(f"{name} has no class {left_out!r}; accepted: {', '.join(images.index.classes)}")
    position = images.index.classes.index(left_out)
    inside = np.flatnonzero(images.index.labels != position)
    others = tuple(one for one in images.index.classes if one != left_out)
    known = image_subset(images, inside, others, ROOT / f"without-{name}-{position}", console.print)
    settings = resolved(settings, known)
    task = build_task(settings, known, split(settings, known.index), cache=ROOT / "cache", on_note=console.print)
    strange = np.flatnonzero(images.index.labels == position)
    rng = np.random.default_rng([seed, 7])
    shown = [np.sort(rng.permutation(rows)[:MOST]) for rows in (task.splits.test, strange)]
    default = build_space(settings.space, task.net).default
    rows = []
    for depth in (task.net.num_blocks, default.freeze_depth):
        started = time.perf_counter()
        row = _at(task, replace(default, freeze_depth=depth), seed, [(known, shown[0]), (images, shown[1])])
        seconds = round(time.perf_counter() - started, 1)
        rows.append({"task": name, "left_out": left_out, "seed": seed, "depth": depth,
                     "default": depth == default.freeze_depth, **row, "seconds": seconds})  # fmt: skip
    return rows


def _at(
    task: Task, params: TrialParams, seed: int, shown: Sequence[tuple[ImageSet, NDArray[np.int64]]]
) -> dict[str, Any]:
    """Train at one freeze depth, as trial and refitted, and score the known and the unknown images `shown`."""
    fold, epochs, labels = task.splits.folds[0], task.settings.trainer.epochs, task.index.labels
    rows = task.rows(None)
    tried = train_final(task, params, slot_seed(seed, 0), fold.train, epochs)
    served = train_final(task, params, slot_seed(seed, 0), rows, epochs)
    groups = image_groups(task)[task.images_of(fold.val)]
    held_logits, held = _answers(tried, task.images, fold.val)
    # The covariance of the served network is of as many images as that of the trial's.
    own = [Gaussian.of(_answers(net, task.images, fold.train)[1], labels[fold.train]) for net in (tried, served)]
    judged, features = task_features(task, tried, fold.val)
    near = training_distances(task, tried, fold.train, features)
    reference = reference_images(task, served, rows, near, groups, most=len(fold.train))
    parts = [_answers(served, images, chosen) for images, chosen in shown]
    held_out = dict(zip(SCORES, _scores(held_logits, near, own[0].distances(held)), strict=True))
    found: dict[str, Any] = {}
    by_part = [
        dict(zip(SCORES, _scores(logits, distances(x, reference.features)[0], own[1].distances(x)), strict=True))
        for logits, x in parts
    ]
    for kind in SCORES:
        pair = [part[kind] for part in by_part]
        limit = _limit(held_out[kind], groups)
        found[kind] = {
            **_summary(*pair, seed),
            "alarms": _share(pair[0] > limit),
            "detected": _share(pair[1] > limit),
        }
    known_rows = shown[0][1]
    return {
        "known": len(known_rows), "unknown": len(shown[1][1]), "held_out": len(judged.rows), "trained": len(rows),
        "accuracy": float((parts[0][0].argmax(1) == labels[known_rows]).mean()), "scores": found,
    }  # fmt: skip


@torch.no_grad()
def _answers(net: BlockNet, images: ImageSet, rows: NDArray[np.int64]) -> tuple[Floats, Features]:
    """Logits, and features of length 1, of the images at `rows`."""
    net.eval()
    found = [answer(net, batch) for batch in shown_images(net, images, rows)]
    logits, features = (torch.cat([getattr(one, kind) for one in found]).float() for kind in ("logits", "features"))
    return logits.double().cpu().numpy(), unit_length(features.cpu().numpy())


def _scores(logits: Floats, near: Features, mahalanobis: Floats) -> tuple[Floats, ...]:
    """In the order of `SCORES`."""
    energy = -logsumexp(logits, axis=1)
    return near.astype(np.float64), mahalanobis, energy, 1 - np.exp(logits.max(1) + energy)


def _limit(held_out: Floats, groups: NDArray[np.int64]) -> float:
    """As the product sets it for its distances, of any score."""
    one_kind = CalibrationScores(held_out, np.zeros(len(held_out), np.int64), groups)
    return categories(one_kind, 1, 1 - _RATE)[0].limit


def auroc(known: Floats, unknown: Floats) -> float:
    """The probability that an unknown image scores higher than a known one, ties half."""
    return float(_higher(known, unknown).mean())


def _higher(known: Floats, unknown: Floats) -> Floats:
    """(known, unknown) 1 where the unknown image scores higher, 0.5 at ties."""
    return (unknown > known[:, None]) + 0.5 * (unknown == known[:, None])


def _summary(known: Floats, unknown: Floats, seed: int) -> dict[str, Any]:
    rng, higher = np.random.default_rng(seed), _higher(known, unknown)
    drawn = [rng.multinomial(n, np.full(n, 1 / n), _RESAMPLES) / n for n in higher.shape]
    low, high = np.quantile(((drawn[0] @ higher) * drawn[1]).sum(1), (0.025, 0.975))
    beyond = unknown > np.quantile(known, 1 - _RATE)
    return {"auroc": [float(higher.mean()), float(low), float(high)], "at_5": _share(beyond)}


def _share(hits: NDArray[np.bool_]) -> list[float]:
    """With its exact 95 % interval."""
    return [float(hits.mean()), *exact_interval(int(hits.sum()), len(hits))]


def gains(
    rows: Sequence[dict[str, Any]], value: Callable[[dict[str, Any]], float], seed: int = 0
) -> tuple[dict[str, float], tuple[float, float, float]]:
    """Of a value of each row: the mean of each task's classes; the mean of the tasks, with a 95 % bootstrap interval
    over the classes of each task."""
    of: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        of[row["task"]].append(value(row))
    rng = np.random.default_rng(seed)
    drawn = np.mean([rng.choice(one, (4000, len(one))).mean(1) for one in of.values()], axis=0)
    means = {name: float(np.mean(one)) for name, one in of.items()}
    low, high = np.quantile(drawn, (0.025, 0.975))
    return means, (float(np.mean(list(means.values()))), float(low), float(high))


def _classes(name: str) -> tuple[str, ...]:
    if name == "magnetic_tile":
        grouped_by_tile(ROOT / "tiles.csv")
    return load(compose_settings([*TASKS[name], *_SHARED]), Console(stderr=True)).index.classes


def main(words: list[str]) -> int:
    """Run the classes given, as TASK or TASK:CLASS, or all that are missing; prints the tables."""
    rows = read_rows("unknown_defects")
    if words != ["table"]:
        asked = [word.partition(":") for word in words or TASKS]
        if why := refusal([name for name, _, _ in asked], TASKS):
            print(f"unknown_defects: {why}", file=sys.stderr)
            return 2
        for name, _, chosen in asked:
            for left_out in [one for one in _classes(name) if not chosen] or [chosen]:
                if not chosen and any((row["task"], row["left_out"]) == (name, left_out) for row in rows):
                    continue
                try:
                    made = run(name, left_out, 0)
                except ValueError as error:
                    print(f"unknown_defects: {error}", file=sys.stderr)
                    return 2
                rows = [row for row in rows if (row["task"], row["left_out"]) != (name, left_out)] + made
                write_rows("unknown_defects", rows)
                print(f"{name} without {left_out}: {sum(row['seconds'] for row in made):.0f} s", flush=True)
    console = Console(width=180)
    for default in (True, False):
        chosen_rows = [row for row in rows if row["default"] is default]
        if chosen_rows:
            depths = "half of the blocks frozen, the default" if default else "all blocks frozen"
            console.print(_table(chosen_rows, f"{depths}: each class left out"))
            console.print(_together(chosen_rows, f"{depths}: mean of tasks (of their classes)"))
    return 0


def _table(rows: Sequence[dict[str, Any]], title: str) -> Table:
    table = Table("task", "left out", "score", "AUROC", "found at 5 % of the test", "alarms", "detected", title=title)
    for row in rows:
        for kind in SCORES:
            one = row["scores"][kind]
            shown = [_text(one[name]) for name in ("auroc", "at_5", "alarms", "detected")]
            table.add_row(row["task"], row["left_out"], kind, *shown)
    return table


def _together(rows: Sequence[dict[str, Any]], title: str) -> Table:
    tasks = list(dict.fromkeys(row["task"] for row in rows))
    table = Table("of", "score", "all", *tasks, title=title)

    def add(of: str, kind: str, value: Callable[[dict[str, Any]], float]) -> None:
        means, mean = gains(rows, value)
        table.add_row(of, kind, _text(mean), *(f"{means[name]:.3f}" for name in tasks))

    for name in ("auroc", "at_5", "alarms", "detected"):
        for kind in SCORES:
            add(name, kind, lambda row, name=name, kind=kind: row["scores"][kind][name][0])  # type: ignore[misc]
        add(name, "mahalanobis - knn", lambda row, name=name: _gain(row, name))  # type: ignore[misc]
    return table


def _gain(row: dict[str, Any], name: str) -> float:
    return float(row["scores"]["mahalanobis"][name][0] - row["scores"]["knn"][name][0])


def _text(value: Sequence[float]) -> str:
    return f"{value[0]:.3f} ({value[1]:.3f} to {value[2]:.3f})"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
