"""The imaging chain of the simulated set obeys its laws, and every defect goes through it."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_modules.simulated.defects import draw, line, pores, reflectivity
from lightning_modules.simulated.generator import CLASSES
from lightning_modules.simulated.months import Conditions, Plate, conditions
from lightning_modules.simulated.physics import CHAIN, Grid, Reflectors, acquire, attenuation, extent, peak

PLATE = Plate(thickness=40.0, attenuation=1.0, grain=0.0, gain=0.0)
NOTHING = Reflectors(*(np.zeros(1) for _ in fields(Reflectors)))


@given(rate=st.floats(0, 1), shallow=st.floats(0, 100), more=st.floats(0, 100))
def test_attenuation_falls_with_depth_and_multiplies(rate: float, shallow: float, more: float) -> None:
    a, b, both = (float(attenuation(np.array(z), rate)) for z in (shallow, more, shallow + more))
    assert 0 < both <= a <= 1
    assert both == pytest.approx(a * b, rel=1e-9)


@given(z=st.floats(2, 46), x=st.floats(2, 46), sides=st.tuples(st.integers(96, 200), st.integers(96, 200)))
@settings(max_examples=25, deadline=None)
def test_the_point_spread_keeps_its_sum_and_a_plane_its_reflectivity(
    z: float, x: float, sides: tuple[int, int]
) -> None:
    grid = Grid(sides)
    point = grid.splat(np.array([z]), np.array([x]), np.array([1.0])).astype(np.complex64)
    assert grid.spread(point).sum().real == pytest.approx(1, abs=1e-3)
    plane = np.zeros_like(point)
    plane[sides[0] // 2] = 0.25
    assert np.abs(grid.pulse(grid.spread(plane))).max() == pytest.approx(0.25, rel=1e-3)


@given(st.lists(st.floats(0, 48), min_size=2, max_size=10).map(sorted))
def test_the_beam_widens_with_depth(depths: list[float]) -> None:
    sigma = CHAIN.lateral_sigma(np.array(depths))
    assert (np.diff(sigma) >= 0).all()
    assert sigma[0] >= CHAIN.pitch / 2.36


@given(impedance=st.floats(0, 46))
def test_reflectivity_is_one_for_gas_none_for_steel_and_falls_between(impedance: float) -> None:
    assert reflectivity(46) == 0 <= reflectivity(impedance) <= 1 == reflectivity(0)
    assert reflectivity(impedance) >= reflectivity(min(46, impedance + 1))


@given(d=st.floats(0.05, 6), strength=st.floats(0, 1))
def test_pores_echo_no_more_than_a_mirror_of_their_size(d: float, strength: float) -> None:
    one = pores(np.random.default_rng(0), np.array([20.0]), np.array([20.0]), np.array([d]), strength)
    assert 0 <= one.width[0] <= strength * d
    assert 0 <= one.block[0] <= d


def test_speckle_is_k_distributed_and_has_the_level_documented() -> None:
    steady = Conditions(gain=0.0, noise=-20.0, losses=0.0)
    images = [acquire(NOTHING, PLATE, steady, (96, 96), np.random.default_rng(k)) for k in range(40)]
    rows = np.stack(images)[:, 37:43].astype(float)  # 18.5 to 21.5 mm
    intensity = 10 ** (((rows / 255 - 1) * CHAIN.dynamic + CHAIN.full_scale) / 10)
    assert 10 * np.log10(intensity.mean()) == pytest.approx(CHAIN.grain, abs=0.5)
    # var / mean² is 1 for Rayleigh speckle and 1 + 2 / shape for K; the beam cell holds 2 to 4 clusters at this depth.
    assert 1.4 < intensity.var() / intensity.mean() ** 2 < 2.2


def test_a_wide_gap_takes_the_back_wall_and_an_image_without_defect_has_it_whole() -> None:
    run = np.linspace(14, 34, 10)
    gap = line(np.random.default_rng(0), np.full(10, 15.0), run, 1.0, 0.0, flat=True)
    still = conditions("2019-07")
    clear = np.median([acquire(NOTHING, PLATE, still, (96, 96), np.random.default_rng(k)) for k in range(9)], axis=0)
    hidden = np.median([acquire(gap, PLATE, still, (96, 96), np.random.default_rng(k)) for k in range(9)], axis=0)
    assert (clear[78:82].max(axis=0) == 255).all()
    assert hidden[78:82, 44:52].max() < 160
    assert hidden[78:82, :8].max() == 255
    assert hidden[30, 48] == 255  # the gap itself, at 15 mm
    assert hidden[60, 40:56].mean() > clear[60, 40:56].mean() + 40  # its repeat echo, at 30 mm


@pytest.mark.parametrize("label", CLASSES)
def test_defects_are_recorded_inside_the_plate_and_brighter_than_the_steel(label: str) -> None:
    contrast = []
    for k in range(12):
        rng = np.random.default_rng(k)
        reflectors = draw(rng, label, PLATE.thickness)
        assert peak(reflectors) >= CHAIN.recording
        assert (reflectors.z > 0).all() and (reflectors.z < PLATE.thickness).all()
        assert (reflectors.width >= 0).all() and (reflectors.block >= 0).all()
        mask = extent(reflectors, (96, 96))
        assert 0 < mask.sum() < 0.25 * mask.size
        clear = acquire(NOTHING, PLATE, conditions("2019-07"), (96, 96), np.random.default_rng(99))
        shown = acquire(reflectors, PLATE, conditions("2019-07"), (96, 96), np.random.default_rng(99))
        contrast.append(shown[mask].mean() - float(clear[mask].mean()))
    assert np.mean(contrast) > 20
