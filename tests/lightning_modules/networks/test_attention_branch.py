"""An attention branch behind a block: its formula, where it may stand, and all that must take it along."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from lightning_modules.errors import InputError
from lightning_modules.networks.attention_branch import (
    AUTO,
    AttentionBranch,
    add_attention_branch,
    attended,
    attention_modules,
    both_answers,
)
from lightning_modules.networks.backbones import build
from lightning_modules.networks.blocknet import BlockNet
from lightning_modules.networks.committee import alone, committee
from lightning_modules.networks.freezing import block_flops, freeze
from lightning_modules.networks.model_card import ModelCard
from lightning_modules.networks.model_file import TrainedModel, load_model, save_model
from lightning_modules.networks.penultimate import answer
from lightning_modules.training.classifier import Classifier

IMAGES = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
LABELS = torch.tensor([0, 1, 2, 0])


def network(attention: str | None = "c1", *, seed: int = 0) -> BlockNet:
    net = build("lenet5", classes=3, size=(32, 32), weights="none", seed=seed, attention=attention).eval()
    net.pretrained = True  # or nothing of it could be frozen
    return net


@torch.no_grad()
def test_the_rest_of_the_network_is_shown_the_features_times_one_plus_the_map() -> None:
    net, plain = network(), network(None)
    features = plain.prefix(IMAGES, 1)
    block = attended(net)
    assert block is not None and attended(plain) is None
    shown = block.branch(features)
    assert shown.shape == (4, 1, 27, 27) and 0 < float(shown.min()) < float(shown.max()) < 1
    torch.testing.assert_close(net(IMAGES), plain.suffix((1 + shown) * features, 1))
    torch.testing.assert_close(answer(net, IMAGES).attention, shown[:, 0])
    assert answer(plain, IMAGES).attention is None
    assert attention_modules(net) == {"c1": "blocks.c3.branch"} and attention_modules(plain) == {}
    assert net.get_submodule("blocks.c3.branch") is block.branch


@pytest.mark.parametrize("cut", [0, 1])
@torch.no_grad()
def test_what_is_cached_does_not_depend_on_the_branch_and_the_answer_not_on_the_cut(cut: int) -> None:
    net = network()
    activations = net.prefix(IMAGES, cut)
    torch.testing.assert_close(activations, network(None).prefix(IMAGES, cut))
    logits, own = both_answers(net, activations, cut)
    torch.testing.assert_close(logits, net(IMAGES))
    assert own.shape == (4, 3) and not torch.allclose(own, logits)


def test_a_cut_behind_the_branch_and_a_network_without_one_have_no_two_answers() -> None:
    with pytest.raises(ValueError, match=r"cut must be at most 1 .*, got 2"):
        both_answers(network(), torch.zeros(1), 2)
    with pytest.raises(ValueError, match="of a network with an attention branch"):
        both_answers(network(None), torch.zeros(1), 0)


def test_the_branch_begins_with_the_features_that_it_is_given() -> None:
    branch = AttentionBranch(12, 3)
    features = torch.randn(2, 12, 5, 5)
    assert torch.equal(branch.residual(features), torch.zeros_like(features))


@pytest.mark.parametrize(
    ("architecture", "size", "block"),
    [
        ("lenet5", (32, 32), "c3"),
        ("vgg16@0.05", (32, 32), "block3"),
        ("vgg16@0.05", (128, 128), "block4"),  # the last block has 4 x 4 too, and nothing behind it
        ("efficientnet_lite0", (96, 96), "stage5"),
    ],
)
def test_it_stands_behind_the_last_block_with_room_that_has_one_behind_it(
    architecture: str, size: tuple[int, int], block: str
) -> None:
    net = build(architecture, classes=2, size=size, weights="none", attention=AUTO)
    assert net.attention_block == block and net.deepest == net.block_names.index(block) + 1 < net.num_blocks
    assert attended(net) is net.blocks[net.deepest]


def test_without_room_it_takes_the_last_with_more_than_one_position() -> None:
    small = BlockNet(
        {"a": torch.nn.Conv2d(3, 8, 2, 2), "b": torch.nn.Conv2d(8, 8, 2, 2), "c": torch.nn.Conv2d(8, 8, 1)},
        torch.nn.Flatten(), mean=(0.0,) * 3, std=(1.0,) * 3, architecture="small", pretrained=False,
    )  # fmt: skip
    add_attention_branch(small, AUTO, 2, (8, 4))
    assert small.attention_block == "b"  # 2 x 1; a has 4 x 2


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("c9", r"must be null or one of c1, c3 for lenet5 at 32 x 32 pixels, got 'c9'$"),
        ("c5", r"must be null or one of c1, c3 .*got 'c5' \(the last one has no block behind it\)"),
    ],
)
def test_blocks_where_it_cannot_stand_are_refused(block: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        network(block)


def test_positions_are_needed() -> None:
    with pytest.raises(InputError, match=r"got 'block4' \(a single position\)|got 'block5'"):
        build("vgg16@0.05", classes=2, size=(32, 32), weights="none", attention="block5")
    one = BlockNet(
        {"a": torch.nn.Conv2d(3, 8, 3)}, torch.nn.Flatten(), mean=(0.0,) * 3, std=(1.0,) * 3, architecture="one",
        pretrained=False,
    )  # fmt: skip
    with pytest.raises(InputError, match="needs a block with more than one position and another behind it: one at"):
        add_attention_branch(one, AUTO, 2, (8, 8))


def test_a_freeze_depth_behind_the_branch_is_refused_and_the_deepest_trains_the_branch() -> None:
    net = network()
    with pytest.raises(InputError, match=r"must be in 0\.\.1 for lenet5 with an attention branch behind c1, got 2"):
        freeze(net, 2)
    freeze(net, 1)
    block = attended(net)
    assert block is not None and all(p.requires_grad for p in block.parameters())
    assert not any(p.requires_grad for p in net.blocks[0].parameters())
    net.train()
    assert block.branch.class_norm.training and not net.blocks[0].training


def test_both_answers_are_trained_by_the_sum_of_their_losses() -> None:
    net = network()
    model = Classifier(net, 1, "sgd", 1.0)
    model.train().on_train_epoch_start()
    activations = net.prefix(IMAGES, 1)
    with torch.no_grad():
        logits, own = both_answers(deepcopy(net), activations, 1)
    loss = model.training_step((activations, LABELS, 1))
    torch.testing.assert_close(loss.detach(), F.cross_entropy(logits, LABELS) + F.cross_entropy(own, LABELS))
    loss.backward()  # type: ignore[no-untyped-call]
    block = attended(net)
    assert block is not None
    for layer in (block.branch.class_logits, block.branch.attention, block.branch.class_maps):
        assert layer.weight.grad is not None and bool(layer.weight.grad.abs().sum() > 0)
    row = model._training_row()
    assert row["train_loss"] == pytest.approx(float(F.cross_entropy(logits, LABELS)), rel=1e-5)
    assert row["train_branch_loss"] == pytest.approx(float(F.cross_entropy(own, LABELS)), rel=1e-5)
    assert row["train_branch_accuracy"] == pytest.approx(float((own.argmax(1) == LABELS).double().mean()))


def test_operations_of_the_branch_are_counted() -> None:
    without, with_branch = (block_flops(network(attention), (32, 32)) for attention in (None, "c1"))
    assert with_branch[1] > without[1]
    assert (with_branch[0], *with_branch[2:]) == (without[0], *without[2:])


@torch.no_grad()
def test_a_model_file_keeps_it_and_so_does_a_committee(tmp_path: Path) -> None:
    members = [network(), network(seed=1)]
    members[1].blocks[0].load_state_dict(members[0].blocks[0].state_dict())
    for member in members:
        freeze(member, 1)
    together = committee([member.eval() for member in members])
    assert together.shared == 1
    expected, first = together(IMAGES), answer(alone(together), IMAGES).attention
    card = ModelCard(
        "lenet5", ("a", "b", "c"), (32, 32), "stretch", 255, 10_000, 1, {}, others=(1,), shared=1, attention_block="c1"
    )
    save_model(tmp_path / "m", TrainedModel(together, card))
    read = load_model(tmp_path / "m")
    torch.testing.assert_close(read.net(IMAGES), expected)
    assert read.net.attention_block == "c1" and read.card.attention_block == "c1"
    torch.testing.assert_close(answer(read.net, IMAGES).attention, first)


@given(st.permutations(range(5)), st.sampled_from([None, 0, 7]))
@torch.no_grad()
def test_a_wider_branch_looks_where_it_looked_and_says_what_it_said(order: list[int], seed: int | None) -> None:
    positions = torch.tensor(order[:3])
    torch.manual_seed(0)
    branch = AttentionBranch(6, 3)
    features = torch.randn(2, 6, 4, 4)
    branch.train()(features)  # so that its batch-norms are not what they began as
    branch.eval()
    shown, own = branch.both(features)
    branch.widen(positions, 5, seed=seed)
    again, wide = branch.both(features)
    torch.testing.assert_close(again, shown)
    assert wide.shape == (2, 5)
    torch.testing.assert_close(wide[:, positions], own)
