"""The figure of `benchmarks.peers`: test score against the seconds to the trained model, a panel a task."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from benchmarks.peers.contest import PEERS, UNIT
from benchmarks.peers.lists import TASKS
from benchmarks.peers.rows import Row, Standing, frontier, standings

__all__ = ["FIGURE", "draw"]

FIGURE = Path(__file__).resolve().parents[2] / "docs" / "images" / "peers.png"

# Colours of Okabe and Ito, told apart by colour-blind readers; the markers tell them apart in grey.
_STYLES = {
    "neighbours": ("#e69f00", "v"),
    "logistic": ("#cc79a7", "^"),
    "timm": ("#0072b2", "o"),
    "timm_224": ("#0072b2", "s"),
    "fastai": ("#009e73", "D"),
    "autogluon": ("#56b4e9", "P"),
    "optuna": ("#000000", "X"),
    "thawline": ("#d55e00", "*"),
}
_BUDGETS = [name for name in PEERS if name not in _STYLES]
_TICKS = {1: "1 s", 10: "10 s", 60: "1 min", 600: "10 min", 3600: "1 h", 36000: "10 h"}


def draw(rows: Sequence[Row], file: Path = FIGURE) -> Path:
    """Draw the panels one below the other, to be read at 360 pixels of width; returns the file.

    Args:
        rows: of benchmarks/results/peers.json.
        file: a PNG.

    Raises:
        SystemExit: no rows.
    """
    found = {task: standings(rows, task, score, PEERS, UNIT) for task, (_, score) in TASKS.items()}
    found = {task: [one for one in ones if one.seeds] for task, ones in found.items()}
    tasks = [task for task, ones in found.items() if ones]
    if not tasks:
        raise SystemExit("peers: no rows yet; run python -m benchmarks.peers first")
    figure = Figure(figsize=(4.6, 2.5 * len(tasks) + 1.3), layout="constrained", dpi=200)
    for axis, task in zip(figure.subplots(len(tasks), 1, squeeze=False)[:, 0], tasks, strict=True):
        _panel(axis, found[task])
        about, score = TASKS[task]
        axis.set_title(about, fontsize=9.5)
        axis.set_ylabel(f"test {score.replace('macro_f1', 'macro F1')}", fontsize=9)
    figure.axes[-1].set_xlabel("wall time to the trained model", fontsize=9)
    named = {}
    for axis in figure.axes:
        handles, labels = axis.get_legend_handles_labels()
        named |= dict(zip(labels, handles, strict=True))
    figure.legend(
        named.values(), named.keys(), loc="outside lower center", ncols=2, frameon=False, fontsize=8.5, handlelength=1.6
    )
    file.parent.mkdir(exist_ok=True)
    figure.savefig(file)
    return file


def _panel(axis: Axes, found: Sequence[Standing]) -> None:
    front = frontier(found)
    # A staircase: at any time the best that can be had by then.
    times = [one.seconds for one in front] + [2 * max(one.seconds for one in found)]
    axis.step(times, [*(one.score for one in front), front[-1].score], where="post", color="0.6", linewidth=1, zorder=1,
              label="frontier")  # fmt: skip
    for one in found:
        if one.peer in _STYLES:
            colour, marker = _STYLES[one.peer]
            _bar(axis, one, colour)
            size = 10 if marker == "*" else 6
            axis.plot(
                one.seconds, one.score, marker, color=colour, markersize=size, label=PEERS[one.peer].about, zorder=3
            )
    budgets = [one for one in found if one.peer in _BUDGETS]
    for one in budgets:
        _bar(axis, one, "#d55e00")
    if budgets:
        x, y = [one.seconds for one in budgets], [one.score for one in budgets]
        axis.plot(x, y, "o-", color="#d55e00", markerfacecolor="white", markersize=5, linewidth=1, zorder=2,
                  label="Thawline, 1 to 30 min")  # fmt: skip
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1.0,)))
    axis.set_xticks([tick for tick in _TICKS if min(times) / 3 <= tick <= 3 * max(times)])
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _TICKS.get(round(value), f"{value:g} s")))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.tick_params(labelsize=8.5)
    axis.grid(linewidth=0.4, color="0.85")
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


def _bar(axis: Axes, one: Standing, colour: str) -> None:
    """The interval over the seeds."""
    if one.interval is not None:
        low, high = max(one.interval[0], 0.0), min(one.interval[1], 1.0)
        axis.plot([one.seconds] * 2, [low, high], color=colour, linewidth=1, alpha=0.6, zorder=2)
