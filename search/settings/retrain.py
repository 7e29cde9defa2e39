"""Settings of `python -m search.retrain`: which months, how deep, what budget, and when a challenger is promoted."""

from __future__ import annotations

from dataclasses import dataclass

from search.settings.field import setting

__all__ = ["RetrainSettings"]


@dataclass(frozen=True)
class RetrainSettings:
    """How a month's data is used to test and renew the champion."""

    start_months: int | None = setting(
        None,
        "oldest months that the first champion is searched on, where there is none yet; null is all but the newest",
        unit="months",
        low=1,
        high=1200,
        identity=False,
    )
    depth: str = setting(
        "auto",
        "how deep to retrain: none (only look), head, K (freeze the first K blocks, a neighbour on each side is tried "
        "too), search (the full search from the pre-trained network), or auto: accuracies on old and new images decide "
        "whether, the champion's maps and probes from which block",
        identity=False,
    )
    new_class: str = setting(
        "refuse",
        "what happens to a month with a class that the champion does not know: refuse leaves the month out, extend "
        "gives the head a further output and keeps the others",
        choices=("refuse", "extend"),
        identity=False,
    )
    constant_share: float = setting(
        0.5,
        "share of images without contrast (black, white, one grey) from which a month is refused: a broken camera",
        above=0,
        high=1,
        identity=False,
    )
    trials: int = setting(
        6, "finished trials of a month's search, the champion's parameters first", low=1, high=100_000, identity=False
    )
    epochs: int = setting(
        5, "epochs of a full trial of a month's search", unit="epochs", low=1, high=10_000, identity=False
    )
    lr_range: float = setting(
        3.0,
        "learning-rate factors from the champion's divided by this to the champion's times this are searched",
        low=1,
        high=1000,
        identity=False,
    )
    window: str = setting(
        "all", "months that are trained on: all, or last-N (the newest N), as in last-3", identity=False
    )
    replay: int = setting(
        20,
        "images of each class from months before the window that are trained on too, so that old defects are not "
        "forgotten (window=last-N only)",
        unit="images",
        low=0,
        high=1_000_000,
        identity=False,
    )
    test_fraction: float = setting(
        0.4,
        "share of a new month's images held out for comparing champion and challenger; no model ever trains on them",
        above=0,
        high=0.9,
        identity=False,
    )
    regression_fraction: float = setting(
        0.2,
        "share of the first champion's months held out as the regression set; no model ever trains on it",
        above=0,
        high=0.9,
        identity=False,
    )
    regression: str = setting(
        "complete",
        "complete retrains only with the whole regression set; shrink goes on with the images of it that are left, and "
        "the month's page says so",
        choices=("complete", "shrink"),
        identity=False,
    )
    pool_months: int = setting(
        3,
        "held-out images of up to so many of the newest months are pooled where the newest alone has fewer than "
        "retrain.pool_images",
        unit="months",
        low=1,
        high=120,
        identity=False,
    )
    pool_images: int = setting(
        100, "held-out images below which months are pooled", unit="images", low=1, high=1_000_000, identity=False
    )
    margin: float = setting(
        0.05,
        "accuracy the challenger may lose on the newest images at the lower end of the 95 % interval, and on the "
        "regression set as observed",
        above=0,
        high=0.5,
        identity=False,
    )
    guard: float = setting(
        0.3, "recall that no class may lose, beyond what chance explains", above=0, high=1, identity=False
    )
