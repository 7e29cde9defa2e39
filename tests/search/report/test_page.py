"""The page: whatever labels hold is inert, numbers say where they come from, and nothing is asked of anyone."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from html import unescape
from typing import Any

import pytest

from search.pages.html import environment, render
from search.pages.numbers import written
from search.report.data import ClassScores, Confusion
from search.report.findings import Findings
from search.report.page import at, page
from search.report.script import packed_plotly, script_hash
from search.verdict import judge, words
from tests.search.report.page_reader import PageReader
from tests.search.report.synthetic import CHARTS, EVIL, IMAGE, SCRIPT, decisions, findings, report_data, wrong_images

NUMBER = re.compile(r"(?<![\w.])[-+]?\d[\d.,]*(?![\w])")


@pytest.fixture(scope="module")
def html() -> str:
    return page(report_data(), CHARTS, (b"\x89PNG", b"\x89PNG"))


@pytest.fixture(scope="module")
def reader(html: str) -> PageReader:
    return PageReader(html)


def test_it_is_well_formed_and_loads_nothing(reader: PageReader) -> None:
    assert reader.open == []
    assert reader.loads and all(load.startswith("data:") for load in reader.loads)
    assert all(image["alt"] for image in reader.images)
    assert reader.elements.count("h1") == 1


def test_labels_are_inert(html: str, reader: PageReader) -> None:
    assert reader.handlers == []
    # Its own: plotly (as text), the charts (as JSON) and one script.
    assert reader.elements.count("script") == 3
    assert all(image["src"].startswith("data:image/") for image in reader.images)
    assert SCRIPT not in html and IMAGE not in html
    assert "&lt;img src=x onerror=alert(1)&gt;" in html
    charts = re.search(r'<script type="application/json" id="charts">(.*?)</script>', html, re.DOTALL)
    assert charts is not None
    assert json.loads(charts[1]) == CHARTS
    assert "가로 줄무늬" in html


def test_only_its_own_scripts_may_run(html: str) -> None:
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)
    assert policy is not None
    assert policy[1].startswith("default-src 'none'; script-src 'sha256-")
    script = render("charts.js")
    own = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert script_hash() == f"sha256-{own}"
    assert f"'sha256-{own}'" in policy[1] and f"'{packed_plotly()[1]}'" in policy[1]
    assert "unsafe" not in policy[1].split("script-src")[1].split(";")[0]
    assert f"<script>{script}</script>" in html


def test_json_in_the_page_cannot_end_its_element() -> None:
    values = {"a": f"{SCRIPT}<!-- & \u2028\u2029", "b": [1, None, EVIL[2]]}
    escaped = environment().from_string("{{ values|tojson }}").render(values=values)
    assert not set("<>&\u2028\u2029") & set(escaped)
    assert json.loads(escaped) == values


def test_every_number_is_the_one_in_the_data(reader: PageReader) -> None:
    plain = report_data().to_json()
    assert len(reader.numbers) > 80
    for number in reader.numbers:
        value = at(plain, number.attributes["data-source"])
        assert float(number.attributes["value"]) == value
        assert number.text == written(value, number.attributes.get("data-form", ""))


def test_no_number_stands_outside(reader: PageReader) -> None:
    loose = [(section, text) for section, text in reader.bare if NUMBER.search(text)]
    assert loose == []


def test_a_winner_that_could_not_be_calibrated_says_why() -> None:
    problem = f"7 validation images, at least 20 are needed {IMAGE}"
    text = page(replace(report_data(), decisions=decisions(problem)), CHARTS)
    assert "no decision is promised anything: <bdi data-name>7 validation images" in text
    assert PageReader(text).open == []


@pytest.mark.parametrize("charts", [CHARTS, {}])
def test_without_a_winner_it_says_so(charts: dict[str, Any]) -> None:
    text = page(report_data(winner=False), charts)
    reader = PageReader(text)
    assert reader.open == [] and ("script" in reader.elements) is bool(charts)
    for part in (
        "<h1>No winner yet</h1>", "The search is still running:", "There is no winner to trust yet.",
        "No test images were read.", "No validation image was examined yet.", "No maps were measured.",
        "&lt;img src=x onerror=alert(1)&gt;",
    ):  # fmt: skip
        assert part in text, part


def test_what_stands_out_is_said_in_words(html: str) -> None:
    text = _text(html)
    assert "lies nearer to the border than in right ones" in text
    assert "-0.1000 against the winner. Two standard errors of such a difference are about 0.090: this one" in text


def test_the_verdict_comes_first_and_is_the_one_of_every_command(html: str) -> None:
    verdict = report_data().verdict
    assert verdict is not None
    head = html[html.index("<header>") : html.index('<p class="made">')]
    clauses = [_text(one) for one in re.findall(r"<(?:h1|li)[^>]*>(.*?)</(?:h1|li)>", head, re.DOTALL)]
    assert "; ".join(clauses) + "." == words(verdict)
    assert clauses[0] == "12 of 18 new images right (41 to 87 %)"
    assert head.index("<h1>") < head.index("enough to decide the surest")


def _text(html: str) -> str:
    return unescape(re.sub(r"<[^>]*>", "", html))


def test_wrong_images_stand_before_all_else_and_say_where_a_map_says_nothing(html: str) -> None:
    text = _text(html)
    assert html.index('id="wrong"') < html.index('id="confusion"') < html.index('id="additions"')
    assert html.index('id="suspects"') < html.index('<details class="fold">')
    assert "6 of 18 test images, 2 of them here" not in text, "both that have a picture stand there"
    assert "1 of these maps say nothing" in text
    assert text.count("The map of its own class is nearly the same") == 1
    some = replace(wrong_images(), images=tuple(replace(one, nothing="") for one in wrong_images().images), silent=0)
    assert "say nothing" not in page(replace(report_data(), wrong=some), {})


def test_of_many_classes_the_weakest_stand_before_the_fold() -> None:
    names = tuple(f"c{k}" for k in range(30))
    counts = tuple(tuple(10 if i == j else int(j == (i + 1) % 30) * (i % 3) for j in range(30)) for i in range(30))
    scores = tuple(ClassScores(c, 10 + k % 3, 0.8, 10 / (10 + k % 3), 0.5, 1.0, 0.8) for k, c in enumerate(names))
    html = page(replace(report_data(), confusion=Confusion(names, counts), classes=scores), {})
    before, _, fold = html[html.index('id="confusion"') : html.index('id="additions"')].partition("The other classes")
    shown = [re.findall(r'<th scope="row" class="word"><bdi data-name>(c\d+)<', part) for part in (before, fold)]
    assert len(shown[0]) == 16 and shown[0][:10] == [f"c{k}" for k in range(2, 30, 3)]
    assert set(shown[0]) | set(shown[1]) == set(names) and "Confusion matrix</summary>" in fold
    assert PageReader(html).open == []


def test_a_search_without_test_images_has_the_verdict_of_its_validation_images() -> None:
    data = report_data()
    assert data.findings is not None and data.winner is not None
    verdict = judge(data.findings.classes, data.findings.confusion, kind="validation")
    without = replace(
        data, verdict=verdict, confusion=None, classes=(), wrong=None, winner=replace(data.winner, scores=())
    )
    text = _text(page(without, {}))
    assert "validation images right" in text and "fewer of really new ones will be right" in text
    assert "No test images were read." in text


def test_findings_are_read_as_they_were_written() -> None:
    assert Findings.from_json(findings().to_json()) == findings()
    with pytest.raises(ValueError, match="Field required"):
        Findings.from_json("{}")


def test_json_of_the_data_is_plain_and_without_pictures() -> None:
    plain = report_data().to_json()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    assert "pictures" not in plain["findings"]
    assert plain["findings"]["measures"][1]["entropy"] is None
