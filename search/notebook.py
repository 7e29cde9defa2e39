"""What a notebook shows of a study, its evidence and an explained image: a few lines, pictures inline, nothing from
outside. `from search import load_study` gives these; commands read the plain records that they are made of."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning_modules.errors import InputError, printable
from search.evidence import record as evidence_record
from search.pages.html import drawing, render
from search.study import record as study_record

if TYPE_CHECKING:
    from explain.subject import ImageExplanation

__all__ = ["Evidence", "Study", "evidence_html", "explain_image", "load_study", "study_html"]

_TRIALS = 8  # shown


class Evidence(evidence_record.Evidence):
    """What the scorers said before the first trial, shown with its figure."""

    def _repr_html_(self) -> str:
        return evidence_html(self)


class Study(study_record.Study):
    """A study that a notebook shows: the winner, the best trials and the evidence."""

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
    """
    found = _values(study_record.load_study(name, root))
    if found["evidence"] is not None:
        found["evidence"] = Evidence(**_values(found["evidence"]))
    return Study(**found)


def study_html(study: study_record.Study) -> str:
    """The winner, the best trials and the evidence."""
    best = sorted(study.trials, key=lambda trial: -trial.value)[:_TRIALS]
    evidence = "" if study.evidence is None else evidence_html(study.evidence)
    return render("notebook_study.html", study=study, best=best, evidence=evidence)


def evidence_html(evidence: evidence_record.Evidence) -> str:
    """The figure of the evidence, without results."""
    from search.outcome.evidence_figure import evidence_figure

    figure = evidence_figure(evidence, {}, evidence.preferred, metric="score")
    return render("notebook_evidence.html", words=evidence.describe(), figure=drawing(figure, 80, bbox_inches="tight"))


def explain_image(study: study_record.Study, path: Path, method: str) -> ImageExplanation:
    """Maps of the winner's predicted class for one image; see `Study.explain`."""
    from explain.attribution import METHODS
    from explain.subject import ImageExplanation, Subject, choose_blocks, explain_batch, measure
    from search.explain.page import image_fragment
    from search.tracking.models import resolve_model

    class ShownExplanation(ImageExplanation):
        def _repr_html_(self) -> str:
            return image_fragment(self)

    if study.winner is None:
        raise InputError(f"study {printable(study.name)!r} has no winner yet, so there is no model to explain")
    if method not in METHODS:
        raise InputError(f"method must be one of {', '.join(METHODS)}, got {printable(method)!r}")
    model = resolve_model(study.winner.run_id, study.root)
    net, card = model.net, model.card
    blocks, _ = choose_blocks(net, {label: f"blocks.{label}" for label in net.block_names}, card.size, None)
    title = f"{card.architecture}, freeze depth {card.freeze_depth} of {net.num_blocks}"
    subject = Subject(
        net, card.classes, blocks, model.read, card.size, card.fit, net.minimum_size, net.mean.device, title
    )
    pixels = model.read(path)
    found = explain_batch(subject, pixels, "predicted", (method,))
    likely = found.probabilities[0].topk(2)
    first, second = ((card.classes[k], float(found.probabilities[0, k])) for k in likely.indices.tolist())
    measures = {key: measure(maps) for key, maps in found.maps.items()}
    return ShownExplanation(
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
