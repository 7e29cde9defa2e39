"""What a card says of tiles and temperature, and cards of before there were any."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from lightning_modules.errors import InputError
from lightning_modules.images.tiling import Tiling
from lightning_modules.networks.model_card import ModelCard, card_json, read_card

CLASSES = ("good", "scratch")


def card(tiling: Tiling | None = None) -> ModelCard:
    return ModelCard("lenet5", CLASSES, (32, 32), "stretch", 255, 10_000, 0, {}, tiling=tiling)


@pytest.mark.parametrize("tiling", [None, Tiling((64, 48), 0.25), Tiling((64, 48), 0, "good")])
def test_a_card_reads_back(tiling: Tiling | None) -> None:
    assert read_card(card_json(card(tiling))) == (card(tiling), None)


@pytest.mark.parametrize(
    ("number", "fields"),
    [
        (2, ("attention_block", "weights", "temperature", "tiling", "black_level", "dark_level")),
        (3, ("attention_block", "weights", "temperature", "tiling")),
        (4, ("attention_block", "weights", "temperature")),
        (6, ("attention_block", "weights")),
        (7, ("attention_block",)),
    ],
)
def test_cards_of_earlier_versions_are_read(number: int, fields: tuple[str, ...]) -> None:
    raw = {**json.loads(card_json(card())), "format": number}
    for field in fields:
        del raw[field]
    assert read_card(json.dumps(raw)) == (card(), None)


def test_a_temperature_reads_back() -> None:
    calibrated = replace(card(), temperature=1 / 3)
    assert read_card(card_json(calibrated)) == (calibrated, None)


@pytest.mark.parametrize("temperature", [0, -1.0, 1e3, True, "1"])
def test_temperatures_no_model_of_ours_has_are_refused(temperature: Any) -> None:
    raw = {**json.loads(card_json(card())), "temperature": temperature}
    with pytest.raises(InputError, match=r"temperature must be null, or a number in 0\.01\.\.100"):
        read_card(json.dumps(raw))


@pytest.mark.parametrize(
    "change",
    [
        {"side": [7, 64]},
        {"side": [64]},
        {"side": [64, 10**9]},
        {"overlap": 0.95},
        {"overlap": True},
        {"normal": 3},
        {"normal": None},  # and the rule of a normal class
        {"rule": "mean of log-probabilities"},
        {"rule": "another"},
        {"more": 1},
    ],
    ids=str,
)
def test_tiles_no_model_of_ours_has_are_refused(change: dict[str, Any]) -> None:
    raw = json.loads(card_json(card(Tiling((64, 48), 0.25, "good"))))
    raw["tiling"].update(change)
    with pytest.raises(InputError, match="tiling must be null, or side, overlap, normal and rule of tiles"):
        read_card(json.dumps(raw))


def test_the_normal_class_is_one_of_the_classes() -> None:
    raw = json.loads(card_json(card(Tiling((64, 48), 0.25, "good"))))
    raw["tiling"]["normal"] = "bad"
    with pytest.raises(InputError, match=r"tiling\.normal must be one of the classes, got bad"):
        read_card(json.dumps(raw))
