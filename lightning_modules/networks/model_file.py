"""A trained model as a folder: tensors as safetensors, everything else one needs to use it as JSON.

Further files may name the images that it was trained on, and hold what its prediction sets are made of, what its
decisions cost and what it computes of training images. The last one holds the SHA-256 of all, as `sha256sum --check
SHA256SUMS` reads it too; it is checked on loading. Models of format 1 have the digest of the tensors alone, in the
card, and still load.
"""

from __future__ import annotations

import hashlib
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Final, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lightning_modules.decisions.conformal import (
    BY_HAND,
    CalibrationScores,
    categories,
    decided,
    prediction_sets,
    read_scores,
    score_limits,
    scores_json,
)
from lightning_modules.decisions.costs import Costs, costs_json, parse_costs
from lightning_modules.decisions.reference_images import ReferenceImages, load_reference, save_reference
from lightning_modules.errors import InputError, printable
from lightning_modules.images.by_image import by_image
from lightning_modules.images.reading import fit_image, read_image
from lightning_modules.networks import backbones
from lightning_modules.networks.blocknet import BlockNet
from lightning_modules.networks.committee import committee
from lightning_modules.networks.model_card import ModelCard, card_json, read_card
from lightning_modules.networks.penultimate import answer
from lightning_modules.whole_file import whole_file

__all__ = [
    "DIGESTS",
    "Answers",
    "CostRule",
    "CoverageRule",
    "DecisionRule",
    "ModelCard",
    "Outlier",
    "OutlierRule",
    "Parts",
    "TrainedModel",
    "by_hand_instead",
    "check_digests",
    "load_model",
    "own_tensors",
    "save_model",
    "sha256",
    "write_digests",
]

_TENSORS, _CARD, _TRAINED_ON = "model.safetensors", "model.json", "trained_on.txt"
_CALIBRATION, _COSTS, _REFERENCE = "calibration.json", "costs.json", "reference.safetensors"
_OPTIONAL = (_TRAINED_ON, _CALIBRATION, _COSTS, _REFERENCE)

DIGESTS: Final = "SHA256SUMS"
"""Name of the file."""

_Parsed = TypeVar("_Parsed")
_LINE: Final = re.compile(r"([0-9a-f]{64}) [ *]([^/\\\x00-\x1f]+)")


@dataclass(frozen=True, eq=False)
class Parts:
    """What a network is shown of one image: all of it, or its T tiles.

    Attributes:
        pixels: uint8 (T, H, W, C), C = 1 or 3.
        boxes: int64 (T, 4), top, left, height, width in pixels of the image.
    """

    pixels: NDArray[np.uint8]
    boxes: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Answers:
    """What a model answers on M images.

    Attributes:
        logits: (M, classes), divided by the temperature, on the CPU.
        shown: (M, 3, H, W) in [0, 1], the image or the tile of it that decided, on the CPU.
        boxes: int64 (M, 4), where that is in the image: top, left, height, width in pixels.
    """

    logits: Tensor
    shown: Tensor
    boxes: NDArray[np.int64]

    @cached_property
    def probabilities(self) -> Tensor:
        """(M, classes), calibrated where the model is."""
        return self.logits.softmax(1)


@dataclass(frozen=True, eq=False)
class CoverageRule:
    """How a model decides at one coverage.

    Attributes:
        classes: names, by output.
        limits: (classes,), see `score_limits`.
    """

    classes: tuple[str, ...]
    limits: NDArray[np.float64]

    columns: ClassVar = ("set", "decision")

    def decide(self, answers: Answers) -> list[tuple[Any, ...]]:
        """Of each image the classes of its prediction set, by output, and the only one of them or `BY_HAND`."""
        sets = prediction_sets(answers.logits.double().log_softmax(1).numpy(), self.limits)
        names = [[self.classes[label] for label in np.flatnonzero(row)] for row in sets]
        found = decided(sets).tolist()
        return [(inside, BY_HAND if one < 0 else self.classes[one]) for inside, one in zip(names, found, strict=True)]


@dataclass(frozen=True)
class Outlier:
    """One image against the training images.

    Attributes:
        unknown: whether it is unlike anything in training.
        distance: see `reference_images.distances`, in [0, 2].
        nearest: files of the nearest training images, nearest first.
    """

    unknown: bool
    distance: float
    nearest: list[str]


@dataclass(frozen=True, eq=False)
class OutlierRule:
    """How a model tells images that are unlike anything in training: their distance is beyond the limit."""

    model: TrainedModel
    reference: ReferenceImages
    limit: float

    @torch.no_grad()
    def judge(self, answers: Answers, batch: int = 32) -> list[Outlier]:
        """Each of the M images of some answers; of an image in tiles, the tile that decided. A forward pass of its own.

        Args:
            batch: most images that go through the network at once.
        """
        net = self.model.net.eval()
        shown = (answers.shown[start : start + batch] for start in range(0, len(answers.shown), batch))
        parts = [answer(net, part.to(net.mean.device)).features for part in shown]
        found, nearest = self.reference.judged(torch.cat(parts).float().cpu().numpy())
        pairs = zip(found.tolist(), nearest, strict=True)
        return [Outlier(distance > self.limit, distance, names) for distance, names in pairs]


@dataclass(frozen=True, eq=False)
class CostRule:
    """How a model decides where every decision has its cost."""

    classes: tuple[str, ...]
    costs: Costs

    columns: ClassVar = ("decision", "cost")

    def decide(self, answers: Answers) -> list[tuple[Any, ...]]:
        """Of each image the decision of the lowest expected cost, a class or `BY_HAND`, and that cost."""
        probabilities = answers.logits.double().softmax(1).numpy()
        names = (*self.classes, BY_HAND)  # the last one is at -1
        least = self.costs.expected(probabilities).min(1).tolist()
        found = self.costs.cheapest(probabilities).tolist()
        return [(names[one], cost) for one, cost in zip(found, least, strict=True)]


DecisionRule = CoverageRule | CostRule
"""What decides on `Answers`: `columns` names the values that `decide` gives of each image."""


def by_hand_instead(rule: DecisionRule, values: tuple[Any, ...]) -> tuple[Any, ...]:
    """The values of an image that is unlike anything in training: by hand, and what it costs is not known."""
    other = {"decision": BY_HAND, "cost": None}
    return tuple(other.get(name, value) for name, value in zip(rule.columns, values, strict=True))


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A network with what it takes to feed it image files.

    Attributes:
        trained_on: digests of the images that it, or a model that it was trained from, was trained on or chosen with;
            None where nobody wrote that down.
        calibration: what its prediction sets are made of; None where there was too little to calibrate it with, and of
            models that are older.
        costs: what its decisions cost, where the search was told.
        reference: training images that an unknown one is told by; None where nobody kept them.
    """

    net: BlockNet
    card: ModelCard
    trained_on: frozenset[str] | None = None
    calibration: CalibrationScores | None = None
    costs: Costs | None = None
    reference: ReferenceImages | None = None

    def cost_rule(self, costs: Costs | None = None) -> CostRule:
        """How it decides by these costs, or by its own.

        Raises:
            InputError: it has none of its own, or its probabilities are not calibrated.
        """
        costs = costs or self.costs
        if costs is None:
            raise InputError(
                "the model keeps no costs: it was searched without decision.costs; costs=FILE.csv names some"
            )
        if self.card.temperature is None:
            raise InputError(
                "costs= needs a calibrated model, and this one is not: it was made by an earlier version, or with too "
                "few validation images; search again (docs/decisions.md)"
            )
        return CostRule(self.card.classes, costs)

    def rule(self, coverage: float) -> CoverageRule:
        """How it decides where the true class shall be in the set with this probability, in (0, 1).

        Raises:
            InputError: it was not calibrated, or with too few images for so much.
        """
        if self.calibration is None:
            raise InputError(
                f"coverage={coverage:g} needs a calibrated model, and this one is not: it was made by an earlier "
                "version, or with too few validation images; search again (docs/decisions.md)"
            )
        if BY_HAND in self.card.classes:
            raise InputError(f"coverage={coverage:g}: a class of the model is called {BY_HAND!r}, which is a decision")
        return CoverageRule(
            self.card.classes, score_limits(categories(self.calibration, len(self.card.classes), coverage))
        )

    def outlier_rule(self, false_alarms: float) -> OutlierRule:
        """What it calls unlike anything in training where this share of known kinds of images may be, in (0, 0.5].

        Raises:
            InputError: it does not know its training images, or too few held-out ones for so small a share.
        """
        if self.reference is None:
            raise InputError(
                f"unknown={false_alarms:g} needs a model that knows its training images, and this one was made by an "
                "earlier version, or with too few validation images; search again (docs/unknown_defects.md)"
            )
        return OutlierRule(self, self.reference, self.reference.limit(false_alarms))

    def read(self, source: Path | bytes) -> Tensor:
        """One image file, or its bytes, as (1, 3, H, W) in [0, 1]; of an image in tiles, the tile that decides.

        Raises:
            InputError: as `read_parts`.
        """
        parts = self.read_parts(source)
        return _as_input(parts.pixels) if len(parts.boxes) == 1 else self.answers([parts]).shown

    def read_parts(self, source: Path | bytes) -> Parts:
        """What the network is shown of one image file, or of its bytes.

        Raises:
            InputError: not a readable image, or one of another bit depth than those of the training, or one smaller
                than the model's tiles, with the reason.
        """
        card = self.card
        pixels = read_image(source, max_pixels=card.max_pixels, known=card.value_range)
        sides = (pixels.shape[0], pixels.shape[1])
        boxes = np.array([[0, 0, *sides]]) if card.tiling is None else card.tiling.boxes(sides, card.size)
        cut = (pixels[top : top + height, left : left + width] for top, left, height, width in boxes.tolist())
        return Parts(np.stack([fit_image(part, card.size, card.fit) for part in cut]), boxes)  # type: ignore[arg-type]

    @torch.no_grad()
    def answers(self, images: Sequence[Parts], batch: int = 32) -> Answers:
        """The network's answers on M images.

        Args:
            images: at least one.
            batch: most images or tiles that go through the network at once.
        """
        if self.card.tiling is None:
            shown = torch.cat([_as_input(parts.pixels) for parts in images])
            parts = (shown[start : start + batch] for start in range(0, len(shown), batch))
            logits = torch.cat([self._logits(part) for part in parts])
            return Answers(self._calibrated(logits), shown, np.concatenate([parts.boxes for parts in images]))
        tiles = [(number, place) for number, parts in enumerate(images) for place in range(len(parts.boxes))]
        found_logits = []
        for start in range(0, len(tiles), batch):
            part = torch.cat([_as_input(images[n].pixels[k : k + 1]) for n, k in tiles[start : start + batch]])
            found_logits.append(self._logits(part))
        numbers = np.array([number for number, _ in tiles])
        found = by_image(torch.cat(found_logits), numbers, self.card.tiling.normal_position(self.card.classes))
        chosen = [tiles[place] for place in found.deciding.tolist()]
        shown = torch.cat([_as_input(images[n].pixels[k : k + 1]) for n, k in chosen])
        return Answers(self._calibrated(found.logits), shown, np.stack([images[n].boxes[k] for n, k in chosen]))

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        """Class probabilities (N, classes) of images (N, 3, H, W) in [0, 1], calibrated where the model is."""
        return self._calibrated(self._logits(images)).softmax(1)

    def _logits(self, images: Tensor) -> Tensor:
        self.net.eval()
        logits: Tensor = self.net(images.to(self.net.mean.device))
        return logits.float().cpu()

    def _calibrated(self, logits: Tensor) -> Tensor:
        return logits if self.card.temperature is None else logits / self.card.temperature


def _as_input(pixels: NDArray[np.uint8]) -> Tensor:
    """uint8 (N, H, W, C) as (N, 3, H, W) in [0, 1], channels last."""
    # Times 1 / 255, not divided by 255, which differs in the last bit: as `apply_views` showed it in training.
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().mul(1 / 255).expand(-1, 3, -1, -1)
    return images.contiguous(memory_format=torch.channels_last)


def save_model(folder: Path, model: TrainedModel) -> None:
    """Write the model into a new folder; nothing is left of it when writing fails.

    Raises:
        InputError: the folder exists, or a tensor holds values that are not finite.
        OSError: it cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    if folder.exists():
        raise InputError(f"{printable(folder)} exists: a model is never written over another")
    tensors = {n: t.detach().cpu().contiguous() for n, t in own_tensors(model.net).items()}
    if broken := [n for n, t in tensors.items() if not t.isfinite().all()]:
        raise InputError(f"a network that diverged is not saved: {broken[0]} holds values that are not finite")
    temporary = folder.with_name(f".{folder.name}.tmp")
    try:
        temporary.mkdir(parents=True)
        with whole_file(temporary / _TENSORS) as file:
            save_file(tensors, file)
        with whole_file(temporary / _CARD) as file:
            file.write_text(card_json(model.card), encoding="utf-8")
        if model.trained_on is not None:
            with whole_file(temporary / _TRAINED_ON) as file:
                file.write_text("\n".join(sorted(model.trained_on)), encoding="ascii")
        if model.calibration is not None:
            with whole_file(temporary / _CALIBRATION) as file:
                file.write_text(scores_json(model.calibration), encoding="ascii")
        if model.costs is not None:
            with whole_file(temporary / _COSTS) as file:
                file.write_text(costs_json(model.costs), encoding="ascii")
        if model.reference is not None:
            with whole_file(temporary / _REFERENCE) as file:
                save_reference(file, model.reference)
        write_digests(temporary)
        temporary.replace(folder)
    except SafetensorError as error:  # what it makes of a full disk
        raise OSError(str(error).split("\n")[0]) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def load_model(folder: Path) -> TrainedModel:
    """Read what `save_model` wrote.

    Raises:
        InputError: not a model folder, damaged, or tensors that are not those of its network.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        text = (folder / _CARD).read_text(encoding="utf-8")
    except (OSError, ValueError):
        raise InputError(f"{printable(folder)} is not a model folder: no readable {_CARD}") from None
    try:
        card, digest = read_card(text)
    except InputError as error:
        raise InputError(f"{printable(folder)} is not a model folder: {_CARD}: {error}") from None
    tensors = folder / _TENSORS
    there = [name for name in _OPTIONAL if digest is None and (folder / name).exists()]
    if digest is None:
        check_digests(folder, (_CARD, _TENSORS, *there))
    elif not tensors.is_file() or sha256(tensors) != digest:
        raise InputError(f"{printable(tensors)} is missing or changed since it was written (SHA-256)")
    try:
        found = load_file(tensors)
    except SafetensorError as error:
        raise InputError(f"{printable(tensors)} is no safetensors file: {printable(str(error))[:160]}") from None
    members = [
        backbones.build(
            card.architecture,
            classes=len(card.classes),
            size=card.size,
            weights="none",
            attention=card.attention_block,
        )
        for _ in (card.freeze_depth, *card.others)
    ]
    if card.shared > members[0].num_blocks:
        raise InputError(f"{printable(folder)} is not a model folder: {_CARD}: shared is more than its blocks")
    net = committee(members, shared=card.shared, weights=card.weights)
    _refuse_others(tensors, own_tensors(net), found)
    net.load_state_dict(found, strict=False)  # the tensors that members share come once
    for member in members:
        member.pretrained = True
    seen = frozenset((folder / _TRAINED_ON).read_text(encoding="ascii").split()) if _TRAINED_ON in there else None
    calibration = _parsed(folder / _CALIBRATION, read_scores, card) if _CALIBRATION in there else None
    costs = _parsed(folder / _COSTS, parse_costs, card) if _COSTS in there else None
    reference = load_reference(folder / _REFERENCE) if _REFERENCE in there else None
    return TrainedModel(net.eval(), card, seen, calibration, costs, reference)


def _parsed(path: Path, parse: Callable[[str, int], _Parsed], card: ModelCard) -> _Parsed:
    try:
        return parse(path.read_text(encoding="ascii"), len(card.classes))
    except InputError as error:
        raise InputError(f"{printable(path)}: {error}") from None
    except UnicodeDecodeError:
        raise InputError(f"{printable(path)}: no JSON") from None


def own_tensors(net: BlockNet) -> dict[str, Tensor]:
    """The tensors of a network by name; of a committee what all members share once, as the first one's."""
    twice = tuple(f"others.{o}.blocks.{n}." for o in range(len(net.others)) for n in net.block_names[: net.shared])
    return {name: tensor for name, tensor in net.state_dict().items() if not name.startswith(twice)}


def _refuse_others(path: Path, own: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    missing = sorted(own.keys() - found.keys())
    other = sorted(n for n, t in found.items() if n not in own or (t.shape, t.dtype) != (own[n].shape, own[n].dtype))
    if missing or other:
        raise InputError(
            f"{printable(path)} does not hold the tensors of its network: {len(missing)} missing, {len(other)} unknown "
            f"or of another shape, for example {printable((missing or other)[0])[:80]}"
        )


def sha256(path: Path) -> str:
    """SHA-256 of a file's contents, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_digests(folder: Path) -> None:
    """Write the digests of all files in a folder, over older ones."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and path.name != DIGESTS)
    text = "".join(f"{sha256(path)}  {path.name}\n" for path in files)
    with whole_file(folder / DIGESTS) as file:
        file.write_text(text, encoding="utf-8")


def check_digests(folder: Path, names: tuple[str, ...]) -> None:
    """Compare the files of a folder with their digests. Read no file without a digest.

    Args:
        folder: with a file `DIGESTS`.
        names: of files that must have a digest.

    Raises:
        InputError: a file is missing or another one than was written, or the digests are damaged.
    """
    where = printable(folder / DIGESTS)
    try:
        lines = (folder / DIGESTS).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        raise InputError(f"{where} is missing or cannot be read: the model cannot be checked, copy it again") from None
    digests = {}
    for number, line in enumerate(lines, 1):
        found = _LINE.fullmatch(line)
        if found is None or found[2] in (".", ".."):
            raise InputError(f"{where} line {number} is no SHA-256 and the name of a file in this folder")
        digests[found[2]] = found[1]
    for name in (*names, *digests):
        if name not in digests:
            raise InputError(f"{where} has no digest of {name}")
        path = folder / name
        if not path.is_file() or sha256(path) != digests[name]:
            raise InputError(f"{printable(path)} is missing or changed since it was written (SHA-256)")
