"""A trained model as a folder: tensors as safetensors, everything else one needs to use it as JSON.

The manifest holds the SHA-256 of the tensors, which is checked on loading.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from lightning_modules import backbones
from lightning_modules.blocknet import BlockNet
from lightning_modules.errors import InputError, printable
from lightning_modules.images import fit_image, read_image

__all__ = ["ModelCard", "TrainedModel", "load_model", "save_model"]

_TENSORS, _CARD = "model.safetensors", "model.json"


@dataclass(frozen=True)
class ModelCard:
    """What a model must know to be used.

    Attributes:
        architecture: name for `backbones.build`.
        classes: class names, by output.
        size: (H, W) in pixels the images are resized to.
        fit: stretch, pad or crop.
        white_level: value of white in 16-bit images.
        max_pixels: largest image that is decoded.
        freeze_depth: blocks that kept their pre-trained weights.
        versions: package -> version it was trained with.
    """

    architecture: str
    classes: tuple[str, ...]
    size: tuple[int, int]
    fit: str
    white_level: int
    max_pixels: int
    freeze_depth: int
    versions: dict[str, str]


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A network with what it takes to feed it image files."""

    net: BlockNet
    card: ModelCard

    def read(self, source: Path | bytes) -> Tensor:
        """One image file, or its bytes, as (1, 3, H, W) in [0, 1].

        Raises:
            InputError: not a readable image, with the reason.
        """
        pixels = read_image(source, max_pixels=self.card.max_pixels, white_level=self.card.white_level)
        fitted = torch.from_numpy(fit_image(pixels, self.card.size, self.card.fit).copy())  # type: ignore[arg-type]
        image = fitted.permute(2, 0, 1).float().div(255).expand(3, -1, -1)
        return image[None].contiguous(memory_format=torch.channels_last)

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        """Class probabilities (N, classes) of images (N, 3, H, W) in [0, 1]."""
        self.net.eval()
        logits: Tensor = self.net(images.to(self.net.mean.device))
        return logits.float().softmax(1).cpu()


def save_model(folder: Path, model: TrainedModel) -> None:
    """Write the model into a new folder; nothing is left of it when writing fails.

    Raises:
        InputError: the folder exists.
    """
    from safetensors.torch import save_file

    if folder.exists():
        raise InputError(f"{printable(folder)} exists: a model is never written over another")
    temporary = folder.with_name(f".{folder.name}.tmp")
    try:
        temporary.mkdir(parents=True)
        tensors = {n: t.detach().cpu().contiguous() for n, t in model.net.state_dict().items()}
        save_file(tensors, temporary / _TENSORS)
        card = asdict(model.card) | {"sha256": _sha256(temporary / _TENSORS)}
        (temporary / _CARD).write_text(json.dumps(card, indent=1, ensure_ascii=False), encoding="utf-8")
        temporary.replace(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def load_model(folder: Path) -> TrainedModel:
    """Read what `save_model` wrote.

    Raises:
        InputError: not a model folder, damaged, or tensors that are not those the manifest names.
    """
    from safetensors.torch import load_file

    try:
        raw = json.loads((folder / _CARD).read_text(encoding="utf-8"))
        digest = raw.pop("sha256")
        card = ModelCard(**{**raw, "classes": tuple(raw["classes"]), "size": tuple(raw["size"])})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{printable(folder)} is not a model folder: no readable {_CARD}") from error
    if not (folder / _TENSORS).is_file() or _sha256(folder / _TENSORS) != digest:
        raise InputError(f"{printable(folder / _TENSORS)} is missing or changed since it was written (SHA-256)")
    net = backbones.build(card.architecture, classes=len(card.classes), size=card.size, weights="none")
    net.load_state_dict(load_file(folder / _TENSORS))
    net.pretrained = True
    return TrainedModel(net.eval(), card)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
