"""The test images that the winner has wrong: plain values and pictures, as they are kept in MLflow.

`search.report.wrong_examination` makes them. Nothing here loads torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from search.report.kept_json import KeptJson

__all__ = ["ALIKE", "ARTIFACT", "EMPTY", "SPREAD", "WrongImage", "WrongImages"]

ARTIFACT = "test/wrong_images.json"
"""Artifact of the parent run."""

EMPTY, SPREAD, ALIKE = "empty", "spread", "alike"
"""Why a map says nothing: no place speaks for the class; most of the image does; the map of the image's own class is
nearly the same, so that it shows where the network looked and not why it chose."""


@dataclass(frozen=True)
class WrongImage:
    """An image taken for another class, of the test or, while the search runs, of the validation images.

    Attributes:
        probability: of the class it was taken for.
        true_probability: of its own class.
        image: key of its picture; empty where it is only listed.
        map: key of the picture with the map of the class it was taken for; empty without maps.
        nothing: EMPTY, SPREAD or ALIKE where the map says nothing; else empty.
    """

    path: str
    true: str
    predicted: str
    probability: float
    true_probability: float
    image: str = ""
    map: str = ""
    nothing: str = ""


@dataclass(frozen=True)
class WrongImages(KeptJson):
    """All of them.

    Attributes:
        version: of the model that answered; empty while there is none.
        judged: images that were answered.
        found: how many are wrong.
        images: the commonest confusions first, in each the surest first; the first of them have pictures.
        pictured: how many have pictures.
        silent: how many of these have a map that says nothing.
        method: attribution method of the maps.
        block: whose maps they are; empty without maps.
        cells: height and width of its maps, in positions.
        notes: what the reader should know, a sentence each.
        pictures: key -> JPEG in base64.
    """

    version: str
    judged: int
    found: int
    images: tuple[WrongImage, ...]
    pictured: int
    silent: int
    method: str
    block: str
    cells: tuple[int, int]
    notes: tuple[str, ...]
    pictures: Mapping[str, str]
