from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from explain.attribution import upsample
from explain.evidence import SCORERS, Material, gather
from explain.evidence.masked_drops import shuffled_cells

BLOCKS = ("stem", "middle", "deep")
E1, CONTROL = SCORERS["faithful_localisation"], SCORERS["faithful_localisation_control"]


class Brightness(nn.Module):
    """Class 1 by mean brightness; class 0 has no evidence of its own, so its maps are dead."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 1, 1, bias=False), nn.BatchNorm2d(1), nn.ReLU(inplace=True))
        self.middle = nn.Sequential(nn.Conv2d(1, 1, 3, padding=1, bias=False), nn.ReLU())
        self.deep = nn.AvgPool2d(2)
        with torch.no_grad():
            self.stem[0].weight.fill_(1 / 3)
            self.middle[0].weight.fill_(1 / 9)

    def forward(self, images: Tensor) -> Tensor:
        bright = 60 * self.deep(self.middle(self.stem(images))).mean(dim=(1, 2, 3)) - 2
        return torch.stack([torch.zeros_like(bright), bright], dim=1)


def spots(count: int = 16) -> tuple[Tensor, Tensor, Tensor]:
    """Black images of class 0 and images with one bright square of class 1, each a little darker than the last."""
    generator = torch.Generator().manual_seed(0)
    images = torch.zeros(count, 3, 16, 16)
    labels = torch.arange(count) % 2
    for number in range(1, count, 2):
        row, column = (2 * torch.randint(1, 6, (2,), generator=generator)).tolist()
        images[number, :, row : row + 4, column : column + 4] = 1 - number / 200
    return images, labels, (torch.arange(count) // 2) % 2 == 0


@pytest.mark.parametrize("scorer", [E1, CONTROL])
@pytest.mark.parametrize("method", ["layercam", "hirescam"])
def test_a_network_that_sees_the_square_localises_it_in_every_block(scorer: Any, method: str) -> None:
    found = gather(Brightness().eval(), BLOCKS, *spots(40), method=method, gradients=False)
    scores = scorer(found)
    assert (scores.values > 0.3).all()
    assert (scores.z > 3).all()
    assert np.abs(scores.null_mean).max() < 0.1
    assert scores.notes == tuple(f"block {name}: 10 of 20 maps cannot be shuffled" for name in BLOCKS)


def test_what_is_measured_is_the_drop_through_the_map() -> None:
    images, labels, training = spots()
    net = Brightness().eval()
    found = gather(net, BLOCKS, images, labels, training, shuffles=3, gradients=False)
    drops = found.drops["cam"]
    assert drops.shape == (3, 4, 8)
    chosen = ~training & (labels == 1)
    maps = found.before.records[2].cam[chosen]
    shown = upsample(maps / maps.amax(dim=(1, 2), keepdim=True), (16, 16))
    masked = images[chosen] * shown[:, None]
    before, after = (net(x).softmax(1)[:, 1].double() for x in (images[chosen], masked))
    torch.testing.assert_close(drops[2, 0, 1::2], ((before - after).clamp_min(0) / before).detach())
    assert not torch.equal(drops[0, 1, 1::2], drops[0, 2, 1::2])  # each shuffle is another
    scores = E1(found)
    alive = drops[:, :, 1::2]
    np.testing.assert_allclose(scores.values, (alive[:, 1:].mean(dim=1) - alive[:, 0]).mean(dim=1))


def with_drops(material: Material, drops: Tensor) -> Material:
    return dataclasses.replace(material, drops={"cam": drops})


def test_a_map_no_better_than_its_shuffles_is_chance(material: Material) -> None:
    drops = torch.rand(3, 3, 400, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    scores = E1(with_drops(material, drops))
    assert (np.abs(scores.z) < 3).all()
    # Mean of two against one of three uniform variables: variance 1/12 + 1/24.
    np.testing.assert_allclose(scores.null_spread, np.sqrt((1 / 12 + 1 / 24) / 400), rtol=0.2)
    np.testing.assert_allclose(scores.null_mean, 0, atol=0.01)


def test_a_map_worse_than_its_shuffles_is_negative(material: Material) -> None:
    drops = torch.rand(3, 3, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / 2
    drops[:, 0] += 0.3
    scores = E1(with_drops(material, drops))
    assert (scores.values < 0).all()
    assert (scores.z < -5).all()


def test_dead_maps_are_left_out_and_a_block_of_dead_maps_has_no_score(material: Material) -> None:
    drops = torch.rand(3, 2, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drops[1] = torch.nan
    drops[2, :, 0] = torch.nan
    scores = E1(with_drops(material, drops))
    assert np.isnan(scores.values).tolist() == [False, True, False]
    assert np.isnan(scores.z).tolist() == [False, True, False]
    assert scores.values[2] == pytest.approx(float((drops[2, 1] - drops[2, 0])[1:].mean()))
    assert scores.notes == (
        "block middle: 6 of 6 maps cannot be shuffled",
        "block deep: 1 of 6 maps cannot be shuffled",
    )


def test_a_map_of_one_cell_cannot_be_shuffled(make_net: Callable[..., nn.Module]) -> None:
    images, labels = torch.randn(4, 3, 4, 4), torch.tensor([0, 1, 0, 1])
    found = gather(make_net(), BLOCKS, images, labels, torch.tensor([True, True, False, False]), gradients=False)
    assert found.before.records[2].cam.shape == (4, 1, 1)
    assert np.isnan(CONTROL(found).values).tolist() == [False, False, True]
    assert found.costs["drops/control"].forward_passes == 2 * 2 * 3


def test_shuffling_keeps_the_values_and_depends_on_image_and_seed_alone() -> None:
    maps = torch.arange(24.0).view(2, 3, 4)
    one = shuffled_cells(maps, [5, 6], seed=1)
    assert one.flatten(1).sort(dim=1).values.tolist() == maps.flatten(1).tolist()
    assert not torch.equal(one, maps)
    assert torch.equal(shuffled_cells(maps[1:], [6], seed=1), one[1:])
    assert not torch.equal(shuffled_cells(maps, [5, 6], seed=2), one)
