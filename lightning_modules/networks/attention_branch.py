"""The Attention Branch Network: a branch that names the class by itself and says where the network is to look.

Fukui et al. 2019, arXiv 1812.10025. Behind one block, whose output is F, stands a branch: a residual bottleneck, one
map for each class, and from these maps (a) the branch's own logits, by global average pooling, and (b) one attention
map M in (0, 1). The rest of the network, the perception branch, is shown (1 + M) F. Both answers are trained, by the
sum of their cross-entropies; the perception branch's is the network's answer.

As in the authors' code but for the first part: theirs is a copy of the ResNet's last stage with stride 1, and blocks
here come in every kind, so it is one bottleneck of a quarter of the channels. It begins as the identity (the scale of
its last batch-norm is 0), so that the branch starts from features that were trained.

The branch is kept in front of the block behind it. A trial is frozen at most up to the attended block, so what is
cached does not depend on the branch, and everything that trains, counts, saves or shares blocks takes it along.

Shapes: N images, C channels of F at h x w positions, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from lightning_modules.errors import InputError
from lightning_modules.networks.blocknet import BlockNet

__all__ = [
    "AUTO", "AttendedBlock", "AttentionBranch", "add_attention_branch", "attended", "attention_modules", "both_answers",
]  # fmt: skip

AUTO = "auto"
"""Stands for the block that `add_attention_branch` chooses."""

_FEWEST_CELLS = 4  # of a side: a coarser map says nothing of a place; as on the pages of explanations
_SMALLEST_WIDTH = 8


class AttentionBranch(nn.Module):
    """From features F (N, C, h, w) to the attention map M (N, 1, h, w) in (0, 1); see `both` for the logits."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        width = max(_SMALLEST_WIDTH, channels // 4)
        last = nn.BatchNorm2d(channels)
        nn.init.zeros_(last.weight)
        self.residual = nn.Sequential(
            nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, channels, 1, bias=False), last,
        )  # fmt: skip
        self.norm = nn.BatchNorm2d(channels)
        self.class_maps = nn.Conv2d(channels, classes, 1, bias=False)
        self.class_norm = nn.BatchNorm2d(classes)
        self.class_logits = nn.Conv2d(classes, classes, 1, bias=False)
        self.attention = nn.Conv2d(classes, 1, 3, padding=1, bias=False)
        self.attention_norm = nn.BatchNorm2d(1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")

    def _maps(self, features: Tensor) -> Tensor:
        """One map a class, (N, K, h, w), >= 0."""
        found = self.norm(features + self.residual(features))
        return torch.relu(self.class_norm(self.class_maps(found)))

    def _attention(self, maps: Tensor) -> Tensor:
        return torch.sigmoid(self.attention_norm(self.attention(maps)))

    def forward(self, features: Tensor) -> Tensor:
        """M (N, 1, h, w)."""
        return self._attention(self._maps(features))

    def both(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """M (N, 1, h, w), and the branch's own logits (N, K)."""
        maps = self._maps(features)
        return self._attention(maps), self.class_logits(maps).mean((2, 3))

    @torch.no_grad()
    def widen(self, positions: Tensor, classes: int, *, seed: int | None) -> None:
        """Give it `classes` classes; M and the logits it has stay what they are.

        Args:
            positions: (K,) where its present classes stand among them.
            seed: draws small weights for the others, to train from; None leaves these at 0.
        """
        generator = torch.Generator().manual_seed(seed or 0)
        old, device = self.class_maps, self.class_maps.weight.device

        def drawn(layer: nn.Conv2d, outputs: int, inputs: int) -> Tensor:
            scale = 0.0 if seed is None else 0.1 * float(layer.weight.std())
            return scale * torch.randn(outputs, inputs, *layer.kernel_size, generator=generator).to(device)

        maps = drawn(old, classes, old.in_channels)
        maps[positions] = old.weight
        logits = drawn(self.class_logits, classes, classes)
        logits[positions] = 0.0  # what a class had to say of another stays; a new one says nothing of them yet
        logits[positions[:, None], positions] = self.class_logits.weight
        attention = torch.zeros(1, classes, *self.attention.kernel_size, device=device)
        attention[:, positions] = self.attention.weight
        self.class_maps, self.class_logits, self.attention = (_conv(weight) for weight in (maps, logits, attention))
        before, norm = self.class_norm, nn.BatchNorm2d(classes).to(device)
        for name in ("weight", "bias", "running_mean", "running_var"):
            getattr(norm, name)[positions] = getattr(before, name)
        self.class_norm = norm.train(before.training)


class AttendedBlock(nn.Module):
    """A block that is shown (1 + M) F in place of F."""

    def __init__(self, branch: AttentionBranch, block: nn.Module) -> None:
        super().__init__()
        self.branch = branch
        self.block = block

    def forward(self, features: Tensor) -> Tensor:
        """What the block makes of (1 + M) F."""
        shown: Tensor = self.block(_shown(features, self.branch(features)))
        return shown


def add_attention_branch(net: BlockNet, block: str, classes: int, size: tuple[int, int]) -> None:
    """Put an attention branch of random weights behind a block.

    Args:
        net: with a block behind that one; it is changed.
        block: its name; `AUTO` takes the last but one or one before it: the last whose output has at least 4 x 4
            positions, so that the map says where, as much as can be is frozen, and a block is left to look with; where
            none has as many, the last with more than one.
        size: (H, W) of the images in pixels.

    Raises:
        InputError: no such block, the last one, or one whose output has a single position.
    """
    cells = dict(zip(net.block_names, _cells(net, size), strict=True))
    able = {name: sides for name, sides in list(cells.items())[:-1] if sides[0] * sides[1] > 1}
    at = f"{net.architecture} at {size[0]} x {size[1]} pixels"
    if not able:
        raise InputError(
            f"model.head=attention_branch needs a block with more than one position and another behind it: {at} has "
            "none; take larger images (data.size) or another network"
        )
    if block == AUTO:
        roomy = [name for name, sides in able.items() if min(sides) >= _FEWEST_CELLS]
        block = (roomy or list(able))[-1]
    if block not in able:
        why = " (the last one has no block behind it)" if block == net.block_names[-1] else ""
        why = " (a single position)" if not why and block in cells else why
        raise InputError(f"model.attention_block must be null or one of {', '.join(able)} for {at}, got {block!r}{why}")
    place = net.block_names.index(block) + 1
    branch = AttentionBranch(_channels(net, size, place), classes)
    net.blocks[place] = AttendedBlock(branch, net.blocks[place])
    net.attention_block = block


def attended(net: BlockNet) -> AttendedBlock | None:
    """The block behind the attention branch, with the branch in it; None of a network without one."""
    if net.attention_block is None:
        return None
    found = net.blocks[net.deepest]
    return found if isinstance(found, AttendedBlock) else None


def attention_modules(net: BlockNet) -> dict[str, str]:
    """Name of the attended block -> name of the module that puts out its attention map; empty without a branch."""
    return {} if net.attention_block is None else {net.attention_block: f"blocks.{net.block_names[net.deepest]}.branch"}


def both_answers(net: BlockNet, activations: Tensor, cut: int) -> tuple[Tensor, Tensor]:
    """Logits (N, K) of the perception branch, which are the network's, and of the attention branch.

    Args:
        net: with an attention branch.
        activations: what `net.prefix(images, cut)` returned.
        cut: 0..`net.deepest`.

    Raises:
        ValueError: no branch, or a cut behind it.
    """
    block = attended(net)
    if block is None or cut > net.deepest:
        raise ValueError(f"cut must be at most {net.deepest} of a network with an attention branch, got {cut}")
    features = net.between(activations, cut, net.deepest)
    attention, own = block.branch.both(features)
    return net.suffix(block.block(_shown(features, attention)), net.deepest + 1), own


def _shown(features: Tensor, attention: Tensor) -> Tensor:
    return features + features * attention


def _conv(weight: Tensor) -> nn.Conv2d:
    outputs, inputs, side, _ = weight.shape
    layer = nn.Conv2d(inputs, outputs, side, padding=side // 2, bias=False)
    layer.weight = nn.Parameter(weight)
    return layer


@torch.no_grad()
def _outputs(net: BlockNet, size: tuple[int, int]) -> Iterator[Tensor]:
    modes = [(module, module.training) for module in net.modules()]
    try:
        for module, _ in modes:
            module.training = False  # directly: the network's own train() leaves frozen blocks as they are
        values = net.prefix(torch.zeros(1, 3, *size, device=net.mean.device), 0)
        for block in net.blocks:
            values = block(values)
            yield values
    finally:
        for module, mode in modes:
            module.training = mode


def _cells(net: BlockNet, size: tuple[int, int]) -> list[tuple[int, int]]:
    return [(values.shape[2], values.shape[3]) for values in _outputs(net, size)]


def _channels(net: BlockNet, size: tuple[int, int], place: int) -> int:
    return next(values.shape[1] for number, values in enumerate(_outputs(net, size), start=1) if number == place)
