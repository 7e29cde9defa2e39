"""The page of one month, for the plant: one file that opens anywhere, asks nothing of any network, runs no script."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search.pages.html import text
from search.retrain.month.record import MonthRecord
from search.retrain.page.parts import Figures, name
from search.retrain.page.pictures import PagePicture
from search.retrain.page.sections import (
    champion_section,
    comparison_section,
    confusion_section,
    data_section,
    depth_section,
)
from search.retrain.page.shown_pictures import picture_article, scale_bar
from search.retrain.page.style import MONTH_STYLE

__all__ = ["month_page", "write_page"]

_VERDICTS = {
    "promoted": "The challenger is the new champion",
    "kept": "The champion stays",
    "not needed": "The champion stays: nothing was retrained",
    "refused": "The month was refused; the champion stays",
}


def write_page(record: Mapping[str, Any], pictures: Mapping[str, PagePicture], path: Path) -> None:
    """Write the page of a month, in one step: it is complete or not there.

    Args:
        record: of `MonthRecord.to_json`.
        pictures: path of an image, as in the record -> pixels and maps; an image without them is shown in words.
        path: of the HTML file.
    """
    page = month_page(MonthRecord.from_json(record), pictures)
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        partial.write_text(page, encoding="utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def month_page(record: MonthRecord, pictures: Mapping[str, PagePicture]) -> str:
    """The page as HTML. Every number names its metric (`data-metric`), every sentence with numbers its tag
    (`data-tag`); names that may hold digits are marked `data-name`, fixed words `data-static`."""
    figures = Figures(record.metrics(), record.tags())
    sections = [
        ("data", "What changed in the data", data_section(record, figures)),
        ("champion", "What the champion did", champion_section(record, figures)),
        ("depth", "How deep to retrain", depth_section(record, figures)),
        ("comparison", "Champion against challenger", comparison_section(record, figures)),
        ("confusion", "Confusion before and after", confusion_section(record, figures)),
        ("images", "The most informative images", _images(record, figures, pictures)),
        ("suspects", "Labels to look at again", _suspects(record, figures, pictures)),
        ("reading", "How to read it", _READING),
    ]
    title = f"{record.model_name}, {record.month}"
    links = "".join(f'<li><a href="#{link}">{words}</a></li>' for link, words, _ in sections)
    body = "".join(f'<section id="{link}"><h2>{words}</h2>{html}</section>\n' for link, words, html in sections)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n<title>{text(title)}</title>\n<style>{MONTH_STYLE}</style>\n</head>\n'
        f"<body>\n<header>\n<h1>{name(title)}</h1>\n{_verdict(record, figures)}\n{_tiles(record, figures)}\n"
        f"{_facts(record, figures)}\n"
        f'<nav aria-label="Contents"><ul>{links}</ul></nav>\n</header>\n<main>\n{body}</main>\n'
        f'<footer class="soft"><p>Made {name(record.made)} by <code>{name(record.command)}</code></p></footer>\n'
        "</body>\n</html>\n"
    )


def _verdict(record: MonthRecord, figures: Figures) -> str:
    cautions = "".join(f"<p>{figures.sentence(f'caution/{i}')}</p>" for i in range(len(record.cautions)))
    return (
        f'<div class="verdict {record.outcome.replace(" ", "-")}"><strong>{_VERDICTS[record.outcome]}</strong>'
        f"<p>{figures.sentence('decision')}</p>{cautions}</div>"
    )


def _tiles(record: MonthRecord, figures: Figures) -> str:
    """The four numbers that matter most, of those that are known."""
    tiles = []
    if record.newest is not None:
        tiles += [
            ("newest_accuracy_champion", "percent", "champion, newest images"),
            ("newest_accuracy_challenger", "percent", "challenger, newest images"),
            ("newest_accuracy_difference", "change", "points gained"),
            ("newest_smallest_detectable", "points", "points: smallest difference so many images show"),
        ]
    elif record.champion_scores:
        tiles += [(f"champion_{key}", "percent", f"champion, {words}")
                  for key, words in (("accuracy", "accuracy"), ("macro_f1", "macro F1"))
                  if key in record.champion_scores]  # fmt: skip
    shown = "".join(
        f'<div class="tile"><b>{figures.number(metric, kind)}</b><span>{words}</span></div>'  # type: ignore[arg-type]
        for metric, kind, words in tiles
    )
    return f'<div class="tiles">{shown}</div>' if shown else ""


def _facts(record: MonthRecord, figures: Figures) -> str:
    facts = {"Champion": record.champion, "Challenger": record.challenger}
    rows = [(role, figures.sentence(f"{role.lower()}_model")) for role, model in facts.items() if model is not None]
    rows.append(("MLflow run", name(record.run_id)))
    return "<dl>" + "".join(f"<dt>{role}</dt><dd>{words}</dd>" for role, words in rows) + "</dl>"


def _images(record: MonthRecord, figures: Figures, pictures: Mapping[str, PagePicture]) -> str:
    if not record.pictures:
        return "<p>None were chosen.</p>"
    shown = [
        picture_article(figures, "picture", number, facts, pictures.get(facts.path))
        for number, facts in enumerate(record.pictures, start=1)
    ]
    return (
        "<p>Of images that neither model was trained on: where champion and challenger disagree, then where both are "
        "wrong, then where the answer hangs by a hair. "
        f"Maps show where a model looks for its own answer.</p>{scale_bar()}{''.join(shown)}"
    )


def _suspects(record: MonthRecord, figures: Figures, pictures: Mapping[str, PagePicture]) -> str:
    if not record.suspects_rule:
        return "<p>Labels were not checked.</p>"
    rule = f"<p data-static>{text(record.suspects_rule)}</p>"
    if not record.suspects:
        return f"{rule}<p>None were found.</p>"
    return rule + "".join(
        picture_article(figures, "suspect", number, facts, pictures.get(facts.path))
        for number, facts in enumerate(record.suspects, start=1)
    )


_READING = (
    "<div data-static><p>Intervals are 95 % intervals: of the champion's accuracy exact (Clopper-Pearson), of "
    "differences of accuracy Tango's for paired answers, of F1 by bootstrap. Champion and challenger answer the same "
    "images, which neither was trained on.</p><p>The challenger is promoted where it has more of the newest images "
    "right, the interval of the difference lies above the accepted loss, neither the regression set (the first "
    "champion's test images) nor the held-out images of other months are forgotten, and no class collapses. As it is "
    "set by default, with a hundred images, that promotes a challenger that is 5 points better about four times in "
    "five, an equal one three times in ten, and one that is 5 points worse one time in fifty.</p>"
    "<p>KS is the largest distance between two distributions, from 0 to 1; MMD² compares what the champion computes of "
    "old and new images; p-values are from drawing anew which images are new, whole plates, coils or lots at a time, "
    "and adjusted for how many were looked at.</p><p>A map shows where a block's activations raise the model's own "
    "answer (LayerCAM), scaled to its own maximum; the white line marks half of it. A map that looks right is not yet "
    "faithful.</p></div>"
)
