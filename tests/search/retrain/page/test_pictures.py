"""Which images of a month are shown, whose label is doubted, and where both models look."""

from __future__ import annotations

import numpy as np
import torch

from explain.overlay import as_pixels
from lightning_modules.networks import backbones
from search.pages.original_picture import Original
from search.retrain.page.pictures import explained, informative, suspect
from tests.search.retrain.made_up import two_models


def test_disagreements_come_first_then_shared_errors_then_small_margins() -> None:
    champion, challenger, labels = two_models()
    chosen = informative(champion, challenger, labels)
    assert len(chosen) == len({row for row, _ in chosen}) == 10
    right = [one.argmax(1) == labels for one in (champion, challenger)]
    reasons = [why for _, why in chosen]
    assert reasons[:2] == ["only the champion is right", "only the challenger is right"]
    for row, why in chosen:
        if why.startswith("only"):
            assert right[0][row] != right[1][row] and right[0][row] == why.startswith("only the champion")
        elif why == "both are wrong":
            assert not right[0][row] and not right[1][row]
    assert reasons.count("both are wrong") == 2 and "the challenger hesitates" in reasons
    alone = informative(champion, None, labels, most=4)
    assert [why for _, why in alone] == ["the champion is wrong"] * 4
    assert len(informative(champion[:2], challenger[:2], labels[:2])) == 2


def test_who_is_sure_does_not_hesitate() -> None:
    """Right answers at 99.4 % are in no doubt, though some margin is always the smallest."""
    labels = np.arange(30) % 3
    sure = np.where(np.eye(3)[labels] > 0, 0.994, 0.003)
    assert informative(sure, sure, labels) == informative(sure, None, labels) == []
    doubtful = sure.copy()
    doubtful[4] = (0.3, 0.55, 0.15)
    assert informative(sure, doubtful, labels) == [(4, "the challenger hesitates")]
    assert informative(doubtful, None, labels) == [(4, "the champion hesitates")]


def test_suspects_are_those_both_models_are_sure_of() -> None:
    champion, challenger, labels = two_models()
    found = suspect(champion, challenger, labels)
    assert {row for row, _ in found} >= {0, 1, 2}
    for row, _ in found:
        assert champion[row].argmax() == challenger[row].argmax() != labels[row]
        assert min(champion[row].max(), challenger[row].max()) >= 0.8


def test_maps_are_of_both_models_at_the_last_block_with_room() -> None:
    nets = [backbones.build("lenet5", classes=11, size=(32, 32), weights="none", seed=s).eval() for s in (1, 2)]
    images = torch.rand(3, 3, 32, 32)
    originals = [Original(as_pixels(image), (32, 32), "stretch") for image in images]
    found = explained(nets[0], nets[1], images, originals)
    assert [one.original for one in found] == originals
    for one in found:
        assert one.champion is not None and one.challenger is not None and one.block in nets[0].block_names
        assert min(one.champion.shape) >= 4 and not torch.equal(one.champion, one.challenger)
    assert explained(nets[0], None, images, originals)[0].challenger is None
    assert explained(nets[0], None, images[:0], []) == []
