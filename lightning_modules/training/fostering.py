"""CAM fostering: the entropy of the true class's map as a term of the training loss.

loss = cross-entropy + beta * ce, with ce = -sum M_bar ln M_bar and M_bar = M / sum M of the Grad-CAM map M of the true
class at one block (Schoettl 2020, arXiv 2009.12546). Lower entropy is a sharper map, and no more than that: its least
value is a map of one position, so read accuracy and faithfulness beside it.

Behind global average pooling and a linear layer nothing second-order is computed (`cam_gradient.gap_maps`): with
g = -(ln M_bar + ce) / sum M, d ce / d A_k = 1[M > 0] W_ck g and d ce / d W_ck = sum 1[M > 0] A_k g. Behind anything
else the double backward stays in what follows the block (`cam_gradient.gradient_maps`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from explain.hooks import frozen_in_eval_mode
from explain.measures import MAP_MEASURES
from lightning_modules.errors import InputError
from lightning_modules.networks.blocknet import BlockNet
from lightning_modules.training.cam_gradient import gap_linear, gap_maps, gradient_maps

__all__ = ["Fostering", "cam_entropy", "check_target", "map_scores", "target_block"]

_SCORES = {
    "ce": "ce",
    "ce_normalised": "ce_normalised",
    "ca": "ca",
    "cd": "cd",
    "relative_difference": "relative_difference",
    "dead_maps": "dead_map_rate",
}


def cam_entropy(maps: Tensor) -> tuple[Tensor, Tensor]:
    """ce = -sum M_bar ln M_bar of each map in nats, differentiable, and which maps are live.

    Maps (N, h, w), non-negative -> ce in [0, ln(h w)], (N,), 0 without a gradient where a map is dead (its sum is 0);
    and live, bool, (N,).
    """
    total = maps.sum((1, 2), keepdim=True)
    live = total > 0
    share = maps / torch.where(live, total, 1)
    # The logarithm is taken of 1 where the map is 0: 0 ln 0 is 0, and so is its gradient behind the ReLU.
    entropy = -(share * torch.where(share > 0, share, 1).log()).sum((1, 2))
    return entropy, live[:, 0, 0]


class Fostering:
    """The term of one network at one block.

    Args:
        net: the network; it is not copied.
        block: number of the target block, 0..L-1, not before the freeze depth of what is trained.
        beta: weight of the term, >= 0; 0 only measures.

    Raises:
        ValueError: no such block, or a negative beta.
    """

    def __init__(self, net: BlockNet, block: int, beta: float) -> None:
        if not 0 <= block < net.num_blocks:
            raise ValueError(f"block must be in 0..{net.num_blocks - 1}, got {block}")
        if not beta >= 0:
            raise ValueError(f"beta must be 0 or more, got {beta}")
        self.beta = beta
        self._net, self._block = net, block
        self._linear: nn.Linear | None = None
        self._asked = False
        self.start_epoch()

    def start_epoch(self) -> None:
        """Forget what was summed up and kept."""
        self._entropy = self._live = torch.zeros(())  # on the device of the maps from the first batch on
        self._seen = 0
        self._watched: list[Tensor] = []

    def train_on(self, activations: Tensor, labels: Tensor, cut: int) -> tuple[Tensor, Tensor]:
        """Logits (N, classes), and beta times the mean entropy of the live maps (0 without any); see `observe`."""
        logits, maps = self.observe(activations, labels, cut)
        entropy, live = cam_entropy(maps)
        total, count = entropy.sum(), live.sum()
        self._entropy = self._entropy.to(total.device) + total.detach()
        self._live = self._live.to(count.device) + count
        self._seen += len(labels)
        return logits, self.beta * total / count.clamp_min(1)

    def watch(self, activations: Tensor, labels: Tensor, cut: int) -> Tensor:
        """Logits (N, classes), as `observe` gives them; the maps are kept for `of_watched`."""
        logits, maps = self.observe(activations, labels, cut)
        self._watched.append(maps.detach())
        return logits

    def of_training(self) -> dict[str, float]:
        """Over the epoch's training steps: ce, mean over live maps (NaN if none is), and dead_maps, the dead rate."""
        if not self._seen:
            return {}
        live = float(self._live)
        return {"ce": float(self._entropy) / live if live else math.nan, "dead_maps": 1 - live / self._seen}

    def of_watched(self) -> dict[str, float]:
        """`map_scores` of the images watched in this epoch."""
        return map_scores(self._watched) if self._watched else {}

    def observe(self, activations: Tensor, labels: Tensor, cut: int) -> tuple[Tensor, Tensor]:
        """Logits (N, classes), and the maps (N, h, w) of the true classes.

        The maps can be differentiated while gradients are enabled.

        Args:
            activations: what `net.prefix(images, cut)` returned.
            labels: true classes, (N,).
            cut: 0..block + 1.

        Raises:
            ValueError: a cut behind the block: its output is not there.
        """
        net, behind = self._net, self._block + 1
        if cut > behind:
            raise ValueError(f"cut must be at most {behind}, the place behind the target block, got {cut}")
        A = net.between(activations, cut, behind)
        if not self._asked:
            self._linear = gap_linear(net, A) if behind == net.num_blocks else None
            self._asked = True
        if self._linear is not None:
            maps = gap_maps(A, labels, self._linear)
        else:
            maps = gradient_maps(net, A, labels, self._block, create_graph=torch.is_grad_enabled())
            A = A.clone()  # what follows may start with an operation in place
        logits: Tensor = net.suffix(A, behind)
        return logits, maps


@torch.no_grad()
def map_scores(maps: Sequence[Tensor]) -> dict[str, float]:
    """Means over live maps of ce, ce_normalised, ca, cd and relative_difference, and dead_maps, the rate of dead ones.

    NaN where no map is live, or a map is not finite. Takes batches of maps (N, h, w).
    """
    every = torch.cat([batch.detach().float().cpu() for batch in maps])
    if not torch.isfinite(every).all():
        return dict.fromkeys(_SCORES, math.nan)
    values = {name: MAP_MEASURES[measure](every) for name, measure in _SCORES.items()}
    return {name: float(value.nanmean()) for name, value in values.items()}


def target_block(net: BlockNet, name: str | None) -> int:
    """Number of the block called `name`; the last where it is None.

    Raises:
        InputError: the network has no such block.
    """
    if name is None:
        return net.num_blocks - 1
    if name not in net.block_names:
        raise InputError(f"trainer.fostering.block must be null or one of {', '.join(net.block_names)}, got {name!r}")
    return net.block_names.index(name)


@torch.no_grad()
def check_target(net: BlockNet, name: str | None, size: tuple[int, int], deepest: int) -> None:
    """Refuse a target block that cannot be fostered.

    Args:
        name: of the block; None is the last.
        size: (H, W) of the images in pixels.
        deepest: largest freeze depth of the search.

    Raises:
        InputError: no such block; it lies before a cut, so that trials never see its output; or its map has a single
            position, whose entropy is 0 whatever is learned.
    """
    block = target_block(net, name)
    if deepest > block + 1:
        raise InputError(
            f"trainer.fostering.block={name} needs freeze depths of at most {block + 1}, since trials start behind the "
            f"blocks that are frozen; got up to {deepest}: set space.freeze_depth=[0,{block + 1}]"
        )
    with frozen_in_eval_mode(net):
        height, width = net.prefix(torch.zeros(1, 3, *size, device=net.mean.device), block + 1).shape[2:]
    if height * width == 1:
        raise InputError(
            f"trainer.fostering needs a map of more than one position, got 1 x 1 at block {net.block_names[block]} "
            f"of {size[0]} x {size[1]} px; take larger images (data.size) or an earlier trainer.fostering.block"
        )
