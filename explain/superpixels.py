"""LIME: which super-pixels speak for a class, which against it, and for which class they speak instead."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from explain.measures.masking import Predict, checked_probabilities
from explain.measures.measure import check_integer
from explain.targets import Target, resolve_target

__all__ = ["SuperpixelExplanation", "explain_superpixels", "slic_segments", "superpixel_stability"]

_MOST_RETRIES = 6


@dataclass(frozen=True, eq=False)
class SuperpixelExplanation:
    """A linear model of the class probabilities around one image; S super-pixels, K classes.

    Attributes:
        segments: Super-pixel of each pixel, 0 .. S-1, int64, (H, W).
        probabilities: Of the image itself, (K,).
        coefficients: Change of each class's probability when a super-pixel is shown, (K, S).
        intercepts: Probability of each class with every super-pixel hidden, by the linear model, (K,).
        r2: Weighted R^2 of the fit of each class, <= 1; NaN where the probability never changed, (K,).
    """

    segments: Tensor
    target: int
    probabilities: Tensor
    coefficients: Tensor
    intercepts: Tensor
    r2: Tensor

    @property
    def positive(self) -> list[int]:
        """Super-pixels that speak for the target class, strongest first."""
        return self._ordered(1)

    @property
    def negative(self) -> list[int]:
        """Super-pixels that speak against the target class, strongest first."""
        return self._ordered(-1)

    def _ordered(self, sign: int) -> list[int]:
        strength = sign * self.coefficients[self.target]
        order: list[int] = strength.argsort(descending=True, stable=True).tolist()
        return [place for place in order if strength[place] > 0]

    @property
    def map(self) -> Tensor:
        """Signed coefficient of the target class at every pixel, float32, (H, W)."""
        return self.coefficients[self.target][self.segments].float()

    @property
    def shares(self) -> Tensor:
        """Share of each class in all the evidence for any class, (K,), summing to 1; NaN if there is none.

        The evidence for class c is the sum of its positive coefficients: what the thesis's Figure 17 shows as the
        proportion of the other classes' positive features.
        """
        evidence = self.coefficients.clamp_min(0).sum(dim=1)
        return evidence / evidence.sum()


def slic_segments(image: Tensor, count: int = 50, compactness: float = 10.0) -> Tensor:
    """SLIC super-pixels of an image.

    Achanta et al. 2012, doi 10.1109/TPAMI.2012.120, through scikit-image.

    Args:
        image: (C, H, W), any range; grey for one channel, colour for three, the mean over channels for others.
        count: About how many, >= 2.
        compactness: Weight of distance against colour, > 0; raised where fewer than half of `count` come out.

    Returns:
        Label of each pixel, 0 .. S-1 without gaps, int64, (H, W).
    """
    from skimage.segmentation import slic

    _check_image(image)
    check_integer("count", count, 2)
    if not compactness > 0:
        raise ValueError(f"compactness must be > 0, got {compactness}")
    pixels = image.detach().float().cpu()
    pixels = pixels if len(pixels) == 3 else pixels.mean(dim=0, keepdim=True).expand(3, -1, -1)
    spread = pixels.max() - pixels.min()
    unit = (pixels - pixels.min()) / (spread if spread > 0 else 1)
    array = unit.permute(1, 2, 0).numpy().astype(np.float64)
    labels = np.zeros(unit.shape[1:], dtype=np.int64)
    # In speckle no cluster is connected, and SLIC merges all of them: distance then has to weigh more than colour.
    for weight in (compactness * 4.0**power for power in range(_MOST_RETRIES)):
        found = slic(array, n_segments=count, compactness=weight, start_label=0, channel_axis=-1)
        _, labels = np.unique(found, return_inverse=True)
        if labels.max() + 1 >= min(count / 2, labels.size):
            break
    return torch.from_numpy(labels.reshape(image.shape[1:])).long()


def explain_superpixels(
    image: Tensor,
    predict: Predict,
    target: Target = "predicted",
    *,
    segments: Tensor | None = None,
    class_names: Sequence[str] | None = None,
    samples: int = 400,
    batch_size: int = 50,
    kernel_width: float = 0.25,
    alpha: float = 1.0,
    baseline: Literal["mean"] | float = "mean",
    seed: int = 0,
) -> SuperpixelExplanation:
    """LIME: hide random super-pixels, ask the model, fit a weighted linear model of every class's probability.

    The perturbations are drawn and the model is asked once for all K classes. Probabilities, not logits, and ridge, not
    lasso: with captum's defaults all coefficients can come out equal.

    Ribeiro et al. 2016, arXiv 1602.04938.

    Args:
        image: As the model takes it, (C, H, W).
        predict: From images (N, C, H, W) to class probabilities (N, K).
        target: "predicted", a class index or a class name.
        segments: Labels 0 .. S-1, (H, W), S >= 2; by default `slic_segments(image)`.
        class_names: The K names, where `target` is one.
        samples: Perturbed images, the image itself included, >= 2.
        batch_size: Perturbed images a call of `predict`, >= 1.
        kernel_width: w of the weights exp(-d^2 / (2 w^2)), d the cosine distance to the image in terms of the
            super-pixels shown; > 0.
        alpha: Strength of the ridge penalty, > 0.
        baseline: What hidden super-pixels show: their own "mean" colour, or a value in units of `image`.

    Returns:
        A `SuperpixelExplanation`, on the CPU.

    Raises:
        ValueError: A setting out of range; labels with gaps; `predict` that returns logits.
        TypeError: An argument of the wrong kind.
    """
    from sklearn.linear_model import Ridge

    _check_image(image)
    _check_settings(samples, batch_size, kernel_width, alpha)
    image = image.detach()
    segments = slic_segments(image) if segments is None else _checked_segments(segments, image)
    count = int(segments.max()) + 1
    shown = torch.rand(samples, count, generator=torch.Generator().manual_seed(seed)) < 0.5
    shown[0] = True
    hidden_image = _hidden(image, segments, baseline)
    probabilities = checked_probabilities(predict, image[None])
    chosen = int(resolve_target(target, probabilities, class_names)[0])
    answers = []
    for rows in torch.split(shown, batch_size):
        images = torch.where(rows[:, segments][:, None].to(image.device), image, hidden_image)
        answers.append(checked_probabilities(predict, images).double().cpu())
    asked = torch.cat(answers)
    weights = _similarity(shown.float(), kernel_width)
    coefficients, intercepts = [], []
    for column in asked.float().T:
        ridge = Ridge(alpha=alpha).fit(shown.float().numpy(), column.numpy(), sample_weight=weights.numpy())
        coefficients.append(torch.from_numpy(ridge.coef_).double())
        intercepts.append(float(ridge.intercept_))
    constant = asked.amax(dim=0) == asked.amin(dim=0)
    slopes, offsets = torch.stack(coefficients).masked_fill(constant[:, None], 0), torch.tensor(intercepts).double()
    return SuperpixelExplanation(
        segments=segments.cpu(),
        target=chosen,
        probabilities=probabilities[0].double().cpu(),
        coefficients=slopes,
        intercepts=offsets,
        r2=_r2(asked, shown.double() @ slopes.T + offsets, weights.double()),
    )


def superpixel_stability(
    image: Tensor, predict: Predict, target: Target = "predicted", *, repeats: int = 5, seed: int = 0, **options: Any
) -> float:
    """How well LIME agrees with itself: mean correlation of the target's coefficients over pairs of repeats.

    Args:
        image: As the model takes it, (C, H, W).
        predict: From images to class probabilities (N, K).
        repeats: Explanations compared, with seeds seed, seed + 1, ...; >= 2.
        **options: Whatever else `explain_superpixels` takes.

    Returns:
        Mean Pearson correlation in [-1, 1]; near 1 is stable. Too few samples, or a model that super-pixels cannot
        explain, bring it towards 0. NaN if some repeat gives all super-pixels the same coefficient.
    """
    check_integer("repeats", repeats, 2)
    if options.get("segments") is None:
        options["segments"] = slic_segments(image)
    rows = []
    for place in range(repeats):
        explanation = explain_superpixels(image, predict, target, seed=seed + place, **options)
        row = explanation.coefficients[explanation.target]
        rows.append((row - row.mean()) / row.std(correction=0) / len(row) ** 0.5)
    correlation = torch.stack(rows) @ torch.stack(rows).T
    return float(correlation[~torch.eye(repeats, dtype=torch.bool)].mean())


def _check_image(image: Tensor) -> None:
    if not isinstance(image, Tensor) or not image.is_floating_point():
        raise TypeError(f"image must be a floating-point tensor, got {getattr(image, 'dtype', type(image).__name__)}")
    if image.ndim != 3 or image.numel() == 0:
        raise ValueError(f"image must be one image (C, H, W), got shape {tuple(image.shape)}")


def _check_settings(samples: int, batch_size: int, kernel_width: float, alpha: float) -> None:
    check_integer("samples", samples, 2)
    check_integer("batch_size", batch_size, 1)
    for name, number in (("kernel_width", kernel_width), ("alpha", alpha)):
        if not number > 0:
            raise ValueError(f"{name} must be > 0, got {number}")


def _checked_segments(segments: Tensor, image: Tensor) -> Tensor:
    if segments.shape != image.shape[1:] or segments.is_floating_point():
        raise ValueError(
            f"segments must be integer labels {tuple(image.shape[1:])}, got {segments.dtype} {tuple(segments.shape)}"
        )
    labels = np.unique(segments.cpu().numpy())
    if len(labels) < 2 or not np.array_equal(labels, np.arange(len(labels))):
        raise ValueError(f"segments must be labelled 0 .. S-1 without gaps, S >= 2, got {labels.tolist()[:9]}")
    return segments.long().cpu()


def _hidden(image: Tensor, segments: Tensor, baseline: Literal["mean"] | float) -> Tensor:
    """The image with every super-pixel hidden, (C, H, W)."""
    if isinstance(baseline, str):
        if baseline != "mean":
            raise ValueError(f"baseline must be 'mean' or a number, got {baseline!r}")
        labels = segments.flatten().to(image.device)
        sums = torch.zeros(len(image), int(labels.max()) + 1, dtype=image.dtype, device=image.device)
        means = sums.index_add(1, labels, image.flatten(1)) / labels.bincount()
        return means[:, labels].reshape(image.shape)
    return torch.full_like(image, float(baseline))


def _similarity(shown: Tensor, width: float) -> Tensor:
    """exp(-d^2 / (2 w^2)), d = 1 - cos between the row and all ones = 1 - sqrt(share shown), (N,)."""
    distance = 1 - shown.mean(dim=1).sqrt()
    return torch.exp(-(distance**2) / (2 * width**2))


def _r2(values: Tensor, fitted: Tensor, weights: Tensor) -> Tensor:
    """Weighted R^2 by class, (K,), of values and fit (N, K); NaN where the values never change."""
    share = (weights / weights.sum())[:, None]
    residual = (share * (values - fitted) ** 2).sum(dim=0)
    spread = (share * (values - (share * values).sum(dim=0)) ** 2).sum(dim=0)
    constant = values.amax(dim=0) == values.amin(dim=0)
    return (1 - residual / spread).masked_fill(constant, torch.nan)
