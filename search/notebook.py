"""What a notebook shows of a study, its evidence and an explained image: a few lines, pictures inline, nothing from
outside. `from search import load_study` gives these; commands read the plain records that they are made of."""

from __future__ import annotations

from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import Any

from explain.subject import ImageExplanation, explain_batch, measure
from lightning_modules.errors import InputError, printable
from lightning_modules.home_folder import home_path
from search.evidence import record as evidence_record
from search.outcome.decisions import ARTIFACT, DecisionFacts, read_decisions
from search.outcome.scorecard import ScorecardRow, SeenDepth, scorecard, seen_depths
from search.pages.html import drawing, render
from search.study import record as study_record
from search.study.judge import rank
from search.tracking.store import artifacts_of

__all__ = ["Evidence", "Study", "evidence_html", "explain_image", "load_study", "study_html"]

_TRIALS = 8  # shown


class Evidence(evidence_record.Evidence):
    """What the scorers said before the first trial, shown with its figure."""

    def _repr_html_(self) -> str:
        return evidence_html(self)


class Study(study_record.Study):
    """A study that a notebook shows: the winner, the best trials and the evidence."""

    @cached_property
    def seen(self) -> dict[int, SeenDepth]:
        """Freeze depth -> what was reached there, by trials of the network that the evidence is of."""
        return seen_depths(study_record.of_evidence(self.trials, self.identity))

    @cached_property
    def scorecard(self) -> tuple[ScorecardRow, ...]:
        """How each scorer of the evidence did; empty without evidence."""
        return () if self.evidence is None else scorecard(self.evidence, self.seen)

    @cached_property
    def decisions(self) -> DecisionFacts | None:
        """How far the winner's probabilities and decisions hold; None where that was not measured."""
        if self.run_id is None:
            return None
        path = artifacts_of(self.root, self.run_id) / ARTIFACT
        return read_decisions(path.read_bytes() if path.is_file() else None)

    def explain(self, image: str | Path, method: str = "layercam") -> ImageExplanation:
        """Maps of the winner's predicted class for one image file, at every block that has positions.

        Args:
            image: a file of any kind the search reads.
            method: a key of `explain.METHODS`.

        Raises:
            InputError: no winner yet, an unknown method, or no readable image.
        """
        return explain_image(self, Path(home_path(str(image), "image")), method)

    def _repr_html_(self) -> str:
        return study_html(self)


def load_study(name: str, root: str | Path = "mlruns") -> Study:
    """Read a study; nothing is written, so it may be done while a search runs.

    Args:
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
    found = _values(study_record.load_study(name, root))
    if found["evidence"] is not None:
        found["evidence"] = Evidence(**_values(found["evidence"]))
    return Study(**found)


def study_html(study: study_record.Study) -> str:
    """The winner, the best trials and the evidence."""
    best = sorted(study.trials, key=rank)[:_TRIALS]
    evidence = "" if study.evidence is None else evidence_html(study.evidence)
    return render("notebook_study.html", study=study, best=best, evidence=evidence)


def evidence_html(evidence: evidence_record.Evidence) -> str:
    """The figure of the evidence, without results."""
    from search.outcome.evidence_figure import evidence_figure

    figure = evidence_figure(evidence, {}, evidence.preferred, metric="score")
    return render("notebook_evidence.html", words=evidence.describe(), figure=drawing(figure, 80, bbox_inches="tight"))


class ShownImage(ImageExplanation):
    """An explained image that a notebook shows."""

    def _repr_html_(self) -> str:
        from search.explain.page import image_fragment

        return image_fragment(self)


def explain_image(study: study_record.Study, path: Path, method: str) -> ShownImage:
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


def _values(record: object) -> dict[str, Any]:
    return {one.name: getattr(record, one.name) for one in fields(record)}  # type: ignore[arg-type]
