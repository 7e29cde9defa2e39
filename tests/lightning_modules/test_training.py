"""Batch-norm, activation cache, probe and classifier: what makes trials at different depths comparable."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from lightning_modules.activation_cache import ActivationCache
from lightning_modules.backbones import build
from lightning_modules.batch_norm import reestimate_batch_norm, thawed_batch_norms
from lightning_modules.cost import block_flops, epoch_equivalents
from lightning_modules.datamodule import ActivationBatches
from lightning_modules.freezing import freeze
from lightning_modules.probe import fit_linear_probe, warm_up_head

ROWS = 12
VIEWS = 2


def _inputs(rows: np.ndarray, views: np.ndarray) -> torch.Tensor:
    """Images that depend on row and view alone."""
    images = []
    for row, view in zip(rows, views, strict=True):
        generator = torch.Generator().manual_seed(int(row) * 100 + int(view))
        images.append(torch.rand(3, 32, 32, generator=generator))
    return torch.stack(images).contiguous(memory_format=torch.channels_last)


def _pairs() -> np.ndarray:
    return np.array([(r, v) for r in range(ROWS) for v in range(VIEWS + 1)], dtype=np.int64)


def _cache(folder: Path, *, capacity: int = 10**9, precision: str = "float16", **more: object) -> ActivationCache:
    net = build("efficientnet_lite0", classes=3, size=(32, 32)).eval()
    return ActivationCache(
        net, _inputs, _pairs(), precision=precision, folder=folder, key="k", capacity=capacity, **more
    )  # type: ignore[arg-type]


def _counted(net: nn.Module) -> list[int]:
    counts: list[int] = []
    for block in net.blocks:  # type: ignore[union-attr]
        block.register_forward_hook(lambda *_: counts.append(1))
    return counts


@pytest.mark.parametrize("precision", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("cut", [1, 4, 8])
def test_cached_and_computed_activations_are_the_same(tmp_path: Path, precision: str, cut: int) -> None:
    rows, views = np.array([3, 0, 11]), np.array([0, 2, 1])
    stored = _cache(tmp_path / "a", precision=precision)
    computed = _cache(tmp_path / "b", precision=precision, capacity=0)
    from_shallower = _cache(tmp_path / "c", precision=precision)
    from_shallower.at(max(cut - 1, 1), rows, views)
    first = stored.at(cut, rows, views)
    assert first.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(first, computed.at(cut, rows, views))
    assert torch.equal(first, from_shallower.at(cut, rows, views))
    assert stored.decisions[cut].startswith("stored")
    assert computed.decisions[cut].startswith("computed")
    assert not (tmp_path / "b").exists()


def test_a_cached_cut_runs_no_prefix_again(tmp_path: Path) -> None:
    rows, views = np.arange(ROWS), np.zeros(ROWS, np.int64)
    first = _cache(tmp_path)
    first.at(5, rows, views)
    counts = _counted(first.net)
    first.at(5, rows, views)
    assert counts == []
    another_process = _cache(tmp_path)
    counts = _counted(another_process.net)
    another_process.at(5, rows[:4], views[:4])
    assert len(counts) == 5  # one image, to learn the shape


def test_a_deeper_cut_starts_from_the_nearest_stored_one(tmp_path: Path) -> None:
    cache = _cache(tmp_path)
    rows, views = np.arange(ROWS), np.zeros(ROWS, np.int64)
    cache.at(6, rows, views)
    counts = _counted(cache.net)
    cache.at(8, rows, views)
    assert len(counts) == 8 + 2 * 2  # the shape of one image through all, then blocks 7 and 8 over two chunks of pairs


def test_a_damaged_file_is_written_again(tmp_path: Path) -> None:
    rows, views = np.arange(ROWS), np.zeros(ROWS, np.int64)
    expected = _cache(tmp_path).at(3, rows, views)
    file = tmp_path / "k" / "cut3.npy"
    file.write_bytes(file.read_bytes()[:1000])
    assert torch.equal(_cache(tmp_path).at(3, rows, views), expected)
    assert not list(tmp_path.glob("k/*.tmp"))


def test_the_cache_stays_below_its_capacity_and_drops_the_least_recently_used(tmp_path: Path) -> None:
    rows, views = np.arange(ROWS), np.zeros(ROWS, np.int64)
    cache = _cache(tmp_path)
    cache.at(7, rows, views)
    size = (tmp_path / "k" / "cut7.npy").stat().st_size
    small = _cache(tmp_path, capacity=int(size * 1.5))
    small._key = "other"
    small.at(7, rows, views)
    files = [str(f.relative_to(tmp_path)) for f in tmp_path.glob("*/*.npy")]
    assert files == ["other/cut7.npy"]


def test_a_full_disk_falls_back_to_computing_and_says_so_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes: list[str] = []
    cache = _cache(tmp_path, on_note=notes.append)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array_header_2_0", full)
    rows, views = np.arange(ROWS), np.zeros(ROWS, np.int64)
    assert cache.at(4, rows, views).shape[0] == ROWS
    cache.at(4, rows, views)
    assert notes == ["activations at cut 4 are computed in every epoch: could not be stored: No space left on device"]


def test_every_image_shows_each_view_once_in_views_plus_one_passes(tmp_path: Path) -> None:
    asked: list[tuple[int, int]] = []
    cache = _cache(tmp_path, capacity=0)
    real = cache.at
    cache.at = lambda cut, rows, views: (
        asked.extend(zip(rows.tolist(), views.tolist(), strict=True)),
        real(cut, rows, views),
    )[1]  # type: ignore[method-assign]
    batches = ActivationBatches(cache, 0, np.arange(ROWS), np.zeros(ROWS, np.int64), batch_size=5, views=VIEWS, seed=3)
    sizes = [len(labels) for _ in range(VIEWS + 1) for _, labels in batches]
    assert sorted(asked) == sorted(map(tuple, _pairs().tolist()))
    assert sizes == [4] * 9  # 12 images in 3 nearly equal batches: none is left with one image


@pytest.mark.parametrize("depth", range(9))
def test_reestimated_batch_norm_makes_eval_mode_score_like_train_mode(depth: int) -> None:
    """The contract of the pilot that inverted the order of all depths (docs/architecture.md)."""
    torch.manual_seed(0)
    net = build("efficientnet_lite0", classes=3, size=(32, 32))
    labels = torch.arange(48) % 3
    images = torch.rand(48, 3, 32, 32) * 0.3
    for label in range(3):  # three classes an untrained eye can tell apart
        images[labels == label, :, label * 10 : label * 10 + 10] += 0.6
    with torch.no_grad():
        activations = net.eval().prefix(images, depth)
    freeze(net, depth)
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.02, momentum=0.9)
    net.train()
    for _ in range(12 if depth < net.depth else 300):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net.suffix(activations, depth), labels).backward()
        optimizer.step()
    with torch.no_grad():
        in_train_mode = (net.suffix(activations, depth).argmax(1) == labels).float().mean()
        reestimate_batch_norm(net, [activations], depth)
        in_eval_mode = (net.eval().suffix(activations, depth).argmax(1) == labels).float().mean()
    assert in_train_mode > 0.9
    assert abs(in_train_mode - in_eval_mode) <= 0.06


def test_reestimation_is_the_plain_mean_and_restores_everything() -> None:
    net = build("efficientnet_lite0", classes=3, size=(32, 32))
    freeze(net, 2)
    net.train()
    layer = thawed_batch_norms(net)[0]
    frozen = [m for block in net.blocks[:2] for m in block.modules() if isinstance(m, nn.BatchNorm2d)]
    frozen_before = [m.running_mean.clone() for m in frozen]
    momentum, seen = layer.momentum, []
    hook = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].mean((0, 2, 3))))
    with torch.no_grad():
        batches = [net.prefix(torch.rand(4, 3, 32, 32), 2) for _ in range(3)]
    reestimate_batch_norm(net, batches, 2)
    hook.remove()
    assert torch.allclose(layer.running_mean, torch.stack(seen).mean(0), atol=1e-6)
    assert layer.momentum == momentum
    assert layer.training
    assert all(torch.equal(m.running_mean, before) for m, before in zip(frozen, frozen_before, strict=True))


def test_the_linear_probe_solves_its_own_equations() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(60, 5, generator=generator) * 7 + 3
    labels = (features[:, 0] > 3).long() + (features[:, 1] > 3).long()
    weight, bias = fit_linear_probe(features, labels, 3, l2=0.0)
    assert ((features @ weight.T + bias).argmax(1) == labels).float().mean() > 0.85
    from sklearn.linear_model import LogisticRegression

    scaled = features - features.mean(0)
    scaled /= scaled.square().mean().sqrt()
    weight, bias = fit_linear_probe(scaled, labels, 3, l2=0.1)
    reference = LogisticRegression(C=1 / (0.1 * len(labels)), max_iter=1000).fit(scaled, labels)
    ours = (scaled @ weight.T + bias).softmax(1)
    assert np.allclose(ours.numpy(), reference.predict_proba(scaled), atol=2e-3)


@pytest.mark.parametrize("linear", [True, False])
def test_a_warm_head_knows_the_training_images(linear: bool) -> None:
    labels = torch.arange(30) % 3
    activations = torch.randn(30, 6, 2, 2) + 3 * nn.functional.one_hot(labels, 6)[:, :, None, None]
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3))
    if not linear:
        head = nn.Sequential(nn.Flatten(), nn.Linear(24, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 3))
    warm_up_head(head, [(activations, labels)], 3, epochs=200)
    assert not head.training
    with torch.no_grad():
        assert (head(activations).argmax(1) == labels).float().mean() > 0.95


def test_cost_falls_with_the_freeze_depth() -> None:
    net = build("efficientnet_lite0", classes=3, size=(32, 32))
    flops = block_flops(net, (32, 32))
    assert len(flops) == net.depth + 1
    costs = [epoch_equivalents(flops, k, 10) for k in range(net.depth + 1)]
    assert costs[0] == 10
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] < 0.05
