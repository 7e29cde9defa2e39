"""What a notebook shows of a study, its evidence and an explained image: a few lines, pictures inline, nothing from
outside. `from search import load_study` gives these; commands read the plain records that they are made of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import Any

from explain.method_names import ATTENTION
from explain.subject import ImageExplanation, explain_batch, measure
from lightning_modules.errors import InputError, printable
from lightning_modules.home_folder import home_path
from search.evidence import record as evidence_record
from search.outcome.decisions import ARTIFACT, DecisionFacts, read_decisions
from search.outcome.scorecard import ScorecardRow, SeenDepth, scorecard, seen_depths
from search.pages.html import drawing, render
from search.study import opening
from search.study import record as study_record
from search.study.judge import best_seen, rank
from search.tracking.store import artifacts_of
from search.verdict import Verdict, counted, headline, joined, judge, weak_points, words
from search.words import spoken

__all__ = ["Evidence", "Study", "evidence_html", "explain_image", "load_study", "study_html"]

_TRIALS = 8  # shown


class Evidence(evidence_record.Evidence):
    """What the scorers said before the first trial, shown with its figure."""

    def __repr__(self) -> str:
        from search.outcome.evidence_figure import prior_words  # Matplotlib's import comes after `search.tracking`

        low, high = self.depths
        return "\n".join(
            (
                f"Evidence of {len(self.blocks)} blocks, {self.blocks[0]} to {self.blocks[-1]}",
                f"{len(self.scorers)} scorers: {', '.join(self.scorers) or 'none'}",
                f"Freeze depths {low} to {high}: {prior_words(self)}",
            )
        )

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
    def verdict(self) -> Verdict | None:
        """What the test images showed of the winner; None where none were read."""
        won = self.winner
        if won is None or won.test is None:
            return None
        counts = self._confusion()
        if counts is not None:
            return judge(*counts)
        return counted(round(won.test["accuracy"] * won.images[1]), won.images[1])

    def _confusion(self) -> tuple[tuple[str, ...], list[list[int]]] | None:
        """Classes and confusion matrix of the test, as they were logged; None where they are gone."""
        path = None if self.run_id is None else artifacts_of(self.root, self.run_id) / "test" / "confusion.json"
        if path is None or not path.is_file():
            return None
        table = json.loads(path.read_text(encoding="utf-8"))
        return tuple(table["columns"][1:]), [row[1:] for row in table["data"]]

    def __repr__(self) -> str:
        under_way = f", {self.unfinished} under way" if self.unfinished else ""
        first = f"Study {self.name!r}: {len(self.trials)} trials finished{under_way}"
        shown, verdict = _shown_trial(self), self.verdict
        second = "No trial has run its full length yet"
        if shown is not None:
            who = "Winner" if self.winner is not None else "No winner yet; best so far"
            network = "" if shown.network is None else f"{shown.network}, "
            second = (
                f"{who}: trial {shown.slot}, {network}{shown.optimizer}, learning rate {shown.learning_rate:.3g}, "
                f"freeze depth {shown.freeze_depth}; validation {spoken(self.metric)} {shown.value:.3f}"
            )
        third = "No test images were read"
        if verdict is not None:
            third = joined(headline(verdict), *(weak_points(verdict)[:1] if verdict.weakest is not None else ()))
        return "\n".join((first, second, third))

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
            method: a key of `explain.METHODS`, or attention, the map of a network's own attention branch.

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
        >>> load_study("none of that name", root="no such folder")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ...
        lightning_modules.errors.InputError: there is no study 'none of that name' in no such folder: no studies yet; \
run ... first
    """
    found = _values(opening.load_study(name, root))
    if found["evidence"] is not None:
        found["evidence"] = Evidence(**_values(found["evidence"]))
    return Study(**found)


def study_html(study: Study) -> str:
    """What was shown of the winner, the winner, the best trials and the evidence with what came of it."""
    best = sorted(study.trials, key=rank)[:_TRIALS]
    evidence = ""
    if study.evidence is not None:
        evidence = evidence_html(study.evidence, study.seen, _chosen(study), metric=study.metric)
    said = "" if study.verdict is None else words(study.verdict)
    return render(
        "notebook_study.html", study=study, shown=_shown_trial(study), verdict=said, best=best, evidence=evidence
    )


def evidence_html(
    evidence: evidence_record.Evidence,
    seen: Mapping[int, SeenDepth] | None = None,
    chosen: int | None = None,
    *,
    metric: str = "score",
) -> str:
    """The figure of the evidence, and in words what it says.

    Args:
        seen: what was reached at each freeze depth; None before the first trial.
        chosen: the winner's freeze depth; None without a winner.
    """
    from search.outcome.evidence_figure import depth_words, evidence_figure, prior_words

    figure = evidence_figure(evidence, seen or {}, chosen, metric=metric)
    return render(
        "notebook_evidence.html",
        title=depth_words(len(evidence.blocks), chosen),
        words=prior_words(evidence),
        figure=drawing(figure, 80, bbox_inches="tight"),
    )


def _shown_trial(study: study_record.Study) -> study_record.Trial | None:
    """The winner's trial, before there is one the best so far."""
    if study.winner is None:
        return study.best
    return next((trial for trial in study.trials if trial.slot == study.winner.slot), None)


def _chosen(study: study_record.Study) -> int | None:
    """The winner's freeze depth, of several networks that of the best trial of the one that the evidence is of."""
    if study.winner is None:
        return None
    if study.winner.params.get("network") == study_record.first_network(study.identity):
        return int(study.winner.params["freeze_depth"])
    best = best_seen(t for t in study_record.of_evidence(study.trials, study.identity) if t.outcome == "complete")
    return None if best is None else best.freeze_depth


class ShownImage(ImageExplanation):
    """An explained image that a notebook shows."""

    def __repr__(self) -> str:
        (first, likely), (second, next_likely) = self.predicted, self.second
        methods = ", ".join(dict.fromkeys(method for method, _ in self.maps))
        blocks = ", ".join(dict.fromkeys(block for _, block in self.maps))
        return "\n".join(
            (
                f"{printable(self.path)}: {first} {likely:.2f}, then {second} {next_likely:.2f}",
                f"Maps of {self.explained[0]}: {methods}",
                f"At blocks {blocks}",
            )
        )

    def _repr_html_(self) -> str:
        from search.explain.page import image_fragment

        return image_fragment(self)


def explain_image(study: study_record.Study, path: Path, method: str) -> ShownImage:
    """Maps of the winner's predicted class for one image; see `Study.explain`."""
    from explain.attribution import METHODS
    from search.tracking.models import attended_block, resolve_model, subject_of

    if study.winner is None:
        raise InputError(f"study {printable(study.name)!r} has no winner yet, so there is no model to explain")
    if method not in (*METHODS, ATTENTION):
        raise InputError(f"method must be one of {', '.join((*METHODS, ATTENTION))}, got {printable(method)!r}")
    model = resolve_model(study.winner.run_id, study.root)
    if method == ATTENTION:
        attended_block(model, f"method={method}")
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
