"""A study and its evidence as HTML for a notebook: a few lines, pictures inline, nothing loaded from anywhere."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

from search.study_report.markup import name, text

if TYPE_CHECKING:
    from search.evidence import Evidence
    from search.study_report.loading import Study

__all__ = ["evidence_html", "study_html"]

_TRIALS = 8  # shown


def study_html(study: Study) -> str:
    """The winner, the best trials and the evidence."""
    winner = study.winner
    parts = [f"<h3>Study {name(study.name)}</h3>"]
    if winner is None:
        parts.append(f"<p>No winner yet: {len(study.trials)} trials finished, {study.unfinished} under way.</p>")
    else:
        params = winner.params
        words = f"Winner: trial {winner.slot}, {text(params['optimizer'])}, freeze depth {params['freeze_depth']}, "
        words += f"validation {text(study.metric)} {winner.value:.4f}"
        if winner.test is not None and winner.intervals is not None:
            low, high = winner.intervals["accuracy"]
            words += f"; test accuracy {winner.test['accuracy']:.4f} ({low:.4f} to {high:.4f})"
        parts.append(f"<p>{words}.</p>")
    if study.trials:
        best = study.frame().sort_values("value", ascending=False).head(_TRIALS)
        columns = ["optimizer", "learning_rate", "freeze_depth", "value", "epochs", "outcome"]
        parts.append(best[columns].to_html(float_format="{:.4g}".format, escape=True))
    if study.evidence is not None:
        parts.append(evidence_html(study.evidence))
    return "\n".join(parts)


def evidence_html(evidence: Evidence) -> str:
    """The figure of the evidence, without results."""
    from search.evidence_figure import evidence_figure

    memory = io.BytesIO()
    figure = evidence_figure(evidence, {}, evidence.preferred, metric="score")
    figure.savefig(memory, format="png", dpi=80, bbox_inches="tight")
    words = text(evidence.describe())
    encoded = base64.b64encode(memory.getvalue()).decode()
    return f'<p>{words}</p><img alt="{words}" src="data:image/png;base64,{encoded}" style="max-width: 100%">'
