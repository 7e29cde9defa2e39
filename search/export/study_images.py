"""The validation images of the study that a model comes from, as its networks were shown them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from lightning_modules.errors import InputError, printable
from lightning_modules.networks.model_file import ModelCard
from search.tracking.models import run_of_model
from search.tracking.store import reading
from search.trial.preparation import load, resolved, split
from search.trial.restored_task import restored_settings

__all__ = ["study_images"]

_GIVE = "give images=: some hundred that the model was not trained on"


def study_images(
    reference: str, root: Path, card: ModelCard, console: Console, batch: int
) -> Iterator[tuple[list[str], NDArray[np.uint8]]]:
    """Names and pixels uint8 (N, H, W, 1 or 3) of these images, up to `batch` at a time.

    Raises:
        InputError: the model is a folder, its run no longer says of which images it is, or these have changed.
    """
    with reading(root) as client:
        run_id = None if client is None else run_of_model(client, reference)
        if client is None or run_id is None:
            raise InputError(f"model={printable(reference)} is a folder, whose study is not known; {_GIVE}")
        data = client.get_run(run_id).data
    try:
        settings = restored_settings(data.params, {"tracking.root": root, "search.fresh": False})
        images = load(settings, console)
    except InputError as error:
        raise InputError(f"the images of the model's study cannot be read ({error}); {_GIVE}") from error
    settings = resolved(settings, images)
    digest, size = data.tags.get("data_digest"), images.pixels.shape[1:3]  # a run of a month has no such tag
    if digest != images.index.digest or size != tuple(card.size):
        raise InputError(f"run {run_id} does not say of which images the model is, or they changed since; {_GIVE}")
    folds = split(settings, images.index).folds
    rows = np.unique(np.concatenate([fold.val for fold in folds]))
    for part in np.array_split(rows, -(-len(rows) // batch)):
        shown, _ = images.pixel_rows(part)
        yield [str(images.index.records[row].path) for row in part.tolist()], np.asarray(images.pixels[shown])
