"""Drift: quiet where nothing changes, loud where something does, and about that which did."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chi2_contingency, kstest

from lightning_modules.errors import InputError
from lightning_modules.networks import backbones
from lightning_modules.networks.blocknet import BlockNet
from lightning_modules.simulated.generator import CLASSES, SimulatedImage, simulate
from search.retrain.month.baseline import Baseline, measure_baseline
from search.retrain.month.drift import compare_drift
from search.retrain.month.record import Drift
from search.significance import chi_square, holm, memberships, squared_mmd
from tests.search.retrain.made_up import made_up

QUICK = 99


@pytest.fixture(scope="module")
def net() -> BlockNet:
    return backbones.build("lenet5", classes=11, size=(32, 32), weights="none", seed=1).eval()


@cache
def every_month(seed: int) -> list[SimulatedImage]:
    return list(simulate(390, (32, 32), seed))


@cache
def simulated(month: str, seed: int) -> tuple[torch.Tensor, list[int], list[str]]:
    images = [image for image in every_month(seed) if image.month == month]
    pixels = torch.from_numpy(np.stack([image.pixels for image in images])).float().div(255)
    return (
        pixels[:, None].expand(-1, 3, -1, -1),
        [CLASSES.index(image.label) for image in images],
        [image.group for image in images],
    )


@pytest.fixture(scope="module")
def months(net: BlockNet) -> dict[str, Baseline]:
    """January 2019 twice, of other plates, and January 2020: darker, noisier, of another mix."""
    found = {}
    for name, month, seed in (("old", "2019-01", 0), ("same", "2019-01", 1), ("later", "2020-01", 0)):
        pixels, labels, groups = simulated(month, seed)
        found[name] = measure_baseline(net, pixels.split(32), labels, CLASSES, groups=groups)
    return found


# The domain's own truth: the simulated line's receiver gets noisier and its gain falls.


def test_the_simulated_drift_is_found(months: dict[str, Baseline]) -> None:
    drift = compare_drift(months["old"], months["later"])
    assert drift["contrast"].seen
    assert drift.groups[0] < drift.images[0]
    assert any("contrast" in line for line in drift.lines())


def test_another_month_under_the_same_conditions_is_quiet(months: dict[str, Baseline]) -> None:
    drift = compare_drift(months["old"], months["same"])
    assert not any(shift.seen for shift in drift.shifts)
    assert not any(block.seen for block in drift.blocks)
    assert len(drift.lines()) == 1 and drift.lines()[0].startswith("No change is shown of")


# Laws, on samples whose drift is known.


def test_without_drift_p_values_are_uniform() -> None:
    drifts = [
        compare_drift(made_up(40, seed), made_up(30, 1000 + seed), seed=seed, permutations=QUICK) for seed in range(80)
    ]
    for name in ("features", "label_mix", "brightness", "contrast"):
        p = [drift[name].p_value for drift in drifts]
        assert kstest(p, "uniform").pvalue > 0.005, name
    flagged = [any(shift.seen for shift in drift.shifts) for drift in drifts]
    assert np.mean(flagged) <= 0.125  # 5 % of 80 and two standard errors
    assert np.mean([any(block.seen for block in drift.blocks) for drift in drifts]) <= 0.125


def test_images_of_one_plate_count_once() -> None:
    def p_values(grouped: bool) -> list[float]:
        found = []
        for seed in range(40):
            pair = [made_up(40, seed + start, a_group=4, alike=8.0) for start in (0, 1000)]
            if not grouped:
                for one in pair:
                    object.__setattr__(one, "groups", np.arange(40))
            found.append(compare_drift(*pair, seed=seed, permutations=QUICK)["brightness"].p_value)
        return found

    assert np.mean(np.array(p_values(True)) < 0.05) <= 0.15
    assert np.mean(np.array(p_values(False)) < 0.05) >= 0.25  # what would be said if plates were not known


@pytest.mark.parametrize(
    ("change", "named", "words"),
    [
        ({"brightness": 1.0}, "brightness", "The images are brighter: 0."),
        ({"brightness": -1.0}, "brightness", "The images are darker: 0."),
        ({"features": 1.5}, "features", "To the champion the images look different"),
        ({"shares": (0.1, 0.3, 0.6)}, "label_mix", "The mix of classes changed"),
    ],
)
def test_what_changed_is_named_and_nothing_else(change: dict[str, Any], named: str, words: str) -> None:
    drift = compare_drift(made_up(150, 5), made_up(80, 6, **change))
    assert [shift.name for shift in drift.shifts if shift.seen] == [named]
    assert not any(block.seen for block in drift.blocks)
    assert any(line.startswith(words) for line in drift.lines())
    assert sum(drift[named].name.replace("_", " ").split()[0] in line for line in drift.lines()[-1:]) <= 1


def test_blocks_whose_maps_moved_are_named() -> None:
    drift = compare_drift(made_up(150, 5), made_up(80, 6, moved=2))
    assert [block.block for block in drift.blocks if block.seen] == ["three", "four"]
    assert any("2 of its 4 blocks (three" in line for line in drift.lines())


def test_maps_that_die_are_a_shift() -> None:
    new = made_up(80, 6)
    for values in new.measures.values():
        values[3] = np.nan
    drift = compare_drift(made_up(150, 5), new)
    assert [block.block for block in drift.blocks if block.seen] == ["four"]
    assert drift.blocks[3].statistic == 1


def test_a_new_class_is_counted_by_its_name() -> None:
    new = made_up(80, 6, classes=("pipe", "scab", "island"))
    drift = compare_drift(made_up(150, 5), new)
    assert list(drift.counts) == ["island", "pipe", "flake", "scab"]
    assert drift.counts["scab"] == (0, new.counts["scab"])
    assert drift.counts["pipe"][1] == new.counts["pipe"]
    assert drift["label_mix"].seen


def test_the_same_seed_gives_the_same_drift_and_it_goes_through_json() -> None:
    pair = made_up(50, 1), made_up(30, 2)
    drift = compare_drift(*pair, seed=5, permutations=QUICK)
    assert compare_drift(*pair, seed=5, permutations=QUICK).to_json() == drift.to_json()
    again = Drift.from_json(json.loads(json.dumps(drift.to_json())))
    assert again.to_json() == drift.to_json()
    assert again.lines() == drift.lines()
    metrics = drift.metrics()
    assert metrics["drift_brightness_old"] == pytest.approx(float(pair[0].brightness.mean()))
    assert {f"drift_maps/{block}" for block in pair[0].blocks} <= set(metrics)
    assert all(np.isfinite(value) for value in metrics.values())


# The statistics, by another way.


def test_squared_mmd_is_the_sum_over_pairs() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(0, 1, (7, 3)).astype(np.float32), rng.normal(1, 1, (5, 3)).astype(np.float32)
    both = np.concatenate([x, y]).astype(np.float64)
    distances = [np.sum((both[i] - both[j]) ** 2) for i in range(12) for j in range(12) if i != j]
    h2 = np.median(distances)

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.exp(-np.sum((a - b) ** 2) / (2 * h2)))

    xx = np.mean([k(a, b) for i, a in enumerate(both[:7]) for j, b in enumerate(both[:7]) if i != j])
    yy = np.mean([k(a, b) for i, a in enumerate(both[7:]) for j, b in enumerate(both[7:]) if i != j])
    xy = np.mean([k(a, b) for a in both[:7] for b in both[7:]])
    members = np.arange(12)[None] >= 7
    assert squared_mmd(np.concatenate([x, y]), members)[0] == pytest.approx(xx + yy - 2 * xy, rel=1e-6)


def test_chi_square_is_scipys() -> None:
    labels = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 0])
    members = np.array([[0, 1, 0, 1, 1, 0, 0, 1, 0, 0]], dtype=bool)
    table = [[int(((labels == c) & (members[0] == side)).sum()) for c in range(3)] for side in (True, False)]
    assert chi_square(labels, members)[0] == pytest.approx(chi2_contingency(table, correction=False).statistic)


def test_holm_is_the_textbooks() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_groups_are_permuted_whole() -> None:
    groups = np.array([0, 0, 0, 1, 2, 2, 3])
    drawn = memberships(groups, groups >= 2, 50, np.random.default_rng(0))
    assert drawn[0].tolist() == [False] * 4 + [True] * 3
    for row in drawn:
        assert all(len(set(row[groups == group])) == 1 for group in range(4))
        assert sum(row[groups == group][0] for group in range(4)) == 2


# Measuring.


def test_a_baseline_is_what_the_network_says(net: BlockNet, months: dict[str, Baseline]) -> None:
    pixels, labels, groups = simulated("2019-01", 0)
    found = months["old"]
    with torch.no_grad():
        probabilities = net(pixels).softmax(1)
        pooled = net.prefix(pixels, 1).mean((2, 3))
    assert len(found) == len(labels)
    assert found.predicted.tolist() == probabilities.argmax(1).tolist()
    assert found.confidence == pytest.approx(probabilities.max(1).values.numpy(), abs=1e-5)
    assert found.brightness == pytest.approx(pixels.mean((1, 2, 3)).numpy(), abs=1e-5)
    assert found.block_features[0] == pytest.approx(pooled.numpy(), abs=1e-5)
    last = [module for module in net.head.modules() if isinstance(module, torch.nn.Linear)][-1]
    assert found.features.shape == (len(labels), last.in_features)
    assert found.right == int((probabilities.argmax(1) == torch.tensor(labels)).sum())
    assert sum(found.counts.values()) == len(labels)
    assert len(np.unique(found.groups)) == len(set(groups))
    with torch.no_grad():
        answered = torch.from_numpy(found.features) @ last.weight.T + last.bias
    assert answered.softmax(1).max(1).values.numpy() == pytest.approx(found.confidence, abs=1e-4)


def test_a_sample_is_drawn_and_batches_do_not_matter(net: BlockNet) -> None:
    pixels, labels, _ = simulated("2019-01", 0)
    hooks = sum(len(module._forward_pre_hooks) for module in net.modules())
    one, other = (measure_baseline(net, pixels.split(size), labels, CLASSES, limit=20) for size in (7, 80))
    assert len(one) == 20 and sum(one.counts.values()) == len(labels)
    for name in ("features", "confidence", "brightness"):
        assert getattr(one, name) == pytest.approx(getattr(other, name), abs=1e-5)
    assert one.groups.tolist() == other.groups.tolist()
    assert sum(len(module._forward_pre_hooks) for module in net.modules()) == hooks
    assert all(parameter.requires_grad for parameter in net.parameters())


def test_a_baseline_is_kept_and_read(months: dict[str, Baseline], tmp_path: Path) -> None:
    path = tmp_path / "baseline.npz"
    months["old"].save(path)
    again = Baseline.load(path)
    drift = compare_drift(again, months["later"], permutations=QUICK)
    assert drift.to_json() == compare_drift(months["old"], months["later"], permutations=QUICK).to_json()
    assert list(tmp_path.iterdir()) == [path]
    assert again.classes == months["old"].classes and again.counts == months["old"].counts


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 broken"])
def test_what_is_no_baseline_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "baseline.npz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"baseline\.npz is not a readable drift baseline"):
        Baseline.load(path)
    with pytest.raises(InputError, match="not a readable drift baseline"):
        Baseline.load(tmp_path / "missing.npz")


def test_a_baseline_with_any_byte_flipped_is_refused_or_the_same(months: dict[str, Baseline], tmp_path: Path) -> None:
    path = tmp_path / "baseline.npz"
    months["old"].save(path)
    whole = path.read_bytes()
    refused = 0
    for place in (*range(0, len(whole), max(1, len(whole) // 200)), *range(len(whole) - 300, len(whole))):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            found = Baseline.load(path)
        except InputError:
            refused += 1
        else:  # a time or a mode in the archive
            np.testing.assert_array_equal(found.features, months["old"].features)
            np.testing.assert_array_equal(found.confidence, months["old"].confidence)
    assert refused > 100


def test_no_pickle_is_read(tmp_path: Path) -> None:
    path = tmp_path / "baseline.npz"
    np.savez(path, format=np.array(1), blocks=np.array([{}], dtype=object))
    with pytest.raises(InputError, match="not a readable drift baseline"):
        Baseline.load(path)


@pytest.mark.parametrize(
    ("labels", "message"),
    [([0, 1], r"images must be as many as labels \(2\), got 3"), ([], "at least one"), ([0, 1, 11], r"0\.\.10")],
)
def test_labels_that_do_not_fit_are_refused(net: BlockNet, labels: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        measure_baseline(net, [torch.rand(3, 3, 32, 32)], labels, CLASSES)


def test_samples_that_cannot_be_compared_are_refused(months: dict[str, Baseline]) -> None:
    with pytest.raises(ValueError, match="new must be of the same network"):
        compare_drift(made_up(30, 1), months["old"])
    with pytest.raises(ValueError, match="at least 2 images, got 30 and 1"):
        compare_drift(made_up(30, 1), made_up(1, 1))
    with pytest.raises(ValueError, match="permutations must be at least 99, got 10"):
        compare_drift(made_up(30, 1), made_up(30, 2), permutations=10)
