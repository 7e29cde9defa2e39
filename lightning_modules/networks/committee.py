"""A committee: several networks of one architecture that answer together, as one network.

Its logits are a weighted mean of its members' logits, so its probabilities are a geometric mean of theirs, normalised.
Networks that were trained alike but for freeze depth, optimizer or rate err on different images; their mean errs less
than the best of them (Hansen and Salamon 1990; on few images: arXiv 2111.14493; measured: docs/results.md, "Judges and
committees").

The first member gives the committee its blocks, head and maps. Blocks that all members froze are the same in all and
run once.

Weights are equal unless held-out answers contradict (`fit_weights`): where one member is much better than the others
(the best freeze depth is far from theirs), equal weights would cost what the search has found.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from torch import nn

from lightning_modules.networks.blocknet import BlockNet

__all__ = ["PULL", "alone", "committee", "fit_weights", "frozen_alike"]

PULL = 3.0
"""Images that each member's share of an equal vote counts as."""


def fit_weights(logits: NDArray[np.float64], labels: NDArray[np.int64]) -> tuple[float, ...]:
    """Weights of members, together 1, by their answers on held-out images.

    They minimise the log loss of the weighted mean of logits, with a Dirichlet prior that counts as `PULL` images a
    member for equal weights: a few dozen images move them little where members are alike.

    Args:
        logits: (M, N, C) of M members on N images.
        labels: (N,).

    Example:
        >>> labels = np.tile([0, 1], 50)
        >>> right = 4.0 * np.eye(2)[labels]
        >>> [round(weight, 2) for weight in fit_weights(np.stack([right, right]), labels)]
        [0.5, 0.5]
        >>> first, _ = fit_weights(np.stack([right, -right]), labels)  # the second has all of them wrong
        >>> first > 0.8
        True
    """

    def cost(free: NDArray[np.float64]) -> float:
        weights = softmax(free)
        answers = log_softmax(np.tensordot(weights, logits, 1), axis=1)
        return float(-answers[np.arange(len(labels)), labels].sum() - PULL * np.log(weights).sum())

    found = softmax(minimize(cost, np.zeros(len(logits)), method="BFGS").x)
    return tuple(float(weight) for weight in found)


def committee(members: Sequence[BlockNet], shared: int | None = None, weights: tuple[float, ...] = ()) -> BlockNet:
    """The members as one network, the first of them; a single one stays as it is.

    Args:
        members: of one architecture and as many outputs, without members of their own; used up by the call.
        shared: leading blocks that are the same in all; None finds out (see `frozen_alike`).
        weights: of each, together 1; empty for equal ones.

    Raises:
        ValueError: none, or of several architectures.
    """
    if len({member.architecture for member in members}) != 1:
        raise ValueError(f"a committee needs one architecture, got {[member.architecture for member in members]}")
    first, *others = members
    if others:
        first.shared = frozen_alike(members) if shared is None else shared
        for other in others:
            for place in range(first.shared):
                other.blocks[place] = first.blocks[place]
        first.others = nn.ModuleList(others)
        first.weights = weights
    return first


def alone(net: BlockNet) -> BlockNet:
    """The first member by itself, with the same tensors; of a single network that network."""
    if not len(net.others):
        return net
    single = copy.copy(net)
    single._modules = dict(net._modules)
    single.others, single.shared, single.weights = nn.ModuleList(), 0, ()
    return single


def frozen_alike(members: Sequence[BlockNet]) -> int:
    """How many leading blocks are frozen in all members and the same, 0..L."""
    first, *others = members
    most = min(member.freeze_depth for member in members)
    for place in range(most):
        own = first.blocks[place].state_dict()
        for other in others:
            theirs = other.blocks[place].state_dict()
            if not all(torch.equal(tensor.cpu(), theirs[name].cpu()) for name, tensor in own.items()):
                return place
    return most
