"""What `python -m explain` does: check the input, load the model, stream the images into a new folder."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from explain.method_names import ATTENTION, CAM
from lightning_modules.errors import InputError, printable
from lightning_modules.images.folders import Skipped
from search.command_line.image_paths import find_images
from search.command_line.output_folder import check_free, new_folder
from search.explain.annotations import Annotation, read_boxes, read_masks
from search.explain.arguments import Arguments
from search.explain.labelled_images import labelled_images
from search.tracking.models import attended_block, chosen_model, resolve_model, subject_of

if TYPE_CHECKING:
    from explain.subject import Subject
    from lightning_modules.networks.model_file import TrainedModel
    from search.explain.cam_heads import CamHeads
    from search.explain.streaming import Stream

__all__ = ["run"]


def run(arguments: Arguments) -> int:
    """Explain the images and write the folder; returns the exit code.

    Raises:
        InputError: bad input; nothing has been written.
    """
    check_free(arguments.to)
    annotations = _annotations(arguments)
    masks = {mask for note in annotations.values() for mask in note.masks}
    skipped = Skipped()
    paths = find_images(arguments.images, skipped, exclude=masks)
    if annotations and not any(path.resolve() in annotations for path in paths):
        table = printable(arguments.boxes or arguments.masks)
        raise InputError(
            f"{table} names none of the {len(paths)} images; its paths are relative to its own folder, "
            f"the first is {printable(next(iter(annotations)))}"
        )
    named = chosen_model(arguments.model, arguments.root, lambda line: print(f"explain: {line}", file=sys.stderr))
    model = resolve_model(named, arguments.root)
    arguments = replace(arguments, model=named)
    if annotations and model.card.tiling is not None:
        raise InputError(
            "boxes= and masks= measure maps of whole images, and this model cuts images into tiles: leave them out, or "
            "name a model of whole images"
        )
    # Not before: what is wrong above is refused without torch.
    import torch

    from search.explain.results import write_results
    from search.explain.streaming import Stream
    from search.explain.tables import print_localisation

    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise InputError("device=cuda: this machine has no GPU that PyTorch can use; device=cpu or auto")
    model.net.to("cuda" if arguments.device != "cpu" and torch.cuda.is_available() else "cpu")
    subject, left_out = subject_of(model, arguments.blocks)
    _check_attention(model, subject, arguments)
    target = _target(arguments.target, subject.classes)
    notes = skipped.notes() + ([f"left out, a single position each: {', '.join(left_out)}"] if left_out else [])
    if model.card.tiling is not None:
        notes.append("the model cuts images into tiles; of each image the tile that decides is explained")
    for note in notes:
        print(f"explain: {note}", file=sys.stderr)
    heads, labelled = _heads(subject, arguments)
    stream = Stream(subject, paths, arguments, annotations, target, heads, labelled)
    with new_folder(arguments.to) as folder, _progress(Console(stderr=True)) as progress:
        rows = write_results(folder, stream, subject, paths, arguments, progress)
    if rows:
        print_localisation(rows)
    return _report(stream, paths, arguments)


def _annotations(arguments: Arguments) -> dict[Path, Annotation]:
    if arguments.boxes is not None:
        return read_boxes(arguments.boxes)
    return read_masks(arguments.masks) if arguments.masks is not None else {}


def _check_attention(model: TrainedModel, subject: Subject, arguments: Arguments) -> None:
    """Say where the attention map is drawn; refuse it where the network has none."""
    if ATTENTION not in arguments.methods:
        return
    block = attended_block(model, f"methods={ATTENTION}")
    if not subject.attention:
        raise InputError(f"methods={ATTENTION} is drawn at {block}, which blocks= leaves out")
    if len(subject.blocks) > 1:
        print(f"explain: {ATTENTION} is drawn at {block}, where the branch stands", file=sys.stderr)


def _heads(subject: Subject, arguments: Arguments) -> tuple[CamHeads, list[tuple[Path, int]]]:
    """Heads the network has for CAM, and labelled images to train the others on."""
    from search.explain.cam_heads import CamHeads, own_heads

    if CAM not in arguments.methods:
        return CamHeads(), []
    heads = own_heads(subject)
    without = [label for label in subject.blocks if label not in heads.own]
    if arguments.gap_head is not None:
        if not without:
            raise InputError(f"gap_head= is not needed: {', '.join(heads.own)} has a head for CAM of its own")
        return heads, labelled_images(arguments.gap_head, subject.classes)
    if not heads.own:
        raise InputError(
            f"methods={CAM} needs global average pooling and one linear layer after a block, the network has none "
            f"after {', '.join(without)}: train heads with gap_head=FOLDER_OR_CSV of labelled images"
        )
    if without:
        print(f"explain: {CAM} is drawn at {', '.join(heads.own)}; gap_head= draws it everywhere", file=sys.stderr)
    return heads, []


def _target(target: str, classes: Sequence[str]) -> str | int:
    if target in ("predicted", "true"):
        return target
    if target in classes:
        return list(classes).index(target)
    known = ", ".join(classes)
    if re.fullmatch(r"-?[0-9]+", target):
        if not 0 <= int(target) < len(classes):
            raise InputError(f"target must be a class number in 0..{len(classes) - 1}, got {target} ({known})")
        return int(target)
    raise InputError(f"target must be predicted, true or one of {known}, got {target!r}")


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def _report(stream: Stream, paths: Sequence[Path], arguments: Arguments) -> int:
    from search.explain.results import problems_of

    problems = problems_of(stream)
    if stream.labelled:
        print(f"CAM: {stream.heads}")
    nothing = f" ({stream.flat} show nothing: one grey value)" if stream.flat else ""
    explained = f"{len(paths) - len(stream.problems)} of {len(paths)} images{nothing}"
    print(f"Explained {explained}: {arguments.to / 'index.html'}")
    if stream.localised:
        print(stream.localised.capitalize())
    if not problems:
        return 0
    print(f"explain: {len(problems)} problems:", file=sys.stderr)
    for path, reason in problems:
        print(f"  {path}: {reason}", file=sys.stderr)
    return 1
