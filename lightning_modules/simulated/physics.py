"""Imaging chain of the simulated set: reflectors in a steel plate in, 8-bit B-scan out.

Axes: row = depth z (mm below the probe), column = scan position x (mm). Fields are complex envelopes (the carrier is
kept as the phase ``-2 k z`` of each reflector), of shape (H, W). Amplitudes are relative to the back-wall echo of a
plate without attenuation (1 = 0 dB). Reflectors carry a *width* in mm: reflectivity times reflecting length across
the beam, so that a plane wider than the beam returns its reflectivity.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from dataclasses import field as dataclass_field
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from lightning_modules.simulated.months import Conditions, Plate

__all__ = ["CHAIN", "Chain", "Grid", "Reflectors", "acquire", "attenuation", "extent", "peak"]

FloatArray = NDArray[np.floating[Any]]


def _p(default: float, symbol: str, unit: str, meaning: str, source: str) -> Any:
    return dataclass_field(
        default=default, metadata={"symbol": symbol, "unit": unit, "meaning": meaning, "source": source}
    )


@dataclass(frozen=True)
class Chain:
    """Physical parameters of probe, steel and instrument; the metadata is the table of ``docs/simulated.md``."""

    frequency: float = _p(5.0, "f", "MHz", "centre frequency", "choice: usual for plate and slab samples")
    velocity: float = _p(5.92, "c", "mm/µs", "longitudinal velocity in carbon steel", "tabulated: 5.90 to 5.96")
    bandwidth: float = _p(0.6, "B", "of f", "two-way -6 dB bandwidth", "choice: composite probes have 0.5 to 0.8")
    aperture: float = _p(19.2, "D", "mm", "active aperture: 32 elements", "choice: a common linear array")
    pitch: float = _p(0.6, "p", "mm", "element pitch: least beam width", "choice: a common linear array")
    elevation: float = _p(3.0, "h", "mm", "beam width across the image plane", "choice: cylindrical focus")
    attenuation: float = _p(
        0.05, "alpha", "dB/mm", "one-way attenuation, nominal", "choice: 50 dB/m, as-rolled to as-cast"
    )
    grain: float = _p(-40.0, "G", "dB", "grain-noise rms at 20 mm", "choice: fine-grained plate at 5 MHz")
    clusters: float = _p(
        2.0, "nu", "1/mm²", "scatterer clusters; K shape = nu x beam cell", "choice: K shape about 1 to 5"
    )
    noise: float = _p(-52.0, "N", "dB", "electronic noise rms before depth gain", "choice: 52 dB below the back wall")
    couplant: float = _p(1.0, "s", "dB", "ripple of coupling along the scan (sd)", "choice: sprayed water, rolled skin")
    ripple: float = _p(3.0, "l", "mm", "correlation length of that ripple", "choice: half a wetted patch")
    pulse: float = _p(6.0, "P", "dB", "transmit pulse at z = 0", "choice: saturates the display")
    ringing: float = _p(0.6, "zeta", "mm", "decay length of its ringing (dead zone)", "choice: dead zone of about 4 mm")
    cone: float = _p(
        2.5, "w", "mm", "blur (sd) of shadows by the aperture's cone", "D (1 - z1/z2) / √12 at z1/z2 = 0.55"
    )
    repeat: float = _p(-14.0, "M", "dB", "probe-face reflection of repeat echoes", "choice: water-coupled contact")
    recording: float = _p(
        -24.0, "E", "dB", "least peak echo recorded", "choice: 16 dB above grain noise, so no false calls"
    )
    full_scale: float = _p(-6.0, "F", "dB", "echo shown as white", "choice: the back wall just saturates")
    dynamic: float = _p(48.0, "R", "dB", "display range, black to white", "choice: usual for logarithmic displays")
    depth: float = _p(48.0, "Z", "mm", "depth shown", "choice")
    scan: float = _p(48.0, "X", "mm", "scan length shown", "choice")

    @property
    def wavelength(self) -> float:
        """Wavelength c / f in mm."""
        return self.velocity / self.frequency

    @property
    def axial_sigma(self) -> float:
        """Gaussian sigma of the echo envelope in depth, mm: from the -6 dB band B f."""
        sigma_f = self.bandwidth * self.frequency / (2 * math.sqrt(2 * math.log(2)))
        return self.velocity / 2 / (2 * math.pi * sigma_f)

    def lateral_sigma(self, depth: FloatArray) -> FloatArray:
        """Gaussian sigma across the beam, mm, at ``depth`` (mm, any shape).

        -6 dB width sqrt(p² + (1.02 λ z / D)²): diffraction of an aperture focused at every depth; floor p.
        """
        width = np.sqrt(self.pitch**2 + (1.02 * self.wavelength * depth / self.aperture) ** 2)
        return np.asarray(width / (2 * math.sqrt(2 * math.log(2))))


CHAIN = Chain()


@dataclass(frozen=True)
class Reflectors:
    """Point reflectors of a defect, arrays of one shape (N,).

    ``z``, ``x`` in mm; ``width`` in mm (>= 0, reflectivity times reflecting length); ``phase`` in rad (beyond -2 k z);
    ``block`` in mm (length of beam taken out); ``repeat``: the surface's reflectivity where it is flat enough for
    repeat echoes, else 0.
    """

    z: FloatArray
    x: FloatArray
    width: FloatArray
    phase: FloatArray
    block: FloatArray
    repeat: FloatArray

    @classmethod
    def join(cls, parts: list[Reflectors]) -> Reflectors:
        """All reflectors of ``parts`` (at least one)."""
        return cls(*(np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)))


def attenuation(depth: FloatArray, rate: float) -> FloatArray:
    """Two-way amplitude factor 10^(-2 alpha z / 20), in (0, 1], at ``depth`` (mm, >= 0) for alpha = ``rate`` dB/mm."""
    return np.asarray(10 ** (-2 * rate * depth / 20))


class Grid:
    """Sampling of the field of view (H, W) with a margin on both sides, and the point-spread function on it.

    The pitch is the field of view over the pixels of `shape`, (H, W).
    """

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape
        self.dz, self.dx = CHAIN.depth / shape[0], CHAIN.scan / shape[1]
        self.margin = math.ceil(6.0 / self.dx)
        self.columns = fft.next_fast_len(shape[1] + 2 * self.margin)
        self.z = (np.arange(shape[0], dtype=np.float32) + 0.5) * self.dz
        self.x = (np.arange(self.columns, dtype=np.float32) + 0.5 - self.margin) * self.dx
        sigma = CHAIN.lateral_sigma(self.z)
        frequency = fft.fftfreq(self.columns, self.dx)
        # Unit gain at frequency 0: a reflector wider than the beam returns its reflectivity at every depth.
        self.lateral = np.exp(-0.5 * (2 * np.pi * frequency * sigma[:, None]) ** 2).astype(np.float32)
        self.cone = np.exp(-0.5 * (2 * np.pi * frequency * CHAIN.cone) ** 2).astype(np.float32)
        # Peak 1: a plane's echo peaks at its reflectivity.
        self.axial = np.exp(-0.5 * ((self.z[:, None] - self.z) / CHAIN.axial_sigma) ** 2).astype(np.float32)
        self.axial_energy = math.sqrt(math.pi) * CHAIN.axial_sigma / self.dz
        reference = float(CHAIN.lateral_sigma(np.array([20.0]))[0])
        self.lateral_energy = self.dx / (2 * math.sqrt(math.pi) * reference)

    def spread(self, complex_field: NDArray[np.complex64]) -> NDArray[np.complex64]:
        """``complex_field`` (H, columns) blurred across the beam, row by row."""
        return np.asarray(fft.ifft(fft.fft(complex_field, axis=1) * self.lateral, axis=1))

    def pulse(self, complex_field: NDArray[np.complex64]) -> NDArray[np.complex64]:
        """``complex_field`` (H, columns) convolved with the echo envelope in depth."""
        packed = np.ascontiguousarray(complex_field).view(np.float32)
        return np.asarray((self.axial @ packed).view(np.complex64))

    def splat(self, z: FloatArray, x: FloatArray, value: FloatArray) -> FloatArray:
        """Image (H, columns) of real ``value`` at points (z, x) in mm, shared bilinearly by the four nearest pixels."""
        row, column = z / self.dz - 0.5, x / self.dx - 0.5 + self.margin
        i, j = np.floor(row).astype(np.intp), np.floor(column).astype(np.intp)
        u, v = row - i, column - j
        corners = [(i, j, (1 - u) * (1 - v)), (i, j + 1, (1 - u) * v), (i + 1, j, u * (1 - v)), (i + 1, j + 1, u * v)]
        rows, cols = np.concatenate([c[0] for c in corners]), np.concatenate([c[1] for c in corners])
        weights = np.concatenate([c[2] * value for c in corners])
        inside = (rows >= 0) & (rows < self.shape[0]) & (cols >= 0) & (cols < self.columns)
        flat = np.bincount(
            (rows * self.columns + cols)[inside], weights[inside], minlength=self.shape[0] * self.columns
        )
        return flat.reshape(self.shape[0], self.columns).astype(np.float32)

    def crop(self, image: NDArray[Any]) -> NDArray[Any]:
        """The field of view (H, W) of an image (H, columns)."""
        return image[:, self.margin : self.margin + self.shape[1]]


@lru_cache(maxsize=4)
def _fine_grid(shape: tuple[int, int]) -> tuple[Grid, tuple[int, int]]:
    """A grid no coarser than 0.5 mm, and how many of its pixels, down and across, make one of an image (H, W)."""
    fine = (math.ceil(CHAIN.depth / 0.5 / shape[0]), math.ceil(CHAIN.scan / 0.5 / shape[1]))
    return Grid((shape[0] * fine[0], shape[1] * fine[1])), fine


def _grain(grid: Grid, plate: Plate, rng: np.random.Generator) -> NDArray[np.complex64]:
    """K-distributed scatterers: complex normal amplitudes whose power is a gamma process of nu clusters per mm²."""
    shape = (grid.shape[0], grid.columns)
    power = 10 ** ((CHAIN.grain + plate.grain) / 10) / (grid.axial_energy * grid.lateral_energy)
    cell = CHAIN.clusters * grid.dz * grid.dx
    texture = np.sqrt(rng.standard_gamma(cell, shape, dtype=np.float32) * np.float32(power / cell / 2))
    normal = rng.standard_normal((*shape, 2), dtype=np.float32).view(np.complex64)[..., 0]
    return np.asarray(normal * texture)


def _coupling(grid: Grid, conditions: Conditions, rng: np.random.Generator) -> FloatArray:
    """Two-way amplitude factor of each column (columns,): ripple, and short stretches where the couplant fails."""
    ripple = ndimage.gaussian_filter1d(rng.standard_normal(grid.columns), CHAIN.ripple / grid.dx, mode="wrap")
    ripple *= math.sqrt(2 * math.sqrt(math.pi) * CHAIN.ripple / grid.dx)
    decibel = CHAIN.couplant * ripple
    for _ in range(rng.poisson(conditions.losses)):
        centre, half, loss = rng.uniform(0, CHAIN.scan), rng.uniform(0.5, 2.0), rng.uniform(12, 40)
        decibel -= loss * np.clip(1.5 - np.abs(grid.x - centre) / half, 0, 1)
    return np.asarray(10 ** (decibel / 20), dtype=np.float32)


def _points(grid: Grid, z: FloatArray, x: FloatArray, width: FloatArray, phase: FloatArray) -> NDArray[np.complex64]:
    """Complex reflectivity (H, columns) of points: width over the pitch, with the carrier's phase -2 k z added."""
    value, turn = width / grid.dx, phase - 4 * math.pi / CHAIN.wavelength * z
    return np.asarray(grid.splat(z, x, value * np.cos(turn)) + 1j * grid.splat(z, x, value * np.sin(turn)))


def _open_beam(grid: Grid, reflectors: Reflectors) -> FloatArray:
    """Two-way amplitude (H, columns) left by the defect above each pixel: (1 - covered part of the beam)²."""
    taken = fft.fft(grid.splat(reflectors.z, reflectors.x, reflectors.block / grid.dx), axis=1)
    covered = np.cumsum(fft.ifft(taken * grid.cone, axis=1).real, axis=0)
    return np.asarray((1 - np.clip(covered, 0, 1)) ** 2)


def _echoes(grid: Grid, reflectors: Reflectors, open_beam: FloatArray, rate: float) -> NDArray[np.complex64]:
    """Complex echoes (H, columns) of the defect: first ones, shaded by its parts above, and repeats of flat parts."""
    z, x, phase = reflectors.z, reflectors.x, reflectors.phase
    first = _points(grid, z, x, reflectors.width * attenuation(z, rate), phase)
    # A surface does not shade itself: what is less than 1 mm above does not count.
    lag = max(1, round(1.0 / grid.dz))
    first[lag:] *= open_beam[:-lag]
    if not reflectors.repeat.any():
        return first
    strength = 10 ** (CHAIN.repeat / 20) * reflectors.repeat * attenuation(2 * z, rate)
    return first + _points(grid, 2 * z, x, reflectors.width * strength, 2 * phase)


def peak(reflectors: Reflectors) -> float:
    """Highest echo of the defect in dB below a back wall (0 dB), nominal attenuation undone, without noise or grain."""
    grid, _ = _fine_grid((96, 96))
    echoes = _echoes(grid, reflectors, _open_beam(grid, reflectors), 0.0)
    return float(20 * np.log10(np.abs(grid.pulse(grid.spread(echoes.astype(np.complex64)))).max() + 1e-9))


def acquire(
    reflectors: Reflectors,
    plate: Plate,
    conditions: Conditions,
    shape: tuple[int, int],
    rng: np.random.Generator,
) -> NDArray[np.uint8]:
    """One B-scan of ``reflectors`` in ``plate``.

    reflectivity -> attenuation and shadow -> beam -> coupling -> + electronic noise -> pulse -> depth gain -> envelope
    -> logarithm. Grids coarser than 0.5 mm are computed finer and averaged before the logarithm.

    Args:
        plate, conditions: what the images of the plate, and of the month, share.
        shape: (H, W) of the image in pixels.
        rng: source of speckle, coupling and noise.

    Returns:
        Grey image, uint8, (H, W); 0 is ``full_scale - dynamic`` dB, 255 is ``full_scale`` dB.
    """
    grid, fine = _fine_grid(shape)
    coupling = _coupling(grid, conditions, rng)
    slope, rough = rng.normal(0, 0.004), rng.normal(0, 0.03, grid.columns)
    wall = plate.thickness + slope * (grid.x - CHAIN.scan / 2) + rough
    rate = CHAIN.attenuation * plate.attenuation
    loss = attenuation(grid.z, rate).astype(np.float32)[:, None]

    open_beam = _open_beam(grid, reflectors)
    back = _points(grid, wall, grid.x, grid.dx * attenuation(wall, rate), np.zeros_like(wall))
    inside = grid.z[:, None] < wall
    field = (_grain(grid, plate, rng) * (loss * inside) + back) * open_beam
    field += _echoes(grid, reflectors, open_beam, rate)
    received = grid.spread(field.astype(np.complex64)) * coupling

    level = 10 ** ((CHAIN.noise + conditions.noise) / 20) / math.sqrt(2 * grid.axial_energy)
    electronic = rng.standard_normal((*received.shape, 2), dtype=np.float32).view(np.complex64)[..., 0]
    trace = grid.pulse((received + np.float32(level) * electronic).astype(np.complex64))
    # Energy that cannot enter rings in front: the transmit pulse lasts longer where coupling is lost.
    ringing = CHAIN.ringing * (1 + 0.5 * np.clip(1 - coupling, 0, 1))
    trace = trace + 10 ** (CHAIN.pulse / 20) * np.exp(-grid.z[:, None] / ringing)
    depth_gain = 1 / attenuation(grid.z, CHAIN.attenuation)[:, None]
    envelope = np.abs(grid.crop(trace)) * depth_gain
    envelope = envelope.reshape(shape[0], fine[0], shape[1], fine[1]).mean(axis=(1, 3))
    decibel = 20 * np.log10(envelope + 1e-9) + plate.gain + conditions.gain
    scaled = (decibel - CHAIN.full_scale) / CHAIN.dynamic + 1
    return np.asarray(np.rint(np.clip(scaled, 0, 1) * 255), dtype=np.uint8)


def extent(reflectors: Reflectors, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """True extent of the defect, bool (H, W): pixels within 0.5 mm of a reflector, not widened by the beam."""
    grid, fine = _fine_grid(shape)
    rows = np.clip((reflectors.z / grid.dz).astype(np.intp), 0, grid.shape[0] - 1)
    columns = (reflectors.x / grid.dx).astype(np.intp)
    shown = (reflectors.x >= 0) & (columns < grid.shape[1])
    body = np.zeros(grid.shape, dtype=bool)
    body[rows[shown], columns[shown]] = True
    wide = ndimage.maximum_filter(body, size=(2 * round(0.5 / grid.dz) + 1, 2 * round(0.5 / grid.dx) + 1))
    return np.asarray(wide.reshape(shape[0], fine[0], shape[1], fine[1]).any(axis=(1, 3)))
