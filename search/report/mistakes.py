"""What goes wrong: the confusion matrix, the most confused pairs with their maps, what to add, doubtful labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from search.pages.html import table, text
from search.report.data import ReportData
from search.report.false_associations import FEWEST_CORRECT, FEWEST_MISTAKEN, TRAITS
from search.report.findings import ConfusedPair, Findings, Trait
from search.report.markup import Numbers, details, name, section

__all__ = ["additions", "confusion", "suspects"]

_SIGNIFICANT = 0.05
_NAMED = 3  # pairs in the line above the matrix


def confusion(data: ReportData, numbers: Numbers) -> str:
    """The confusion matrix of the test images, and scores by class."""
    title = "Confusion on test images"
    if data.confusion is None:
        return section("confusion", title, "<p>No test images were read.</p>")
    classes, counts = data.confusion.classes, data.confusion.counts
    rows = []
    for i, (label, row) in enumerate(zip(classes, counts, strict=True)):
        total = max(sum(row), 1)
        cells = []
        for j, count in enumerate(row):
            number = numbers(f"/confusion/counts/{i}/{j}")
            if not count:
                cells.append(f'<td class="zero">{number}</td>')
                continue
            kind = "hit" if i == j else "miss"
            cells.append(f'<td class="{kind}" style="--heat:{100 * count / total:.0f}%">{number}</td>')
        rows.append([name(label), *cells])
    matrix = table(["true class", *(name(c) for c in classes)], rows, caption="confusion matrix", kind="heat confusion")
    scores = []
    for place, one in enumerate(data.classes):
        at = f"/classes/{place}"
        low, high = numbers(f"{at}/recall_low", ".2f"), numbers(f"{at}/recall_high", ".2f")
        between = f"<small>{low} to {high}</small>" if one.recall_low is not None else ""
        scores.append(
            [
                name(one.name),
                numbers(f"{at}/images"),
                numbers(f"{at}/recall", ".2f") + between,
                numbers(f"{at}/precision", ".2f"),
                numbers(f"{at}/f1", ".2f"),
            ]
        )
    by_class = table(["class", "images", "recall", "precision", "F1"], scores, caption="test scores by class")
    return section(
        "confusion",
        title,
        "<p>The winner, on the test images. Rows are true classes, columns what they were taken for; the colour is the "
        "share of the row.</p>"
        + _most_confused(counts, classes, numbers)
        + matrix
        + details("Scores by class", by_class),
    )


def additions(data: ReportData, numbers: Numbers, pictures: Mapping[str, str]) -> str:
    """For each confused pair: images to collect, and the false association to break."""
    title = "What to add"
    found = data.findings
    if found is None:
        return section("additions", title, "<p>No validation image was examined yet.</p>")
    if not found.pairs:
        return section("additions", title, "<p>Every judged validation image is right: there is no pair to part.</p>")
    shown, all_ = numbers("/findings/pairs_shown"), numbers("/findings/pairs_found")
    words = (
        f"<p>Pairs of classes that are confused on validation images: {all_} of them, the {shown} most frequent here. "
        '<b class="plus">(+)</b> images to collect more of: mistaken ones, and right ones that came nearest to the '
        "same "
        'mistake. <b class="minus">(-)</b> associations to break: where the network sees evidence for the wrong class, '
        "and the image it learned that from, or one much like it.</p>"
    )
    articles = "".join(_pair(place, pair, numbers, pictures) for place, pair in enumerate(found.pairs))
    how = details("How this was found, and what it cannot find", _method(found))
    return section("additions", title, f'{words}<div class="pairs">{articles}</div>{how}')


def _pair(place: int, pair: ConfusedPair, numbers: Numbers, pictures: Mapping[str, str]) -> str:
    at = f"/findings/pairs/{place}"
    true, wrong = name(pair.true), name(pair.predicted)
    parts = [
        f"<article><h3>{true} taken for {wrong}</h3>"
        f"<p>{numbers(f'{at}/count')} of {numbers(f'{at}/images')} judged images of {true}; "
        f"{numbers(f'{at}/runners_up')} more are right with {wrong} second. Training images: "
        f"{numbers(f'{at}/training_true')} of {true}, {numbers(f'{at}/training_predicted')} of {wrong}.</p>\n"
    ]
    parts.append(f'<h4><b class="minus">(-)</b> {_association(pair)}</h4>\n')
    for n, one in enumerate(pair.mistakes):
        here = f"{at}/mistakes/{n}"
        caption = (
            f"{name(one.path)}<br>{wrong} {numbers(f'{here}/probability', '.2f')}, "
            f"{true} {numbers(f'{here}/true_probability', '.2f')}"
        )
        panels = [_panel(pictures, one.image, f"{one.path}: is {pair.true}, taken for {pair.predicted}", caption)]
        if one.predicted_map:
            panels.append(
                _panel(pictures, one.predicted_map, f"map of {pair.predicted} over {one.path}", f"evidence for {wrong}")
            )
            panels.append(_panel(pictures, one.true_map, f"map of {pair.true} over {one.path}", f"evidence for {true}"))
        if one.resembling_map:
            like = f"most alike in {wrong}: {name(one.resembles)}<br>cosine {numbers(f'{here}/similarity', '.2f')}"
            panels.append(_panel(pictures, one.resembling_map, f"map of {pair.predicted} over {one.resembles}", like))
        parts.append(f'<div class="panels">{"".join(panels)}</div>\n')
    if pair.traits:
        parts.append(details("Where the evidence lies, in numbers", _traits(at, pair, numbers)))
    if pair.near:
        more = f"More images of {true} like those above, and like these, which are right by a little"
        parts.append(f'<h4><b class="plus">(+)</b> {more}</h4>\n')
        panels = []
        for n, near in enumerate(pair.near):
            caption = f"{name(near.path)}<br>ahead by {numbers(f'{at}/near/{n}/margin', '.2f')}"
            panels.append(_panel(pictures, near.image, f"{near.path}: {pair.true}, right by a small margin", caption))
            if near.other_map:
                alt = f"map of {pair.predicted} over {near.path}"
                panels.append(_panel(pictures, near.other_map, alt, f"evidence for {wrong}"))
        parts.append(f'<div class="panels">{"".join(panels)}</div>\n')
    else:
        parts.append(f'<h4><b class="plus">(+)</b> More images of {true} like those above</h4>\n')
    return "".join([*parts, "</article>\n"])


def _association(pair: ConfusedPair) -> str:
    """The false association in words, where one stands out."""
    if not pair.traits:
        return f"What was taken for {name(pair.predicted)}; too few images to say what they share"
    strong = [t for t in pair.traits if t.p_value < _SIGNIFICANT]
    if not strong:
        return (
            f"What was taken for {name(pair.predicted)}; its place, brightness, texture and extent are nothing special"
        )
    words = " and ".join(_said(trait) for trait in strong[:2])
    return (
        f"In mistaken images the evidence for {name(pair.predicted)} lies {words} than in right ones: collect images "
        f"of "
        f"{name(pair.true)} that look so, and images of {name(pair.predicted)} that do not"
    )


def _said(trait: Trait) -> str:
    return TRAITS[trait.name][int(trait.mistaken > trait.correct)]


def _traits(at: str, pair: ConfusedPair, numbers: Numbers) -> str:
    rows = [
        [
            text(one.name),
            numbers(f"{at}/traits/{n}/mistaken", ".3f"),
            numbers(f"{at}/traits/{n}/correct", ".3f"),
            numbers(f"{at}/traits/{n}/difference", "+.2f"),
            numbers(f"{at}/traits/{n}/p_value", ".3f"),
        ]
        for n, one in enumerate(pair.traits)
    ]
    header = ["of the map", "mistaken", "right", "difference in standard deviations", "p (Holm)"]
    return (
        f"<p>Map of {name(pair.predicted)} in {numbers(f'{at}/compared/0')} mistaken and {numbers(f'{at}/compared/1')} "
        f"right images of {name(pair.true)}.</p>" + table(header, rows, caption="where the evidence lies")
    )


def _method(found: Findings) -> str:
    return (
        f"<p>Of both mistaken and right images of a class the {text(found.method)} map of the <em>wrong</em> class "
        f"at block "
        f"{name(found.block or 'none')} is looked at. Six numbers of each map (centre of mass, share near the border, "
        "brightness and texture under it, extent) are compared by a permutation test, corrected by Holm; a "
        "comparison needs "
        f"<span data-constant>{FEWEST_MISTAKEN}</span> mistaken and <span data-constant>{FEWEST_CORRECT}</span> "
        f"right images. "
        "The picture beside is the right image of the other class whose features, averaged under its own map, have the "
        "largest cosine with those under this one. This finds associations with place, brightness, texture and "
        "extent. One "
        "with a shape shows in the pictures alone; one that is spread over the whole image does not show. A map marks "
        "what raised the score, which is not always what causes the mistake, and a block's map has few positions. "
        "With few images, an association that is there is easily missed.</p>"
    )


def suspects(data: ReportData, numbers: Numbers, pictures: Mapping[str, str]) -> str:
    """Labels to look at again."""
    title, found = "Suspect labels", data.findings
    if found is None:
        return section("suspects", title, "<p>No validation image was examined yet.</p>")
    judged = numbers("/findings/judged")
    if not found.suspects:
        return section("suspects", title, f"<p>None among {judged} judged images.</p>")
    panels = []
    for n, one in enumerate(found.suspects):
        at = f"/findings/suspects/{n}"
        caption = (
            f"{name(one.path)}<br>labelled <b>{name(one.given)}</b> {numbers(f'{at}/given_probability', '.2f')}<br>"
            f"rather <b>{name(one.suggested)}</b> {numbers(f'{at}/confidence', '.2f')}"
        )
        alt = f"{one.path}: labelled {one.given}, taken for {one.suggested}"
        panels.append(_panel(pictures, one.image, alt, caption))
    words = (
        f"<p>{numbers('/findings/suspects_found')} of {judged} judged images, {numbers('/findings/suspects_shown')} "
        f"shown. "
        "The network, which has not seen them, gives another class at least the probability that it gives that class "
        "on "
        "average where it is the label, and their own label less than that (confident learning). Where the network "
        "is weak, "
        "most of these are its own mistakes: a list to look through, not a verdict.</p>"
    )
    return section("suspects", title, words + f'<div class="panels">{"".join(panels)}</div>')


def _panel(pictures: Mapping[str, str], key: str, alt: str, caption: str) -> str:
    if key not in pictures:
        return f"<figure><figcaption>{caption}</figcaption></figure>"
    return (
        f'<figure><img src="data:image/jpeg;base64,{pictures[key]}" alt="{text(alt)}">'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _most_confused(counts: Sequence[Sequence[int]], classes: Sequence[str], numbers: Numbers) -> str:
    """The largest counts beside the diagonal, in words."""
    found = [(i, j) for i, row in enumerate(counts) for j, count in enumerate(row) if i != j and count]
    largest = sorted(found, key=lambda pair: (-counts[pair[0]][pair[1]], pair))[:_NAMED]
    if not largest:
        return "<p>Not one is taken for another.</p>"
    pairs = [f"{name(classes[i])} for {name(classes[j])} ({numbers(f'/confusion/counts/{i}/{j}')})" for i, j in largest]
    return f"<p>Most often taken for another: {'; '.join(pairs)}.</p>"
