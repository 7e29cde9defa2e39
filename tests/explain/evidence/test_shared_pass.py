from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from explain.attribution import METHODS, block_maps
from explain.evidence import SCORERS, Cost, Material, depth_scores, gather
from explain.gap_head import pooled_features

BLOCKS = ("stem", "middle", "deep")
Planted = tuple[Tensor, Tensor, Tensor]


def state_of(model: nn.Module) -> list[Any]:
    found: list[Any] = [(module.training, len(module._forward_hooks)) for module in model.modules()]
    found += [(parameter.requires_grad, parameter.grad) for parameter in model.parameters()]
    return [*found, *(value.tolist() for value in model.state_dict().values())]


def test_maps_features_and_predictions_are_those_of_the_network(
    material: Material, planted: Planted, networks: tuple[nn.Module, ...]
) -> None:
    images, labels, _ = planted
    cams = block_maps(networks[1], images, BLOCKS, labels, method="layercam")
    control = block_maps(networks[1], images, BLOCKS, labels, method="activation")
    features = pooled_features(networks[1], images, BLOCKS)
    assert material.after is not None
    for name, record in zip(BLOCKS, material.after.records, strict=True):
        torch.testing.assert_close(record.cam, cams[name])
        torch.testing.assert_close(record.control, control[name])
        torch.testing.assert_close(record.features, features[name])
    torch.testing.assert_close(material.after.logits, networks[1](images).detach())
    torch.testing.assert_close(material.inputs, images.mean(dim=(2, 3)))
    assert [features.shape for features in material.depth_features] == [(48, 3), (48, 8), (48, 8), (48, 8)]


def test_the_method_is_the_one_asked_for(planted: Planted, networks: tuple[nn.Module, ...]) -> None:
    images, labels, _ = planted
    found = gather(networks[0], BLOCKS, *planted, method="hirescam", shuffles=0, gradients=False)
    cams = block_maps(networks[0], images, BLOCKS, labels, method="hirescam")
    torch.testing.assert_close(found.before.records[1].cam, cams["middle"])
    assert found.method == "hirescam"
    assert found.drops == {}
    assert found.gradients is None
    assert set(found.costs) == {"before"}
    assert {name for name, scorer in SCORERS.items() if scorer.can_read(found)} == {
        "linear_probe", "logme", "static", "deepest", "monotone", "advisor",
    }  # fmt: skip


@pytest.mark.parametrize("size", [1, 7])
def test_batches_are_the_same_as_all_at_once(
    size: int, material: Material, planted: Planted, networks: tuple[nn.Module, ...]
) -> None:
    before, after, again = networks
    other = gather(before, BLOCKS, *planted, after=after, again=again, batch_size=size)
    torch.testing.assert_close(other.gradients, material.gradients, rtol=1e-4, atol=1e-6)
    for which in ("cam", "control"):
        torch.testing.assert_close(other.drops[which], material.drops[which], rtol=1e-3, atol=1e-5)
    for name, scorer in SCORERS.items():
        if name not in ("static", "advisor"):
            np.testing.assert_allclose(scorer(other).values, scorer(material).values, rtol=1e-3, atol=1e-3)


def test_costs_count_images(material: Material) -> None:
    counts = {name: (cost.forward_passes, cost.backward_passes) for name, cost in material.costs.items()}
    assert counts == {
        "before": (48, 48),
        "after": (148, 148),
        "again": (148, 148),
        "drops/cam": (24 * 3 * 3, 0),
        "drops/control": (24 * 3 * 3, 0),
        "gradients": (24, 24 * 5),
    }
    assert material.cost.forward_passes == 48 + 2 * 148 + 2 * 216 + 24
    assert material.cost.seconds == pytest.approx(sum(cost.seconds for cost in material.costs.values()))


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("context", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_the_networks_are_left_as_they_were(
    planted: Planted, make_net: Callable[..., nn.Module], frozen: bool, context: Callable[[], Any], material: Material
) -> None:
    before, after = make_net(0).train(), make_net(1)
    before.stem.eval()
    for parameter in before.middle.parameters():
        parameter.requires_grad = False
    for parameter in before.parameters():
        parameter.requires_grad = parameter.requires_grad and not frozen
        parameter.grad = torch.ones_like(parameter)
    states = state_of(before), state_of(after)
    images, labels, training = (tensor[:8] for tensor in planted)
    with context():
        found = gather(before, BLOCKS, images, labels, training, after=after)
    assert states == (state_of(before), state_of(after))
    assert found.gradients is not None
    assert torch.isfinite(found.gradients).all()
    assert not found.before.records[0].cam.requires_grad


@pytest.mark.parametrize("failing_call", [1, 3, 12, 30])
def test_the_network_is_restored_when_it_fails(
    planted: Planted, make_net: Callable[..., nn.Module], failing_call: int
) -> None:
    class Failing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net, self.calls = make_net().train(), 0

        def forward(self, images: Tensor) -> Tensor:
            self.calls += 1
            if self.calls == failing_call:
                raise RuntimeError("out of luck")
            return self.net(images)

    model = Failing()
    state = state_of(model)
    with pytest.raises(RuntimeError, match="out of luck"):
        gather(model, [f"net.{name}" for name in BLOCKS], *planted, batch_size=12)
    assert state_of(model) == state
    assert model.calls == failing_call


def test_a_diverged_fine_tuning_has_no_score_and_a_note(planted: Planted, networks: tuple[nn.Module, ...]) -> None:
    after = copy.deepcopy(networks[0])
    with torch.no_grad():
        after.middle[0].weight.fill_(math.nan)
    found = gather(networks[0], BLOCKS, *planted, after=after, again=networks[1], shuffles=0, gradients=False)
    for name in ("cam_stability", "train_validation_disagreement", "agreement_of_change", "cka"):
        scores = SCORERS[name](found)
        assert np.isnan(scores.values[1:]).all()
        assert np.isnan(scores.z[1:]).all()
        assert any("middle" in note for note in scores.notes)
        depths = depth_scores(scores)
        assert len(depths.notes) >= 2


def test_one_image_a_class_is_enough_for_all_but_the_probe(planted: Planted, networks: tuple[nn.Module, ...]) -> None:
    images, labels, _ = (tensor[:4] for tensor in planted)
    training = torch.tensor([True, False, True, False])
    found = gather(networks[0], BLOCKS, images, labels, training, after=networks[1], again=networks[2])
    for name, scorer in SCORERS.items():
        if name not in ("static", "advisor"):
            scores = scorer(found)
            assert np.isfinite(scores.values).any() == (name != "linear_probe"), name
    assert "cannot be cross-validated" not in SCORERS["logme"](found).notes
    assert SCORERS["linear_probe"](found).notes == ("a class has one image, so no probe can be cross-validated",)


@pytest.mark.parametrize(
    ("changes", "error", "match"),
    [
        ({"images": torch.zeros(4, 3, 8)}, ValueError, r"images must be floating point \(N, C, H, W\)"),
        ({"images": torch.zeros(4, 3, 8, 8).byte()}, ValueError, "images must be floating point"),
        ({"images": [1]}, TypeError, "images must be a tensor, got list"),
        ({"labels": torch.zeros(3).long()}, ValueError, "labels must be 4 class indices"),
        ({"labels": torch.zeros(4)}, ValueError, "labels must be 4 class indices, got torch.float32"),
        ({"labels": torch.ones(4).long()}, ValueError, "labels must hold at least two classes, got only class 1"),
        ({"labels": torch.tensor([0, 1, 2, 4])}, ValueError, r"target must be a class index in 0\.\.3, got 4"),
        ({"training": torch.ones(4).bool()}, ValueError, "training must mark some images and leave some, got 4 of 4"),
        ({"training": torch.zeros(4).bool()}, ValueError, "training must mark some images"),
        ({"training": torch.zeros(4)}, ValueError, "training must be 4 booleans"),
        ({"blocks": ["stem", "nothing"]}, ValueError, "blocks must name modules of the model, got 'nothing'"),
        ({"blocks": []}, ValueError, "blocks must name at least one module"),
        ({"method": "edges"}, ValueError, "method must be one of gradcam, "),
        ({"shuffles": -1}, ValueError, "shuffles must be at least 0, got -1"),
        ({"label_permutations": -1}, ValueError, "label_permutations must be at least 0"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1, got 0"),
        ({"batch_size": 2.0}, TypeError, r"batch_size must be an integer, got 2\.0"),
        ({"again": nn.Identity()}, ValueError, "again must come with after"),
    ],
)
def test_bad_input_is_refused(
    make_net: Callable[..., nn.Module], changes: dict[str, Any], error: type[Exception], match: str
) -> None:
    good: dict[str, Any] = {
        "blocks": BLOCKS,
        "images": torch.randn(4, 3, 8, 8),
        "labels": torch.arange(4),
        "training": torch.tensor([True, True, False, False]),
    }
    with pytest.raises(error, match=match):
        gather(make_net(), **good | changes)


def test_every_method_can_be_gathered(planted: Planted, networks: tuple[nn.Module, ...]) -> None:
    images, labels, training = (tensor[:8] for tensor in planted)
    for method in METHODS:
        found = gather(networks[0], BLOCKS, images, labels, training, method=method, fine_tuning=Cost(9))
        assert np.isfinite(SCORERS["faithful_localisation"](found).values).any()
        assert "after" not in found.costs
