"""The end of the page: measures of the maps, cost by phase, how to do it again."""

from __future__ import annotations

from explain.measures import MAP_MEASURES
from search.pages.html import definitions, table, text
from search.report.data import ReportData
from search.report.markup import Numbers, bar, details, name, section

__all__ = ["cost", "measures", "reproduction"]

_COLUMNS = {
    "entropy": "ce_normalised",
    "area": "ca12",
    "dispersion": "cd",
    "relative_difference": "relative_difference",
    "dead": "dead_map_rate",
}


def measures(data: ReportData, numbers: Numbers) -> str:
    """Interpretability measures of the winning configuration's maps by block."""
    title, found = "Maps by block, measured", data.findings
    if found is None or not found.measures:
        return section("measures", title, "<p>No maps were measured.</p>")
    rows = []
    for place, one in enumerate(found.measures):
        at = f"/findings/measures/{place}"
        size = f"{numbers(f'{at}/height')} x {numbers(f'{at}/width')}"
        values = (
            numbers(f"{at}/{key}", ".0%" if key == "dead" else ".3g", metric=f"map_{key}/{one.block}")
            for key in _COLUMNS
        )
        rows.append([name(one.block), size, *values])
    header = ["block", "positions", *(key.replace("_", " ") for key in _COLUMNS)]
    meaning = definitions(
        [
            (key.replace("_", " "), text(f"{MAP_MEASURES[measure].formula}; {MAP_MEASURES[measure].paper}"))
            for key, measure in _COLUMNS.items()
        ]
    )
    return section(
        "measures",
        title,
        f"<p>Means over the {text(found.method)} maps of the predicted class of {numbers('/findings/mapped')} judged "
        f"images. "
        "They depend on the map's resolution: compare a block with itself in another study, not with other blocks.</p>"
        + table(header, rows, caption="measures of the maps by block")
        + details("What they mean", f'<div data-constant="formulas">{meaning}</div>'),
    )


def cost(data: ReportData, numbers: Numbers) -> str:
    """Wall time by phase."""
    longest = max((phase.seconds for phase in data.cost.phases), default=1.0) or 1.0
    rows = []
    for place, phase in enumerate(data.cost.phases):
        at = f"/cost/phases/{place}"
        metric = f"seconds_{phase.name}" if phase.calls == 1 else ""
        rows.append(
            [
                text(phase.name.replace("_", " ")),
                numbers(f"{at}/seconds", ".1f", metric=metric),
                numbers(f"{at}/calls"),
                f'<td class="word">{bar(phase.seconds / longest)}</td>',
            ]
        )
    words = (
        f"<p>All finished trials, one after another: {numbers('/cost/trial_seconds', 'duration')}. "
        f"{numbers('/cost/epochs')} epochs, as much work as {numbers('/cost/epoch_equivalents', '.1f')} epochs of "
        f"training "
        "everything. What writing this page took is known only after it is written.</p>"
    )
    if not rows:
        return section("cost", "Cost by phase", "<p>The phases are logged when a call ends.</p>" + words)
    shown = table(["phase", "seconds", "calls", ""], rows, caption="wall time by phase")
    return section("cost", "Cost by phase", shown + words)


def reproduction(data: ReportData) -> str:
    """Command, versions and digests."""
    again = data.reproduction
    facts = [("Commit", f"<code>{text(again.commit)}</code>")]
    facts += [(f"Digest of {key}", f"<code>{text(value)}</code>") for key, value in again.digests.items()]
    facts += [
        ("MLflow", f"experiment {name(data.experiment)}, parent run <code>{text(data.run_id)}</code>"),
        ("Images", name(data.images)),
        ("Report made", f"<code>{text(data.made)}</code>"),
    ]
    if data.winner is not None:
        model = f"models:/{data.winner.model_name}/{data.winner.version}"
        facts.insert(0, ("Model", f"<code>{text(model)}</code>"))
    versions = [(package, f"<code>{text(value)}</code>") for package, value in again.versions.items()]
    return section(
        "reproduction",
        "How to reproduce",
        "<p>This command asks for the same study. Where the study is, it finds it finished and trains nothing; add "
        "<code>search.fresh=true</code> or another <code>tracking.root</code> to run it again. With one worker it "
        "gives the "
        "same trials on the same machine; with several, the order in which trials end may change what is drawn "
        "next.</p>"
        f'<pre tabindex="0" aria-label="command"><code>{text(again.command)}</code></pre>'
        + definitions(facts)
        + details("Versions", definitions(versions)),
    )
