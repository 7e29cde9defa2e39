"""A network as an ordered list of named blocks and a head: the shape in which a freeze depth has a meaning.

Shapes: N images, C channels, H and W pixels. L is the number of blocks. A cut is a place between blocks where the
network is run in two parts, as in split inference: cut k lies behind the first k blocks. The freeze depth is the cut at
which a trial's training begins.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor, nn

__all__ = ["BlockNet", "final_linear"]


class BlockNet(nn.Module):
    """A CNN split into L named blocks and a head (all that follows the last convolutional block).

    The network takes images with values in [0, 1] and normalises them itself, so what serves or explains it
    cannot use another mean and standard deviation than it was trained with.

    Args:
        blocks: name -> module, in the order in which they run; each maps (N, C, H, W) to (N, C', H', W').
        head: maps the last block's output to logits (N, classes).
        mean: per-channel mean of the images the weights were trained with, in [0, 1].
        std: per-channel standard deviation, > 0.
        architecture: the name under which `backbones.build` makes this network.
        pretrained: whether the blocks hold trained weights; random ones cannot be frozen.

    Attributes:
        minimum_size: smallest image side in pixels that leaves every block at least one position.
        others: networks that answer together with this one, which is then the first of a committee (see `committee`);
            none where it is a single network. Blocks, head, `prefix`, `between` and `suffix` are its own.
        shared: leading blocks that all members have in common.
        weights: of the members' logits, this one's first, together 1; empty for equal ones.
        attention_block: name of the block behind which an attention branch stands (see `attention_branch`), or None.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        blocks: Mapping[str, nn.Module],
        head: nn.Module,
        *,
        mean: tuple[float, float, float],
        std: tuple[float, float, float],
        architecture: str,
        pretrained: bool,
    ) -> None:
        super().__init__()
        self.blocks = nn.Sequential(OrderedDict(blocks))
        self.head = head
        self.others = nn.ModuleList()
        self.shared = 0
        self.weights: tuple[float, ...] = ()
        self.attention_block: str | None = None
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self.architecture = architecture
        self.pretrained = pretrained
        self.minimum_size = 1
        self.freeze_depth = 0

    @property
    def block_names(self) -> tuple[str, ...]:
        """Names of the L blocks, first to last."""
        return tuple(name for name, _ in self.blocks.named_children())

    @property
    def num_blocks(self) -> int:
        """L, the number of blocks: freeze depths run from 0 to L, or to `deepest` where that is less."""
        return len(self.blocks)

    @property
    def deepest(self) -> int:
        """The largest freeze depth: L; with an attention branch, which is trained, that of the block before it."""
        if self.attention_block is None:
            return self.num_blocks
        return self.block_names.index(self.attention_block) + 1

    def prefix(self, images: Tensor, cut: int) -> Tensor:
        """Output of the first `cut` blocks, 0..L, of images (N, 3, H, W) in [0, 1]; at 0 the normalised images."""
        return self.between((images - self.mean) / self.std, 0, cut)

    def between(self, activations: Tensor, start: int, stop: int) -> Tensor:
        """Run blocks start..stop-1 on the output of block start-1."""
        for block in self.blocks[start:stop]:
            activations = block(activations)
        return activations

    def suffix(self, activations: Tensor, cut: int) -> Tensor:
        """Logits (N, classes) from what `prefix(images, cut)` returned."""
        logits: Tensor = self.head(self.between(activations, cut, self.num_blocks))
        return logits

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, 3, H, W) in [0, 1]; of a committee the weighted mean of its members'."""
        common = self.prefix(images, self.shared)
        own = self.suffix(common, self.shared)
        if not len(self.others):
            return own
        others = [other.suffix(common, self.shared) for other in self.others if isinstance(other, BlockNet)]
        logits = [own, *others]
        if not self.weights:
            return torch.stack(logits).mean(0)
        return torch.stack([weight * one for weight, one in zip(self.weights, logits, strict=True)]).sum(0)

    def train(self, mode: bool = True) -> BlockNet:
        """Set the mode; frozen blocks stay in eval mode so their batch-norm statistics never move."""
        super().train(mode)
        for block in self.blocks[: self.freeze_depth]:
            block.eval()
        return self


def final_linear(head: nn.Module) -> nn.Linear | None:
    """The head's only layer with weights if that is a linear one (pooling + linear), else None."""
    weighted = [m for m in head.modules() if list(m.parameters(recurse=False))]
    return weighted[0] if len(weighted) == 1 and isinstance(weighted[0], nn.Linear) else None
