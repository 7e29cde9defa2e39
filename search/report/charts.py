"""Charts of a study for plotly, and how much each parameter mattered.

Trials that were stopped early count here with the best score they had reached: a study that prunes well has only a few
complete ones. What is read off these charts is therefore partly about who was stopped when. Trials that diverged are
left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import BaseImportanceEvaluator, FanovaImportanceEvaluator, get_param_importances
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial

from search.study.record import Study, Trial
from search.words import spoken

__all__ = ["PARAMETERS", "chart_data", "importances"]

PARAMETERS = ("freeze_depth", "optimizer", "lr_factor", "fostering_beta", "network")
"""What the search chose."""

_FEWEST = 4  # trials that an importance is computed from


def importances(study: Study) -> tuple[tuple[str, float], ...]:
    """Parameter and its share of the variance of the score (fANOVA: Hutter, Hoos and Leyton-Brown 2014).

    Returns:
        The largest share first; nothing with fewer than four trials, or where all scores are equal.
    """
    comparable = _comparable(study)
    varied = _varied(study.trials)
    if comparable is None or not varied:
        return ()
    found = get_param_importances(comparable, evaluator=FanovaImportanceEvaluator(seed=0), params=varied)
    return tuple((name, float(share)) for name, share in found.items())


def chart_data(study: Study, winner: int | None, shares: Sequence[tuple[str, float]]) -> dict[str, Any]:
    """Chart -> {data, layout} for plotly.

    Args:
        winner: slot of the winning trial, or None.
        shares: of `importances`.
    """
    charts = {"curves": _curves(study, winner)} if study.trials else {}
    comparable = _comparable(study)
    varied = _varied(study.trials)
    if comparable is None or not varied:
        return charts
    from optuna.visualization import plot_param_importances, plot_slice

    chart = plot_param_importances(comparable, evaluator=_Known(dict(shares)), params=varied)
    charts["importances"] = _plain(chart)
    charts["importances"]["layout"] |= {"yaxis": {}, "xaxis": {"title": {"text": "share of the variance"}}}
    for name in varied:
        chart = _plain(plot_slice(comparable, params=[name], target_name=spoken(study.metric)))
        charts[f"slice_{name}"] = chart
    return charts


def _curves(study: Study, winner: int | None) -> dict[str, Any]:
    """Validation score by epoch; trials that were stopped early are faded."""
    drawn = sorted(study.trials, key=lambda t: (t.slot == winner, t.outcome == "complete"))
    traces = []
    for trial in drawn:
        won, full = trial.slot == winner, trial.outcome == "complete"
        network = "" if trial.network is None else f"{trial.network} "
        label = f"{trial.slot}: {network}{trial.optimizer} lr={trial.learning_rate:.2g} freeze={trial.freeze_depth}"
        traces.append(
            {
                "type": "scatter",
                "x": list(range(1, len(trial.curve) + 1)),
                "y": list(trial.curve),
                "mode": "lines+markers" if won or len(trial.curve) == 1 else "lines",
                "name": f"{label}, {'winner' if won else trial.outcome}",
                "opacity": 1.0 if won else 0.85 if full else 0.35,
                "line": {"width": 3.5 if won else 1.6, "color": "#d1492e" if won else "#3b82c4" if full else "#8796a5"},
                "marker": {"size": 7 if won else 5},
            }
        )
    layout = {
        "xaxis": {"title": {"text": "epoch"}, "dtick": 1 if max(len(t.curve) for t in drawn) < 12 else None},
        "yaxis": {"title": {"text": f"validation {spoken(study.metric)}"}},
        "hovermode": "closest",
        "showlegend": False,
    }
    return {"data": traces, "layout": layout}


class _Known(BaseImportanceEvaluator):
    """Gives importances that were computed before."""

    def __init__(self, shares: dict[str, float]) -> None:
        self._shares = shares

    def evaluate(
        self,
        study: optuna.Study,  # noqa: ARG002 - Optuna's signature
        params: list[str] | None = None,
        *,
        target: Callable[[FrozenTrial], float] | None = None,  # noqa: ARG002
    ) -> dict[str, float]:
        return {name: self._shares[name] for name in params or self._shares}


def _plain(figure: Any) -> dict[str, Any]:
    """A plotly figure without its template and title, which the page gives."""
    chart: dict[str, Any] = json.loads(figure.to_json())
    chart["layout"] = {k: v for k, v in chart["layout"].items() if k not in ("template", "title", "width")}
    for trace in chart["data"]:
        if isinstance(trace.get("x"), list):  # Optuna quotes categories
            trace["x"] = [x.strip("'") if isinstance(x, str) else x for x in trace["x"]]
    return chart


def _varied(trials: Sequence[Trial]) -> list[str]:
    return [name for name in PARAMETERS if len({getattr(trial, name) for trial in trials}) > 1]


def _comparable(study: Study) -> optuna.Study | None:
    """A copy of the study in memory whose trials are all complete, or None where there is too little to compare."""
    scored = [t for t in study.trials if t.outcome != "diverged"]
    if len(scored) < _FEWEST or len({t.value for t in scored}) < 2:
        return None
    low, high = min(t.lr_factor for t in scored), max(t.lr_factor for t in scored)
    low, high = study.identity.get("space.lr_factor", (low, high))
    depths = [t.freeze_depth for t in scored]
    distributions: dict[str, BaseDistribution] = {
        "optimizer": CategoricalDistribution(sorted({t.optimizer for t in scored})),
        "lr_factor": FloatDistribution(low, high, log=True),
        "freeze_depth": IntDistribution(min(depths), max(depths)),
    }
    betas = {t.fostering_beta for t in scored}
    if None not in betas:
        distributions["fostering_beta"] = CategoricalDistribution(sorted(b for b in betas if b is not None))
    networks = {t.network for t in scored}
    if None not in networks:
        distributions["network"] = CategoricalDistribution(sorted(name for name in networks if name is not None))
    storage = InMemoryStorage()
    number = storage.create_new_study([optuna.study.StudyDirection.MAXIMIZE], study.name)
    for trial in scored:
        params = {key: getattr(trial, key) for key in distributions}
        done = optuna.trial.create_trial(params=params, distributions=distributions, value=trial.value)
        storage.create_new_trial(number, template_trial=done)
    return optuna.load_study(study_name=study.name, storage=storage, sampler=optuna.samplers.RandomSampler(0))
