"""The heads from which CAM is drawn: the network's own where it has one, trained on labelled images elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from explain import own_gap_heads, pooled_features, train_gap_head
from explain.subject import Subject
from lightning_modules.errors import InputError, printable
from search.explain.batches import batches

__all__ = ["CamHeads", "own_heads", "with_trained_heads"]


@dataclass(frozen=True, eq=False)
class CamHeads:
    """Heads by block label.

    Attributes:
        own: label -> name of the network's own linear layer, of blocks it follows by pooling and that layer alone.
        trained: label -> linear layer trained for a block without.
        accuracy: label -> share of its training images on which a trained head is right.
        images: how many images the trained heads were fitted to.
    """

    own: Mapping[str, str] = field(default_factory=dict)
    trained: Mapping[str, nn.Linear] = field(default_factory=dict)
    accuracy: Mapping[str, float] = field(default_factory=dict)
    images: int = 0

    def of(self, net: nn.Module, label: str) -> nn.Linear | None:
        """The head of a block of this network, or None where there is none."""
        if label in self.trained:
            return self.trained[label]
        layer = net.get_submodule(self.own[label]) if label in self.own else None
        return layer if isinstance(layer, nn.Linear) else None

    def __str__(self) -> str:
        words = [f"the network's own head at {', '.join(self.own)}"] if self.own else []
        if self.trained:
            right = ", ".join(f"{label} {share:.2f}" for label, share in self.accuracy.items())
            words.append(f"heads trained on {self.images} images, right on these: {right}")
        return "; ".join(words)


def own_heads(subject: Subject) -> CamHeads:
    """The network's own heads, without any training."""
    noise = torch.rand(2, 3, *subject.size, generator=torch.Generator().manual_seed(0)).to(subject.device)
    found = own_gap_heads(subject.net, noise, list(subject.blocks.values()))
    return CamHeads(own={label: found[name] for label, name in subject.blocks.items() if name in found})


def with_trained_heads(
    heads: CamHeads,
    subject: Subject,
    net: nn.Module,
    labelled: Sequence[tuple[Path, int]],
    problems: dict[Path, str],
    advance: Callable[[int], None],
    *,
    batch: int,
    enlarge: bool,
) -> CamHeads:
    """Heads for the blocks without one of their own, from one pass over labelled images.

    Args:
        net: the network, or another of the same build, such as a randomised copy.
        labelled: images and class indices; every class is among them.
        problems: receives the images that cannot be read, with the reason.
        advance: called with the number of images done after each batch.
        enlarge: whether images smaller than the network's minimum are taken.

    Raises:
        InputError: a class of which no image can be read.
    """
    without = {label: name for label, name in subject.blocks.items() if label not in heads.own}
    classes = dict(labelled)
    rows: dict[str, list[Tensor]] = {label: [] for label in without}
    labels: list[int] = []
    for read in batches(subject, [path for path, _ in labelled], batch, problems, enlarge=enlarge):
        pooled = pooled_features(net, read.images.to(subject.device), list(without.values()))
        for label, name in without.items():
            rows[label].append(pooled[name].cpu())
        labels.extend(classes[path] for path in read.paths)
        advance(len(read.paths))
    for k, name in enumerate(subject.classes):
        if k not in labels:
            path, reason = next((p, r) for p, r in problems.items() if classes.get(p) == k)
            raise InputError(
                f"gap_head= must hold images of every class, none of {printable(name)} can be read: first: "
                f"{printable(path)}: {reason}"
            )
    targets = torch.tensor(labels)
    trained, accuracy = {}, {}
    for label, parts in rows.items():
        features = torch.cat(parts)
        head = train_gap_head(features, targets, len(subject.classes))
        with torch.no_grad():
            accuracy[label] = float((head(features).argmax(dim=1) == targets).double().mean())
        trained[label] = head.to(subject.device)
    return CamHeads(heads.own, trained, accuracy, len(labels))
