"""Heads of global average pooling and a linear layer: a network's own, and one trained for a block that has none.

CAM is drawn from either. The second is a multinomial regression on pooled features: convex, so training it needs no
seed and gives the same head every time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from explain.hooks import frozen_in_eval_mode, observing
from explain.measures.measure import check_integer

__all__ = ["GapHead", "block_features", "own_gap_heads", "pooled_features", "train_gap_head"]


class GapHead(nn.Module):
    """Global average pooling and a linear layer: logits (N, K) of block outputs (N, C, h, w).

    Its `linear`, a layer from C channels to K classes, is what `explain.attribution.cam` takes.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        if not isinstance(linear, nn.Linear):
            raise TypeError(f"linear must be an nn.Linear, got {type(linear).__name__}")
        self.linear = linear

    def forward(self, activations: Tensor) -> Tensor:
        logits: Tensor = self.linear(activations.mean(dim=(2, 3)))
        return logits


def own_gap_heads(model: nn.Module, images: Tensor, blocks: Sequence[str]) -> dict[str, str]:
    """Blocks that the model itself follows by global average pooling and a linear layer, and nothing else.

    There the logits are that layer applied to the pooled block output, which is what is tested.

    Args:
        images: Batch that it takes, of which no two have the same logits, (N, C, H, W), N >= 2; noise will do.
        blocks: Names of modules with output (N, C, h, w) that run once a forward pass.

    Returns:
        Name of the linear layer by name of the block; blocks without such a head are left out.

    Raises:
        ValueError: A block that is unknown, is not spatial or does not run exactly once.
    """
    pooled, logits = _pooled_and_logits(model, images, blocks)
    spread = float((logits - logits[:1]).abs().max())
    found = {}
    for name, layer in model.named_modules():
        if not isinstance(layer, nn.Linear) or layer.out_features != logits.shape[1] or not spread > 0:
            continue
        for block in blocks:
            if pooled[block].shape[1] == layer.in_features:
                with torch.no_grad():
                    own = layer(pooled[block].to(layer.weight.dtype))
                # Half precision and another order of summing round; another head is off by the spread of the logits.
                if float((own - logits).abs().max()) < 1e-2 * spread:
                    found[block] = name
    return found


def pooled_features(model: nn.Module, images: Tensor, blocks: Sequence[str]) -> dict[str, Tensor]:
    """Means over positions of the outputs of several blocks, from one forward pass in eval mode.

    Args:
        model: Network that holds the blocks; modes, flags and hooks stay as they were.
        images: Batch that it takes, (N, C, H, W).
        blocks: Names of modules with output (N, C, h, w) that run once a forward pass, else a ValueError.

    Returns:
        Features (N, C) by name of the block, float32.
    """
    return _pooled_and_logits(model, images, blocks)[0]


def _pooled_and_logits(model: nn.Module, images: Tensor, blocks: Sequence[str]) -> tuple[dict[str, Tensor], Tensor]:
    seen: dict[str, list[Tensor]] = {name: [] for name in blocks}

    def keep(name: str, _: nn.Module, output: Any) -> None:
        seen[name].append(_spatial(name, output).float().mean(dim=(2, 3)))

    with torch.no_grad(), frozen_in_eval_mode(model), observing(model, blocks, keep):
        logits: Tensor = model(images)
    return {name: _once(name, found) for name, found in seen.items()}, logits


def block_features(model: nn.Module, block: str) -> Callable[[Tensor], Tensor]:
    """A function from images (N, C, H, W) to the output of a block, in eval mode and without a graph.

    It leaves modes, flags and hooks of the model as they were.
    """

    def features(images: Tensor) -> Tensor:
        seen: list[Tensor] = []

        def keep(name: str, _: nn.Module, output: Any) -> None:
            seen.append(_spatial(name, output).clone())

        with torch.no_grad(), frozen_in_eval_mode(model), observing(model, [block], keep):
            model(images)
        return _once(block, seen)

    return features


def _spatial(block: str, output: Any) -> Tensor:
    if not isinstance(output, Tensor) or output.ndim != 4:
        raise ValueError(f"block {block!r} must put out a tensor (N, C, h, w)")
    return output


def _once(block: str, seen: list[Tensor]) -> Tensor:
    if len(seen) != 1:
        raise ValueError(f"block {block!r} must run once a forward pass, got {len(seen)} times")
    return seen[0]


def train_gap_head(
    features: Callable[[Tensor], Tensor],
    batches: Iterable[tuple[Tensor, Tensor]],
    classes: int,
    *,
    penalty: float = 1e-3,
    iterations: int = 500,
) -> GapHead:
    """Fit pooling + linear layer on the features of labelled images, as the thesis did to draw CAM.

    Minimises mean cross-entropy + penalty / 2 |W|^2 by L-BFGS in float64 on pooled features scaled to unit variance,
    from zero; the scaling is then folded into the layer. Features are pooled as they come: memory is N C numbers.

    Args:
        features: From images to block outputs (N, C, h, w), `block_features(model, block)` say.
        batches: Pairs of images and class indices, int64 (N,), read once.
        classes: K, the number of classes; some may be absent from the labels.
        penalty: Strength of the L2 penalty, > 0, which keeps separable data finite.
        iterations: Most L-BFGS iterations, >= 1.

    Returns:
        A `GapHead` in eval mode, float32, on the device of the features.

    Raises:
        ValueError: No batch, labels outside 0..K-1, fewer than two classes, or a setting out of range.
    """
    check_integer("classes", classes, 2)
    if not penalty > 0:
        raise ValueError(f"penalty must be > 0, got {penalty}")
    check_integer("iterations", iterations, 1)
    pooled, labels = _pooled(features, batches, classes)
    shift, scale = pooled.mean(dim=0), pooled.std(dim=0, correction=0)
    scale = torch.where(scale > 0, scale, 1)
    weight, bias = _regression((pooled - shift) / scale, labels, classes, penalty, iterations)
    weight = weight / scale
    bias = bias - weight @ shift
    linear = nn.Linear(pooled.shape[1], classes).to(pooled.device)
    with torch.no_grad():
        linear.weight.copy_(weight)
        linear.bias.copy_(bias)
    return GapHead(linear).eval()


def _pooled(
    features: Callable[[Tensor], Tensor], batches: Iterable[tuple[Tensor, Tensor]], classes: int
) -> tuple[Tensor, Tensor]:
    rows, labels = [], []
    for images, of_images in batches:
        with torch.no_grad():
            activations = features(images)
        if activations.ndim != 4 or len(activations) != len(of_images):
            raise ValueError(
                f"features must give (N, C, h, w) with N = {len(of_images)}, got {tuple(activations.shape)}"
            )
        rows.append(activations.double().mean(dim=(2, 3)))
        labels.append(of_images.to(activations.device))
    if not rows:
        raise ValueError("batches must hold at least one batch, got none")
    targets = torch.cat(labels)
    if targets.is_floating_point() or targets.dtype == torch.bool:
        raise TypeError(f"labels must be integer class indices, got {targets.dtype}")
    if (targets < 0).any() or (targets >= classes).any():
        raise ValueError(f"labels must lie in 0..{classes - 1}, got {int(targets.min())}..{int(targets.max())}")
    if (targets == targets[0]).all():
        raise ValueError(f"labels must hold at least two classes, got only class {int(targets[0])}")
    return torch.cat(rows), targets.long()


def _regression(rows: Tensor, labels: Tensor, classes: int, penalty: float, iterations: int) -> tuple[Tensor, Tensor]:
    """Weights (K, C) and biases (K,) of the penalised multinomial regression, float64."""
    with torch.inference_mode(False), torch.enable_grad():
        rows, labels = rows.clone(), labels.clone()
        weight = torch.zeros(classes, rows.shape[1], dtype=rows.dtype, device=rows.device, requires_grad=True)
        bias = torch.zeros(classes, dtype=rows.dtype, device=rows.device, requires_grad=True)
        solver = torch.optim.LBFGS(
            [weight, bias],
            max_iter=iterations,
            tolerance_grad=1e-9,
            tolerance_change=1e-12,
            line_search_fn="strong_wolfe",
        )

        def loss() -> Tensor:
            solver.zero_grad()
            value = functional.cross_entropy(rows @ weight.T + bias, labels) + penalty / 2 * weight.square().sum()
            value.backward()  # type: ignore[no-untyped-call]
            return value

        solver.step(loss)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()
