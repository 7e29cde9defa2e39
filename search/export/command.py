"""What `python -m search.export` does: write the file, run it beside the model, keep it where both answer alike."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console

from lightning_modules.networks.model_file import TrainedModel, write_digests
from search.command_line.output_folder import check_free, new_folder
from search.export.arguments import Arguments
from search.export.formats import Run, opened, quantise, require, write
from search.export.graph import ModelGraph
from search.export.latency import BATCHES, latency, latency_table
from search.export.metadata import as_text, metadata
from search.export.parity import Parity
from search.predict.image_list import listed_images
from search.tracking.models import chosen_model, resolve_model

__all__ = ["Exported", "export"]

_BATCH = 32
_RANGES = 200


@dataclass(frozen=True)
class Exported:
    """What was written.

    Attributes:
        milliseconds: what -> batch -> milliseconds an image; empty where it was not measured.
    """

    model: str
    file: Path
    parity: Parity
    milliseconds: dict[str, dict[int, float]]


def export(arguments: Arguments, console: Console) -> Exported:
    """Export a model.

    Raises:
        InputError: bad input, packages that are missing, or answers that differ; nothing has been written.
    """
    require(arguments.format)
    check_free(arguments.to)
    named = chosen_model(arguments.model, arguments.root, lambda line: print(f"export: {line}", file=sys.stderr))
    model = resolve_model(named, arguments.root)
    graph = ModelGraph(model).eval()
    plain = metadata(
        model,
        graph.outputs,
        precision=arguments.precision,
        coverage=arguments.coverage,
        unknown=arguments.unknown,
        costs=arguments.costs,
    )
    text = as_text(plain)
    with new_folder(arguments.to) as folder:
        with console.status(f"Writing format={arguments.format}"):
            file = write(arguments.format, graph, model.card.size, text, folder)
            if arguments.ranges is not None:
                batches = (pixels for _, pixels in _listed(model, arguments.ranges, most=_RANGES))
                quantise(file, batches, text)
        run, found = opened(arguments.format, file, graph.outputs)
        if json.loads(found) != plain:
            raise RuntimeError("the file does not hold its metadata")
        with console.status("Comparing its answers with the model's"):
            if arguments.images is not None:
                shown = _listed(model, arguments.images)
            else:
                # Not before: it brings what a search loads, which leaves folders in the home.
                from search.export.study_images import study_images

                shown = study_images(named, arguments.root, model.card, console, _BATCH)
            parity, image = _compared(graph, run, shown, plain)
        parity.refuse(max_difference=_known(arguments.max_difference), max_changed=_known(arguments.max_changed))
        (folder / "metadata.json").write_text(text, encoding="utf-8")
        (folder / "parity.json").write_text(json.dumps(parity.plain(), indent=1, ensure_ascii=False), encoding="utf-8")
        write_digests(folder)
        milliseconds: dict[str, dict[int, float]] = {}
        if arguments.latency:
            with console.status("Measuring how long answers take"):
                for name, one in (("model, PyTorch", _of_model(graph)), (f"file, {arguments.format}", run)):
                    milliseconds[name] = {batch: latency(one, image, batch) for batch in BATCHES}
    if milliseconds:
        console.print(latency_table(milliseconds, torch.get_num_threads()))
    return Exported(named, arguments.to / file.name, parity, milliseconds)


def _known(value: float | None) -> float:
    if value is None:
        raise RuntimeError("parse() fills it in")
    return value


def _compared(
    graph: ModelGraph, run: Run, shown: Iterator[tuple[list[str], NDArray[np.uint8]]], plain: dict[str, Any]
) -> tuple[Parity, NDArray[np.uint8]]:
    """The comparison on all images, and the first of them."""
    parity, first, reference = Parity(plain), None, _of_model(graph)
    for names, grey in shown:
        pixels = np.broadcast_to(grey, (*grey.shape[:3], 3))  # grey stands in every channel, as the network is shown it
        parity.add(names, reference(pixels), run(pixels))
        first = pixels[:1] if first is None else first
    if first is None:
        raise RuntimeError("there is at least one image")
    return parity, first


def _of_model(graph: ModelGraph) -> Run:
    def run(pixels: NDArray[np.uint8]) -> dict[str, NDArray[np.generic]]:
        with torch.no_grad():
            found = graph(torch.from_numpy(pixels))
        return {name: one.numpy() for name, one in zip(graph.outputs, found, strict=True)}

    return run


def _listed(
    model: TrainedModel, pattern: str, *, most: int | None = None
) -> Iterator[tuple[list[str], NDArray[np.uint8]]]:
    """Names and pixels uint8 (N, H, W, 3) of the images named, evenly drawn where there are more than `most`.

    Raises:
        InputError: no image, or one that cannot be read.
    """
    with listed_images(pattern) as images:
        step = 1 if most is None else max(1, len(images) // most)
        chosen = islice(images, 0, None if most is None else step * most, step)
        while batch := list(islice(chosen, _BATCH)):
            yield [one.name for one in batch], np.concatenate([_pixels(model, one.path) for one in batch])


def _pixels(model: TrainedModel, path: Path) -> NDArray[np.uint8]:
    """uint8 (1, H, W, 3) of an image; grey stands in every channel, as the network is shown it."""
    pixels = model.read_parts(path).pixels
    return np.broadcast_to(pixels, (*pixels.shape[:3], 3))
