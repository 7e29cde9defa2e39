"""The two passes over the images: every image is predicted and measured, then a bounded choice of them is drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from explain import explain_superpixels, randomised
from explain.localisation import CONTROL, Localisation
from explain.method_names import ATTENTION, CAM
from explain.subject import BatchExplanation, ImageExplanation, Subject, explain_batch, measure
from lightning_modules.errors import InputError, printable
from lightning_modules.images.value_range import shows_nothing
from search.explain.annotations import Annotation
from search.explain.arguments import Arguments
from search.explain.batches import Batch, batches
from search.explain.cam_heads import CamHeads, with_trained_heads
from search.explain.selection import Selection
from search.explain.tables import PredictionTable

__all__ = ["CONTACT_IMAGES", "Stream", "Summary"]

CONTACT_IMAGES = 24
_STATISTICS_IMAGES = 64
_NEARLY_ALL = 0.8


@dataclass(frozen=True, eq=False)
class Summary:
    """What the first pass found.

    Attributes:
        table: means by class and by block.
        localisation: None where no table says where the defects are.
    """

    table: PredictionTable
    selection: Selection
    localisation: Localisation | None


class Stream:
    """Explains images in batches; memory depends on the batch, the classes and the figures, not on the images.

    Args:
        annotations: by resolved path of the image; empty without a table.
        target: "predicted", "true", or the index of a class.
        heads: the network's own heads, from which CAM is drawn.
        labelled: images and class indices to train the other heads on; empty for none.

    Attributes:
        heads: the network's own, and from `train_heads` on the trained ones.
        flat: how many of those explained show nothing.
        problems: files that could not be explained, with the reason.
        truth_problems: files whose annotation cannot be used, with the reason.
        head_problems: labelled images that could not be read, with the reason.
        localised: how many images were measured against their defects and why others were not; empty without a table.
    """

    def __init__(
        self,
        subject: Subject,
        paths: Sequence[Path],
        arguments: Arguments,
        annotations: Mapping[Path, Annotation],
        target: str | int,
        heads: CamHeads,
        labelled: Sequence[tuple[Path, int]] = (),
    ) -> None:
        self._subject, self._paths, self._arguments = subject, paths, arguments
        self._annotations, self._target = annotations, target
        self.flat = 0
        self.problems: dict[Path, str] = {}
        self.truth_problems: dict[Path, str] = {}
        self.head_problems: dict[Path, str] = {}
        self.localised = ""
        self._unmeasured: Counter[str] = Counter()
        self.heads, self.labelled = heads, labelled

    def blocks_of(self, method: str) -> list[str]:
        """Labels of the blocks where a method draws a map."""
        blocks = self._subject.blocks
        if method == ATTENTION:
            return list(self._subject.attention)
        return [b for b in blocks if method != CAM or self.heads.of(self._subject.net, b) is not None]

    def train_heads(self, advance: Callable[[int], None]) -> None:
        """Train the heads of the blocks that have none of their own, if there are images for it.

        Args:
            advance: called with the number of images done after each batch.
        """
        if self.labelled:
            self.heads = self._trained(self._subject.net, self.head_problems, advance)

    def _trained(
        self, net: torch.nn.Module, problems: dict[Path, str], advance: Callable[[int], None] = lambda _: None
    ) -> CamHeads:
        batch, enlarge = self._arguments.batch, self._arguments.enlarge
        return with_trained_heads(
            self.heads, self._subject, net, self.labelled, problems, advance, batch=batch, enlarge=enlarge
        )

    def predict(self, file: IO[str], advance: Callable[[int], None]) -> Summary:
        """Explain every image; write its row.

        Args:
            advance: called with the number of images done after each batch.
        """
        subject, arguments = self._subject, self._arguments
        labelled = any(annotation.label is not None for annotation in self._annotations.values())
        measured = self.blocks_of(arguments.primary)
        table = PredictionTable(file, subject, arguments.primary, measured, labelled=labelled)
        selection = Selection(len(subject.classes), max(CONTACT_IMAGES, arguments.figures))
        methods: tuple[str, ...] = (arguments.primary,)
        localisation = control = None
        if self._annotations:
            methods = tuple(dict.fromkeys((*arguments.block_methods, CONTROL)))
            localisation = Localisation(list(subject.blocks), methods)
            control = self._control()
        place = {path: number for number, path in enumerate(self._paths)}
        for batch, explained in self._explained(self._paths, methods):
            notes = [self._annotation(path) for path in batch.paths]
            table.add(batch.paths, explained, notes)
            self.flat += int(shows_nothing(255 * batch.images.numpy()).sum())
            top = explained.probabilities.topk(2, dim=1)
            for row, path in enumerate(batch.paths):
                first, second = top.values[row].tolist()
                selection.add(place[path], int(top.indices[row, 0]), first - second)
            if localisation is not None and control is not None:
                self._localise(batch, explained, notes, localisation, control)
            advance(len(batch.paths))
        if localisation is not None:
            self.localised = self._counts(localisation)
        return Summary(table, selection, localisation)

    def draw(self, places: Sequence[int], methods: Sequence[str], *, lime: bool) -> Iterator[ImageExplanation]:
        """Explain some of the images again, one after the other, with all that is drawn of them.

        Args:
            lime: whether super-pixels are explained, twice each, to see how stable they are.
        """
        classes = self._subject.classes
        for batch, explained in self._explained([self._paths[place] for place in places], methods):
            measures = {key: measure(values) for key, values in explained.maps.items()}
            for row, path in enumerate(batch.paths):
                probabilities = explained.probabilities[row]
                top = probabilities.topk(2)
                target = int(explained.targets[row])
                first, second, chosen = ((classes[k], float(probabilities[k])) for k in (*top.indices.tolist(), target))
                note = self._annotation(path)
                drawn = ImageExplanation(
                    path,
                    batch.images[row],
                    predicted=first,
                    second=second,
                    explained=chosen,
                    truth=note.label if note else None,
                    maps={key: values[row] for key, values in explained.maps.items()},
                    defect=self._defect(path, note),
                    measures={k: {column: v[row] for column, v in found.items()} for k, found in measures.items()},
                )
                yield self._with_lime(drawn, target) if lime else drawn

    def _explained(self, paths: Sequence[Path], methods: Sequence[str]) -> Iterator[tuple[Batch, BatchExplanation]]:
        arguments = self._arguments
        if self._target == "true":
            for path in paths:
                note = self._annotation(path)
                if note is None or note.label not in self._subject.classes:
                    label = None if note is None else note.label
                    self.problems[path] = "its true class is not known" if not label else f"no class {label!r}"
        head_of = partial(self.heads.of, self._subject.net)
        for batch in batches(self._subject, paths, arguments.batch, self.problems, enlarge=arguments.enlarge):
            explained = explain_batch(self._subject, batch.images, self._targets(batch), methods, head_of=head_of)
            finite = explained.probabilities.isfinite().all(dim=1).tolist()
            if all(finite):
                yield batch, explained
                continue
            for path, good in zip(batch.paths, finite, strict=True):
                if not good:
                    self.problems[path] = "the network's output is not a finite number"
            places = [row for row, good in enumerate(finite) if good]
            if places:
                kept = Batch(tuple(batch.paths[row] for row in places), batch.images[places])
                yield kept, explained.only(places)

    def _targets(self, batch: Batch) -> str | int | Tensor:
        if self._target != "true":
            return self._target
        notes = [self._annotation(path) for path in batch.paths]
        return torch.tensor([self._subject.classes.index(str(note.label)) for note in notes if note is not None])

    def _annotation(self, path: Path) -> Annotation | None:
        return self._annotations.get(path.resolve()) if self._annotations else None

    def _control(self) -> tuple[torch.nn.Module, CamHeads]:
        """The same network with its weights drawn anew, its batch-norm fitted to images from all over the set.

        Heads that were trained for the network are trained for it as well, on its own features.
        """
        step = max(1, len(self._paths) // _STATISTICS_IMAGES)
        sample = list(self._paths[::step])[:_STATISTICS_IMAGES]
        found = [b.images for b in batches(self._subject, sample, len(sample), {}, enlarge=True)]
        images = found[0].to(self._subject.device) if found and len(found[0]) > 1 else None
        net = randomised(self._subject.net, images=images, seed=self._arguments.seed)
        return net, self._trained(net, {}) if self.labelled else self.heads

    def _localise(
        self,
        batch: Batch,
        explained: BatchExplanation,
        notes: Sequence[Annotation | None],
        localisation: Localisation,
        control: tuple[torch.nn.Module, CamHeads],
    ) -> None:
        rows, truths = [], []
        for row, (path, note) in enumerate(zip(batch.paths, notes, strict=True)):
            truth = self._defect(path, note)
            if truth is not None and truth.any():
                rows.append(row)
                truths.append(truth)
            else:
                seen = "a mask or box that cannot be used" if truth is None else "no defect in what the network sees"
                named = seen if note is not None and not note.empty else "a row that names no defect"
                self._unmeasured["no row in the table" if note is None else named] += 1
        if not rows:
            return
        kept = explained.only(rows)
        methods = list(dict.fromkeys(method for method, _ in kept.maps))
        net, heads = control
        head_of = partial(heads.of, net)
        random = explain_batch(self._subject, batch.images[rows], kept.targets, methods, head_of=head_of, net=net)
        localisation.add(truths, kept.maps, random.maps)

    def _defect(self, path: Path, note: Annotation | None) -> Tensor | None:
        if note is None or note.empty or path in self.truth_problems:
            return None
        try:
            return note.truth(path, self._subject.size, self._subject.fit)
        except (InputError, OSError) as error:
            self.truth_problems[path] = printable(error)
            return None

    def _counts(self, localisation: Localisation) -> str:
        self._unmeasured["not explained"] = len(self.problems)
        left_out = ", ".join(f"{count} ({reason})" for reason, count in self._unmeasured.items() if count)
        text = f"measured against their defects: {len(localisation)} of {len(self._paths)} images"
        text += f"; left out: {left_out}" if left_out else ""
        if self._arguments.masks is not None and localisation.covered > _NEARLY_ALL * len(localisation):
            text += (
                f"; the masks cover more than half of the picture in {localisation.covered} images: if their defects "
                "are the black part, invert them"
            )
        return text

    def _with_lime(self, drawn: ImageExplanation, target: int) -> ImageExplanation:
        seed = self._arguments.seed
        first, again = (
            explain_superpixels(drawn.image, self._subject.probabilities, target, seed=s) for s in (seed, seed + 1)
        )
        pair = torch.stack([first.coefficients[target], again.coefficients[target]])
        stability = float(torch.corrcoef(pair)[0, 1])
        return replace(drawn, lime=first, stability=stability)
