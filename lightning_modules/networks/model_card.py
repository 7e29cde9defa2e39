"""What a trained model must know to be used, and the checks of what a file says of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, get_args

from lightning_modules.errors import InputError, printable
from lightning_modules.images.reading import Fit
from lightning_modules.images.tiling import LARGEST_OVERLAP, SMALLEST_TILE, Tiling
from lightning_modules.images.value_range import FULL_WHITE_LEVEL, ValueRange

__all__ = ["ModelCard", "card_json", "read_card"]

# 1 kept the digest of the tensors in the card and had none of the card itself; 2 had 0 for black; 3 knew no tiles, 4
# no committees, 5 no temperature: its probabilities are the network's own; 6 no weights of members, 7 no attention
# branch.
_FORMAT: Final = 8
_BLACK_SINCE: Final = 3
_TILES_SINCE: Final = 4
_COMMITTEES_SINCE: Final = 5
_TEMPERATURE_SINCE: Final = 6
_WEIGHTS_SINCE: Final = 7
_MOST_MEMBERS: Final = 100
_LARGEST_SIDE: Final = 2048
_LARGEST_TILE: Final = 100_000
_RULES: Final = ("smallest probability of normal", "mean of log-probabilities")  # see `by_image`
_MOST_PIXELS: Final = 1_000_000_000
_MOST_CLASSES: Final = 100_000
_TEMPERATURES: Final = (0.01, 100.0)


@dataclass(frozen=True)
class ModelCard:
    """What a model must know to be used.

    Attributes:
        architecture: name for `backbones.build`.
        classes: names, by output.
        size: (H, W) in pixels the images are resized to.
        fit: stretch, pad or crop.
        white_level, black_level, dark_level: of 16-bit images, see `ValueRange`.
        max_pixels: largest image that is decoded.
        freeze_depth: blocks that kept their pre-trained weights.
        versions: package -> version it was trained with.
        tiling: how an image is cut into the tiles that are resized to `size`, and which of them speaks for it; None
            where the image is resized itself.
        others: freeze depths of the other members of a committee, see `lightning_modules.networks.committee`.
        shared: leading blocks that all members have in common.
        temperature: what an image's logits are divided by before the softmax, so that its probabilities are calibrated;
            None where it could not be fitted, and nothing is promised of them.
        weights: of the logits of each member of a committee, the first one's first, together 1; empty for equal ones.
        attention_block: behind which an attention branch stands (`attention_branch`); None where there is none.
    """

    architecture: str
    classes: tuple[str, ...]
    size: tuple[int, int]
    fit: str
    white_level: int
    max_pixels: int
    freeze_depth: int
    versions: dict[str, str]
    black_level: int = 0
    dark_level: int = 0
    tiling: Tiling | None = None
    others: tuple[int, ...] = ()
    shared: int = 0
    temperature: float | None = None
    weights: tuple[float, ...] = ()
    attention_block: str | None = None

    @property
    def value_range(self) -> ValueRange:
        """Values of 16-bit images that become 0 and 255."""
        return ValueRange(self.black_level, self.white_level, self.dark_level)


def card_json(card: ModelCard) -> str:
    """The card as text, with the number of its format."""
    tiling = None if card.tiling is None else {**asdict(card.tiling), "rule": _RULES[card.tiling.normal is None]}
    return json.dumps({"format": _FORMAT, **asdict(card), "tiling": tiling}, indent=1, ensure_ascii=False)


def read_card(text: str) -> tuple[ModelCard, str | None]:
    """The card, and of format 1 the digest of the tensors.

    Raises:
        InputError: with the reason alone: no JSON, not the fields of a card, or values no model of ours has.
    """
    try:
        raw = json.loads(text)
    except (ValueError, RecursionError):
        raise InputError("no JSON") from None
    if not isinstance(raw, dict):
        raise InputError("no card of a model")
    number, digest = raw.pop("format", 1), raw.pop("sha256", None)
    if number not in range(1, _FORMAT + 1):
        raise InputError(f"format {printable(str(number))[:40]}, accepted are 1 to {_FORMAT}: made by a later version")
    if (number == 1) != isinstance(digest, str):
        raise InputError("no card of a model")
    if number < _BLACK_SINCE:
        raw = {**raw, "black_level": 0, "dark_level": 0}
    if number < _TILES_SINCE:
        raw = {**raw, "tiling": None}
    if number < _COMMITTEES_SINCE:
        raw = {**raw, "others": [], "shared": 0}
    if number < _TEMPERATURE_SINCE:
        raw = {**raw, "temperature": None}
    if number < _WEIGHTS_SINCE:
        raw = {**raw, "weights": []}
    if number < _FORMAT:
        raw = {**raw, "attention_block": None}
    for field, (accepted, accepts) in _ACCEPTED.items():
        if field not in raw or not accepts(raw[field]):
            raise InputError(f"{field} must be {accepted}, got {_shown(raw, field)}")
    unknown = sorted(set(raw) - set(_ACCEPTED))
    if unknown:
        raise InputError(f"unknown field {printable(unknown[0])[:40]}; accepted are {', '.join(_ACCEPTED)}")
    if raw["black_level"] >= raw["white_level"]:
        raise InputError(f"black_level must be below white_level={raw['white_level']}, got {raw['black_level']}")
    if raw["shared"] > min([raw["freeze_depth"], *raw["others"]]) or (raw["shared"] and not raw["others"]):
        raise InputError(f"shared must be at most the freeze depth of each member, got {raw['shared']}")
    if raw["weights"] and len(raw["weights"]) != len(raw["others"]) + 1:
        raise InputError(f"weights must be one a member or none, got {len(raw['weights'])}")
    tiling = _tiling(raw["tiling"], raw["classes"])
    tuples = {field: tuple(raw[field]) for field in ("classes", "size", "others", "weights")}
    return ModelCard(**{**raw, **tuples, "tiling": tiling}), digest


def _tiling(raw: Mapping[str, Any] | None, classes: list[str]) -> Tiling | None:
    if raw is None:
        return None
    tiling = Tiling(tuple(raw["side"]), raw["overlap"], raw["normal"])
    if tiling.normal is not None and tiling.normal not in classes:
        raise InputError(f"tiling.normal must be one of the classes, got {printable(tiling.normal)[:60]}")
    return tiling


def _is_tiling(value: Any) -> bool:
    if value is None:
        return True
    if not isinstance(value, dict) or set(value) != {"side", "overlap", "normal", "rule"}:
        return False
    side, overlap, normal = value["side"], value["overlap"], value["normal"]
    sides = isinstance(side, list) and len(side) == 2 and all(_whole(s, SMALLEST_TILE, _LARGEST_TILE) for s in side)
    share = isinstance(overlap, int | float) and not isinstance(overlap, bool) and 0 <= overlap <= LARGEST_OVERLAP
    return sides and share and (normal is None or isinstance(normal, str)) and value["rule"] == _RULES[normal is None]


def _class_names(value: Any) -> bool:
    texts = isinstance(value, list) and all(isinstance(name, str) for name in value)
    printables = texts and all(name and name == printable(name) for name in value)
    return printables and 2 <= len(set(value)) == len(value) <= _MOST_CLASSES


def _whole(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _weights(value: Any) -> bool:
    if not isinstance(value, list) or not all(type(v) in (int, float) and 0 <= v <= 1 for v in value):
        return False
    return not value or abs(sum(value) - 1) < 1e-6


_ACCEPTED: Final[Mapping[str, tuple[str, Callable[[Any], bool]]]] = {
    "architecture": ("the name of a network", lambda v: isinstance(v, str) and v.isprintable()),
    "classes": (f"a list of 2 to {_MOST_CLASSES} different printable names", _class_names),
    "size": (
        f"[height, width] in 1..{_LARGEST_SIDE}",
        lambda v: isinstance(v, list) and len(v) == 2 and all(_whole(side, 1, _LARGEST_SIDE) for side in v),
    ),
    "fit": (f"one of {', '.join(get_args(Fit))}", lambda v: v in get_args(Fit)),
    "white_level": (f"in 1..{FULL_WHITE_LEVEL}", lambda v: _whole(v, 1, FULL_WHITE_LEVEL)),
    **dict.fromkeys(
        ("black_level", "dark_level"), (f"in 0..{FULL_WHITE_LEVEL}", lambda v: _whole(v, 0, FULL_WHITE_LEVEL))
    ),
    "max_pixels": (f"in 1..{_MOST_PIXELS}", lambda v: _whole(v, 1, _MOST_PIXELS)),
    "freeze_depth": ("in 0..10000", lambda v: _whole(v, 0, 10_000)),
    "versions": (
        "a mapping from packages to versions",
        lambda v: isinstance(v, Mapping) and all(isinstance(version, str) for version in v.values()),
    ),
    "tiling": ("null, or side, overlap, normal and rule of tiles", _is_tiling),
    "others": (
        f"a list of at most {_MOST_MEMBERS} freeze depths in 0..10000",
        lambda v: isinstance(v, list) and len(v) <= _MOST_MEMBERS and all(_whole(depth, 0, 10_000) for depth in v),
    ),
    "shared": ("in 0..10000", lambda v: _whole(v, 0, 10_000)),
    "temperature": (
        f"null, or a number in {_TEMPERATURES[0]:g}..{_TEMPERATURES[1]:g}",
        lambda v: v is None or (type(v) in (int, float) and _TEMPERATURES[0] <= v <= _TEMPERATURES[1]),
    ),
    "attention_block": (
        "null, or the name of a block",
        lambda v: v is None or (isinstance(v, str) and v.isprintable()),
    ),
    "weights": ("a list of numbers in 0..1 that are together 1, or an empty one", _weights),
}


def _shown(raw: Mapping[str, Any], field: str) -> str:
    return printable(repr(raw[field]).encode("utf-8", "backslashreplace").decode())[:60] if field in raw else "nothing"
