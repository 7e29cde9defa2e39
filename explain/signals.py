"""Activations and gradients of every block from one forward and one backward pass.

Shapes: N images, K classes; block l has C channels at its native resolution h x w.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from explain.hooks import frozen_in_eval_mode, listed, named_modules, observing
from explain.targets import Target, resolve_target

__all__ = ["BlockSignals", "Capture", "capture", "spatial_blocks"]

# Whether the network wrote into a block's output the last time it was explained. Knowing it saves the copy of every
# output that nothing overwrites; a wrong memory is noticed by the version counter and only costs a second forward pass.
_overwritten: weakref.WeakKeyDictionary[nn.Module, bool] = weakref.WeakKeyDictionary()

# Half precision flushes gradients below 6e-8 to zero, so they are computed enlarged and divided again in float32.
# The smaller factors serve networks whose enlarged gradients overflow.
_HALF_SCALES = (2.0**12, 2.0**6, 1.0)


@dataclass(frozen=True, eq=False)
class BlockSignals:
    """What one block contributes to one logit per image.

    Attributes:
        block: Name of the module within the model.
        activations: Output A of the block, as it was before any in-place operation on it, (N, C, h, w).
        gradients: G = d logit / d A of each image's target class, (N, C, h, w).
        logits: Pre-softmax outputs of the model, float32, (N, K).
        targets: Explained class of each image, int64, (N,).
    """

    block: str
    activations: Tensor
    gradients: Tensor
    logits: Tensor
    targets: Tensor


@dataclass(frozen=True, eq=False)
class Capture:
    """Signals of all requested blocks of one batch, in the order requested.

    `logits` (N, K) and `targets` (N,) are as in each of its `BlockSignals`.
    """

    blocks: tuple[BlockSignals, ...]
    logits: Tensor
    targets: Tensor

    def __getitem__(self, block: str) -> BlockSignals:
        """Signals of one block by name; KeyError if it was not captured."""
        for signals in self.blocks:
            if signals.block == block:
                return signals
        raise KeyError(f"block {block!r} was not captured; captured: {', '.join(s.block for s in self.blocks)}")

    def __iter__(self) -> Iterator[BlockSignals]:
        return iter(self.blocks)


class _GraphRoot(torch.autograd.Function):
    """Starts the autograd graph at a tensor without copying it.

    A leaf would do, were it not that autograd refuses in-place activations on leaves.
    """

    @staticmethod
    def forward(ctx: Any, output: Tensor, anchor: Tensor) -> Tensor:  # noqa: ARG004 - what autograd calls
        ctx.mark_dirty(output)
        return output

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None]:  # noqa: ARG004 - what autograd calls
        return None, None


@dataclass(frozen=True, eq=False)
class _Saved:
    activations: Tensor
    alias: Tensor
    version: int
    copied: bool
    edge: GradientEdge

    @property
    def was_overwritten(self) -> bool:
        return _writes(self.alias) != self.version


def _writes(tensor: Tensor) -> int:
    """How often a tensor was written to, views included: autograd's own counter, which has no public name."""
    return tensor._version


def _check_images(images: Tensor) -> None:
    if not isinstance(images, Tensor):
        raise TypeError(f"images must be a tensor, got {type(images).__name__}")
    if images.ndim != 4 or len(images) == 0:
        raise ValueError(f"images must be a batch (N, C, H, W) with N >= 1, got shape {tuple(images.shape)}")
    if not images.is_floating_point():
        raise TypeError(f"images must be floating point, as the model takes them, got {images.dtype}")


def _is_spatial(output: Any, count: int) -> bool:
    return isinstance(output, Tensor) and output.ndim == 4 and len(output) == count


def spatial_blocks(model: nn.Module, images: Tensor) -> list[str]:
    """Names of the modules that can be explained: they run once and put out (N, C, h, w) with h w > 1.

    One image is enough of a batch (N, C, H, W); nothing about the model changes. The names are in the order in which
    the modules finish.
    """
    _check_images(images)
    runs: dict[str, int] = {}
    spatial: list[str] = []

    def note(name: str, _: nn.Module, output: Any) -> None:
        runs[name] = runs.get(name, 0) + 1
        if runs[name] == 1 and _is_spatial(output, len(images)) and output.shape[2] * output.shape[3] > 1:
            spatial.append(name)

    names = [name for name, _ in model.named_modules() if name]
    if not names:
        return []
    with torch.no_grad(), frozen_in_eval_mode(model), observing(model, names, note):
        model(images)
    return [name for name in spatial if runs[name] == 1]


def capture(
    model: nn.Module,
    images: Tensor,
    blocks: Sequence[str],
    target: Target = "predicted",
    *,
    class_names: Sequence[str] | None = None,
    autocast: torch.dtype | None = None,
) -> Capture:
    """Run one forward and one backward pass and keep A and G of every named block.

    The model is explained in eval mode with its weights out of the graph, so the backward pass computes no weight
    gradients and stops at the first block; modes, `requires_grad` flags, `.grad`, running statistics and hooks are
    afterwards what they were, also when something raises. Works on frozen models, within `torch.no_grad()` and
    `torch.inference_mode()`, and with in-place activations.

    Args:
        model: Network from images to logits (N, K).
        images: Batch as the network takes it, floating point, (N, C, H, W).
        blocks: Names of modules with output (N, C, h, w) that run once a forward pass.
        target: Class to explain: "predicted"; an index or class name for all images; or one per image, as a tensor
            or sequence of length N (the true labels, say).
        class_names: The K names, needed only where `target` uses names.
        autocast: Precision for `torch.autocast` on the images' device (float16, bfloat16); None leaves it as it is.

    Returns:
        A `Capture`. Activations and gradients keep the precision of the pass, gradients of a float16 pass are
        float32.

    Raises:
        ValueError: Unknown or repeated block; block that does not run, runs more than once, is not spatial or does
            not reach the logits; class out of range; logits that are not (N, K); weights made in inference mode.
        TypeError: An argument of the wrong kind.
    """
    _check_images(images)
    modules = named_modules(model, blocks)
    if any(parameter.is_inference() for parameter in model.parameters()):
        raise ValueError("model must not be built inside torch.inference_mode(): its weights cannot be differentiated")
    precision = nullcontext() if autocast is None else torch.autocast(images.device.type, dtype=autocast)
    with torch.inference_mode(False), torch.enable_grad(), precision, frozen_in_eval_mode(model):
        images = images.clone() if images.is_inference() else images.detach()
        saved, logits = _forward(model, images, modules, copy_all=False)
        if any(signals.was_overwritten and not signals.copied for signals in saved.values()):
            saved, logits = _forward(model, images, modules, copy_all=True)
        targets = resolve_target(target, logits, class_names)
        gradients = _gradients(saved, logits, targets)
    logits = logits.detach().float()
    return Capture(
        blocks=tuple(BlockSignals(name, saved[name].activations, gradients[name], logits, targets) for name in blocks),
        logits=logits,
        targets=targets,
    )


def _forward(
    model: nn.Module, images: Tensor, modules: dict[str, nn.Module], *, copy_all: bool
) -> tuple[dict[str, _Saved], Tensor]:
    saved: dict[str, _Saved] = {}
    anchor = torch.zeros((), device=images.device, requires_grad=True)

    def keep(name: str, module: nn.Module, output: Any) -> Tensor | None:
        if name in saved:
            raise ValueError(f"block {name!r} must run once a forward pass, but it ran again: name what contains it")
        if not _is_spatial(output, len(images)):
            raise _NotSpatialError(name, output)
        replacement = None
        if not output.requires_grad:
            replacement = output = _GraphRoot.apply(output.detach(), anchor)
        # The edge is the output's place in the graph; unlike the tensor, it stays when an in-place operation follows.
        alias = output.detach()
        copied = copy_all or _overwritten.get(module, True)
        activations = alias.clone() if copied else alias
        saved[name] = _Saved(activations, alias, _writes(alias), copied, get_gradient_edge(output))
        return replacement

    try:
        with observing(model, list(modules), keep):
            logits = model(images)
    except _NotSpatialError as error:
        names = listed(spatial_blocks(model, images))
        raise ValueError(f"{error}; spatial blocks of this model: {names or 'none'}") from None
    for name, module in modules.items():
        if name not in saved:
            raise ValueError(f"block {name!r} must run in the forward pass, but it did not")
        _overwritten[module] = saved[name].was_overwritten
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(images):
        shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(f"model must return logits (N, K) with N = {len(images)}, got {shape}")
    return saved, logits


class _NotSpatialError(ValueError):
    def __init__(self, name: str, output: Any) -> None:
        got = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        super().__init__(f"block {name!r} must put out a tensor (N, C, H, W), got {got}")


def _gradients(saved: dict[str, _Saved], logits: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """G by block, d logits[n, targets[n]] / d A, (N, C, h, w)."""
    if not logits.requires_grad:
        raise ValueError(f"no gradient reaches blocks {', '.join(saved)}: the model cuts the graph before its logits")
    chosen = torch.zeros_like(logits).scatter_(1, targets[:, None], 1.0)
    half = logits.dtype == torch.float16 or any(s.activations.dtype == torch.float16 for s in saved.values())
    scales = _HALF_SCALES if half else (1.0,)
    for scale in scales:
        gradients = torch.autograd.grad(
            logits,
            [signals.edge for signals in saved.values()],
            grad_outputs=chosen * scale,
            retain_graph=scale != scales[-1],
            allow_unused=True,
        )
        for name, gradient in zip(saved, gradients, strict=True):
            if gradient is None:
                raise ValueError(f"block {name!r} must lead to the logits, but no gradient reaches it")
        if not half:
            break
        gradients = tuple(gradient.float() / scale for gradient in gradients)
        if all(math.isfinite(gradient.sum().item()) for gradient in gradients):
            break
    return dict(zip(saved, gradients, strict=True))
