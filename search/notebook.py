"""A study, its evidence and an explained image in a notebook: a few lines, pictures inline, nothing from outside."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from explain.subject import ImageExplanation, explain_batch, measure
from lightning_modules.errors import InputError, printable
from search.outcome.scorecard import ScorecardRow, SeenDepth, scorecard, seen_depths
from search.pages.html import text
from search.report.markup import name
from search.study import record

if TYPE_CHECKING:
    from search.evidence.record import Evidence

__all__ = ["Study", "evidence_html", "explain_image", "load_study", "study_html"]

_TRIALS = 8  # shown


@dataclass(frozen=True, eq=False)
class Study(record.Study):
    """A study as a notebook shows it."""

    @cached_property
    def seen(self) -> dict[int, SeenDepth]:
        """Freeze depth -> what was reached there."""
        return seen_depths(self.trials)

    @cached_property
    def scorecard(self) -> tuple[ScorecardRow, ...]:
        """How each scorer of the evidence did; empty without evidence."""
        return () if self.evidence is None else scorecard(self.evidence, self.seen)

    def explain(self, image: str | Path, method: str = "layercam") -> ImageExplanation:
        """Maps of the winner's predicted class for one image file, at every block that has positions.

        Args:
            image: a file of any kind the search reads.
            method: a key of `explain.METHODS`.

        Raises:
            InputError: no winner yet, an unknown method, or no readable image.
        """
        return explain_image(self, Path(image), method)

    def _repr_html_(self) -> str:
        return study_html(self)


def load_study(name: str, root: str | Path = "mlruns") -> Study:
    """Read a study; nothing is written, so it may be done while a search runs.

    Args:
        name: of the study, as `python -m search` prints it.
        root: `tracking.root` of the search.

    Raises:
        InputError: no such study (says which there are).

    Example:
        >>> from search import load_study
        >>> load_study("none of that name", root="no such folder")
        Traceback (most recent call last):
        ...
        lightning_modules.errors.InputError: there is no study 'none of that name' in no such folder: no studies yet; \
run python -m search first
    """
    found = record.load_study(name, root)
    return Study(**{field.name: getattr(found, field.name) for field in fields(found)})


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
    from search.outcome.evidence_figure import evidence_figure

    memory = io.BytesIO()
    figure = evidence_figure(evidence, {}, evidence.preferred, metric="score")
    figure.savefig(memory, format="png", dpi=80, bbox_inches="tight")
    words = text(evidence.describe())
    encoded = base64.b64encode(memory.getvalue()).decode()
    return f'<p>{words}</p><img alt="{words}" src="data:image/png;base64,{encoded}" style="max-width: 100%">'


class ShownImage(ImageExplanation):
    """An explained image that a notebook shows."""

    def _repr_html_(self) -> str:
        from search.explain.page import image_fragment

        return image_fragment(self)


def explain_image(study: Study, path: Path, method: str) -> ShownImage:
    """Maps of the winner's predicted class for one image; see `Study.explain`."""
    from explain.attribution import METHODS
    from search.tracking.models import resolve_model, subject_of

    if study.winner is None:
        raise InputError(f"study {printable(study.name)!r} has no winner yet, so there is no model to explain")
    if method not in METHODS:
        raise InputError(f"method must be one of {', '.join(METHODS)}, got {printable(method)!r}")
    model = resolve_model(study.winner.run_id, study.root)
    subject, _ = subject_of(model)
    pixels = model.read(path)
    found = explain_batch(subject, pixels, "predicted", (method,))
    likely = found.probabilities[0].topk(2)
    first, second = ((subject.classes[k], float(found.probabilities[0, k])) for k in likely.indices.tolist())
    measures = {key: measure(maps) for key, maps in found.maps.items()}
    return ShownImage(
        path,
        pixels[0],
        predicted=first,
        second=second,
        explained=first,
        truth=None,
        maps={key: maps[0] for key, maps in found.maps.items()},
        measures={key: {column: values[0] for column, values in one.items()} for key, one in measures.items()},
    )
