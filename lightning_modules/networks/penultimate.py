"""What a network computes of an image last, before it names a class. N images, D features, (h, w) positions."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from lightning_modules.networks.attention_branch import attended
from lightning_modules.networks.blocknet import BlockNet

__all__ = ["Answered", "answer"]


@dataclass(frozen=True, eq=False)
class Answered:
    """One pass over N images.

    Attributes:
        logits: (N, classes).
        features: (N, D), the input of the head's last linear layer; the last block's output, averaged over positions,
            where there is none. Of a committee, its first member's.
        activations: (N, C, h, w), the last block's output, likewise.
        attention: (N, h, w), the attention branch's map, likewise; None of a network without one.
    """

    logits: Tensor
    features: Tensor
    activations: Tensor
    attention: Tensor | None = None


def answer(net: BlockNet, images: Tensor) -> Answered:
    """Logits, features, activations and attention of images (N, 3, H, W) in [0, 1], in one forward pass."""
    entered: list[Tensor] = []
    seen: list[Tensor] = []
    linear = [module for module in net.head.modules() if isinstance(module, nn.Linear)]
    hooks = [one.register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0])) for one in linear[-1:]]
    looked: list[Tensor] = []
    if (block := attended(net)) is not None:
        hooks.append(block.branch.register_forward_hook(lambda _, _inputs, output: looked.append(output[:, 0])))
    hooks.append(net.head.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])))
    try:
        logits = net(images)
    finally:
        for hook in hooks:
            hook.remove()
    (activations,) = seen
    features = entered[0].flatten(1) if entered else activations.mean(dim=(2, 3))
    return Answered(logits, features, activations, looked[0] if looked else None)
