"""The head of the page: what won, how well, at what cost, and how far to trust it."""

from __future__ import annotations

from search.pages.html import definitions, text
from search.report.data import ReportData
from search.report.markup import Numbers, name, section
from search.words import spoken

__all__ = ["headline", "trust"]


def headline(data: ReportData, numbers: Numbers) -> str:
    """Name, verdict and key figures."""
    parts = [
        f'<p class="over">Search report</p><h1>{name(data.study)}</h1>\n',
        f'<p class="verdict">{_verdict(data, numbers)}</p>\n',
    ]
    parts.append(f'<div class="cards">{_cards(data, numbers)}</div>\n')
    if data.notes:
        parts.append('<ul class="notes">' + "".join(f"<li>{name(note)}</li>" for note in data.notes) + "</ul>\n")
    return "".join(parts)


def _verdict(data: ReportData, numbers: Numbers) -> str:
    finished = f"{numbers('/finished')} of {numbers('/asked', param='search.trials')} trials finished"
    state = {
        "running": f"The search is still running: {finished}, {numbers('/unfinished')} under way or waiting. ",
        "interrupted": f"The search was interrupted: {finished}. The same command continues it. ",
    }.get(data.state, "")
    winner = data.winner
    if winner is None:
        return f"<b>No winner yet.</b> {state}"
    optimizer, run = name(winner.optimizer), _run(data, winner.slot)
    rate = numbers("/winner/learning_rate", ".3g", param="learning_rate", run=run)
    depth = numbers("/winner/freeze_depth", param="freeze_depth", run=run)
    blocks = numbers("/block_count") if data.blocks else ""
    if data.blocks and winner.freeze_depth == len(data.blocks):
        what = f"Freeze all {blocks} blocks and train the head alone"
    elif winner.freeze_depth == 0:
        what = "Freeze nothing"
    elif winner.freeze_depth == 1:
        what = f"Freeze the first of {blocks} blocks" if data.blocks else "Freeze the first block"
    else:
        what = f"Freeze the first {depth}{f' of {blocks}' if blocks else ''} blocks"
    trained = "." if data.blocks and winner.freeze_depth == len(data.blocks) else "; the rest is trained."
    stale = "" if data.state == "complete" else f" {state}The winner below is that of an earlier call."
    return (
        f"<b>{what}</b> (freeze depth {depth}) of {name(data.network)} and train with <b>{optimizer}</b> at learning "
        f"rate "
        f"<b>{rate}</b>{trained}{stale}"
    )


def _cards(data: ReportData, numbers: Numbers) -> str:
    cards = []
    if data.winner is not None:
        for place, score in enumerate(data.winner.scores):
            if score.name not in ("accuracy", "macro_f1"):
                continue
            at, metric = f"/winner/scores/{place}", f"test_{score.name}"
            interval = "no error to resample: interval unknown"
            if score.low is not None:
                low = numbers(f"{at}/low", ".3f", metric=f"{metric}_low")
                high = numbers(f"{at}/high", ".3f", metric=f"{metric}_high")
                interval = f"{low} to {high} <span data-constant>(95 %)</span>"
            value = numbers(f"{at}/value", ".3f", metric=metric)
            cards.append(_card(f"Test {spoken(score.name)}", value, interval))
        if not data.winner.scores:
            cards.append(_card("Test scores", "none", "there are no test images"))
        value = numbers("/winner/value", ".3f", metric="best_value")
        cards.append(_card(f"Validation {spoken(data.metric)}", value, "what the search chose by"))
    else:
        best = max(data.trials, key=lambda t: t.value, default=None)
        if best is not None:
            at = f"/trials/{data.trials.index(best)}/value"
            value = numbers(at, ".3f", metric="value", run=best.run_id)
            cards.append(
                _card(f"Best validation {spoken(data.metric)} so far", value, f"of {name(best.outcome)} trials")
            )
    full = numbers("/cost/epoch_equivalents", ".1f")
    epochs = f"{numbers('/cost/epochs')} epochs, as much as {full} epochs of training everything"
    trials = f"{numbers('/finished')} trials, {epochs}"
    seconds = "/cost/seconds" if data.cost.phases else "/cost/trial_seconds"
    cards.append(_card("Cost", numbers(seconds, "duration"), trials))
    return "".join(cards)


def _card(title: str, value: str, below: str) -> str:
    shown = f'<h2 class="small">{text(title)}</h2><p class="big">{value}</p><p class="soft">{below}</p>'
    return f'<div class="card">{shown}</div>'


def trust(data: ReportData, numbers: Numbers) -> str:
    """What speaks for and against believing the headline."""
    facts: list[tuple[str, str]] = []
    winner, rival = data.winner, data.rival
    if winner is None:
        return section("trust", "How far to trust it", "<p>There is no winner to trust yet.</p>")
    if winner.scores:
        reads = numbers("/winner/test_reads")
        once = "They were read once, by the winner, after everything had been chosen."
        if winner.test_reads > 1:
            once = (
                f"They were read {reads} times: the study went on after a winner had been tested, and each further "
                "reading makes the score a little less honest."
            )
        facts.append(("Test images", f"{numbers('/winner/tested')}. {once}"))
    again = "training and validation images together" if winner.refit else "training images"
    facts.append(
        (
            "What was tested",
            f"A network with the winning trial's parameters, trained for {numbers('/winner/epochs')} "
            f"epoch{'' if winner.epochs == 1 else 's'} on "
            f"{numbers('/winner/trained')} {again}.",
        )
    )
    if rival is not None:
        facts.append(("Another depth", _rival(data, numbers)))
    facts.append(
        (
            "Selection",
            f"The validation score is the best of {numbers('/finished')} trials on the same images, so it is "
            f"optimistic; "
            "the test score is not.",
        )
    )
    if data.findings is not None:
        facts.append(("Examined network", _examined(data, numbers)))
    return section("trust", "How far to trust it", definitions(facts))


def _rival(data: ReportData, numbers: Numbers) -> str:
    rival = data.rival
    if rival is None:
        raise ValueError("there is no rival")
    value = numbers("/rival/value", ".3f", metric="value", run=_run(data, rival.slot))
    against = numbers("/rival/difference", "+.4f")
    early = ", although it was stopped early" if rival.stopped else ""
    words = (
        f"The best trial at another freeze depth ({numbers('/rival/freeze_depth')}, trial {numbers('/rival/slot')}) "
        f"reached {value}{early}: {against} against the winner. "
    )
    if rival.noise is not None:
        within = rival.difference >= -rival.noise
        words += f"Two standard errors of such a difference are about {numbers('/rival/noise', '.3f')}: " + (
            "this search does not tell the two depths apart." if within else "this one is more than noise."
        )
    return words


def _examined(data: ReportData, numbers: Numbers) -> str:
    found = data.findings
    if found is None:
        raise ValueError("there are no findings")
    score = numbers("/findings/score", ".3f")
    same = "exactly what the trial had reported"
    if abs(found.score - found.trial_score) > 1e-9:
        same = f"where the trial had reported {numbers('/findings/trial_score', '.3f')}"
    winner = (
        " The winner itself has seen those images."
        if data.winner is not None and data.winner.refit
        else " It is the winner."
    )
    return (
        "Mistakes, maps and doubtful labels below come from the winning trial's network, trained on the "
        f"{numbers('/findings/training_images')} training images alone, and judged on "
        f"{numbers('/findings/judged')} validation images it has not seen. It scored {score} there, {same}.{winner}"
    )


def _run(data: ReportData, slot: int) -> str:
    return next((t.run_id for t in data.trials if t.slot == slot), "")
