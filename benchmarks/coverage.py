"""Is a promised coverage kept on test images, also by the refitted networks? `python -m benchmarks.coverage`.

The default optimizer and rate is trained for `trainer.epochs` on the training images of a split, as trials are, and
refitted on training and validation images, as winners are (`more_epochs`): it goes on from there for three epochs, or
is trained anew where all blocks are frozen. There is no search, so no image has chosen a configuration. The
limits are the product's, from what the trial's network answers on the validation images (`OutOfSample`, `categories`).
Two ways to answer the test images with them are compared: *refitted*, as delivered by default, and *as tried*, by the
trial's own network, as delivered with `search.refit=false`.

So that ten splits can be afforded, each network is one and no committee, sees no augmented views, and has all of its
blocks frozen or all but the last two (`benchmarks.plain_activations`). The committees that searches deliver, of 4, 8
and 2 frozen blocks with views, are judged on the splits for which `benchmarks.committees` keeps their answers: the
tasks named `committee ...`, of 300 test images each.

What is asked was fixed before the first result: a promise is *broken* where the mean of the splits' coverage has a 95 %
interval (Student's over splits) below it. A single split says less than its exact binomial interval pretends: with n
calibration images the coverage of one split scatters as Beta(k, n + 1 - k) around its mean (Vovk 2012). So the number
of splits whose interval lies below the promise is shown beside the number that this law alone would put there.

    python -m benchmarks.coverage                     every task, what is missing
    python -m benchmarks.coverage neu_10 simulated:0  all splits of one task, one of another
    python -m benchmarks.coverage thawed=0            with all blocks frozen alone
    python -m benchmarks.coverage table               what is there
    python -m benchmarks.coverage page                its rows as they stand in docs/decisions.md

Writes benchmarks/results/coverage.json: counts, a row for each split, depth, way and promise.
"""

from __future__ import annotations

import math
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.stats import beta

from benchmarks.plain_activations import answers, plain_task, with_split
from benchmarks.real_images import DATA, refusal
from benchmarks.results_file import read_rows, write_rows
from benchmarks.student_interval import interval
from lightning_modules.decisions.conformal import Category, categories, decided, prediction_sets, score_limits
from lightning_modules.decisions.temperature import log_probabilities
from lightning_modules.networks.committee import fit_weights
from lightning_modules.training.scores import exact_interval
from search.outcome.out_of_sample import OutOfSample, image_groups
from search.study.sampler import slot_seed
from search.trial.preparation import split
from search.trial.space import build_space
from search.trial.task import Task
from search.trial.training import more_epochs, train_final

__all__ = ["PROMISES", "TASKS", "WAYS", "chance_below", "counted", "main", "page_rows", "run", "verdict"]

PROMISES = (0.9, 0.95)
WAYS = ("refitted", "as tried")
THAWED = (0, 2)  # last blocks that are trained
ROOT = Path("mlruns") / "coverage"
COMMITTEES = Path(__file__).parent / "tables" / "committees"
_MEMBERS = (4, 8, 2)  # frozen blocks, as a search tries them first
_ALL = 8
_NEU = ("data=manifest", f"data.path={DATA}/neu/manifest.csv", "data.size=[96,96]", "data.test=rest")


@dataclass(frozen=True)
class CoverageTask:
    """Images and how they are split; a split's number is its seed.

    Attributes:
        splits: how many.
        same_images: whether all splits are of the same images; else each is simulated by its own seed.
    """

    about: str
    settings: tuple[str, ...]
    splits: int
    same_images: bool = True


TASKS = {
    "neu_10": CoverageTask("NEU, 10 + 10 images a class", (*_NEU, "data.max_train_per_class=10"), 10),
    "simulated": CoverageTask(
        "simulated, trained on 6 months, tested on the 7 later ones",
        ("data=simulated", "data.images=1300", "data.size=[64,64]", "data.max_train_per_class=40",
         "data.test=newest_month", "data.test_months=7"), 4, same_images=False,
    ),
    "neu_40": CoverageTask("NEU, 40 + 40 images a class", (*_NEU, "data.max_train_per_class=40"), 10),
}  # fmt: skip


@cache
def _task(name: str, number: int) -> Task:
    """The task of one split; of the same images for all of them it is made once."""
    told = TASKS[name]
    if told.same_images and number:
        first = _task(name, 0)
        settings = replace(first.settings, seed=number)
        return with_split(first, split(settings, first.index), settings)
    return plain_task([*told.settings, f"seed={number}"], ROOT)


def run(name: str, number: int, thawed: int) -> list[dict[str, Any]]:
    """Train one split of a task, and count what each way to answer keeps of each promise."""
    task = _task(name, number)
    fold, test, labels = task.splits.folds[0], task.splits.test, task.index.labels
    months = [task.index.records[row].month or "" for row in test.tolist()] if name == "simulated" else None
    default, epochs = build_space(task.settings.space, task.net).default, task.settings.trainer.epochs
    started, depth = time.perf_counter(), task.net.num_blocks - thawed
    params, seed = replace(default, freeze_depth=depth), slot_seed(number, 0)
    tried = train_final(task, params, seed, fold.train, epochs)
    more = more_epochs(task, depth)
    start = None if more is None else tried
    refitted = train_final(task, params, seed, task.rows(None), epochs if more is None else more, start=start)
    unseen = OutOfSample(answers(task, tried, depth, fold.val)[0], labels[fold.val], image_groups(task)[fold.val])
    logits = {way: answers(task, net, depth, test)[0] for way, net in zip(WAYS, (refitted, tried), strict=True)}
    head = {
        "task": name, "split": number, "thawed": thawed, "trained": len(fold.train),
        "refitted": len(task.rows(None)), "calibrated": len(fold.val), "epochs": epochs,
        "seconds": round(time.perf_counter() - started, 1),
    }  # fmt: skip
    return _rows(head, unseen, logits, labels[test], task.classes, months)


def committees() -> list[dict[str, Any]]:
    """The rows of the committees whose answers are kept: of their trials on the validation images, and of both.

    Of the simulated images each counts, and not each plate, which is not kept. *Refitted anew* is `search.refit_epochs=
    null`: all that `train_final` does, on training and validation images.
    """
    found = []
    for file in sorted(COMMITTEES.glob("*.npz")):
        held = dict(np.load(file))
        name, _, _, number = file.stem.split("-")
        if not all(f"{depth}/{kind}" in held for depth in _MEMBERS for kind in ("trial/val", "on 3/plain")):
            continue

        def stacked(keys: Sequence[str], held: dict[str, Any] = held) -> NDArray[np.float64]:
            return np.stack([held[key] for key in keys]).astype(np.float64)

        val, known = stacked([f"{depth}/trial/val" for depth in _MEMBERS]), held["val_labels"]
        weights = fit_weights(val, known)
        unseen = OutOfSample(np.tensordot(weights, val, 1), known, np.arange(len(known)))
        ways = {
            "refitted": [f"{depth}/{'0' if depth == _ALL else 'on 3'}/plain" for depth in _MEMBERS],
            "refitted anew": [f"{depth}/0/plain" for depth in _MEMBERS],
            "as tried": [f"{depth}/trial/plain" for depth in _MEMBERS],
        }
        logits = {way: np.tensordot(weights, stacked(keys), 1) for way, keys in ways.items()}
        head = {"task": f"committee {name}", "split": int(number), "thawed": None, "calibrated": len(known)}
        classes = tuple(f"class {place}" for place in range(val.shape[2]))
        found += _rows(head, unseen, logits, held["labels"], classes, None)
    return found


def _rows(
    head: dict[str, Any],
    unseen: OutOfSample,
    logits: dict[str, NDArray[np.float64]],
    labels: NDArray[np.int64],
    classes: tuple[str, ...],
    months: Sequence[str] | None,
) -> list[dict[str, Any]]:
    return [
        {**head, "way": way, "promise": promise, **counted(unseen, shown, labels, classes, promise, months)}
        for way, shown in logits.items()
        for promise in PROMISES
    ]


def counted(
    unseen: OutOfSample,
    logits: NDArray[np.float64],
    labels: NDArray[np.int64],
    classes: tuple[str, ...],
    promise: float,
    months: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Counts [hits, of] of the test images whose set holds their class, that go by hand, and that are decided wrongly.

    Args:
        unseen: sets the limits.
        logits: (M, C) of the test images, labels (M,).
        months: of each test image; None counts none by month.

    Raises:
        ValueError: the validation images cannot be calibrated with.
    """
    scores, temperature = unseen.scores, unseen.temperature
    if scores is None or temperature is None:
        raise ValueError(unseen.problem)
    limits = categories(scores, len(classes), promise)
    sets = prediction_sets(log_probabilities(logits, temperature), score_limits(limits))
    kept, chosen = sets[np.arange(len(sets)), labels], decided(sets)

    def of(inside: NDArray[np.bool_]) -> dict[str, list[int]]:
        made = inside & (chosen >= 0)
        return {
            "kept": [int(kept[inside].sum()), int(inside.sum())],
            "by_hand": [int((chosen[inside] < 0).sum()), int(inside.sum())],
            "wrong": [int((chosen[made] != labels[made]).sum()), int(made.sum())],
        }

    every = np.ones(len(labels), bool)
    found: dict[str, Any] = {
        **of(every),
        "temperature": round(temperature, 4),
        "right": [int((logits.argmax(1) == labels).sum()), len(labels)],
        "classes": {label: of(labels == place)["kept"] for place, label in enumerate(classes)},
        "categories": [[one.groups, int(np.isin(labels, one.classes).sum()), len(one.classes)] for one in limits],
        "chance_below": round(chance_below(limits, labels, promise), 4),
    }
    if months is not None:
        names = np.array(months)
        found["months"] = {month: of(names == month) for month in sorted(set(months))}
    return found


def chance_below(
    limits: Sequence[Category], labels: NDArray[np.int64], promise: float, draws: int = 2000, seed: int = 0
) -> float:
    """The probability that a split's exact interval lies below the promise although all images are exchangeable.

    Of a category of K groups the coverage is Beta(r, K + 1 - r) with r = ceil((K + 1) promise), that of its limit,
    where scores have no ties (Vovk 2012, arXiv 1209.2673); groups count as one calibration image each.
    """
    rng = np.random.default_rng(seed)
    hits = np.zeros(draws, np.int64)
    for one in limits:
        rank = math.ceil((one.groups + 1) * promise - 1e-9)
        hits += rng.binomial(int(np.isin(labels, one.classes).sum()), rng.beta(rank, one.groups + 1 - rank, draws))
    high = beta.ppf(0.975, hits + 1, np.maximum(len(labels) - hits, 1e-9))  # of the exact interval
    return float((high < promise).mean())


@dataclass(frozen=True)
class Verdict:
    """What all splits of a task say of one way and one promise.

    Attributes:
        mean: of the splits' coverage, with its Student's interval.
        pooled: kept of all test images, with its exact interval, as if all were independent.
        below: splits whose exact interval lies below the promise, and how many chance alone puts there.
        by_hand, wrong: shares of all, with exact intervals.
        worst: the class that is kept least of all splits together, kept and exact interval.
    """

    splits: int
    mean: tuple[float, float, float]
    pooled: tuple[float, float, float]
    below: tuple[int, float]
    by_hand: tuple[float, float, float]
    wrong: tuple[float, float, float]
    worst: tuple[str, float, float, float]
    promise: float

    @property
    def broken(self) -> bool:
        """Whether the mean's interval lies below the promise."""
        return self.mean[2] < self.promise


def verdict(rows: Sequence[dict[str, Any]], promise: float) -> Verdict:
    """Of the rows of one task, way and promise, a split each."""
    shares = [row["kept"][0] / row["kept"][1] for row in rows]
    below = sum(exact_interval(*row["kept"])[1] < promise for row in rows)
    classes: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for row in rows:
        for label, (hits, of) in row["classes"].items():
            classes[label][0] += hits
            classes[label][1] += of
    least = min((label for label in classes if classes[label][1]), key=lambda one: classes[one][0] / classes[one][1])
    ends = (float(np.mean(shares)), *interval(shares))
    chance = sum(row["chance_below"] for row in rows)
    return Verdict(
        len(rows), ends, _pooled(rows, "kept"), (below, chance), _pooled(rows, "by_hand"), _pooled(rows, "wrong"),
        (least, *_share(classes[least])), promise,
    )  # fmt: skip


def _pooled(rows: Sequence[dict[str, Any]], what: str) -> tuple[float, float, float]:
    return _share([sum(row[what][0] for row in rows), sum(row[what][1] for row in rows)])


def _share(counts: Sequence[int]) -> tuple[float, float, float]:
    hits, of = counts
    return (hits / of if of else math.nan, *exact_interval(hits, of))


def _asked(words: Sequence[str]) -> Iterator[tuple[str, int, int]]:
    """(task, split, thawed blocks) of the words.

    Raises:
        ValueError: what is none of them.
    """
    chosen = [word for word in words if word.startswith("thawed=")]
    if wrong := [word for word in chosen if word not in {f"thawed={count}" for count in THAWED}]:
        raise ValueError(f"thawed is one of {', '.join(map(str, THAWED))}, got {wrong[0]}")
    names = [word for word in words if word not in chosen] or list(TASKS)
    if why := refusal([word.partition(":")[0] for word in names], TASKS):
        raise ValueError(why)
    for thawed in [count for count in THAWED if not chosen or f"thawed={count}" in chosen]:
        for word in names:
            name, _, number = word.partition(":")
            if number and not (number.isdecimal() and int(number) < TASKS[name].splits):
                raise ValueError(f"{name} has the splits 0..{TASKS[name].splits - 1}, got {number!r}")
            yield from ((name, one, thawed) for one in ([int(number)] if number else range(TASKS[name].splits)))


def main(words: list[str]) -> int:
    """Run what is missing of the tasks given, or of all; prints the table."""
    rows = read_rows("coverage")
    if words == ["page"]:
        print("\n".join(page_rows(rows)))
        return 0
    if words != ["table"]:
        try:
            asked = list(_asked(words))
        except ValueError as error:
            print(f"coverage: {error}", file=sys.stderr)
            return 2
        done = {(row["task"], row["split"], row["thawed"]) for row in rows}
        for one in [one for one in asked if one not in done]:
            rows += run(*one)
            write_rows("coverage", rows)
            print(f"{one}: {rows[-1]['seconds']} s", flush=True)
        rows = [row for row in rows if row["thawed"] is not None] + committees()
        write_rows("coverage", rows)
    console = Console(width=200)
    console.print(_table(rows))
    console.print(_months(rows))
    return 0


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    table = Table(
        "task", "thawed", "splits", "answered by", "promise", "kept, mean of splits", "all images",
        "splits below (chance)", "least kept class", "by hand", "wrong of the decided", "broken",
    )  # fmt: skip
    for (name, thawed, way, promise), of in _by(rows, "task", "thawed", "way", "promise").items():
        found = verdict(of, promise)
        table.add_row(
            name, "" if thawed is None else str(thawed), str(found.splits), way, f"{promise:g}", _text(found.mean),
            _text(found.pooled), f"{found.below[0]} ({found.below[1]:.1f})",
            f"{found.worst[0]} {_text(found.worst[1:])}", _text(found.by_hand), _text(found.wrong),
            "yes" if found.broken else "no",
        )  # fmt: skip
    return table


def _months(rows: Sequence[dict[str, Any]]) -> Table:
    """By month: coverage of all splits together, and in how many of them the month's page would say it is broken."""
    table = Table("thawed", "answered by", "promise", "month", "kept, all images", "by hand", "the page says so")
    chosen = [row for row in rows if "months" in row]
    for (thawed, way, promise), of in _by(chosen, "thawed", "way", "promise").items():
        for month in sorted({month for row in of for month in row["months"]}):
            own = [row["months"][month] for row in of]
            said = sum(exact_interval(*one["kept"])[1] < promise for one in own)
            table.add_row(
                str(thawed), way, f"{promise:g}", month, _text(_pooled(own, "kept")), _text(_pooled(own, "by_hand")),
                f"{said} of {len(own)}",
            )  # fmt: skip
    return table


def page_rows(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Rows of the two tables in docs/decisions.md: of all splits, then by month."""
    found = []
    for (name, thawed, way, promise), of in _by(rows, "task", "thawed", "way", "promise").items():
        one = verdict(of, promise)
        mean = _percent(one.mean) if len(of) > 2 else f"{one.mean[0]:.1%}"
        trained = "as delivered" if thawed is None else "head" if not thawed else f"head, {thawed} blocks"
        below = f"{one.below[0]} of {one.splits} ({one.below[1]:.1f})"
        cells = (name, trained, way, f"{promise:g}", mean, below, _percent(one.by_hand), _percent(one.wrong))
        found.append(f"| {' | '.join(cells)} |")
    months = [row for row in rows if "months" in row and row["way"] == "refitted" and row["promise"] == PROMISES[0]]
    for (thawed,), of in _by(months, "thawed").items():
        for month in sorted({month for row in of for month in row["months"]}):
            own = [row["months"][month] for row in of]
            said = sum(exact_interval(*one["kept"])[1] < PROMISES[0] for one in own)
            kept, by_hand, wrong = (_percent(_pooled(own, what)) for what in ("kept", "by_hand", "wrong"))
            trained = "head" if not thawed else f"head, {thawed} blocks"
            found.append(f"| {month} | {trained} | {kept} | {by_hand} | {wrong} | {said} of {len(own)} |")
    return found


def _percent(value: Sequence[float]) -> str:
    return f"{value[0]:.1%} ({value[1]:.1%} to {min(value[2], 1):.1%})"  # Student's may reach beyond 1


def _by(rows: Sequence[dict[str, Any]], *names: str) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    found: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        found[tuple(row[name] for name in names)].append(row)
    return found


def _text(value: Sequence[float]) -> str:
    return f"{value[0]:.3f} ({value[1]:.3f} to {value[2]:.3f})"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
