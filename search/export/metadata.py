"""What goes with an exported file so that a program can decide with it: plain JSON, in the file and beside it."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from lightning_modules.decisions.conformal import BY_HAND
from lightning_modules.errors import InputError
from lightning_modules.networks.model_file import TrainedModel, own_tensors

__all__ = ["FORMAT", "as_text", "metadata"]

FORMAT = 1
"""Of the metadata; whoever reads another one must refuse it."""


def metadata(
    model: TrainedModel,
    outputs: tuple[str, ...],
    *,
    precision: str,
    coverage: float | None,
    unknown: float | None,
    costs: bool = False,
) -> dict[str, Any]:
    """The metadata of a model.

    Args:
        outputs: of the file.
        coverage: see `TrainedModel.rule`; None leaves prediction sets out.
        unknown: see `ReferenceImages.limit`; None leaves the limit out.
        costs: whether those that the model keeps decide.

    Returns:
        `format`; `classes`, by output; `size` [H, W]; `fit`; `levels` (black, white and dark of images of more than 8
        bits), and `eight_bits`, whether images of 8 bits are accepted as they are; `temperature` or null; `digest`
        (SHA-256 of model.safetensors); `outputs`; `precision`; `coverage` with `limits`, by class: a class is in the
        set where -ln(probability) <= limit; `by_hand`: the decision where the set is not one class; `costs`: by true
        class, of each decided class and of looking by hand, or null; `false_alarms` with `distance_limit`: beyond it
        an image is unlike anything in training; `reference`: files of the reference images.

    Raises:
        InputError: a model of tiles, whose images are cut and put together outside; or one that cannot promise what is
            asked for.
    """
    card, reference = model.card, model.reference
    if card.tiling is not None:
        raise InputError("a model of tiles cannot be exported: its images are cut and put together outside the network")
    if unknown is not None and reference is None:
        raise InputError(
            f"unknown={unknown:g} needs a model that knows its training images, and this one was made by an earlier "
            "version; search again"
        )
    return {
        "format": FORMAT,
        "classes": list(card.classes),
        "size": list(card.size),
        "fit": card.fit,
        "levels": [card.black_level, card.white_level, card.dark_level],
        "eight_bits": not card.value_range.narrow,
        "temperature": card.temperature,
        "digest": _digest(model),
        "outputs": list(outputs),
        "precision": precision,
        "coverage": coverage,
        "limits": None if coverage is None else model.rule(coverage).limits.tolist(),
        "by_hand": BY_HAND,
        "costs": model.cost_rule().costs.table.tolist() if costs else None,
        "false_alarms": unknown,
        "distance_limit": None if unknown is None or reference is None else reference.limit(unknown),
        "reference": [] if reference is None else list(reference.names),
    }


def _digest(model: TrainedModel) -> str:
    from safetensors.torch import save

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in own_tensors(model.net).items()}
    return hashlib.sha256(save(tensors)).hexdigest()


def as_text(plain: dict[str, Any]) -> str:
    """As it stands in the file."""
    return json.dumps(plain, ensure_ascii=False, allow_nan=False)
