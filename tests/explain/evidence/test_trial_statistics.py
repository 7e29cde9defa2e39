"""Statistics of a running trial: closed forms on maps built by hand, and networks where the answer is planted."""

from __future__ import annotations

import math
import sys
from importlib import import_module

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from explain.evidence.joint import joint, standardised, summed
from explain.evidence.trial_maps import TrialMaps, gather_trial_maps
from explain.evidence.trial_registry import TRIAL_STATISTICS

NAMES = tuple(TRIAL_STATISTICS)


def maps_of(*sizes: int, count: int = 6, seed: int = 0) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.rand(count, size, size, generator=generator) for size in sizes)


def by_hand(maps: tuple[Tensor, ...], mirrored: tuple[Tensor, ...], drops: Tensor | None = None) -> TrialMaps:
    count = len(maps[0])
    even = torch.full((2, count, 2), 0.5, dtype=torch.float64)
    nothing = torch.zeros(len(maps), 2, count, dtype=torch.float64)
    return TrialMaps(
        tuple(f"b{place}" for place in range(len(maps))), maps, mirrored, even, nothing if drops is None else drops
    )


def test_maps_that_move_with_the_picture_agree_and_others_do_not() -> None:
    maps, others = maps_of(6, 3), maps_of(6, 3, seed=1)
    statistic = TRIAL_STATISTICS["mirrored_maps"]
    assert statistic(by_hand(maps, maps)) == pytest.approx({"b0": 1.0, "b1": 1.0})
    assert abs(statistic(by_hand(maps, others))["b0"]) < 0.3
    # A dead map of one image is left out; where all are dead there is no value.
    half = tuple(torch.cat([torch.zeros_like(one[:1]), one[1:]]) for one in maps)
    assert statistic(by_hand(half, maps)) == pytest.approx({"b0": 1.0, "b1": 1.0})
    assert statistic(by_hand(tuple(map(torch.zeros_like, maps)), maps)) == {}


def test_answers_agree_by_the_total_variation_distance() -> None:
    maps = maps_of(4, count=2)
    found = by_hand(maps, maps)
    given = torch.tensor([[[0.9, 0.1], [0.5, 0.5]], [[0.6, 0.4], [0.5, 0.5]]], dtype=torch.float64)
    found = TrialMaps(found.blocks, found.maps, found.mirrored, given, found.drops)
    assert TRIAL_STATISTICS["mirrored_answers"](found) == pytest.approx({"": (0.7 + 1.0) / 2})


def test_a_block_is_held_against_the_top_block() -> None:
    top = maps_of(3)[0]
    same = nn.functional.interpolate(top[:, None], (6, 6), mode="bilinear", align_corners=False)[:, 0]
    statistic = TRIAL_STATISTICS["maps_against_top"]
    assert statistic(by_hand((same, top), (same, top))) == pytest.approx({"b0": 1.0})
    assert statistic(by_hand((same.amax() - same, top), (same, top))) == pytest.approx({"b0": -1.0})
    assert statistic(by_hand((top,), (top,))) == {}


def test_localised_answers_are_the_difference_of_the_drops() -> None:
    maps = maps_of(4, 4, count=3)
    drops = torch.tensor([[[0.2, 0.1, math.nan], [0.5, 0.4, math.nan]], [[math.nan] * 3] * 2], dtype=torch.float64)
    assert TRIAL_STATISTICS["localised_answers"](by_hand(maps, maps, drops)) == pytest.approx({"b0": 0.3})


class Reader(nn.Module):
    """A block that keeps the picture's brightness, and a head that reads it with these weights (H, W) a class."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.block = nn.Conv2d(3, 2, 1)
        nn.init.constant_(self.block.weight, 1 / 3)
        nn.init.zeros_(self.block.bias)
        self.weights = nn.Parameter(weights)

    def head(self, activations: Tensor) -> Tensor:
        return torch.einsum("nchw,khw->nk", activations, self.weights)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.block(images))


def read(model: Reader, images: Tensor, labels: Tensor) -> TrialMaps:
    both = torch.cat([images, images.flip(-1)])
    return gather_trial_maps(model, both, labels, ["block"], [model.head])


def test_a_network_that_reads_one_side_answers_otherwise_and_one_that_reads_all_does_not() -> None:
    generator = torch.Generator().manual_seed(3)
    images, labels = torch.rand(8, 3, 6, 6, generator=generator), torch.arange(8) % 2
    images[..., :3] *= 0.1  # what counts is on the right
    sides = torch.zeros(2, 6, 6)
    sides[0, :, :3], sides[1, :, 3:] = 1.0, 1.0
    one_sided, both = read(Reader(sides), images, labels), read(Reader(torch.ones(2, 6, 6)), images, labels)
    answers = TRIAL_STATISTICS["mirrored_answers"]
    assert answers(both)[""] == pytest.approx(1.0)
    assert answers(one_sided)[""] < 0.5
    assert TRIAL_STATISTICS["mirrored_maps"](both) == pytest.approx({"block": 1.0})


def test_what_a_map_shows_carries_the_answer_where_the_object_is() -> None:
    """One bright spot an image, whose brightness is the class: its map keeps it, a shuffled map hides it."""
    images = torch.full((6, 3, 6, 6), 0.01)
    for place in range(6):
        images[place, :, place, 5 - place] = 1.0
    weights = torch.stack([torch.full((6, 6), 2.0), torch.full((6, 6), -2.0)])
    found = read(Reader(weights), images, torch.zeros(6, dtype=torch.int64))
    assert TRIAL_STATISTICS["localised_answers"](found)["block"] > 0.2


def test_the_network_and_torchs_generator_stay_as_they_were() -> None:
    model = Reader(torch.ones(2, 6, 6)).train()
    model.weights.requires_grad_(False)
    before, state = {n: p.clone() for n, p in model.state_dict().items()}, torch.get_rng_state()
    read(model, torch.rand(2, 3, 6, 6, generator=torch.Generator().manual_seed(0)), torch.zeros(2, dtype=torch.int64))
    assert model.training and not model.weights.requires_grad and model.block.weight.requires_grad
    assert all(torch.equal(p, before[n]) for n, p in model.state_dict().items())
    assert model.block.weight.grad is None and torch.equal(torch.get_rng_state(), state)
    with pytest.raises(ValueError, match=r"inputs must be 2 x 3 images"):
        gather_trial_maps(model, torch.rand(4, 3, 6, 6), torch.zeros(3, dtype=torch.int64), ["block"], [model.head])


@pytest.mark.parametrize("name", NAMES)
def test_every_statistic_declares_itself_in_its_own_file(name: str) -> None:
    statistic = TRIAL_STATISTICS[name]
    assert statistic.name == name and statistic.function.__module__ == f"explain.evidence.{name}"
    text = getattr(sys.modules[statistic.function.__module__], statistic.function.__name__).__doc__
    assert all(word in text for word in ("Source:", "Range:", "Sign: +", "Null:", "Cost:", "mean over images"))
    assert "." not in statistic.weaker
    with pytest.raises(KeyError):
        TRIAL_STATISTICS["nothing"]


def test_the_registry_and_the_joint_number_load_no_torch() -> None:
    import subprocess

    code = (
        "import sys, explain.evidence.joint, explain.evidence.trial_registry as r; list(r.TRIAL_STATISTICS);"
        "print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
    import_module("explain.evidence.joint")


def statistics(*values: float) -> dict[str, dict[str, float]]:
    return {name: {"b": value} for name, value in zip(NAMES, values, strict=False)}


def test_a_statistic_that_a_trial_lacks_says_nothing() -> None:
    trials = [statistics(1.0, 0.0), statistics(0.0, 0.0), {NAMES[1]: {"b": 0.0}}]
    assert summed(trials, NAMES[:2]).tolist() == [1.0, 0.0, 0.5]
    assert summed([{}, {}], NAMES).tolist() == [0.0, 0.0]
    assert summed(trials, ()).tolist() == [0.0] * 3


def test_maps_are_compared_within_a_network_and_losses_across() -> None:
    losses = [0.1, 0.1, 1.0, 1.0]
    trials = [statistics(0.9), statistics(0.1), statistics(0.2), statistics(0.1)]
    found = joint(losses, trials, ["a", "a", "b", "b"], NAMES[:1])
    assert found.tolist() == pytest.approx([2.0, 0.0, 0.0, -2.0])
    assert joint(losses, trials, ["a"] * 4, ()).tolist() == pytest.approx([1.0, 1.0, -1.0, -1.0])
    assert np.isfinite(joint([0.0, math.inf], [{}, {}], ["a", "a"], NAMES)).all()


numbers = st.lists(st.floats(-1, 1).map(lambda x: round(x, 3)), min_size=1, max_size=8)


@given(numbers, st.floats(0.1, 10), st.floats(-5, 5))
def test_units_and_offsets_of_what_is_standardised_do_not_matter(
    values: list[float], unit: float, start: float
) -> None:
    plain = standardised(values)
    assert plain.sum() == pytest.approx(0, abs=1e-6)
    assert standardised([unit * v + start for v in values]) == pytest.approx(plain, abs=1e-6)


@given(numbers, st.randoms())
def test_the_order_in_which_trials_are_given_does_not_matter(values: list[float], random: object) -> None:
    losses = [abs(v) + 0.1 for v in reversed(values)]
    trials = [statistics(v) for v in values]
    order = list(range(len(values)))
    random.shuffle(order)  # type: ignore[attr-defined]
    plain = joint(losses, trials, ["a"] * len(values), NAMES[:1])
    moved = joint([losses[i] for i in order], [trials[i] for i in order], ["a"] * len(values), NAMES[:1])
    assert moved == pytest.approx(plain[order], abs=1e-9)
