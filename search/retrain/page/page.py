"""The page of one month, for the plant: one file that opens anywhere, asks nothing of any network, runs no script.
What it says is in `templates/month.html`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_modules.whole_file import whole_file
from search.pages.dark_figure import darken
from search.pages.html import Picture, drawing, picture, render
from search.pages.original_picture import original_overlay
from search.retrain.month.record import MATRIX_CLASSES, PLACES, DepthDecision, MonthRecord, PictureFacts, confused
from search.retrain.page.depth_figure import depth_figure, depth_title
from search.retrain.page.pictures import PagePicture

__all__ = ["month_page", "write_page"]

_VERDICTS = {
    "promoted": "The challenger is the new champion",
    "kept": "The champion stays",
    "not needed": "The champion stays: nothing was retrained",
    "refused": "The month was refused; the champion stays",
}
_COMPARED = {"newest": "new images", "regression": "regression set", "others": "other months"}
_SIDE = 280  # pixels of a picture's longer side: a page of many stays light


def write_page(record: Mapping[str, Any], pictures: Mapping[str, PagePicture], path: Path) -> None:
    """Write the page of a month, in one step: it is complete or not there.

    Args:
        pictures: path of an image, as in the record -> pixels and maps; an image without them is shown in words.
    """
    page = month_page(MonthRecord.from_json(record), pictures)
    with whole_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def month_page(record: MonthRecord, pictures: Mapping[str, PagePicture]) -> str:
    """The page as HTML."""
    compared = [(place, _COMPARED[place], getattr(record, place)) for place in PLACES]
    depth = record.depth
    return render(
        "month.html",
        record=record,
        metrics=record.metrics(),
        tags=record.tags(),
        verdict=_VERDICTS[record.outcome],
        mix=_mix(record),
        depth=None if depth is None else _drawn(depth),
        map_block=next((shown.block for shown in pictures.values() if shown.block), ""),
        depth_title=None if depth is None else depth_title(depth),
        drifted=() if record.drift is None else [block.block for block in record.drift.blocks],
        compared=[one for one in compared if one[2] is not None],
        whole_matrix=len(record.classes) <= MATRIX_CLASSES,
        confusions=_confusions(record),
        pictures=_shown(record.pictures, pictures),
        suspects=_shown(record.suspects, pictures),
    )


def _drawn(depth: DepthDecision) -> tuple[Picture, Picture]:
    """The figure of the decision on light and on dark ground."""
    figure = depth_figure(depth)
    light = drawing(figure, 120)
    darken(figure)
    return light, drawing(figure, 120)


def _mix(record: MonthRecord) -> dict[str, tuple[float, float]]:
    """Class -> its share of the images before and now, in percent of the largest."""
    if record.drift is None:
        return {}
    counts = record.drift.counts
    old, new = (max(1, sum(pair[which] for pair in counts.values())) for which in (0, 1))
    largest = max((max(a / old, b / new) for a, b in counts.values()), default=1.0) or 1.0
    return {label: (100 * a / old / largest, 100 * b / new / largest) for label, (a, b) in counts.items()}


def _confusions(record: MonthRecord) -> dict[str, dict[tuple[int, int], str]]:
    """Model -> (true, predicted class) -> share of the row, in percent."""
    found: dict[str, dict[tuple[int, int], int]] = {"champion": {}, "challenger": {}}
    for who, true, predicted, count in () if record.newest is None else confused(record.newest):
        found[who][true, predicted] = count
    return {
        who: {
            (true, predicted): f"{100 * count / sum(n for (t, _), n in cells.items() if t == true):.0f}"
            for (true, predicted), count in cells.items()
        }
        for who, cells in found.items()
    }


def _shown(
    chosen: Sequence[PictureFacts], pictures: Mapping[str, PagePicture]
) -> list[tuple[PictureFacts, list[dict[str, Any]]]]:
    """What is known of each image, and its panels; none where the image could not be read again."""
    return [(facts, list(_panels(facts, pictures[facts.path])) if facts.path in pictures else []) for facts in chosen]


def _panels(facts: PictureFacts, shown: PagePicture) -> Iterator[dict[str, Any]]:
    yield {
        "picture": picture(shown.original.shown(_SIDE)),
        "alt": f"{facts.path}: labelled {facts.truth}",
        "what": "",
        "dead": False,
    }
    models = {"champion": (facts.champion, shown.champion), "challenger": (facts.challenger, shown.challenger)}
    for role, (answer, values) in models.items():
        if answer is not None and values is not None:
            yield {
                "picture": picture(original_overlay(shown.original, values, _SIDE)),
                "alt": f"where the {role} looks for {answer[0]} at block {shown.block}, over {facts.path}",
                "what": role,
                "dead": not float(values.max()) > 0,
            }
