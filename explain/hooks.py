"""Looking into a network without leaving a trace: named modules, forward hooks, modes and flags."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import nn

__all__ = ["BatchNorm", "frozen_in_eval_mode", "listed", "named_modules", "observing"]

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d | nn.SyncBatchNorm
"""Layers that normalise by batch statistics; torch has no public class for all of them."""


@contextmanager
def frozen_in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Hold every module in eval mode and every parameter out of the graph; restore each flag whatever happens."""
    modes = [(module, module.training) for module in model.modules()]
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        # Set directly: train() and eval() are overridden in networks that keep part of themselves frozen.
        for module, _ in modes:
            module.training = False
        for parameter, _ in flags:
            parameter.requires_grad = False
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter, flag in flags:
            parameter.requires_grad = flag


@contextmanager
def observing(
    model: nn.Module, blocks: Sequence[str], on_output: Callable[[str, nn.Module, Any], Any]
) -> Iterator[None]:
    """Call `on_output(name, module, output)` after each named module runs; remove the hooks whatever happens.

    A value other than None that `on_output` returns replaces the output. Raises as `named_modules` does.
    """
    modules = named_modules(model, blocks)
    handles = []
    try:
        for name, module in modules.items():
            handles.append(
                module.register_forward_hook(lambda module, _, output, name=name: on_output(name, module, output))
            )
        yield
    finally:
        for handle in handles:
            handle.remove()


def named_modules(model: nn.Module, blocks: Sequence[str]) -> dict[str, nn.Module]:
    """The modules of that name, as in `model.named_modules()`, in the order requested.

    Raises:
        ValueError: A name is not a module of the model, is given twice, or none is given.
        TypeError: `model` is not an `nn.Module` or `blocks` is a single string.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be an nn.Module, got {type(model).__name__}")
    if isinstance(blocks, str) or not all(isinstance(name, str) for name in blocks):
        raise TypeError(f"blocks must be a sequence of module names, got {blocks!r}")
    if not blocks:
        raise ValueError("blocks must name at least one module, got none")
    known = dict(model.named_modules(remove_duplicate=False))
    known.pop("", None)
    for name in blocks:
        if name not in known:
            raise ValueError(f"blocks must name modules of the model, got {name!r}; known: {listed(list(known))}")
        if list(blocks).count(name) > 1:
            raise ValueError(f"blocks must be distinct, got {name!r} more than once")
    return {name: known[name] for name in blocks}


def listed(names: Sequence[str], most: int = 24) -> str:
    """Names for an error message: outermost modules first, cut to a readable number."""
    ordered = sorted(names, key=lambda name: name.count("."))
    rest = len(ordered) - most
    return ", ".join(ordered[:most]) + (f" and {rest} more" if rest > 0 else "")
