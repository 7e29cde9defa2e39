from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from explain.evidence import SCORERS, depth_scores, gather
from explain.evidence.weight_gradients import relative_gradient_norms

Planted = tuple[Tensor, Tensor, Tensor]
BLOCKS = ("stem", "middle", "deep")
OPTIONS: dict[str, Any] = {"permutations": 2, "batch_size": 10, "seed": 0}


def norm(tensors: Any) -> float:
    return float(torch.cat([tensor.detach().flatten() for tensor in tensors]).norm())


def test_they_are_those_of_backward(planted: Planted, make_net: Callable[..., nn.Module]) -> None:
    images, labels, training = planted
    net = make_net()
    found = relative_gradient_norms(net, BLOCKS, images, labels, training, **OPTIONS)
    functional.cross_entropy(net(images[training]), labels[training]).backward()
    for place, name in enumerate(BLOCKS):
        parameters = list(net.get_submodule(name).parameters())
        wanted = norm([parameter.grad for parameter in parameters]) / norm(parameters)
        assert float(found[0, place]) == pytest.approx(wanted, rel=1e-4)
    assert found.shape == (3, 3)
    assert not torch.allclose(found[1], found[2])


def test_scaling_weights_behind_batch_norm_scales_as_it_should(
    planted: Planted, make_net: Callable[..., nn.Module]
) -> None:
    # The loss of a network is the same where one layer is enlarged and the next one reduced.
    class Two(nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first, self.second = nn.Conv2d(3, 4, 3, bias=False), nn.Conv2d(4, 4, 3, bias=False)
            with torch.no_grad():
                self.first.weight *= factor
                self.second.weight /= factor

        def forward(self, images: Tensor) -> Tensor:
            return self.second(self.first(images).relu()).mean(dim=(2, 3))

    one, other = (relative_gradient_norms(Two(f), ("first", "second"), *planted, **OPTIONS)[0] for f in (1, 10))
    torch.testing.assert_close(other, one * torch.tensor([1 / 100, 100]), rtol=1e-4, atol=0)


def test_a_block_without_weights_has_none(planted: Planted) -> None:
    net = nn.Sequential(nn.ReLU(), nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    found = relative_gradient_norms(net, ("0", "1"), *planted, **OPTIONS)
    assert torch.isnan(found[:, 0]).all()
    assert (found[:, 1] > 0).all()
    alone = relative_gradient_norms(net, ("0",), *planted, **OPTIONS)
    assert torch.isnan(alone).all()
    scores = SCORERS["auto_rgn"](gather(net, ("0", "1"), *planted, shuffles=0))
    assert scores.values[1] < 0
    assert np.isnan(scores.values[0])
    assert scores.notes == ("block 0: no weights, or a gradient that is not finite",)


def test_without_permutations_there_is_no_null(planted: Planted, networks: tuple[nn.Module, ...]) -> None:
    found = gather(networks[0], BLOCKS, *planted, shuffles=0, label_permutations=0)
    scores = SCORERS["auto_rgn"](found)
    assert np.isfinite(scores.values).all()
    assert np.isnan(scores.null_mean).all()
    assert np.isnan(depth_scores(scores).values).all()
    once = SCORERS["auto_rgn"](gather(networks[0], BLOCKS, *planted, shuffles=0, label_permutations=1))
    assert np.isfinite(once.null_mean).all()
    assert np.isnan(once.z).all()


def test_the_block_that_a_planted_change_must_mend_pulls_hardest(planted: Planted, tune: Callable[..., Any]) -> None:
    """Spoil one block of a fitted network: its relative gradient is the largest, so it speaks least for freezing."""
    images, labels, training = planted
    torch.manual_seed(3)
    blocks = [nn.Sequential(nn.Conv2d(3 if n == 0 else 8, 8, 3, padding=1), nn.ReLU()) for n in range(3)]
    net = nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    net = tune(net, images[training], labels[training], steps=150, seed=0, rate=0.05)
    before = relative_gradient_norms(net, ("0", "1", "2"), *planted, **OPTIONS)[0]
    with torch.no_grad():
        net[1][0].weight *= 0.05
    after = relative_gradient_norms(net, ("0", "1", "2"), *planted, **OPTIONS)[0]
    assert int(after.argmax()) == 1
    assert float(after[1]) > 3 * float(before[1])
