"""Sanity checks: does a map depend on what the model has learnt?

Adebayo et al. 2018, arXiv 1810.03292. A method whose maps survive the loss of the weights or of the labels shows the
image (its edges, say), not the model.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from scipy.stats import rankdata
from torch import Tensor, nn

from explain.hooks import BatchNorm, frozen_in_eval_mode
from explain.measures.faithfulness import pearson
from explain.measures.measure import checked_maps

__all__ = ["SanityResult", "label_randomisation", "randomised", "rank_correlation", "weight_randomisation"]

Explain = Callable[[nn.Module], Tensor]
"""From a model to the maps (N, h, w) of fixed images for fixed classes."""


@dataclass(frozen=True)
class SanityResult:
    """Outcome of a sanity check.

    Attributes:
        check: "weight randomisation" or "label randomisation".
        stages: What was randomised when, cumulatively: module names from the head down, or "labels".
        similarity: Mean rank correlation of the maps with the original ones after each stage, in [-1, 1]; NaN where
            every map is constant.
        threshold: Largest correlation at the end that counts as a changed explanation.
        passed: Whether the last correlation is at most the threshold; None if it is NaN.
    """

    check: str
    stages: tuple[str, ...]
    similarity: tuple[float, ...]
    threshold: float
    passed: bool | None
    verdict: str


def rank_correlation(one: Tensor, other: Tensor) -> Tensor:
    """Spearman correlation over positions of non-negative maps (N, h, w), ties sharing their mean rank.

    Returns:
        Values in [-1, 1], float64, (N,); NaN where one of the two maps is constant.

    Raises:
        ValueError: Maps of different shapes.
    """
    if one.shape != other.shape:
        raise ValueError(f"maps must have one shape, got {tuple(one.shape)} and {tuple(other.shape)}")
    ranks = [
        torch.from_numpy(rankdata(checked_maps(maps).flatten(1).cpu().numpy(), axis=1)).reshape(maps.shape)
        for maps in (one, other)
    ]
    return pearson(*ranks)


def randomised(
    model: nn.Module, stages: Sequence[str] | None = None, *, images: Tensor | None = None, seed: int = 0
) -> nn.Module:
    """A copy of the model with the weights of the named modules, or of all, drawn anew: the control of every table.

    Modules with `reset_parameters` are initialised as when they were built; the values of parameters of other modules
    are shuffled. Where `images` are given, the running statistics of batch-norm in these modules and in what runs after
    them are estimated again; without, a deep network with batch-norm fades to zero, and all its maps are dead.

    Args:
        model: Any network; it is not changed.
        stages: Names of modules, contents included; None for the whole model.
        images: Batch for the batch-norm statistics, (N, C, H, W); N >= 2.
        seed: Decides the draw; the global random state is left as it was.

    Raises:
        ValueError: A name that is not a module of the model.
    """
    changed = copy.deepcopy(model)
    modules = [changed] if stages is None else [_module(changed, name) for name in stages]
    parts = [part for module in modules for part in module.modules()]
    devices = sorted({parameter.device.index or 0 for parameter in changed.parameters() if parameter.is_cuda})
    with torch.random.fork_rng(devices=devices), torch.no_grad():
        torch.manual_seed(seed)
        for part in parts:
            _draw_anew(part)
    if images is not None:
        _estimate_statistics(changed, modules, images)
    return changed


def _estimate_statistics(model: nn.Module, first: list[nn.Module], images: Tensor) -> None:
    """Set the running statistics of every batch-norm that runs from these modules on to those of the images."""
    norms = [part for part in model.modules() if isinstance(part, BatchNorm)]
    momenta = [part.momentum for part in norms]

    def begin(*_: object) -> None:
        for part in norms:
            part.training = True

    handles = [module.register_forward_pre_hook(begin) for module in first]
    try:
        with frozen_in_eval_mode(model), torch.no_grad():
            for part in norms:
                part.momentum = 1.0
            model(images)
    finally:
        for handle in handles:
            handle.remove()
        for part, momentum in zip(norms, momenta, strict=True):
            part.momentum = momentum


def weight_randomisation(
    model: nn.Module,
    explain: Explain,
    stages: Sequence[str] | None = None,
    *,
    images: Tensor | None = None,
    threshold: float = 0.5,
    seed: int = 0,
) -> SanityResult:
    """Cascading randomisation: destroy the weights from the head down and watch the maps.

    Args:
        model: Fitted network; it is not changed.
        explain: From a model to maps (N, h, w) of the same images for the same classes.
        stages: Modules to randomise one after the other, cumulatively, the head first; by default every module with
            weights of its own, last defined first.
        images: Batch from which batch-norm statistics are estimated again, (N, C, H, W), see `randomised`; needed for
            deep networks with batch-norm.
        threshold: Largest mean rank correlation with the original maps at the end that passes, in (0, 1).

    Raises:
        ValueError: A threshold out of range, a name that is not a module, no stage, or a model without weights.
    """
    _check_threshold(threshold)
    names = _with_weights(model) if stages is None else list(stages)
    if not names:
        raise ValueError("stages must name at least one module with weights, got none")
    original = explain(model)
    similarity = []
    for last in range(1, len(names) + 1):
        changed = randomised(model, names[:last], images=images, seed=seed)
        similarity.append(float(rank_correlation(original, explain(changed)).nanmean()))
    return _result("weight randomisation", tuple(names), tuple(similarity), threshold, "weights")


def label_randomisation(
    fit: Callable[[Tensor], nn.Module],
    labels: Tensor,
    explain: Explain,
    *,
    threshold: float = 0.5,
    seed: int = 0,
) -> SanityResult:
    """Fit the model once on the true and once on shuffled labels, and compare the maps of the two.

    Args:
        fit: From labels (N,) to a model fitted on the training images with these labels.
        labels: The true labels of the training images, (N,).
        explain: From a model to maps (N, h, w) of the same images for the same classes.
        threshold: Largest mean rank correlation that passes, in (0, 1).

    Raises:
        ValueError: A threshold out of range, or labels of fewer than two classes.
    """
    _check_threshold(threshold)
    if labels.ndim != 1 or (labels == labels[:1]).all():
        raise ValueError(f"labels must be (N,) and hold at least two classes, got shape {tuple(labels.shape)}")
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed)).to(labels.device)
    similarity = float(rank_correlation(explain(fit(labels)), explain(fit(labels[order]))).nanmean())
    return _result("label randomisation", ("labels",), (similarity,), threshold, "labels")


def _module(model: nn.Module, name: str) -> nn.Module:
    modules: dict[str, nn.Module] = dict(model.named_modules(remove_duplicate=False))
    if name not in modules:
        raise ValueError(f"stages must name modules of the model, got {name!r}")
    return modules[name]


def _with_weights(model: nn.Module) -> list[str]:
    return [name for name, part in reversed(list(model.named_modules())) if list(part.parameters(recurse=False))]


def _draw_anew(part: nn.Module) -> None:
    reset = getattr(part, "reset_parameters", None)
    if callable(reset):
        reset()
        return
    for parameter in part.parameters(recurse=False):
        order = torch.randperm(parameter.numel()).to(parameter.device)
        parameter.copy_(parameter.flatten()[order].reshape(parameter.shape))


def _check_threshold(threshold: float) -> None:
    if not 0 < threshold < 1:
        raise ValueError(f"threshold must lie above 0 and below 1, got {threshold}")


def _result(
    check: str, stages: tuple[str, ...], similarity: tuple[float, ...], threshold: float, lost: str
) -> SanityResult:
    last = similarity[-1]
    passed = None if math.isnan(last) else last <= threshold
    numbers = f"rank correlation {last:.2f} with the original maps, limit {threshold:.2f}"
    verdict = {
        True: f"Passes {check}: without the learnt {lost} the maps are others ({numbers}).",
        False: f"Fails {check}: without the learnt {lost} the maps stay much the same ({numbers}), so they show the "
        "image rather than what the model has learnt.",
        None: f"Undecided by {check}: without the learnt {lost} every map is constant, so there is nothing to compare.",
    }[passed]
    return SanityResult(check, stages, similarity, threshold, passed, verdict)
