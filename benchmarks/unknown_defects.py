"""Is a kind of defect that nobody has shown the network told as unknown? `python -m benchmarks.unknown_defects`.

One class at a time is left out of the images, the default optimizer and rate is trained on the others as a search
trains it and as it is refitted, one network and no committee, and images of the class that was left out are mixed with
test images of those that are known. So that all classes can be afforded, 20 images a class are trained on and 20
validated on, without augmented views, with all blocks frozen or all but the last two (`benchmarks.plain_activations`),
and at most 40 further ones of each class are tested; of the class left out all 80 at most. Its images have an output
of the network that no training image asks for; it is dropped. Scores, each larger for the stranger image:

- knn: the product's, the distance to the third nearest training image (`lightning_modules.decisions.reference_images`);
- mahalanobis: the smallest Mahalanobis distance to a class mean, one covariance for all classes, shrunk (Lee et al.
  2018, arXiv 1807.03888; Ledoit and Wolf 2004), on the same features of length 1;
- energy: -ln sum exp(logits) (Liu et al. 2020, arXiv 2010.03759);
- confidence: 1 - the largest probability.

AUROC is of the two kinds of images, its interval a bootstrap within each; `at_5` is the share of the unknown beyond
the 95 % quantile of the known *test* images. `alarms` and `detected` are those of a product: the limit is set at 5 %
false alarms on validation images that the trial's network has not seen, and applied to the refitted network. It counts
groups (plates) as the product does; of magnetic tile, where 20 images a class are of fewer than 19 tiles, images.

The rule that decides between knn and mahalanobis was fixed before these rows were made, but after NEU's scratches had
been seen once, in another split. Mahalanobis takes the place of knn if at both depths

1. `detected` gains: the mean over tasks, of the mean over the classes left out, has a 95 % interval above 0 (bootstrap
   over the classes of each task), and the mean is positive in at least two of the three tasks;
2. AUROC does not lose: the mean gain is not negative;
3. its limit holds: the interval of the mean of `alarms` does not lie above 5 %.

    python -m benchmarks.unknown_defects                        every task, every class that is missing
    python -m benchmarks.unknown_defects neu:scratches          one class of one task, again
    python -m benchmarks.unknown_defects thawed=0               with all blocks frozen alone, what is missing
    python -m benchmarks.unknown_defects table                  what is there
    python -m benchmarks.unknown_defects page                   its rows as they stand in docs/unknown_defects.md

Writes benchmarks/results/unknown_defects.json.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.special import logsumexp
from sklearn.covariance import ledoit_wolf_shrinkage

from benchmarks.localisation_data import grouped_by_tile
from benchmarks.plain_activations import answers, plain_task, with_split
from benchmarks.real_images import DATA, refusal
from benchmarks.results_file import read_rows, write_rows
from lightning_modules.decisions.conformal import CalibrationScores, categories, fewest_groups
from lightning_modules.decisions.reference_images import distances
from lightning_modules.networks.blocknet import BlockNet
from lightning_modules.training.scores import exact_interval
from search.outcome.out_of_sample import image_groups
from search.settings.compose import compose_settings
from search.study.sampler import slot_seed
from search.trial.preparation import load, split
from search.trial.space import build_space
from search.trial.task import Task
from search.trial.training import more_epochs, train_final

__all__ = ["SCORES", "Gaussian", "auroc", "gains", "main", "page_rows", "run"]

Floats = NDArray[np.float64]
Features = NDArray[np.float32]

ROOT = Path("mlruns") / "unknown_defects"
TASKS = {
    "neu": ("data=manifest", f"data.path={DATA}/neu/manifest.csv", "data.size=[96,96]"),
    "magnetic_tile": ("data=manifest", f"data.path={ROOT}/tiles.csv", "data.outside=allow", "data.size=[96,96]"),
    "simulated": ("data=simulated", "data.images=1600", "data.size=[64,64]"),
}
SCORES = ("knn", "mahalanobis", "energy", "confidence")
COLUMNS = ("auroc", "at_5", "alarms", "detected")
THAWED = (0, 2)  # last blocks that are trained
_SHARED = ("data.test=rest", "data.max_train_per_class=20", "trainer.epochs=6")
_TESTED = 40  # images of a class
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


@cache
def _task(name: str) -> Task:
    """The task of all classes, with its test set cut down, so that only the images in use are answered."""
    if name == "magnetic_tile":
        grouped_by_tile(ROOT / "tiles.csv")
    words = [*TASKS[name], *_SHARED]
    settings = compose_settings([*words, f"tracking.root={ROOT}"])
    index = load(settings, Console(stderr=True)).index
    splits = split(settings, index)
    drawn = np.random.default_rng([settings.seed, 7]).permutation(splits.test)
    tested = [drawn[index.labels[drawn] == label][:_TESTED] for label in range(len(index.classes))]
    splits = replace(splits, test=np.sort(np.concatenate(tested)))
    fold = splits.folds[0]
    task = plain_task(words, ROOT, np.sort(np.concatenate([fold.train, fold.val, splits.test])))
    return with_split(task, splits)


def run(name: str, left_out: str, thawed: int) -> dict[str, Any]:
    """Leave one class out of one task.

    Raises:
        ValueError: the task has no such class.
    """
    task = _task(name)
    if left_out not in task.classes:
        raise ValueError(f"{name} has no class {left_out!r}; accepted: {', '.join(task.classes)}")
    return {"task": name, "left_out": left_out, "thawed": thawed, **_at(task, left_out, thawed)}


def _at(task: Task, left_out: str, thawed: int) -> dict[str, Any]:
    """Train without the class, as trial and refitted, and score test images of the others, and its own."""
    started, labels, epochs = time.perf_counter(), task.index.labels, task.settings.trainer.epochs
    position, depth = task.classes.index(left_out), task.net.num_blocks - thawed
    fold = task.splits.folds[0]
    train, val, known = (rows[labels[rows] != position] for rows in (fold.train, fold.val, task.splits.test))
    used = np.concatenate([fold.train, fold.val, task.splits.test])
    unknown = np.sort(used[labels[used] == position])
    rows = np.union1d(train, val)
    params = replace(build_space(task.settings.space, task.net).default, freeze_depth=depth)
    seed, groups = slot_seed(task.settings.seed, 0), image_groups(task)[val]
    tried = train_final(task, params, seed, train, epochs)
    more = more_epochs(task, depth)
    start = None if more is None else tried
    served = train_final(task, params, seed, rows, epochs if more is None else more, start=start)

    def shown(net: BlockNet, chosen: NDArray[np.int64]) -> tuple[Floats, Features]:
        logits, features = answers(task, net, depth, chosen)
        return np.delete(logits, position, axis=1), features

    # The served network is compared with as many training images as the trial's had, and with the same.
    held_out = _scores(*shown(tried, val), shown(tried, train)[1], labels[train])
    reference = shown(served, train)[1]
    answered = [shown(served, part) for part in (known, unknown)]
    pairs = [_scores(logits, features, reference, labels[train]) for logits, features in answered]
    found: dict[str, Any] = {}
    enough = len(np.unique(groups)) >= fewest_groups(1 - _RATE)
    for kind in SCORES:
        limit = _limit(held_out[kind], groups if enough else np.arange(len(val)))
        ours, strange = (pair[kind] for pair in pairs)
        found[kind] = {
            **_summary(ours, strange, seed),
            "alarms": _share(ours > limit),
            "detected": _share(strange > limit),
        }
    own = np.delete(np.arange(len(task.classes)), position)
    right = own[answered[0][0].argmax(1)] == labels[known]
    return {
        "known": len(known), "unknown": len(unknown), "held_out": len(val), "held_out_groups": len(np.unique(groups)),
        "trained": len(train), "refitted": len(rows), "epochs": epochs, "accuracy": float(right.mean()),
        "scores": found, "seconds": round(time.perf_counter() - started, 1),
    }  # fmt: skip


def _scores(logits: Floats, features: Features, reference: Features, labels: NDArray[np.int64]) -> dict[str, Floats]:
    """Of N images with these logits and features, against reference images (R, D) with these labels (R,)."""
    energy = -logsumexp(logits, axis=1)
    near = distances(features, reference.astype(np.float16))[0].astype(np.float64)
    far = Gaussian.of(reference, labels).distances(features)
    return {"knn": near, "mahalanobis": far, "energy": energy, "confidence": 1 - np.exp(logits.max(1) + energy)}


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


def main(words: list[str]) -> int:
    """Run the classes given, as TASK or TASK:CLASS, or all that are missing; prints the tables."""
    rows = read_rows("unknown_defects")
    if words == ["page"]:
        print("\n".join(page_rows(rows)))
        return 0
    if words != ["table"]:
        counts = [count for count in THAWED if f"thawed={count}" in words] or list(THAWED)
        names = [word for word in words if word not in {f"thawed={count}" for count in counts}] or list(TASKS)
        asked = [word.partition(":") for word in names]
        if why := refusal([name for name, _, _ in asked], TASKS):
            print(f"unknown_defects: {why}", file=sys.stderr)
            return 2
        for thawed, (name, _, chosen) in product(counts, asked):
            for left_out in [chosen] if chosen else _task(name).classes:
                key = (name, left_out, thawed)
                if not chosen and key in map(_key, rows):
                    continue
                try:
                    made = run(*key)
                except ValueError as error:
                    print(f"unknown_defects: {error}", file=sys.stderr)
                    return 2
                rows = [row for row in rows if _key(row) != key] + [made]
                write_rows("unknown_defects", rows)
                print(f"{name} without {left_out}, {thawed} thawed: {made['seconds']:.0f} s", flush=True)
    console = Console(width=180)
    for thawed in THAWED:
        chosen_rows = [row for row in rows if row["thawed"] == thawed]
        if chosen_rows:
            console.print(_table(chosen_rows, f"{thawed} blocks thawed: each class left out"))
            console.print(_together(chosen_rows, f"{thawed} blocks thawed: mean of tasks (of their classes)"))
    return 0


def _key(row: dict[str, Any]) -> tuple[str, str, int]:
    return row["task"], row["left_out"], row["thawed"]


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

    for name in COLUMNS:
        for kind in SCORES:
            add(name, kind, lambda row, name=name, kind=kind: row["scores"][kind][name][0])  # type: ignore[misc]
        add(name, "mahalanobis - knn", lambda row, name=name: _gain(row, name))  # type: ignore[misc]
    return table


def page_rows(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Rows of the two tables in docs/unknown_defects.md: of each score over all classes, then of each class."""
    found = []
    for thawed in THAWED:
        chosen = [row for row in rows if row["thawed"] == thawed]
        trained = "head" if not thawed else f"head, {thawed} blocks"
        tasks = ", ".join(dict.fromkeys(row["task"] for row in chosen))
        for kind in SCORES if chosen else ():
            cells = [gains(chosen, lambda row, n=n, k=kind: row["scores"][k][n][0])[1] for n in COLUMNS]  # type: ignore[misc]
            found.append(f"| {kind} | {trained}: {tasks} | {' | '.join(map(_text, cells))} |")
        if chosen:
            cells = [gains(chosen, lambda row, n=n: _gain(row, n))[1] for n in COLUMNS]  # type: ignore[misc]
            found.append(f"| mahalanobis - knn | {trained}: {tasks} | {' | '.join(map(_text, cells))} |")
    for row in rows:
        if row["thawed"] == 0:
            cells = [_text(row["scores"][kind]["auroc"]) for kind in SCORES]
            cells += [f"{row['scores'][kind]['detected'][0]:.2f}" for kind in SCORES]
            found.append(f"| {row['task']} | {row['left_out']} | {' | '.join(cells)} |")
    return found


def _gain(row: dict[str, Any], name: str) -> float:
    return float(row["scores"]["mahalanobis"][name][0] - row["scores"]["knn"][name][0])


def _text(value: Sequence[float]) -> str:
    return f"{value[0]:.3f} ({value[1]:.3f} to {value[2]:.3f})"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
