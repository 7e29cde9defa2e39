"""A committee: several networks of one architecture that answer together, as one network.

Its logits are the mean of its members' logits, so its probabilities are their geometric mean, normalised. Networks that
were trained alike but for freeze depth, optimizer or rate err on different images; their mean errs less than the best
of them (Hansen and Salamon 1990; on few images: arXiv 2111.14493; measured: docs/results.md, "Judges and committees").

The first member gives the committee its blocks, head and maps. Blocks that all members froze are the same in all and
run once.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import nn

from lightning_modules.networks.blocknet import BlockNet

__all__ = ["alone", "committee", "frozen_alike"]


def committee(members: Sequence[BlockNet], shared: int | None = None) -> BlockNet:
    """The members as one network, the first of them; a single one stays as it is.

    Args:
        members: of one architecture and as many outputs, without members of their own; used up by the call.
        shared: leading blocks that are the same in all; None finds out (see `frozen_alike`).

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
    return first


def alone(net: BlockNet) -> BlockNet:
    """The first member by itself, with the same tensors; of a single network that network."""
    if not len(net.others):
        return net
    single = copy.copy(net)
    single._modules = dict(net._modules)
    single.others, single.shared = nn.ModuleList(), 0
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
