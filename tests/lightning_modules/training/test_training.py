"""Batch-norm, activation cache, probe and classifier: what makes trials at different depths comparable."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from lightning_modules.networks.backbones import build
from lightning_modules.networks.batch_norm import batch_norms_behind, reestimate_batch_norm
from lightning_modules.networks.freezing import block_flops, epoch_equivalents, freeze
from lightning_modules.training.warm_start import fit_linear_probe, warm_up_head

ROWS = 12
VIEWS = 2


@pytest.mark.parametrize(
    "depth", [0, 4, *(pytest.param(k, marks=[pytest.mark.slow, pytest.mark.long]) for k in (1, 2, 3, 5, 6, 7, 8))]
)
def test_reestimated_batch_norm_makes_eval_mode_score_like_train_mode(depth: int) -> None:
    """The contract of the pilot that inverted the order of all depths (docs/architecture.md)."""
    torch.manual_seed(0)
    net = build("efficientnet_lite0", classes=3, size=(32, 32))
    labels = torch.arange(48) % 3
    images = torch.rand(48, 3, 32, 32) * 0.3
    for label in range(3):  # separable by construction: a stripe of each class's own, twice as bright as the noise
        images[labels == label, :, label * 10 : label * 10 + 10] += 0.6
    with torch.no_grad():
        activations = net.eval().prefix(images, depth)
    freeze(net, depth)
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.02, momentum=0.9)
    net.train()
    for _ in range(12 if depth < net.num_blocks else 300):
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
    layer = batch_norms_behind(net, 2)[0]
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
    # Separable by construction: a channel of each class's own; pooled, its mean lies six deviations above the others.
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
    assert len(flops) == net.num_blocks + 1
    costs = [epoch_equivalents(flops, k, 10) for k in range(net.num_blocks + 1)]
    assert costs[0] == 10
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] < 0.05
