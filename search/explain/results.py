"""Everything that one run of `python -m explain` writes."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import cast

from markupsafe import Markup
from rich.progress import Progress

from explain.localisation import LocalisationRow
from explain.method_names import CAM
from explain.subject import Subject
from lightning_modules.errors import InputError, printable
from lightning_modules.images.reading import Fit
from search.explain.arguments import Arguments
from search.explain.figures import contact_sheet, image_figure, roomy_block
from search.explain.page import PageContent, image_article, page, sheet_figure
from search.explain.streaming import CONTACT_IMAGES, Stream, Summary
from search.explain.tables import write_localisation
from search.invocation import typed
from search.pages.dark_figure import darken
from search.pages.original_picture import Original

__all__ = ["problems_of", "write_results"]

_PACKAGES = ("thawline", "torch", "captum", "scikit-image", "matplotlib", "numpy", "pillow")


def write_results(
    folder: Path, stream: Stream, subject: Subject, paths: Sequence[Path], arguments: Arguments, progress: Progress
) -> Sequence[LocalisationRow]:
    """Write tables, figures and page into an existing folder; returns the rows on localisation, if any.

    Raises:
        InputError: not one image can be explained.
    """
    if stream.labelled:
        training = progress.add_task("training heads for CAM", total=len(stream.labelled))
        stream.train_heads(lambda done: progress.advance(training, done))
    task = progress.add_task("explaining", total=len(paths))
    with (folder / "predictions.csv").open("w", encoding="utf-8", newline="") as file:
        summary = stream.predict(file, lambda done: progress.advance(task, done))
    if not summary.table.images:
        path, reason = next(iter(stream.problems.items()))
        raise InputError(f"none of the {len(paths)} images can be explained: first: {printable(path)}: {reason}")
    rows = summary.localisation.rows(arguments.seed) if summary.localisation is not None else []
    if rows:
        write_localisation(folder / "localisation.csv", rows)
    content = _content(subject, summary, rows, stream, arguments)
    figures = summary.selection.for_figures(arguments.figures)
    sheets = {
        k: summary.selection.for_contact(k, CONTACT_IMAGES) for k, count in enumerate(summary.selection.counts) if count
    }
    drawing = progress.add_task("drawing", total=len(figures) + len(sheets))
    for name in ("figures", "contact"):
        (folder / name).mkdir()

    def articles() -> Iterator[Markup]:
        drawn = stream.draw(figures, arguments.block_methods, lime="lime" in arguments.methods)
        for count, explained in enumerate(drawn, 1):
            figure = image_figure(explained, arguments.block_methods, subject.classes)
            figure.savefig(folder / "figures" / f"{count:04d}_{_file_name(explained.path.stem)}.png")
            original = _original(subject, explained.path)
            yield image_article(explained, arguments.block_methods, subject.classes, original)
            progress.advance(drawing)

    def contact_sheets() -> Iterator[Markup]:
        used: set[str] = set()
        for k, places in sheets.items():
            name = subject.classes[k]
            explained = list(stream.draw(places, (arguments.primary,), lime=False))
            explained.sort(key=lambda one: -one.predicted[1])
            file = _file_name(name)
            file = f"{file}_{k}" if file.casefold() in used else file
            used.add(file.casefold())
            path = folder / "contact" / f"{file}.png"
            block, _ = roomy_block(explained[0], arguments.primary)
            sheet = contact_sheet(name, explained, arguments.primary, block, summary.selection.counts[k])
            sheet.savefig(path)
            darken(sheet)
            dark = io.BytesIO()
            sheet.savefig(dark, format="png")
            yield sheet_figure(name, path, dark)
            progress.advance(drawing)

    with (folder / "index.html").open("w", encoding="utf-8") as out:
        out.writelines(page(content, articles(), contact_sheets()))
    manifest = _manifest(subject, summary, stream, arguments)
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1, ensure_ascii=False), encoding="utf-8")
    return rows


def _original(subject: Subject, path: Path) -> Original | None:
    """The picture as it was taken; None where the network is not shown whole pictures, or the file is gone."""
    if subject.original is None:
        return None
    try:
        return Original(subject.original(path), subject.size, cast("Fit", subject.fit))
    except InputError:
        return None


def problems_of(stream: Stream) -> list[tuple[str, str]]:
    """Printable path and reason of each file that was left out, or whose truth was."""
    found = list(stream.problems.items())
    for what, problems in (("truth", stream.truth_problems), ("gap_head", stream.head_problems)):
        found.extend((path, f"{what}: {reason}") for path, reason in problems.items())
    return [(printable(path), reason) for path, reason in found]


def _content(
    subject: Subject, summary: Summary, rows: Sequence[LocalisationRow], stream: Stream, arguments: Arguments
) -> PageContent:
    table, localisation = summary.table, summary.localisation
    facts = {
        "Images": f"{table.images}, from {arguments.images}",
        "Model": f"{arguments.model}: {subject.name}; {len(subject.classes)} classes",
        "Sees": f"{subject.size[0]} x {subject.size[1]} pixels (fit={subject.fit})",
        "Explained": {"predicted": "the predicted class", "true": "the true class"}.get(
            arguments.target, f"class {arguments.target}"
        ),
        "Methods": ", ".join(arguments.methods),
        **({"CAM": str(stream.heads)} if CAM in arguments.methods else {}),
        **({"Localisation": stream.localised} if stream.localised else {}),
        "Made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
    return PageContent(
        title="What the blocks look at",
        facts=facts,
        by_class=table.by_class,
        accuracy=(table.right, table.judged) if table.judged else None,
        method=arguments.primary,
        measures=table.measures,
        localisation=rows,
        localised=(len(localisation), localisation.chance) if localisation is not None else (0, float("nan")),
        problems=problems_of(stream),
        command=_command(arguments),
    )


def _command(arguments: Arguments) -> str:
    default = Arguments(images="")
    words = []
    for name, value in asdict(arguments).items():
        if value != getattr(default, name):
            text = f"[{','.join(value)}]" if isinstance(value, tuple) else str(value)
            words.append(f"{name}={'true' if value is True else text}")
    return typed("explain", *words)


def _manifest(subject: Subject, summary: Summary, stream: Stream, arguments: Arguments) -> Mapping[str, object]:
    versions, heads = {}, stream.heads
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "made": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": _command(arguments),
        "arguments": {k: str(v) if isinstance(v, Path) else v for k, v in asdict(arguments).items()},
        "model": {
            "name": subject.name,
            "classes": subject.classes,
            "size": subject.size,
            "fit": subject.fit,
            "blocks": list(subject.blocks),
        },
        "images": summary.table.images,
        **({"localisation": stream.localised} if stream.localised else {}),
        **(
            {"cam": {"own": list(heads.own), "trained": dict(heads.accuracy), "trained_on": heads.images}}
            if CAM in arguments.methods
            else {}
        ),
        "left_out": [{"path": path, "reason": reason} for path, reason in problems_of(stream)],
        "versions": versions,
    }


def _file_name(text: str) -> str:
    """A file name any file system takes: letters of any script, digits, dot, dash and underscore."""
    return re.sub(r"[^\w.-]+", "_", printable(text)).strip(".")[:80] or "unnamed"
