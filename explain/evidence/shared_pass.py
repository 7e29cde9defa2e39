"""One pass over each network gathers what all scorers read.

The maps, the pooled features and the predictions come from one forward and one backward pass (`explain.signals`).
Average Drops and weight gradients need passes of their own and can be left out. Networks are run in eval mode; modes,
flags, `.grad`, running statistics and hooks are afterwards what they were, whatever happens.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import MappingProxyType

import torch
from torch import Tensor, nn

from explain.attribution import METHODS, finite_maps
from explain.evidence.masked_drops import masked_drops
from explain.evidence.material import BlockRecord, Maps, Material, Pass
from explain.evidence.scores import Cost
from explain.evidence.weight_gradients import relative_gradient_norms
from explain.measures.measure import check_integer
from explain.signals import capture

__all__ = ["gather"]


@torch.no_grad()
@torch.inference_mode(False)
def gather(
    model: nn.Module,
    blocks: Sequence[str],
    images: Tensor,
    labels: Tensor,
    training: Tensor,
    *,
    after: nn.Module | None = None,
    again: nn.Module | None = None,
    fine_tuning: Cost | None = None,
    method: str = "layercam",
    shuffles: int = 2,
    gradients: bool = True,
    label_permutations: int = 4,
    batch_size: int = 32,
    seed: int = 0,
) -> Material:
    """Run the networks over the probe images and keep what the scorers read.

    Memory grows with N (maps at block resolution, pooled features), not with the number of scorers.

    Args:
        model: Network from images to logits (N, K), pre-trained blocks with a fitted head.
        blocks: Names of its L blocks, first to last: modules with output (N, C, h, w) that run once a forward pass.
        images: Probe images, without augmentation, as the network takes them, floating point, (N, channels, H, W).
            Class-balanced, on any device.
        labels: True classes, integers in 0..K-1, at least two different ones, (N,).
        training: True for training images (those the head and the fine-tunings saw), False for validation, bool, (N,);
            at least one of each.
        after: The same network after a short probe fine-tuning of everything; None leaves out what needs it.
        again: The same after another fine-tuning that differs in its seed only; needs `after`.
        fine_tuning: What one such fine-tuning cost the caller; it is added to the cost of what needs it.
        method: CAM method, a key of `explain.attribution.METHODS`. LayerCAM and HiResCAM suit shallow blocks; Grad-CAM
            degenerates to an edge map there.
        shuffles: R, how many cell-shuffled maps an image is shown through at each block, >= 0; 0 leaves Average Drops
            out. Costs 2 L (1 + R) forward passes of the validation images.
        gradients: Whether weight gradients are measured, on the training images.
        label_permutations: P, how often they are measured with permuted labels, >= 0; 0 leaves them without null.
        batch_size: Images at a time, >= 1; changes nothing but memory and speed.

    Raises:
        ValueError: Sizes that do not fit, no validation or no training image, a single class, an unknown method, a
            setting out of range, and what `explain.signals.capture` refuses.
        TypeError: An argument of the wrong kind.
    """
    labels, training = _checked(images, labels, training)
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    for name, value, least in (
        ("shuffles", shuffles, 0),
        ("label_permutations", label_permutations, 0),
        ("batch_size", batch_size, 1),
    ):
        check_integer(name, value, least)
    if again is not None and after is None:
        raise ValueError("again must come with after: the two are compared")
    costs: dict[str, Cost] = {}
    passes: dict[str, Pass] = {}
    for name, network in (("before", model), ("after", after), ("again", again)):
        if network is not None:
            start = time.perf_counter()
            passes[name] = _gather_pass(network, blocks, images, labels, method, batch_size)
            spent = Cost(time.perf_counter() - start, len(images), len(images))
            costs[name] = spent if name == "before" else spent + (fine_tuning or Cost())
    drops: dict[str, Tensor] = {}
    which: tuple[Maps, ...] = ("cam", "control") if shuffles else ()
    for maps in which:
        start = time.perf_counter()
        drops[maps], forward = masked_drops(
            model,
            images,
            labels,
            ~training,
            passes["before"],
            maps,
            shuffles=shuffles,
            batch_size=batch_size,
            seed=seed,
        )
        costs[f"drops/{maps}"] = Cost(time.perf_counter() - start, forward)
    norms = None
    if gradients:
        start = time.perf_counter()
        norms = relative_gradient_norms(
            model, blocks, images, labels, training, permutations=label_permutations, batch_size=batch_size, seed=seed
        )
        seen = int(training.sum())
        costs["gradients"] = Cost(time.perf_counter() - start, seen, seen * (1 + label_permutations))
    return Material(
        blocks=tuple(blocks),
        labels=labels,
        training=training,
        method=method,
        inputs=images.detach().float().mean(dim=(2, 3)).cpu(),
        before=passes["before"],
        after=passes.get("after"),
        again=passes.get("again"),
        drops=MappingProxyType(drops),
        gradients=norms,
        costs=MappingProxyType(costs),
    )


def _checked(images: Tensor, labels: Tensor, training: Tensor) -> tuple[Tensor, Tensor]:
    for name, tensor in (("images", images), ("labels", labels), ("training", training)):
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{name} must be a tensor, got {type(tensor).__name__}")
    if images.ndim != 4 or not len(images) or not images.is_floating_point():
        raise ValueError(f"images must be floating point (N, C, H, W), got {images.dtype} {tuple(images.shape)}")
    if labels.shape != (len(images),) or labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(f"labels must be {len(images)} class indices, got {labels.dtype} {tuple(labels.shape)}")
    if training.shape != (len(images),) or training.dtype != torch.bool:
        raise ValueError(f"training must be {len(images)} booleans, got {training.dtype} {tuple(training.shape)}")
    # Copies, since tensors made in inference mode could not take part in the weight gradients.
    labels, training = labels.detach().long().cpu().clone(), training.detach().cpu().clone()
    if training.all() or not training.any():
        raise ValueError(f"training must mark some images and leave some, got {int(training.sum())} of {len(training)}")
    if (labels == labels[0]).all():
        raise ValueError(f"labels must hold at least two classes, got only class {int(labels[0])}")
    return labels, training


def _gather_pass(
    model: nn.Module, blocks: Sequence[str], images: Tensor, labels: Tensor, method: str, batch_size: int
) -> Pass:
    parts: list[list[tuple[Tensor, Tensor, Tensor]]] = [[] for _ in blocks]
    logits = []
    device = next((parameter.device for parameter in model.parameters()), images.device)
    for start in range(0, len(images), batch_size):
        batch = slice(start, start + batch_size)
        captured = capture(model, images[batch].to(device), blocks, labels[batch].to(device))
        logits.append(captured.logits.cpu())
        for signals, kept in zip(captured, parts, strict=True):
            features = signals.activations.detach().float().mean(dim=(2, 3)).cpu()
            shown, control = (finite_maps(METHODS[name](signals)).detach().cpu() for name in (method, "activation"))
            kept.append((shown, control, features))
    records = [BlockRecord(*(torch.cat(column) for column in zip(*kept, strict=True))) for kept in parts]
    return Pass(tuple(records), torch.cat(logits))
