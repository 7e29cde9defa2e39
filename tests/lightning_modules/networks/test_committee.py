"""Committees: the mean of their members' logits, kept and read as one model, whose first member can stand alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lightning_modules.errors import InputError
from lightning_modules.networks.backbones import build
from lightning_modules.networks.blocknet import BlockNet
from lightning_modules.networks.committee import alone, committee, fit_weights, frozen_alike
from lightning_modules.networks.freezing import freeze
from lightning_modules.networks.model_card import ModelCard
from lightning_modules.networks.model_file import TrainedModel, load_model, save_model, write_digests

DEPTHS = (2, 1, 2)
IMAGES = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def members(depths: tuple[int, ...] = DEPTHS) -> list[BlockNet]:
    """Networks with the same blocks up to their freeze depth, as trials leave them."""
    found = []
    for seed, depth in enumerate(depths):
        net, other = (build("lenet5", classes=3, size=(32, 32), weights="none", seed=s) for s in (0, seed + 1))
        for place in range(depth, net.num_blocks):
            net.blocks[place].load_state_dict(other.blocks[place].state_dict())
        net.head.load_state_dict(other.head.state_dict())
        net.pretrained = True  # or nothing of it could be frozen
        freeze(net, depth)
        found.append(net.eval())
    return found


def card(shared: int = 1) -> ModelCard:
    return ModelCard("lenet5", ("a", "b", "c"), (32, 32), "stretch", 255, 10_000, DEPTHS[0], {}, others=DEPTHS[1:],
                     shared=shared, weights=(0.25, 0.25, 0.5))  # fmt: skip


@torch.no_grad()
def test_it_answers_with_the_mean_of_its_members_logits() -> None:
    each = [net(IMAGES) for net in members()]
    together = committee(members())
    assert together.shared == 1
    torch.testing.assert_close(together(IMAGES), torch.stack(each).mean(0))
    torch.testing.assert_close(alone(together)(IMAGES), each[0])
    assert len(together.others) == 2  # as it was


@torch.no_grad()
def test_weights_weight_logits() -> None:
    each = [net(IMAGES) for net in members()]
    together = committee(members(), weights=(0.5, 0.2, 0.3))
    torch.testing.assert_close(together(IMAGES), 0.5 * each[0] + 0.2 * each[1] + 0.3 * each[2])
    torch.testing.assert_close(alone(together)(IMAGES), each[0])


@given(st.integers(2, 5), st.integers(2, 60), st.integers(0, 1000))
def test_weights_are_a_share_each_and_alike_for_members_that_answer_alike(m: int, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    one, labels = rng.normal(size=(n, 3)), rng.integers(0, 3, n)
    np.testing.assert_allclose(fit_weights(np.stack([one] * m), labels), np.full(m, 1 / m), atol=1e-3)
    found = fit_weights(rng.normal(scale=4, size=(m, n, 3)), labels)
    assert sum(found) == pytest.approx(1) and min(found) >= 0


def test_who_is_right_where_the_others_are_wrong_speaks_for_all() -> None:
    truth = np.tile([0, 1, 2], 40)
    right = 6 * np.eye(3)[truth]
    found = fit_weights(np.stack([np.roll(right, 1, axis=1), right, np.roll(right, 2, axis=1)]), truth)
    assert found[1] > 0.75
    few = fit_weights(np.stack([np.roll(right, 1, axis=1), right])[:, :1], truth[:1])
    assert 0.5 < few[1] < 0.9  # one image says little


def test_one_member_is_the_network_itself() -> None:
    (net,) = members((2,))
    assert committee([net]) is net and alone(net) is net


def test_blocks_are_shared_as_far_as_they_are_the_same() -> None:
    found = members((2, 2))
    next(found[1].blocks[1].parameters()).data += 1
    assert frozen_alike(found) == 1
    assert committee(found).others[0].blocks[0] is found[0].blocks[0]


def test_several_architectures_are_refused() -> None:
    with pytest.raises(ValueError, match="one architecture"):
        committee([*members((1,)), build("lenet5_relu", classes=3, size=(32, 32), weights="none")])


@torch.no_grad()
def test_it_is_kept_and_read_as_one_model(tmp_path: Path) -> None:
    together = committee(members(), weights=card().weights)
    save_model(tmp_path / "model", TrainedModel(together, card()))
    read = load_model(tmp_path / "model")
    assert (read.card, read.net.shared, len(read.net.others)) == (card(), 1, 2)
    assert torch.equal(read.net(IMAGES), together(IMAGES))
    single, whole = tmp_path / "single", tmp_path / "model"
    one = replace(card(), others=(), shared=0, weights=())
    save_model(single, TrainedModel(members((2,))[0], one))
    size = [(folder / "model.safetensors").stat().st_size for folder in (single, whole)]
    assert size[1] < 3 * size[0]  # what they share lies there once


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"others": [1]}, "weights must be one a member or none, got 3"),
        ({"others": [1], "weights": []}, "does not hold the tensors of its network"),
        ({"weights": [0.5, 0.6, 0.1]}, "weights must be a list of numbers in 0..1 that are together 1"),
        ({"weights": [1.5, -0.5, 0]}, "weights must be a list of numbers in 0..1 that are together 1"),
        ({"others": [0, 2]}, "shared must be at most the freeze depth of each member, got 1"),
        ({"others": "12"}, "others must be a list of at most 100 freeze depths"),
        ({"others": []}, "shared must be at most the freeze depth of each member, got 1"),
        ({"shared": 2}, "shared must be at most the freeze depth of each member, got 2"),
        ({"shared": 0}, "does not hold the tensors of its network"),
    ],
    ids=str,
)
def test_a_card_that_says_otherwise_is_refused(change: dict[str, object], words: str, tmp_path: Path) -> None:
    save_model(tmp_path / "model", TrainedModel(committee(members()), card()))
    file = tmp_path / "model" / "model.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    write_digests(tmp_path / "model")
    with pytest.raises(InputError, match=words):
        load_model(tmp_path / "model")
