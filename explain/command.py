"""What `python -m explain` does: load the model, stream the images, write the folder."""

from __future__ import annotations

import json
import re
import shlex
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from explain.annotations import Annotation, read_boxes, read_masks
from explain.arguments import ArgumentError, Arguments, printable
from explain.figures import contact_sheet, image_figure
from explain.image_paths import find_images
from explain.localisation import LocalisationRow
from explain.localisation_table import print_localisation, write_localisation
from explain.output_folder import check_free, new_folder
from explain.page import PageContent, image_article, page, sheet_figure
from explain.streaming import CONTACT_IMAGES, Stream, Summary
from explain.subject import Subject, choose_blocks
from search.models import InputError, resolve_model

if TYPE_CHECKING:
    from search.models import TrainedModel

__all__ = ["run"]

_PACKAGES = ("thawline", "torch", "captum", "scikit-image", "matplotlib", "numpy", "pillow")


def run(arguments: Arguments) -> int:
    """Explain the images and write the folder; returns the exit code.

    Raises:
        ArgumentError: bad input; nothing has been written.
    """
    check_free(arguments.out)
    annotations = _annotations(arguments)
    masks = {note.mask for note in annotations.values() if note.mask is not None}
    paths = find_images(arguments.images, exclude=masks)
    if annotations and not any(path.resolve() in annotations for path in paths):
        table = printable(arguments.boxes or arguments.masks)
        raise ArgumentError(
            f"{table} names none of the {len(paths)} images; its paths are relative to its own folder, "
            f"the first is {printable(next(iter(annotations)))}"
        )
    try:
        model = resolve_model(arguments.model, arguments.root)
    except InputError as error:
        raise ArgumentError(str(error)) from error
    subject, left_out = _subject(model, arguments)
    target = _target(arguments.target, subject.classes)
    errors = Console(stderr=True)
    if left_out:
        print(f"explain: left out, a single position each: {', '.join(left_out)}", file=sys.stderr)
    stream = Stream(subject, paths, arguments, annotations, target)
    with new_folder(arguments.out) as folder, _progress(errors) as progress:
        rows = _write(folder, stream, subject, paths, arguments, progress)
    if rows:
        print_localisation(rows)
    return _report(stream, paths, arguments)


def _annotations(arguments: Arguments) -> dict[Path, Annotation]:
    if arguments.boxes is not None:
        return read_boxes(arguments.boxes)
    return read_masks(arguments.masks) if arguments.masks is not None else {}


def _subject(model: TrainedModel, arguments: Arguments) -> tuple[Subject, tuple[str, ...]]:
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise ArgumentError("device=cuda: this machine has no GPU that PyTorch can use; device=cpu or auto")
    cuda = torch.cuda.is_available() if arguments.device == "auto" else arguments.device == "cuda"
    device = torch.device("cuda" if cuda else "cpu")
    net = model.net.to(device)
    labels = {label: f"blocks.{label}" for label in net.block_names}
    blocks, left_out = choose_blocks(net, labels, model.card.size, arguments.blocks)
    card = model.card
    name = f"{card.architecture}, freeze depth {card.freeze_depth} of {net.depth}"
    subject = Subject(net, card.classes, blocks, model.read, card.size, card.fit, net.minimum_size, device, name)
    return subject, left_out


def _target(target: str, classes: Sequence[str]) -> str | int:
    if target in ("predicted", "true"):
        return target
    if target in classes:
        return list(classes).index(target)
    known = ", ".join(classes)
    if re.fullmatch(r"-?[0-9]+", target):
        if not 0 <= int(target) < len(classes):
            raise ArgumentError(f"target must be a class number in 0..{len(classes) - 1}, got {target} ({known})")
        return int(target)
    raise ArgumentError(f"target must be predicted, true or one of {known}, got {target!r}")


@contextmanager
def _progress(console: Console) -> Iterator[Progress]:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        yield progress


def _write(
    folder: Path, stream: Stream, subject: Subject, paths: Sequence[Path], arguments: Arguments, progress: Progress
) -> Sequence[LocalisationRow]:
    task = progress.add_task("explaining", total=len(paths))
    with (folder / "predictions.csv").open("w", encoding="utf-8", newline="") as file:
        summary = stream.predict(file, lambda done: progress.advance(task, done))
    if not summary.table.images:
        path, reason = next(iter(stream.problems.items()))
        raise ArgumentError(f"none of the {len(paths)} images can be explained: first: {printable(path)}: {reason}")
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

    def articles() -> Iterator[str]:
        drawn = stream.draw(figures, arguments.block_methods, lime="lime" in arguments.methods)
        for count, explained in enumerate(drawn, 1):
            figure = image_figure(explained, arguments.block_methods, subject.classes)
            figure.savefig(folder / "figures" / f"{count:04d}_{_file_name(explained.path.stem)}.png")
            yield image_article(explained, arguments.block_methods, subject.classes)
            progress.advance(drawing)

    def contact_sheets() -> Iterator[str]:
        block = list(subject.blocks)[-1]
        used: set[str] = set()
        for k, places in sheets.items():
            name = subject.classes[k]
            explained = list(stream.draw(places, (arguments.primary,), lime=False))
            explained.sort(key=lambda one: -one.predicted[1])
            file = _file_name(name)
            file = f"{file}_{k}" if file.casefold() in used else file
            used.add(file.casefold())
            path = folder / "contact" / f"{file}.png"
            contact_sheet(name, explained, arguments.primary, block, summary.selection.counts[k]).savefig(path)
            yield sheet_figure(name, path)
            progress.advance(drawing)

    with (folder / "index.html").open("w", encoding="utf-8") as out:
        out.writelines(page(content, articles(), contact_sheets()))
    manifest = _manifest(subject, summary, stream, arguments)
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1, ensure_ascii=False), encoding="utf-8")
    return rows


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
        problems=_listed(stream),
        command=_command(arguments),
    )


def _command(arguments: Arguments) -> str:
    default = Arguments(images="", model="")
    words = ["python -m explain"]
    for name, value in asdict(arguments).items():
        if value != getattr(default, name):
            text = f"[{','.join(value)}]" if isinstance(value, tuple) else str(value)
            words.append(shlex.quote(f"{name}={'true' if value is True else text}"))
    return " ".join(words)


def _listed(stream: Stream) -> list[tuple[str, str]]:
    found = [*stream.problems.items(), *((p, f"truth: {r}") for p, r in stream.truth_problems.items())]
    return [(printable(path), reason) for path, reason in found]


def _manifest(subject: Subject, summary: Summary, stream: Stream, arguments: Arguments) -> Mapping[str, object]:
    versions = {}
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
        "left_out": [{"path": path, "reason": reason} for path, reason in _listed(stream)],
        "versions": versions,
    }


def _file_name(text: str) -> str:
    """A file name any file system takes: letters of any script, digits, dot, dash and underscore."""
    return re.sub(r"[^\w.-]+", "_", printable(text)).strip(".")[:80] or "unnamed"


def _report(stream: Stream, paths: Sequence[Path], arguments: Arguments) -> int:
    problems = _listed(stream)
    print(f"Explained {len(paths) - len(stream.problems)} of {len(paths)} images: {arguments.out / 'index.html'}")
    if not problems:
        return 0
    print(f"explain: {len(problems)} problems:", file=sys.stderr)
    for path, reason in problems:
        print(f"  {path}: {reason}", file=sys.stderr)
    return 1


# Reading wraps Pillow's read-only buffers; nothing writes into them.
warnings.filterwarnings("ignore", message="The given NumPy array is not writable", category=UserWarning)
