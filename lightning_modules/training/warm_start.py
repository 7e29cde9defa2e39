"""The head each trial starts from: fitted once for a freeze depth, to the features that trial will train on.

Fine-tuning from a random head distorts the features it starts from; a head that fits them first does not (LP-FT,
Kumar et al. 2022, arXiv 2202.10054).

Thawed batch-norm normalises by the batches it is trained on, not by ImageNet. On images far from ImageNet the two
differ so much that a head fitted to the frozen network's features is worthless once blocks are thawed: on NEU with
ten images a class and nothing frozen, it scored 0.31 before the first step where the frozen network scored 0.95, and
0.65 after two epochs. So batch-norm behind the freeze depth is re-estimated first and the head is fitted to what
comes out then: 0.88 before the first step, 0.93 after two epochs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_modules.networks.batch_norm import batch_norms_behind, reestimate_batch_norm
from lightning_modules.networks.blocknet import BlockNet, final_linear
from lightning_modules.networks.freezing import freeze
from lightning_modules.whole_file import from_cache, read_checked, whole_file

__all__ = ["HeadStore", "fit_head", "fit_linear_probe", "shown_at_once", "warm_depth", "warm_up_head"]

State = dict[str, Tensor]

_NUMBERS_AT_ONCE = 128 * 3 * 96 * 96
_FEWEST_AT_ONCE, _MOST_AT_ONCE = 16, 128


def shown_at_once(numbers: int) -> int:
    """How many inputs of so many numbers blocks are given at a time outside training: 128 images of 96 x 96 pixels.

    Of larger ones fewer, but 16 at least: all at once they need gigabytes.
    """
    return min(_MOST_AT_ONCE, max(_FEWEST_AT_ONCE, _NUMBERS_AT_ONCE // numbers))


def warm_depth(net: BlockNet, freeze_depth: int) -> int:
    """The freeze depth whose head a trial starts from: its own, or the deepest where no batch-norm is thawed."""
    return freeze_depth if batch_norms_behind(net, freeze_depth) else net.deepest


def fit_head(
    net: BlockNet,
    freeze_depth: int,
    batches: Iterable[Sequence[Any]],
    statistics: Iterable[Tensor],
    *,
    classes: int,
    passes: int,
    weight: Tensor | None,
    seed: int,
) -> State:
    """Fit a copy of the network's head at a freeze depth, with thawed batch-norm re-estimated.

    Args:
        net: the pre-trained network; it is left as it is.
        freeze_depth: 0..L.
        batches: gives (activations behind the frozen blocks, labels, ...) of training images, perhaps in other views
            each time it is iterated over.
        statistics: activations behind the frozen blocks of the images that re-estimate batch-norm.
        passes: how often a linear head's probe goes through `batches`.
        weight: (classes,) weights of the loss, or None.

    Returns:
        The head's state dict.
    """
    net = deepcopy(net)
    freeze(net, freeze_depth)
    reestimate_batch_norm(net, statistics, freeze_depth)
    net.eval()
    warm_up_head(net.head, _LastBlock(net, freeze_depth, batches), classes, passes=passes, weight=weight, seed=seed)
    return {name: tensor.detach().clone() for name, tensor in net.head.state_dict().items()}


class _LastBlock:
    """The same batches behind the last block."""

    def __init__(self, net: BlockNet, freeze_depth: int, batches: Iterable[Sequence[Any]]) -> None:
        self._net, self._freeze_depth, self._batches = net, freeze_depth, batches

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for activations, labels, *_ in self._batches:
            with torch.no_grad():
                parts = activations.split(shown_at_once(activations[0].numel()))
                features = [self._net.between(part, self._freeze_depth, self._net.num_blocks) for part in parts]
            yield torch.cat(features), labels


def fit_linear_probe(
    features: Tensor, labels: Tensor, classes: int, *, l2: float = 1e-1, weight: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Multinomial logistic regression by L-BFGS on centred features of mean variance 1.

    Minimises mean cross-entropy + l2/2 * |W|^2 with W the weights of the scaled features. One scale for all of them:
    scaling each by its own gives nearly dead features weights of many thousands, which blow up as soon as
    fine-tuning moves the feature a little.

    The penalty is ten times what fits best by itself: a head that already has the training images right leaves the
    thawed blocks no gradient to learn from. With 1e-2 and nothing frozen, simulated images ended at macro F1 0.88, with
    1e-1 at 0.91.

    Args:
        features: (N, D).
        labels: (N,) int64 in 0..classes-1.
        l2: penalty, >= 0.
        weight: (classes,) weights of the loss.

    Returns:
        Weight (classes, D) and bias (classes,) for the features as given, float32.
    """
    mean = features.mean(0, dtype=torch.float64)
    x = features - mean.float()
    scale = x.square().mean(dtype=torch.float64).sqrt().clamp_min(1e-12)
    x /= scale.float()
    parameters = torch.zeros(classes, x.shape[1] + 1, device=x.device, requires_grad=True)
    optimizer = torch.optim.LBFGS([parameters], max_iter=200, line_search_fn="strong_wolfe", tolerance_grad=1e-6)

    def closure() -> Tensor:
        optimizer.zero_grad()
        logits = x @ parameters[:, :-1].T + parameters[:, -1]
        loss = F.cross_entropy(logits, labels, weight=weight) + l2 / 2 * parameters[:, :-1].square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    solution = parameters.detach().double()
    scaled = solution[:, :-1] / scale
    return scaled.float(), (solution[:, -1] - scaled @ mean).float()


def warm_up_head(
    head: nn.Module,
    batches: Iterable[Sequence[Any]],
    classes: int,
    *,
    passes: int = 1,
    weight: Tensor | None = None,
    epochs: int = 30,
    seed: int = 0,
) -> None:
    """Fit a head to the last block's output, in place; the head is left in eval mode.

    A pooling + linear head gets the linear probe's solution. Any other head (VGG's three layers) is trained by Adam
    for `epochs` passes.

    Args:
        head: maps (N, C, H, W) to logits.
        batches: gives (activations (B, C, H, W), labels (B,), ...) of the training images, perhaps in other views each
            time.
        passes: how often the probe goes through `batches` to see every view.
        weight: (classes,) weights of the loss, or None.
        epochs: passes over the batches for a head that is not linear.
    """
    linear = final_linear(head)
    head.eval()
    if linear is not None:
        pooled: list[Tensor] = []
        hook = linear.register_forward_pre_hook(lambda _, inputs: pooled.append(inputs[0].detach()))
        try:
            with torch.no_grad():
                labels = []
                for _ in range(passes):
                    for x, y, *_ in batches:
                        head(x)
                        labels.append(y)
        finally:
            hook.remove()
        found, bias = fit_linear_probe(torch.cat(pooled), torch.cat(labels), classes, weight=weight)
        with torch.no_grad():
            linear.weight.copy_(found)
            linear.bias.copy_(bias)
        return
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        optimizer = torch.optim.Adam(head.parameters(), lr=1e-3)
        head.train()
        for _ in range(epochs):
            for x, y, *_ in batches:
                optimizer.zero_grad()
                F.cross_entropy(head(x), y, weight=weight).backward()  # type: ignore[no-untyped-call]
                optimizer.step()
    head.eval()


class HeadStore:
    """Fitted heads on disk, shared by processes and by later studies; in memory for this one.

    Args:
        folder: of the files; they are complete or absent.
        on_note: called with a line when a damaged file is made again.
    """

    def __init__(self, folder: Path, device: torch.device, on_note: Callable[[str], None] = lambda _: None) -> None:
        self._folder, self._device, self._on_note = folder, device, on_note
        self._known: dict[str, State] = {}

    def get(self, name: str, fit: Callable[[], State]) -> State:
        """The head called `name`, fitted now if no process has done so yet."""
        if name not in self._known:
            path = self._folder / f"head-{name}.safetensors"
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                with FileLock(path.with_suffix(".lock")):
                    self._known[name] = from_cache(path, _load, self._on_note) or _save(path, fit())
            except OSError:  # a full or read-only disk: each process fits its own
                self._known[name] = fit()
        return {key: tensor.to(self._device) for key, tensor in self._known[name].items()}


def _load(path: Path) -> State:
    return load(read_checked(path))


def _save(path: Path, state: State) -> State:
    """Write a head if it is finite and the disk takes it; each process fits its own if not."""
    if all(bool(tensor.isfinite().all()) for tensor in state.values()):
        # The caller holds the lock.
        with suppress(OSError, SafetensorError), whole_file(path, digest=True) as temporary:
            save_file({name: tensor.contiguous().cpu() for name, tensor in state.items()}, temporary)
    return state
