"""Which judge chooses best: `python -m benchmarks.judges [rates|constant]`, by the tables of `output_tables`.

Of each table `DRAWS` times `TRIALS` configurations are drawn at random, as if each had been trained in full. What a
judge takes of them by the validation images is scored on the test images, which the judge does not see. All judges see
the same draws; the first is the one that the others are compared with. Then the same of committees, which answer with
the mean of their logits, and of what needs no search: trial 0, and trial 0 at the freeze depths that a search tries
first, the best of these and all of them together. Tables that are begun stand in a second list, without differences.

`rates` compares each configuration with the same one at a constant rate, as `benchmarks.depth_tables` has it.
`constant` compares judges on these tables of a constant rate, which hold no answers but more tasks and splits.
"""

from __future__ import annotations

import sys
import warnings
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.stats import rankdata
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
from sklearn.metrics import f1_score

from benchmarks.finished_tables import read_table
from benchmarks.output_tables import OUTPUTS
from benchmarks.student_interval import interval
from lightning_modules.decisions.temperature import fit_temperature, log_probabilities
from search.trial.space import spread_depths

Floats = NDArray[np.float64]
TRIALS, DRAWS = 12, 200
CONSTANT = ("neu_10", "neu_40", "simulated", "magnetic_tile", "planted_0", "planted_middle", "planted_L")
_LEAST = 1e-4  # a 16-bit probability of 0 is not a log loss without end


@dataclass(frozen=True)
class OutputTable:
    """Last-epoch outputs of one split; M configurations, N validation images, C classes."""

    name: str
    keys: tuple[str, ...]
    val: Floats  # (M, N, C)
    test: Floats
    val_labels: NDArray[np.int64]
    test_labels: NDArray[np.int64]
    cost: Floats

    @cached_property
    def f1(self) -> Floats:
        """Validation macro F1 of each."""
        return np.array([f1_score(self.val_labels, p.argmax(1), average="macro") for p in self.val])

    @cached_property
    def loss(self) -> Floats:
        """Validation log loss of each."""
        return log_loss(self.val, self.val_labels)

    @cached_property
    def loss_error(self) -> Floats:
        """Standard error of each one's validation log loss."""
        losses = -np.log(self.val[:, np.arange(len(self.val_labels)), self.val_labels].clip(_LEAST))
        return losses.std(1, ddof=1) / len(self.val_labels) ** 0.5

    @cached_property
    def brier(self) -> Floats:
        """Validation Brier score of each."""
        truth = np.eye(self.val.shape[2])[self.val_labels]
        return ((self.val - truth) ** 2).sum(2).mean(1)

    @cached_property
    def tempered(self) -> Floats:
        """Validation log loss at the temperature that the product would fit to each."""
        logits = np.log(self.val.clip(_LEAST))
        found = [log_probabilities(one, fit_temperature(one, self.val_labels)) for one in logits]
        return log_loss(np.exp(found), self.val_labels)

    @cached_property
    def truth(self) -> Floats:
        """Test macro F1 of each."""
        return np.array([self.tested(p) for p in self.test])

    @cached_property
    def logits(self) -> Floats:
        """Test logits of each, less a number an image."""
        return np.log(self.test.clip(_LEAST))

    def tested(self, outputs: Floats) -> float:
        """Test macro F1 of outputs (N, C)."""
        return float(f1_score(self.test_labels, outputs.argmax(1), average="macro"))

    def defaults(self, most: int = 5) -> list[int]:
        """Where trial 0 is, then what follows it at other freeze depths; none where they are not all there."""
        deepest = max(int(key.split("/")[0]) for key in self.keys)
        keys = [f"{depth}/adam/1.0" for depth in spread_depths(deepest // 2, (0, deepest), most)]
        return [self.keys.index(key) for key in keys] if set(keys) <= set(self.keys) else []


def log_loss(probabilities: Floats, labels: NDArray[np.int64]) -> Floats:
    """Mean log loss (M,) of probabilities (M, N, C)."""
    return -np.log(probabilities[:, np.arange(len(labels)), labels].clip(_LEAST)).mean(1)


JUDGES: dict[str, Callable[[OutputTable], Floats]] = {
    "F1, of equals the first": lambda t: -t.f1,
    "F1, of equals the loss": lambda t: -t.f1 + 1e-6 * t.loss,
    "log loss": lambda t: t.loss,
    "log loss, tempered": lambda t: t.tempered,
    "Brier": lambda t: t.brier,
    "mean rank of F1 and loss": lambda t: rankdata(-t.f1) + rankdata(t.loss),
    "mean rank of F1 and tempered": lambda t: rankdata(-t.f1) + rankdata(t.tempered),
}
"""Name -> what it gives each configuration, the lowest of which it takes; of equals the first drawn."""


def posterior_mean(table: OutputTable, drawn: NDArray[np.int64], values: Floats, errors: Floats) -> Floats:
    """What a Gaussian process over (freeze depth, log rate, optimizer) believes of the trials drawn, (M,).

    Args:
        values: what it is fitted to, (M,).
        errors: their standard errors, which are its noise.
    """
    parts = [table.keys[i].split("/") for i in drawn]
    deepest = max(int(key.split("/")[0]) for key in table.keys)
    where = np.array([(int(k) / deepest, np.log10(float(f)), float(o == "adam")) for k, o, f in parts])
    kernel = ConstantKernel(1.0, (1e-2, 1e2)) * Matern([0.5, 0.5, 1.0], (0.1, 10.0), nu=2.5)
    return _believed(GaussianProcessRegressor(kernel, alpha=(errors / _spread(values)) ** 2 + 1e-6), where, values)


def _spread(values: Floats) -> float:
    return max(float(values.std()), 1e-6)


def _believed(process: GaussianProcessRegressor, where: Floats, values: Floats) -> Floats:
    """The process's mean at these places, once it is fitted to the standardized values there, (M,)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a length at its bound: that parameter says nothing
        found: Floats = process.fit(where, (values - values.mean()) / _spread(values)).predict(where)
    return found


def read(name: str) -> OutputTable:
    """A table as far as it is filled."""
    held = dict(np.load(OUTPUTS / f"{name}.npz"))
    keys = tuple(key.removesuffix("/val") for key in held if key.endswith("/val") and key.count("/") == 3)
    whole = [k for k in keys if np.isfinite(held[f"{k}/val"]).all() and np.isfinite(held[f"{k}/test"]).all()]
    return OutputTable(
        name,
        tuple(whole),
        np.array([held[f"{k}/val"][-1] for k in whole], float),
        np.array([held[f"{k}/test"] for k in whole], float),
        held["val_labels"],
        held["test_labels"],
        np.array([held[f"{k}/cost"] for k in whole], float),
    )


def compare(table: OutputTable) -> dict[str, Floats]:
    """Row -> test F1 in each draw, in points."""
    rng, found = np.random.default_rng(0), {name: [] for name in JUDGES}
    given = {name: judge(table) for name, judge in JUDGES.items()}
    judge = "F1, of equals the loss"
    more = {f"the {n} best together": n for n in (2, 3, 5, 8)}
    odds = "the 5 best together, mean of probabilities"
    process = "posterior mean of the log loss"
    found |= {process: [], f"{process}, the 5 best together": []}
    found |= {name: [] for name in more} | {odds: [], "the best by the test images": [], "any": []}
    for _ in range(DRAWS):
        drawn = rng.choice(len(table.keys), min(TRIALS, len(table.keys)), replace=False)
        for name, values in given.items():
            found[name].append(table.truth[drawn[values[drawn].argmin()]])
        best = drawn[np.argsort(given[judge][drawn])]
        for name, count in more.items():
            found[name].append(table.tested(table.logits[best[:count]].mean(0)))
        believed = np.argsort(posterior_mean(table, drawn, table.loss[drawn], table.loss_error[drawn]))
        found[process].append(table.truth[drawn[believed[0]]])
        found[f"{process}, the 5 best together"].append(table.tested(table.logits[drawn[believed[:5]]].mean(0)))
        found[odds].append(table.tested(table.test[best[:5]].mean(0)))
        found["the best by the test images"].append(table.truth[drawn].max())
        found["any"].append(table.truth[drawn].mean())
    for most in (1, 2, 3, 5):
        if first := table.defaults(most):
            name = "trial 0" if most == 1 else f"trial 0 at {most} depths"
            found[f"{name}, the best"] = [table.truth[min(first, key=lambda i: given[judge][i])]]
            found[f"{name}, together"] = [table.tested(table.logits[first].mean(0))]
    return {name: 100 * np.array(values) for name, values in found.items()}


def compare_rates(table: OutputTable) -> str:
    """A falling rate against a constant one: test macro F1 in points and validation log loss, means over M pairs."""
    task, _, split = table.name.split("-")
    constant, place = read_table(task), {}
    number = constant.splits.index(int(split))
    for row, key in enumerate(table.keys):
        depth, optimizer, factor = key.split("/")
        place[row] = int(depth), constant.optimizers.index(optimizer), constant.factors.index(float(factor))
    gains = np.array([100 * (table.truth[row] - constant.test[(number, *cell, -1)]) for row, cell in place.items()])
    lost = constant.loss
    assert lost is not None  # noqa: S101
    losses = [table.loss[row] - lost[(number, *cell, -1)] for row, cell in place.items()]
    losses = [loss for loss in losses if np.isfinite(loss)]
    error = gains.std(ddof=1) / len(gains) ** 0.5
    return f"{table.name}: {gains.mean():+.2f} points (SE {error:.2f}, {len(gains)}), log loss {np.mean(losses):+.3f}"


def compare_constant() -> None:
    """Mean test macro F1, in points, of what each judge takes of `TRIALS` configurations; five splits a task."""
    rng, found = np.random.default_rng(0), defaultdict[str, dict[tuple[str, int], float]](dict)
    for name in CONSTANT:
        table = read_table(name)
        assert table.loss is not None  # noqa: S101
        shape = table.val.shape[1:4]
        where = np.stack(np.unravel_index(np.arange(np.prod(shape)), shape), 1) / np.maximum(np.array(shape) - 1, 1)
        for split in range(min(5, len(table.val))):
            score, truth = (part[split, ..., -1].ravel() for part in (table.val, table.test))
            loss, taken = np.minimum(table.loss[split, ..., -1].ravel(), 3), defaultdict[str, list[float]](list)
            for _ in range(DRAWS // 10):
                drawn = rng.choice(len(score), min(TRIALS, len(score)), replace=False)
                f1, lost, of = score[drawn], loss[drawn], truth[drawn]
                taken["F1, of equals the loss"].append(of[np.lexsort((lost, -f1))[0]])
                taken["log loss"].append(of[lost.argmin()])
                taken["mean rank of F1 and loss"].append(of[(rankdata(-f1) + rankdata(lost)).argmin()])
                taken["posterior mean of F1"].append(of[smoothed(where[drawn], -f1).argmin()])
                taken["posterior mean of the log loss"].append(of[smoothed(where[drawn], np.log(lost + 0.01)).argmin()])
                taken["the best by the test images"].append(of.max())
                taken["any"].append(of.mean())
            for judge, scores in taken.items():
                found[judge][name, split] = 100 * float(np.mean(scores))
    table = Table("", *CONSTANT, "mean difference", "95 % interval over splits")
    first = next(iter(found.values()))
    for judge, values in found.items():
        gains = np.array([values[key] - first[key] for key in first])
        low, high = interval(gains)
        cells = [np.mean([v for (n, _), v in values.items() if n == name]) for name in CONSTANT]
        shown = (f"{cell:.1f}" for cell in cells)
        table.add_row(judge, *shown, f"{gains.mean():+.2f}", f"{low:+.2f} to {high:+.2f}")
    Console(width=170).print(table)


def smoothed(where: Floats, values: Floats) -> Floats:
    """What a Gaussian process with noise of one size believes of the values (M,) at these places, standardized."""
    kernel = ConstantKernel(1.0, (1e-2, 10.0)) * Matern([0.5, 0.5, 0.5], (0.1, 10.0), nu=2.5) + WhiteKernel(
        0.3, (1e-2, 2.0)
    )
    return _believed(GaussianProcessRegressor(kernel), where, values)


def print_compared(found: dict[str, dict[str, Floats]], title: str) -> None:
    """A column a table; where all are whole, the mean difference to the first row with its interval."""
    rows = list(dict.fromkeys(row for values in found.values() for row in values))
    whole = all("trial 0, the best" in values for values in found.values())
    table = Table("", *(name.replace("-efficientnet_lite0", "") for name in found), title=title)
    for column in ("mean difference", "95 % interval") if whole else ():
        table.add_column(column)
    for row in rows:
        cells = [f"{values[row].mean():.2f}" if row in values else "" for values in found.values()]
        if whole:
            gains = np.array([values[row].mean() - values[rows[0]].mean() for values in found.values()])
            low, high = interval(gains)
            cells += [f"{gains.mean():+.2f}", f"{low:+.2f} to {high:+.2f}"]
        table.add_row(row, *cells)
    Console(width=80 + 12 * len(found)).print(table)


def main(arguments: list[str]) -> int:
    """Print what was asked for."""
    tables = [read(file.stem) for file in sorted(OUTPUTS.glob("*.npz")) if not file.stem.endswith(".new")]
    if arguments == ["rates"]:
        for table in tables:
            print(compare_rates(table))
        return 0
    if arguments == ["constant"]:
        compare_constant()
        return 0
    if arguments:
        print(f"judges: accepted is rates, constant or nothing, got {arguments[0]!r}", file=sys.stderr)
        return 2
    whole = {table.name: compare(table) for table in tables if table.defaults()}
    print_compared(whole, f"Of {TRIALS} configurations, whole tables")
    begun = {f"{t.name} ({len(t.keys)})": compare(t) for t in tables if not t.defaults()}
    print_compared(begun, "Tables that are begun (configurations, the deepest first)")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
