"""Thirteen months of the simulated inspection line: its drift, its class mix, and which plate each image is of."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from types import MappingProxyType

__all__ = [
    "CLASSES",
    "MONTHS",
    "SHARES",
    "TRENDS",
    "Assignment",
    "Conditions",
    "Plate",
    "class_mix",
    "conditions",
    "plate",
    "schedule",
]

MONTHS: tuple[str, ...] = (*(f"2019-{month:02d}" for month in range(1, 13)), "2020-01")

# Mean shares over the 13 months; they sum to 1.
SHARES: MappingProxyType[str, float] = MappingProxyType(
    {
        "island": 0.08,
        "centre_segregation": 0.17,
        "centre_porosity": 0.14,
        "pipe": 0.05,
        "lamination": 0.12,
        "inclusion_stringer": 0.13,
        "inclusion_cluster": 0.10,
        "halfway_crack": 0.06,
        "star_crack": 0.03,
        "blowhole": 0.07,
        "hydrogen_flake": 0.05,
    }
)

CLASSES: tuple[str, ...] = tuple(SHARES)

# Natural logarithm of a class's weight gained from the first month to the last.
TRENDS: MappingProxyType[str, float] = MappingProxyType(
    {
        "island": 0.5,
        "centre_segregation": -0.5,
        "lamination": -0.4,
        "inclusion_cluster": 0.6,
        "halfway_crack": 0.3,
        "blowhole": -0.3,
    }
)


@dataclass(frozen=True)
class Plate:
    """What images of one plate share: thickness (mm), attenuation over nominal, grain noise and gain offsets (dB)."""

    thickness: float
    attenuation: float
    grain: float
    gain: float


@dataclass(frozen=True)
class Conditions:
    """State of the inspection line: gain offset (dB), electronic noise offset (dB), mean coupling losses an image."""

    gain: float
    noise: float
    losses: float


@dataclass(frozen=True)
class Assignment:
    """What an image is of: ``label`` and ``month``, and the plate as ``group`` and number within its month."""

    label: str
    month: str
    group: str
    plate: int


def conditions(month: str) -> Conditions:
    """State of the line in ``month``, one of ``MONTHS``.

    The probe face wears (-0.4 dB a month) until it is recalibrated in July; the receiver ages (+0.5 dB of noise a
    month); coupling fails most in winter, when the spray water is cold: 0.5 losses an image in July, 1.5 in January.
    """
    t = MONTHS.index(month)
    return Conditions(
        gain=0.0 - 0.4 * (t if t < 6 else t - 6), noise=0.5 * t, losses=1.0 + 0.5 * math.cos(2 * math.pi * t / 12)
    )


def class_mix(month: str) -> dict[str, float]:
    """Share of each class in ``month``: ``SHARES`` x exp(trend), flakes more in summer; sums to 1."""
    t = MONTHS.index(month)
    weights = {label: share * math.exp(TRENDS.get(label, 0.0) * (t / 12 - 0.5)) for label, share in SHARES.items()}
    # Hydrogen is picked up from humid charge: most in July.
    weights["hydrogen_flake"] *= math.exp(-0.7 * math.cos(2 * math.pi * t / 12))
    total = math.fsum(weights.values())
    return {label: weight / total for label, weight in weights.items()}


def plate(seed: int, assignment: Assignment) -> Plate:
    """Thickness 34-44 mm, attenuation x lognormal(0.3), grain noise ±1.5 dB and gain ±1 dB (sd) of an image's plate."""
    import numpy as np

    key = (1, MONTHS.index(assignment.month), assignment.plate)
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))
    return Plate(
        thickness=rng.uniform(34, 44),
        attenuation=rng.lognormal(0, 0.3),
        grain=rng.normal(0, 1.5),
        gain=rng.normal(0, 1.0),
    )


def _month(seed: int, month: str) -> Iterator[Assignment]:
    """Endless assignments of one month: plates of one to four images, one class a plate.

    Each plate takes the class furthest behind its share (Sainte-Laguë's quotient, jittered by ±20 %), so that the mix
    holds in small sets too and rare classes come early.
    """
    import numpy as np

    t = MONTHS.index(month)
    rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(2, t)))
    mix = class_mix(month)
    shares = np.array([mix[label] for label in CLASSES])
    counts, number = np.zeros(len(CLASSES)), 0
    while True:
        images = int(rng.integers(1, 5))
        chosen = int(np.argmax(shares / (2 * counts + 1) * rng.uniform(0.8, 1.2, len(CLASSES))))
        for _ in range(images):
            yield Assignment(CLASSES[chosen], month, f"{month}-P{number:04d}", number)
        counts[chosen] += images
        number += 1


def schedule(seed: int) -> Iterator[Assignment]:
    """Endless assignments: image i is of month i mod 13, and the same whatever the number of images taken."""
    months = [_month(seed, month) for month in MONTHS]
    while True:
        for month in months:
            yield next(month)
