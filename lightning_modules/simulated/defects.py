"""Eleven internal defects of continuous-cast steel plate as distributions of reflectors: what differs is geometry.

Every function takes a seeded generator and the plate's thickness (mm) and returns point reflectors in millimetres.
Reflectivity follows the acoustic impedance of what fills the defect (steel 46 MRayl; gas ~0; manganese sulphide and
silicate 15-20; alumina about 40), strength and shadow follow size, and cracks reflect by facets and tips.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lightning_modules.simulated.physics import CHAIN, Reflectors, peak

__all__ = ["DEFECTS", "draw", "line", "pores", "reflectivity"]

FloatArray = NDArray[np.floating[Any]]
Defect = Callable[[np.random.Generator, float], Reflectors]

STEP = 0.15  # mm between reflectors of a line: an eighth of a wavelength
STEEL = 46.0  # MRayl


def reflectivity(impedance: float) -> float:
    """Amplitude reflectivity |Z - Z_steel| / (Z + Z_steel) of a filling of ``impedance`` Z >= 0 (MRayl), in [0, 1]."""
    return abs(impedance - STEEL) / (impedance + STEEL)


GAS, SULPHIDE, SILICATE, ALUMINA = (reflectivity(z) for z in (0.0, 19.0, 15.0, 40.0))


def line(
    rng: np.random.Generator,
    z: FloatArray,
    x: FloatArray,
    strength: float,
    roughness: float,
    across: float = math.inf,
    facets: float = math.inf,
    flat: bool = False,
) -> Reflectors:
    """Reflecting surface along the polyline (``z``, ``x``), arrays (N,) in mm.

    Args:
        z, x: depths and scan positions of the vertices.
        strength: amplitude reflectivity, 0..1.
        roughness: 0 mirror to 1 diffuse: phase is uniform in ±π times this.
        across: size across the image plane in mm; smaller than the beam there, the echo falls in proportion.
        facets: gamma shape of the strength along the line; inf is even, 0.15 a row of glints.
        flat: whether it is a flat open gap: repeat echoes follow, and ``strength`` is the share without contact.
    """
    lengths = np.hypot(np.diff(z), np.diff(x))
    total = np.concatenate([[0.0], np.cumsum(lengths)])
    at = np.linspace(0, total[-1], max(2, math.ceil(total[-1] / STEP)))
    pz, px = np.interp(at, total, z), np.interp(at, total, x)
    step = total[-1] / len(at)
    seen = np.abs(np.gradient(px)) / (np.hypot(np.gradient(px), np.gradient(pz)) + 1e-9)
    fraction = min(1.0, across / CHAIN.elevation)
    glint = np.ones_like(at) if math.isinf(facets) else rng.standard_gamma(facets, at.shape) / facets
    # A rough face along the beam shows only the tenth of its facets that happen to lie across it; no facet returns
    # more than a mirror.
    width = np.asarray(fraction * step * np.minimum(1.0, strength * glint * np.maximum(seen, roughness / 10)))
    # Two-way amplitude (1 - block)²: a filled face lets the energy 1 - R² through, an open gap where there is contact.
    shut = strength if flat else 1 - math.sqrt(1 - strength**2)
    block = np.asarray(fraction * shut * step * seen)
    phase = np.asarray(roughness * rng.uniform(-math.pi, math.pi, at.shape))
    return Reflectors(pz, px, width, phase, block, np.full(at.shape, strength * flat))


def pores(rng: np.random.Generator, z: FloatArray, x: FloatArray, d: FloatArray, strength: float) -> Reflectors:
    """Round bodies of diameter ``d`` at (``z``, ``x``), arrays (N,) in mm; echo R d · λ/(π d) · d/h, at most R d².

    λ/(π d) is the loss of a sphere against a disc of its diameter, d/h what it covers of the beam across the plane.
    """
    curved = np.minimum(1.0, CHAIN.wavelength / (math.pi * d))
    across = np.minimum(1.0, d / CHAIN.elevation)
    phase = rng.uniform(-math.pi, math.pi, d.shape)
    block = strength**2 * math.pi / 4 * d * across
    return Reflectors(z, x, strength * d * curved * across, phase, block, np.zeros_like(d))


def _outline(rng: np.random.Generator, wide: float, high: float, ragged: float) -> tuple[FloatArray, FloatArray]:
    """Closed ragged outline (z, x), arrays (121,), of half-axes ``high`` and ``wide`` mm around the origin."""
    angle = np.linspace(0, 2 * math.pi, 121)
    radius = np.ones_like(angle)
    for order in range(2, 9):
        radius += ragged / order * rng.normal() * np.cos(order * angle + rng.uniform(0, 2 * math.pi))
    radius = np.maximum(radius, 0.3)
    return high * radius * np.sin(angle), wide * radius * np.cos(angle)


def _inside(rng: np.random.Generator, n: int) -> tuple[FloatArray, FloatArray]:
    """``n`` points (z, x), uniform in the unit disc."""
    radius, angle = np.sqrt(rng.uniform(0, 1, n)), rng.uniform(0, 2 * math.pi, n)
    return radius * np.sin(angle), radius * np.cos(angle)


def _position(rng: np.random.Generator, half: float) -> float:
    """Scan position of a centre that keeps ``half`` mm on both sides inside the image where it can."""
    half = min(half, CHAIN.scan / 2 - 1)
    return float(rng.uniform(half, CHAIN.scan - half))


def _crack(rng: np.random.Generator, z: float, x: float, length: float, angle: float) -> Reflectors:
    """Jagged crack from (``z``, ``x``), ``length`` mm along ``angle`` (rad from straight down), with its tips."""
    n = max(3, round(length / 0.8) + 1)
    along, off = np.linspace(0, length, n), rng.normal(0, 0.18, n)
    zs, xs = z + along * math.cos(angle) - off * math.sin(angle), x + along * math.sin(angle) + off * math.cos(angle)
    face = line(rng, zs, xs, GAS, 0.8, facets=0.15)
    # Diffraction at a crack tip: some 20 to 26 dB below a face, here a face of 0.1 mm.
    tips = Reflectors(zs[[0, -1]], xs[[0, -1]], np.full(2, 0.1), np.zeros(2), np.zeros(2), np.zeros(2))
    return Reflectors.join([face, tips])


def island(rng: np.random.Generator, thickness: float) -> Reflectors:
    """Closed ragged patch with a loose rim and a mottled inside: an island of the last melt, with its slag and gas."""
    wide = rng.uniform(3, 8)
    high = wide * rng.uniform(0.35, 0.6)
    z0, x0 = thickness / 2 + rng.normal(0, 3), _position(rng, wide + 2)
    z, x = _outline(rng, wide, high, 0.3)
    rim = line(rng, z + z0, x + x0, SILICATE, 0.6, across=2.0, facets=0.6)
    v, u = _inside(rng, int(rng.poisson(math.pi * wide * high * 2.0)))
    body = pores(rng, z0 + v * high * 0.9, x0 + u * wide * 0.9, rng.lognormal(math.log(0.4), 0.4, v.size), GAS)
    return Reflectors.join([rim, body])


def centre_segregation(rng: np.random.Generator, thickness: float) -> Reflectors:
    """Broken thin band at mid-thickness across the whole scan: sulphide-rich last liquid, in dashes."""
    x, parts, severity = rng.uniform(-6, 0), [], rng.uniform(0.15, 0.6)
    z0, tilt = thickness / 2 + rng.normal(0, 0.6), rng.normal(0, 0.01)
    while x < CHAIN.scan + 4:
        length = min(0.8 + rng.exponential(3.5), 12.0)
        z = z0 + tilt * (x - CHAIN.scan / 2) + rng.normal(0, 0.35, 4)
        parts.append(line(rng, z, np.linspace(x, x + length, 4), SULPHIDE * severity, 0.7, facets=1.0))
        x += length + rng.exponential(1.8)
    return Reflectors.join(parts)


def centre_porosity(rng: np.random.Generator, thickness: float) -> Reflectors:
    """Loose band of small gas pores around mid-thickness, spread along the scan."""
    n, spread = rng.integers(14, 50), rng.uniform(6, 13)
    x = np.clip(_position(rng, spread) + rng.normal(0, spread, n), -3, CHAIN.scan + 3)
    z = thickness / 2 + rng.normal(0, rng.uniform(0.8, 2.2), n)
    return pores(rng, z, x, rng.lognormal(math.log(0.7), 0.4, n), GAS)


def pipe(rng: np.random.Generator, thickness: float) -> Reflectors:
    """Shrinkage pipe: one open cavity with torn walls at mid-thickness, thinning out to both sides."""
    wide = rng.uniform(2.5, 7)
    z0, x0 = thickness / 2 + rng.normal(0, 1), _position(rng, wide + 4)
    z, x = _outline(rng, wide, wide * rng.uniform(0.2, 0.45), 0.5)
    wall = line(rng, z + z0, x + x0, GAS, 0.45, facets=1.5)
    # Nothing is heard of the hollow, but it belongs to the defect's extent.
    hollow = [line(rng, z * k + z0, x * k + x0, 0.0, 0.0) for k in (0.25, 0.5, 0.75)]
    tails = []
    for side in (-1, 1):
        run = x0 + side * (wide + np.linspace(-0.5, rng.uniform(1, 4), 5))
        tails.append(line(rng, z0 + rng.normal(0, 0.3, 5), run, GAS, 0.6, across=1.5, facets=0.5))
    return Reflectors.join([wall, *hollow, *tails])


def lamination(rng: np.random.Generator, thickness: float) -> Reflectors:
    """Flat, smooth separation parallel to the faces, at any depth: back wall lost, repeat echoes below."""
    half, tilt, z0 = rng.uniform(3, 13), rng.normal(0, 0.015), thickness * rng.uniform(0.2, 0.8)
    run = np.linspace(-half, half, 12)
    z = z0 + tilt * run + rng.normal(0, 0.06, 12)
    return line(rng, z, _position(rng, half) + run, rng.uniform(0.8, 1.0), 0.15, flat=True)


def inclusion_stringer(rng: np.random.Generator, thickness: float) -> Reflectors:
    """Row of rolled-out sulphides on one line, at any depth: short, thin dashes with gaps."""
    lengths, gaps = rng.uniform(0.5, 3.0, rng.integers(4, 13)), rng.uniform(0.4, 2.2, 13)
    ends = np.cumsum(lengths + gaps[: lengths.size])
    z0, tilt, x0 = thickness * rng.uniform(0.15, 0.85), rng.normal(0, 0.035), _position(rng, ends[-1] / 2)
    parts = []
    for end, length in zip(ends - ends[-1] / 2, lengths, strict=True):
        run = np.linspace(end - length, end, 3)
        z = z0 + tilt * run + rng.normal(0, 0.08)
        parts.append(line(rng, z, x0 + run, SULPHIDE, 0.3, across=rng.uniform(0.5, 2.0)))
    return Reflectors.join(parts)


def inclusion_cluster(rng: np.random.Generator, thickness: float) -> Reflectors:
    """Cloud of alumina particles, some torn loose from the steel, in the upper quarter, as curved casters leave it."""
    n, wide = int(rng.integers(15, 60)), rng.uniform(2.5, 7)
    high = wide * rng.uniform(0.4, 0.8)
    z0, x0 = max(8.0, thickness * 0.27 + rng.normal(0, 2.5)), _position(rng, wide)
    v, u = _inside(rng, n)
    d, loose = rng.lognormal(math.log(0.7), 0.35, n), rng.uniform(size=n) < 0.5
    whole = pores(rng, z0 + v[~loose] * high, x0 + u[~loose] * wide, d[~loose], ALUMINA)
    return Reflectors.join([whole, pores(rng, z0 + v[loose] * high, x0 + u[loose] * wide, d[loose], 0.6 * GAS)])


def halfway_crack(rng: np.random.Generator, thickness: float) -> Reflectors:
    """Row of cracks across the thickness between surface and centre, opened by reheating in the spray zone."""
    n, apart = rng.integers(2, 6), rng.uniform(2.5, 6)
    x0 = _position(rng, n * apart / 2)
    return Reflectors.join(
        [
            _crack(
                rng,
                thickness * rng.uniform(0.2, 0.3),
                x0 + (i - (n - 1) / 2) * apart + rng.normal(0, 0.8),
                rng.uniform(3, 10),
                rng.normal(0, 0.09),
            )
            for i in range(n)
        ]
    )


def star_crack(rng: np.random.Generator, thickness: float) -> Reflectors:
    """Cracks running out from one point near mid-thickness, four to seven arms."""
    n, turn = rng.integers(4, 8), rng.uniform(0, 2 * math.pi)
    z0, x0 = thickness / 2 + rng.normal(0, 2), _position(rng, 9)
    angles = turn + 2 * math.pi * np.arange(n) / n + rng.normal(0, 0.2, n)
    return Reflectors.join([_crack(rng, z0, x0, rng.uniform(2.5, 8), float(a)) for a in angles])


def blowhole(rng: np.random.Generator, thickness: float) -> Reflectors:
    """Row of gas holes just below the surface, drawn out along the way of solidification; partly in the dead zone."""
    n, apart, z0 = rng.integers(2, 9), rng.uniform(2.5, 6), min(rng.uniform(3.5, 9), thickness / 4)
    x0 = _position(rng, n * apart / 2)
    parts = []
    for i in range(n):
        d, z = rng.uniform(0.8, 2.5), z0 + rng.normal(0, 0.7)
        x = x0 + (i - (n - 1) / 2) * apart + rng.normal(0, 0.6)
        cap = np.linspace(-d / 2, d / 2, 7)
        rise = z - np.sqrt(np.maximum(0, (d / 2) ** 2 - cap**2))
        parts.append(line(rng, rise, x + cap, GAS, 0.3, across=d))
        side = z + np.linspace(0, d, 4)
        parts += [line(rng, side, np.full(4, x + s * d / 2), GAS, 0.5, across=d / 2) for s in (-1, 1)]
    return Reflectors.join(parts)


def hydrogen_flake(rng: np.random.Generator, thickness: float) -> Reflectors:
    """Many short flat cracks of any slight tilt, scattered through the middle of the plate."""
    n, wide = rng.integers(6, 24), rng.uniform(6, 13)
    x0, parts = _position(rng, wide), []
    for z, x in zip(thickness * rng.uniform(0.3, 0.75, n), x0 + rng.uniform(-wide, wide, n), strict=True):
        length, tilt = rng.uniform(1, 3.5), rng.normal(0, 0.4)
        run = np.array([-0.5, 0.0, 0.5]) * length
        parts.append(line(rng, z + run * math.sin(tilt), x + run * math.cos(tilt), GAS, 0.25, across=length))
    return Reflectors.join(parts)


DEFECTS: MappingProxyType[str, Defect] = MappingProxyType(
    {
        defect.__name__: defect
        for defect in (
            island,
            centre_segregation,
            centre_porosity,
            pipe,
            lamination,
            inclusion_stringer,
            inclusion_cluster,
            halfway_crack,
            star_crack,
            blowhole,
            hydrogen_flake,
        )
    }
)


def draw(rng: np.random.Generator, label: str, thickness: float) -> Reflectors:
    """A defect of class ``label`` in a plate of ``thickness`` mm whose echo reaches the recording level.

    The line keeps images of indications only: weaker defects are drawn again, at most 50 times.
    """
    for _ in range(50):
        reflectors = DEFECTS[label](rng, thickness)
        if peak(reflectors) >= CHAIN.recording:
            break
    return reflectors
