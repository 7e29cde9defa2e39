"""Sections of a month's page as HTML, one a function: data, champion, depth, comparison, confusion."""

from __future__ import annotations

from search.pages.html import table, text
from search.retrain.month.record import MATRIX_CLASSES, PLACES, Comparison, MonthRecord, confused
from search.retrain.page.depth_figure import depth_figure, depth_title
from search.retrain.page.parts import Figures, Format, drawn, name

__all__ = ["champion_section", "comparison_section", "confusion_section", "data_section", "depth_section"]

_SCALAR_NAMES = {
    "features": "what the champion computes (MMD²)",
    "label_mix": "mix of classes (chi-square)",
    "brightness": "brightness (KS)",
    "contrast": "contrast (KS)",
    "confidence": "the champion's confidence (KS)",
}
_SCORE_NAMES = {"macro_f1": "macro F1", "weighted_f1": "weighted F1"}


def data_section(record: MonthRecord, figures: Figures) -> str:
    """What came, and what changed in it."""
    uses = [[text(use), figures.number(f"month_images/{use}", "count")] for use in record.images]
    parts = [table(["images", "how many"], uses, caption="images of the month by use")] if uses else []
    if record.data_notes:
        parts.append(_list(figures, [f"data_note/{i}" for i in range(len(record.data_notes))]))
    if record.left_out:
        rows = [[name(path), name(reason)] for path, reason in record.left_out]
        parts.append(
            f"<details><summary>{figures.number('month_left_out', 'count')} left out</summary>"
            f"{table(['file', 'reason'], rows, caption='images left out', words=2)}</details>"
        )
    drift = record.drift
    if drift is None:
        return "".join([*parts, "<p>Drift was not measured.</p>"])
    parts.append("<h3>Against the images the champion was tested on</h3>")
    parts.append(_list(figures, [f"drift/{i}" for i in range(len(drift.lines()))]))
    rows = [
        [
            _SCALAR_NAMES[shift.name],
            figures.number(f"drift_{shift.name}_old", "three"),
            figures.number(f"drift_{shift.name}_new", "three"),
            figures.number(f"drift_{shift.name}", "three"),
            figures.number(f"drift_{shift.name}_p", "p"),
        ]
        for shift in drift.shifts
    ]
    header = ["what", "mean before", "mean now", "distance", "p, adjusted"]
    changed = table(header, rows, caption="what changed", marked=[shift.seen for shift in drift.shifts])
    note = '<p class="soft">A dot marks what is more than chance. Drift is noted; it promotes and refuses nothing.</p>'
    old, new = (max(1, sum(pair[which] for pair in drift.counts.values())) for which in (0, 1))
    largest = max((max(a / old, b / new) for a, b in drift.counts.values()), default=1.0) or 1.0
    mix = [
        [
            name(label),
            figures.number(f"class_images_old/{i}", "count"),
            figures.number(f"class_images_new/{i}", "count"),
            f'<div class="mix"><i class="old" style="width: {100 * a / old / largest:.1f}%"></i>'
            f'<i class="new" style="width: {100 * b / new / largest:.1f}%"></i></div>',
        ]
        for i, (label, (a, b)) in enumerate(drift.counts.items())
    ]
    key = '<p class="key"><i class="old"></i>before<i class="new"></i>this month</p>'
    classes = table(["class", "before", "now", "share"], mix, caption="mix of classes")
    left = f"<div><h3>Images</h3>{changed}{note}</div>"
    parts.append(f'<div class="pair">{left}<div><h3>Mix of classes</h3>{key}{classes}</div></div>')
    return "".join(parts)


def champion_section(record: MonthRecord, figures: Figures) -> str:
    """How the champion did on the month."""
    if not record.champion_scores:
        return "<p>The champion was not tested on this month.</p>"
    rows = [
        [_SCORE_NAMES.get(score, text(score.replace("_", " "))), figures.number(f"champion_{score}", "percent"),
         _range(figures, f"champion_{score}")]
        for score in record.champion_scores
    ]  # fmt: skip
    return (
        f"<p>On {figures.number('champion_images', 'count')} images of the month, before anything was retrained.</p>"
        + table(["score", "value", "interval"], rows, caption="the champion's scores on the month")
    )


def depth_section(record: MonthRecord, figures: Figures) -> str:
    """How deep to retrain, and what was tried."""
    parts = []
    if record.depth_setting != "auto":
        parts.append(f"<p>The setting retrain.depth={name(record.depth_setting)} decided; what the rule says:</p>")
    if record.depth is None:
        parts.append("<p>The rule was not asked.</p>")
    else:
        parts.append(f"<p>{figures.sentence('depth_reason')}.</p>")
        alt = f"blocks in a row: how far the maps moved, what can be read from each; {depth_title(record.depth)}"
        parts.append(drawn(depth_figure(record.depth), alt))
        known = {} if record.drift is None else {block.block: block for block in record.drift.blocks}
        rows = [
            [
                name(block),
                figures.number(f"drift_maps/{block}", "three") if block in known else "<span>-</span>",
                figures.number(f"drift_maps_p/{block}", "p") if block in known else "<span>-</span>",
                figures.number(f"depth_probe/{block}", "percent"),
            ]
            for block in record.depth.by_block
        ]
        header = ["block", "maps moved (KS)", "p, adjusted", "read in the new month"]
        moved = [one.moved for one in record.depth.by_block.values()]
        parts.append(f"<details><summary>As a table</summary>{table(header, rows, caption='by block', marked=moved)}"
                     "</details>")  # fmt: skip
    if record.search is not None:
        best = figures.sentence("best_parameters") if record.search.best else ""
        parts.append(
            f"<p>Retrained in {figures.number('search_seconds', 'seconds')}: "
            f"{figures.number('search_trials', 'count')} trials, as much work as "
            f"{figures.number('search_epoch_equivalents', 'three')} epochs of training everything."
            + (f" The best: {best}.</p>" if best else "</p>")
        )
    return "".join(parts)


def comparison_section(record: MonthRecord, figures: Figures) -> str:
    """Both models on the same images, and the rule."""
    if record.newest is None:
        return "<p>There is no challenger to compare.</p>"
    rows = []
    for key, words, _ in _compared(record):
        for score, said in (("accuracy", "accuracy"), ("macro_f1", "macro F1")):
            metric = f"{key}_{score}"
            rows.append(
                [f"{words}, {said}", figures.number(f"{key}_images", "count"),
                 figures.number(f"{metric}_champion", "percent"), figures.number(f"{metric}_challenger", "percent"),
                 figures.number(f"{metric}_difference", "change"), _range(figures, metric, "change")]
            )  # fmt: skip
    header = ["score", "images", "champion", "challenger", "difference, points", "interval"]
    return (
        '<ul class="checks">'
        + "".join(
            f'<li class="{"yes" if held else "no"}">{figures.sentence(f"decision_check/{i}")}</li>'
            for i, (_, held) in enumerate(record.decision.checks)
        )
        + "</ul>"
        + table(header, rows, caption="champion and challenger")
        + f"<p>On the newest images the champion alone is right {figures.number('newest_only_champion', 'count')} "
        f"times, the challenger alone {figures.number('newest_only_challenger', 'count')} times (McNemar's exact test: "
        f"p {figures.number('newest_mcnemar_p', 'p')}). A true difference of "
        f"{figures.number('newest_smallest_detectable', 'points')} points is the smallest that so many images show "
        f"four times in five. Accepted is a loss of at most {figures.number('retrain_margin', 'points')} points, and "
        f"no class that loses more than {figures.number('retrain_guard', 'points')} points of recall beyond chance.</p>"
    )


def confusion_section(record: MonthRecord, figures: Figures) -> str:
    """Confusion before and after on the newest images, and recall by class."""
    if record.newest is None:
        return "<p>There is no challenger to compare.</p>"
    shown = [
        f"<div><h3>{title}</h3>{_confusion(record, figures, who)}</div>"
        for who, title in (("champion", "Before: champion"), ("challenger", "After: challenger"))
    ]
    places = _compared(record)
    rows = []
    for i, label in enumerate(record.classes):
        row = [name(label)]
        for key, _, comparison in places:
            one = comparison.per_class[i]
            challenger = figures.number(f"{key}_class_challenger/{i}", "count")
            tone = "down" if one.challenger < one.champion else "up" if one.challenger > one.champion else "same"
            row += [figures.number(f"{key}_class_images/{i}", "count"),
                    figures.number(f"{key}_class_champion/{i}", "count"),
                    f'<span class="{tone}">{challenger}</span>']  # fmt: skip
        rows.append(row)
    header = ["class", *(word for _, words, _ in places for word in (words, "champion right", "challenger right"))]
    return (
        '<p class="key"><i class="right"></i>right<i class="wrong"></i>confused; rows are true classes, columns '
        "answers, the darker the larger the share of the row</p>"
        f'<div class="pair">{"".join(shown)}</div><h3>By class</h3>'
        + table(header, rows, caption="images right by class")
    )


def _compared(record: MonthRecord) -> list[tuple[str, str, Comparison]]:
    """Where both models were compared: prefix of its metrics, its name, the comparison."""
    words = {"newest": "newest images", "regression": "regression set", "others": "other months"}
    found = ((place, words[place], getattr(record, place)) for place in PLACES)
    return [(place, said, comparison) for place, said, comparison in found if comparison is not None]


def _confusion(record: MonthRecord, figures: Figures, who: str) -> str:
    if record.newest is None:
        raise ValueError("newest must be a comparison, got None")
    cells = [(true, predicted, n) for one, true, predicted, n in confused(record.newest) if one == who]
    metric = f"newest_confusion_{who}"
    if len(record.classes) > MATRIX_CLASSES:
        rows = [
            [name(record.classes[t]), name(record.classes[p]), figures.number(f"{metric}/{t}/{p}", "count")]
            for t, p, _ in cells
        ]
        return table(["true class", "answer", "images"], rows, caption=f"commonest confusions of the {who}", words=2)
    counts = {(true, predicted): n for true, predicted, n in cells}
    labels = [f'<span class="label" data-name title="{text(label)}">{text(label)}</span>' for label in record.classes]
    head = "".join(f'<th scope="col">{label}</th>' for label in labels)
    body = []
    for t, label in enumerate(labels):
        total = max(1, sum(counts.get((t, p), 0) for p in range(len(record.classes))))
        row = "".join(
            f'<td class="{"right" if t == p else "wrong"}" style="--s: {100 * counts[t, p] / total:.0f}%">'
            f"{figures.number(f'{metric}/{t}/{p}', 'count')}</td>"
            if (t, p) in counts
            else "<td></td>"
            for p in range(len(record.classes))
        )
        body.append(f'<tr><th scope="row">{label}</th>{row}</tr>')
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="confusion matrix of the {who}">'
        f'<table class="matrix"><thead><tr><td></td>{head}</tr></thead><tbody>{"".join(body)}</tbody></table></div>'
    )


def _list(figures: Figures, tags: list[str]) -> str:
    return f'<ul class="said">{"".join(f"<li>{figures.sentence(tag)}</li>" for tag in tags)}</ul>'


def _range(figures: Figures, metric: str, shown: Format = "percent") -> str:
    return figures.interval(metric, shown) or "<span>-</span>"
