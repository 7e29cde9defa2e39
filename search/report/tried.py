"""What was tried: the evidence, scores by depth and optimizer, curves, what mattered, every trial."""

from __future__ import annotations

import base64

from search.pages.html import table, text
from search.report.data import HeatCell, ReportData
from search.report.markup import Numbers, bar, details, name, section
from search.report.static_charts import curves_svg, slice_svg
from search.words import spoken

__all__ = ["curves", "depths", "evidence", "parameters"]

_MEANING = {
    "freeze_depth": "freeze depth",
    "optimizer": "optimizer",
    "lr_factor": "learning rate, as a factor on the optimizer's reference rate",
    "fostering_beta": "weight of the CAM entropy in the loss",
}


def evidence(data: ReportData, numbers: Numbers, picture: bytes | None) -> str:
    """The figure of the evidence, and the scorecard."""
    if not data.scorecard and picture is None:
        return section("evidence", "Why this depth", "<p>No evidence was collected for this study.</p>")
    parts = []
    if data.prior:
        parts.append(f'<p data-tag="prior">{text(data.prior)}</p>\n')
    if picture is not None:
        encoded = base64.b64encode(picture).decode()
        alt = (
            f"The {len(data.blocks)} blocks of the network in a row: where each looks, what each scorer says of it, "
            f"the "
            "prior over freeze depths, and the best validation score reached at each depth. The numbers are in the "
            "tables of this page."
        )
        parts.append(
            '<div class="scroll" tabindex="0" role="region" aria-label="figure of the evidence">'
            f'<img class="wide" src="data:image/png;base64,{encoded}" alt="{text(alt)}"></div>\n'
        )
    if data.scorecard:
        parts.append(_scorecard(data, numbers))
    return section("evidence", "Why this depth", "".join(parts))


def _scorecard(data: ReportData, numbers: Numbers) -> str:
    rows = []
    for place, row in enumerate(data.scorecard):
        at, key = f"/scorecard/{place}", row.scorer
        order = " ".join(numbers(f"{at}/order/{k}") for k in range(len(row.order)))
        regret = numbers(f"{at}/regret", ".3f", metric=f"scorecard_regret/{key}")
        rows.append(
            [
                name(row.scorer.replace("_", " ")) + (" <b>(used)</b>" if row.used else ""),
                "-" if row.chosen is None else numbers(f"{at}/chosen", metric=f"scorecard_chosen_depth/{key}"),
                regret if row.regret is not None else "not tried",
                numbers(f"{at}/tau", ".2f", metric=f"scorecard_kendall_tau/{key}"),
                numbers(f"{at}/depths"),
                numbers(f"{at}/seconds", ".1f", metric=f"scorecard_seconds/{key}"),
                f'<td class="word">{order}</td>',
            ]
        )
    header = ["scorer", "would choose", "regret", "Kendall's tau", "over depths", "seconds", "its order of the depths"]
    return (
        "<h3>Scorecard of the evidence</h3><p>What each scorer would have chosen before the first trial, and what that "
        f"would have cost. Regret: the best validation {spoken(data.metric)} of all depths minus the best at that "
        f"depth. "
        "One search of few depths: a look, not a test.</p>" + table(header, rows, caption="scorecard of the evidence")
    )


def depths(data: ReportData, numbers: Numbers) -> str:
    """Best score by depth and optimizer."""
    if not data.trials:
        return section("depths", "Best score by freeze depth and optimizer", "<p>No trial has finished yet.</p>")
    low, high = data.depths
    known = [c.best for c in data.heat_map if c.best is not None]
    worst, best = min(known, default=0.0), max(known, default=1.0)
    optimizers = list(dict.fromkeys(cell.optimizer for cell in data.heat_map))
    rows = []
    for optimizer in optimizers:
        cells = [(n, c) for n, c in enumerate(data.heat_map) if c.optimizer == optimizer]
        rows.append([name(optimizer), *(_cell(n, cell, data, numbers, worst, best) for n, cell in cells)])
    header = ["optimizer", *(numbers(f"/depth_numbers/{k - low}") for k in range(low, high + 1))]
    words = (
        f"<p>Best validation {spoken(data.metric)} of any trial; columns are freeze depths, from everything trained "
        f"to "
        "the head alone. The cell of the winner has a frame. ≥: that trial was stopped early, so there might be more. "
        "Empty: never tried. The search draws promising cells more often, so the table is no fair comparison of "
        "optimizers.</p>"
    )
    heat = table(header, rows, caption="best validation score by optimizer and freeze depth", kind="heat")
    return section("depths", "Best score by freeze depth and optimizer", words + heat)


def _cell(place: int, cell: HeatCell, data: ReportData, numbers: Numbers, worst: float, best: float) -> str:
    if cell.best is None or cell.slot is None:
        return '<td class="none"><span class="hidden">not tried</span></td>'
    share = (cell.best - worst) / (best - worst) if best > worst else 1.0
    won = data.winner is not None and data.winner.slot == cell.slot
    run = next(t.run_id for t in data.trials if t.slot == cell.slot)
    value = numbers(f"/heat_map/{place}/best", ".3f", metric="value", run=run)
    count = numbers(f"/heat_map/{place}/trials")
    early = '<span title="stopped early">≥</span> ' if cell.stopped else ""
    kind = ' class="won"' if won else ""
    return f'<td{kind} style="--heat:{100 * share:.0f}%">{early}{value}<small>{count} tried</small></td>'


def curves(data: ReportData, numbers: Numbers) -> str:
    """Training curves of all trials, and a table of them."""
    if not data.trials:
        return section("curves", "Training curves", "<p>No trial has finished yet.</p>")
    winner = None if data.winner is None else data.winner.slot
    words = f"Validation {spoken(data.metric)} of every trial by epoch; those that were stopped early are faded"
    drawn = curves_svg([t for t in data.trials if t.curve], winner, words)
    rows = []
    for place, trial in enumerate(data.trials):
        at, run = f"/trials/{place}", trial.run_id
        rows.append(
            [
                numbers(f"{at}/slot"),
                name(trial.optimizer),
                numbers(f"{at}/learning_rate", ".2g", param="learning_rate", run=run),
                numbers(f"{at}/freeze_depth", param="freeze_depth", run=run),
                numbers(f"{at}/value", ".3f", metric="value", run=run),
                numbers(f"{at}/epochs", metric="epochs", run=run),
                numbers(f"{at}/seconds", ".1f", metric="seconds", run=run),
                f'<td class="word">{"winner" if trial.slot == winner else name(trial.outcome)}</td>',
                f'<td class="word">{name(trial.reason)}</td>',
            ]
        )
    header = ["trial", "optimizer", "learning rate", "freeze depth", f"best {spoken(data.metric)}", "epochs", "s",
              "outcome", "why it was stopped"]  # fmt: skip
    legend = (
        '<p class="legend"><span class="key won"></span> winner <span class="key full"></span> full length '
        '<span class="key stopped"></span> stopped early or diverged</p>'
    )
    all_trials = table(header, rows, caption="all finished trials", words=2)
    return section(
        "curves", "Training curves", chart("curves", drawn, words) + legend + details("All trials", all_trials)
    )


def parameters(data: ReportData, numbers: Numbers) -> str:
    """Which parameter mattered, and the score over each."""
    scored = [t for t in data.trials if t.outcome != "diverged"]
    if not data.importances:
        return section("parameters", "What mattered", "<p>Too few trials, or all scored alike.</p>")
    rows = [
        [
            text(_MEANING[one.name]),
            numbers(f"/importances/{place}/share", ".2f", metric=f"importance_{one.name}"),
            f'<td class="word">{bar(one.share)}</td>',
        ]
        for place, one in enumerate(data.importances)
    ]
    winner = None if data.winner is None else data.winner.slot
    metric = spoken(data.metric)
    slices = [
        chart(f"slice_{one.name}", slice_svg(scored, one.name, winner, words), words)
        for one in sorted(data.importances, key=lambda i: i.name)
        for words in [f"Validation {metric} of every trial over {_MEANING[one.name]}"]
    ]
    shares = table(["parameter", "share of the variance", ""], rows, caption="importance of each parameter")
    words = "Share of the variance of the score that each parameter explains"
    return section(
        "parameters",
        "What mattered",
        "<p>Share of the variance of the score that each parameter explains by itself (fANOVA). Trials that were "
        "stopped "
        "early count with the best they had reached, so that part of this says who was stopped when; with few trials "
        "it is a rough guess.</p>"
        + chart("importances", shares, words)
        + f'<div class="slices">{"".join(slices)}</div>',
    )


def chart(key: str, still: str, words: str) -> str:
    """A chart that plotly draws where scripts run, and the drawing that stands there otherwise."""
    return (
        f'<figure class="chart" data-chart="{key}"><div class="still scroll" tabindex="0" role="region" '
        f'aria-label="{text(words)}">{still}</div><div class="live" role="img" aria-label="{text(words)}" hidden></div>'
        f"<figcaption>{text(words)}</figcaption></figure>\n"
    )
