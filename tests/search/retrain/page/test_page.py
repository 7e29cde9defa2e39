"""The page of a month: every number is a metric of its run, names are inert, and a browser shows it whole."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch

from lightning_modules.decisions.conformal import CalibrationScores
from lightning_modules.decisions.reference_images import ReferenceImages
from lightning_modules.decisions.temperature import log_probabilities
from lightning_modules.networks import backbones
from lightning_modules.networks.model_file import ModelCard, TrainedModel
from search.pages.original_picture import Original
from search.retrain.month.comparison import compare, decide
from search.retrain.month.decisions import MonthDecisions, measure_decisions
from search.retrain.month.depth_decision import decide as decide_depth
from search.retrain.month.drift import compare_drift
from search.retrain.month.record import ModelFacts, MonthRecord, SearchFacts
from search.retrain.page.page import month_page, write_page
from search.retrain.page.pictures import SUSPECTS_RULE, PagePicture, informative, picture_facts, suspect
from tests.headless_browser import OVERFLOWING, Browser, opened_browser
from tests.search.retrain.made_up import made_up, two_models

EVIL = '<script>alert("x")</script> & 섬 2'
CLASSES = (EVIL, "pipe", "a-name-without-any-space-" * 4, *(f"class {k}" for k in range(8)))
PATHS = [f"2020-02/{'deep/' * 12}{EVIL}_{k}.png" for k in range(120)]
VOID = {"meta", "link", "img", "br", "source"}


def month_decisions(sharper: float) -> MonthDecisions:
    """Of a champion that promises what it keeps on its calibration images; the month's answers are so much surer."""
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 2, (200, 2))
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(1)
    net = backbones.build("lenet5", classes=2, size=(32, 32), weights="none")
    card = ModelCard("lenet5", ("b", "d"), (32, 32), "pad", 255, 100, 0, {}, temperature=1.0)
    scores = CalibrationScores.of(log_probabilities(logits[:100]), labels[:100], np.arange(100))
    corners = np.repeat(np.eye(8, dtype=np.float16), 3, axis=0)
    known = ReferenceImages(corners, ("x.png",) * 24, np.full(40, 1.4, np.float32), np.arange(40))
    features = np.eye(8, dtype=np.float32)[np.arange(101) % 8]
    shown = np.insert(np.exp(log_probabilities(logits[100:] / sharper)), 1, 0.0, axis=1)  # b, c, d: c is new
    true = np.append(labels[100:] * 2, 1)
    found = measure_decisions(
        TrainedModel(net, card, calibration=scores, reference=known),
        np.vstack([shown, shown[:1]]),
        ("b", "c", "d"),
        true,
        np.arange(101),
        features=features if sharper == 1 else -features,
    )
    assert found is not None
    return found


def test_promises_that_broke_are_said() -> None:
    held, broken = month_decisions(1.0), month_decisions(0.1)
    assert [point.coverage for point in held.points] == [0.8, 0.9, 0.95, 0.98, 0.99]  # of 100 images
    assert held.unknown == 1 and held.reliability.images == 100 and not held.broken and not held.moved
    assert held.lines() == ["Images of classes that it does not know, which no set can hold: 1."]
    assert broken.broken and broken.moved and broken.strange is not None and broken.strange.called.value == 1
    assert broken.lines()[-1].startswith("Unlike anything in training: 100.0%")
    assert broken.metrics()["month_unknown/0.05"] == 1
    assert all(line.startswith("Its sets of classes should hold ") for line in broken.lines()[: len(broken.broken)])
    assert "do not hold any more: temperature 1.00, on this month " in broken.lines()[len(broken.broken)]
    assert MonthDecisions.from_json(json.loads(json.dumps(broken.to_json()))) == broken


@pytest.fixture(scope="module")
def record() -> MonthRecord:
    """A record with everything in it."""
    champion, challenger, labels = two_models()
    old, new = made_up(200, 5), made_up(90, 6, moved=2, brightness=1.0, right=0.6, shares=(0.1, 0.3, 0.6))
    drift = compare_drift(old, new)
    newest = compare(champion, challenger, labels, classes=CLASSES)
    regression = compare(champion[60:], challenger[60:], labels[60:], classes=CLASSES)
    decision = decide(newest, regression, margin=0.05, guard=0.3)
    return MonthRecord(
        month="2020-02",
        made="2020-03-02T03:00:00+00:00",
        command=f"python -m search.retrain data.path={EVIL}",
        model_name=f"line 3 {EVIL}",
        run_id="0" * 32,
        classes=CLASSES,
        outcome="promoted" if decision.promote else "kept",
        images={"training": 60, "held out": 120},
        champion=ModelFacts("3", "momentum, learning rate 0.01, freeze depth 4", "2019-10 to 2020-01"),
        champion_scores={"accuracy": (0.7534, 0.66, 0.83), "macro_f1": (0.74, math.nan, math.nan)},
        champion_images=120,
        decision=decision,
        margin=0.05,
        guard=0.3,
        challenger=ModelFacts("4", "nag, freeze depth 2"),
        data_notes=(f"12 images of the new class {EVIL}",),
        left_out=((f"/{'long/' * 40}{EVIL}.png", "truncated PNG after 12 bytes"),),
        drift=drift,
        depth=decide_depth(old, new, drift),
        decisions=month_decisions(0.3),
        search=SearchFacts(6, 812.4, 3.25, {"optimizer": "nag", "learning_rate": "0.003"}),
        newest=newest,
        regression=regression,
        pictures=picture_facts(
            informative(champion, challenger, labels), champion, challenger, labels, paths=PATHS, classes=CLASSES
        ),
        suspects=picture_facts(
            suspect(champion, challenger, labels), champion, challenger, labels, paths=PATHS, classes=CLASSES
        ),
        suspects_rule=SUSPECTS_RULE,
        cautions=("The month alone has 40 held-out images; those of 2020-01 were pooled.",),
    )


@pytest.fixture(scope="module")
def pictures(record: MonthRecord) -> dict[str, PagePicture]:
    random = torch.Generator().manual_seed(0)
    found = {}
    for one in (*record.pictures[1:], *record.suspects):
        champion, challenger = torch.rand(2, 6, 6, generator=random)
        pixels = torch.randint(0, 256, (120, 90, 1), generator=random, dtype=torch.uint8).numpy()
        dead = champion * 0 if not found else champion
        found[one.path] = PagePicture(Original(pixels, (96, 96), "pad"), "stage5", dead, challenger)
    return found


@pytest.fixture(scope="module")
def written(record: MonthRecord, pictures: dict[str, PagePicture], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("month") / "page.html"
    write_page(json.loads(json.dumps(record.to_json())), pictures, path)
    assert list(path.parent.iterdir()) == [path]
    return path


class Reader(HTMLParser):
    """Collects numbers with their metrics, sentences with their tags, and digits that name nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[tuple[str, dict[str, str | None]]] = []
        self.numbers: list[tuple[str, str, str]] = []
        self.sentences: dict[str, str] = {}
        self.unnamed: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.loads: list[str] = []
        self.names: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.names.add(tag)
        self.images += [given] if tag == "img" else []
        self.loads += [str(given[a]) for a in ("src", "srcset", "href") if a in given and tag != "a"]
        if tag not in VOID:
            self.open.append((tag, given))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1][0] in ("style", "title"):
            return
        marks = {key: value for _, given in self.open for key, value in given.items() if key.startswith("data-")}
        if "data-metric" in marks:
            self.numbers.append((str(marks["data-metric"]), str(self.open[-1][1]["value"]), data))
        elif "data-tag" in marks:
            self.sentences[str(marks["data-tag"])] = data
        elif "data-name" not in marks and "data-static" not in marks and re.search(r"\d", data):
            self.unnamed.append(data)


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(html)
    assert reader.open == []
    return reader


def test_every_number_is_a_metric_and_every_sentence_a_tag(record: MonthRecord, written: Path) -> None:
    reader = read(written.read_text(encoding="utf-8"))
    metrics, tags = record.metrics(), record.tags()
    assert len(reader.numbers) > 150
    for metric, value, _ in reader.numbers:
        assert float(value) == metrics[metric], metric
    for tag, words in reader.sentences.items():
        assert words == tags[tag]
    # What is printed without being a result of the month: "macro F1", "MMD²" and the like are words.
    assert [words for words in reader.unnamed if not re.fullmatch(r"[^\d]*(F1)?[^\d]*", words)] == []


def test_the_page_says_which_promise_is_broken(record: MonthRecord, written: Path) -> None:
    assert record.decisions is not None and record.decisions.broken
    said = list(read(written.read_text(encoding="utf-8")).sentences.values())
    for point in record.decisions.broken:
        shown = f"should hold the right one for {point.coverage:.1%} of the images; this month they do for "
        assert sum(shown in sentence for sentence in said) == 1


def test_the_verdict_comes_first_in_plain_sentences(record: MonthRecord, written: Path) -> None:
    html = written.read_text(encoding="utf-8")
    head = html[html.index("<header>") : html.index("</header>")]
    said = [unescape(re.sub(r"<[^>]*>", "", one)) for one in re.findall(r"<li class=.*?</li>", head)]
    assert said == [words for words, _ in record.decision.checks] + list(record.cautions)
    assert head.index("<h1") < head.index('class="lead"') < head.index("<li")
    for jargon in ("KS", "McNemar", "interval reaches", "accepted"):
        assert jargon not in re.sub(r"<[^>]*>", "", head)


def test_what_is_shown_is_the_rounded_value(written: Path) -> None:
    for metric, value, shown in read(written.read_text(encoding="utf-8")).numbers:
        plain = shown.replace(" %", "").replace(" ", "").rstrip("smin")
        if shown == "below 0.001":
            assert float(value) < 0.001
            continue
        if " min " in shown:
            minutes, seconds = re.findall(r"\d+", shown)
            assert abs(60 * int(minutes) + int(seconds) - float(value)) <= 0.5
            continue
        number, exact = float(plain), float(value)
        scale = next((s for s in (1, 100, 1 / 60) if math.isclose(number, exact * s, rel_tol=0.02, abs_tol=0.06)), None)
        assert scale is not None, (metric, value, shown)


def test_no_metric_of_the_comparison_or_the_drift_is_left_out(record: MonthRecord, written: Path) -> None:
    shown = {metric for metric, _, _ in read(written.read_text(encoding="utf-8")).numbers}
    expected = {"newest_accuracy_low", "newest_mcnemar_p", "newest_smallest_detectable",
                "regression_macro_f1_challenger", "drift_features", "drift_brightness_new", "depth_probe/four",
                "champion_accuracy_high",
                "search_epoch_equivalents", "suspect_challenger_probability/1"}  # fmt: skip
    assert expected <= shown
    assert "champion_macro_f1_low" not in record.metrics()  # it is not known, and is not invented


def test_the_record_goes_through_json(record: MonthRecord) -> None:
    again = MonthRecord.from_json(json.loads(json.dumps(record.to_json())))
    assert again.to_json() == record.to_json()
    assert again.metrics() == record.metrics() and again.tags() == record.tags()


def test_metric_names_are_accepted_by_mlflow(record: MonthRecord) -> None:
    assert all(re.fullmatch(r"[/\w.\- :]+", metric) for metric in record.metrics())
    assert all(re.fullmatch(r"[/\w.\- :]+", tag) for tag in record.tags())


def test_it_asks_for_nothing_and_names_are_inert(written: Path) -> None:
    html = written.read_text(encoding="utf-8")
    reader = read(html)
    assert reader.loads and all(load.startswith("data:") for load in reader.loads)
    assert "script" not in reader.names and "<script" not in html
    assert "&lt;script&gt;alert(&quot;x&quot;)&lt;/script&gt; &amp; 섬 2" in html
    assert not re.search(r"url\(|@import|http", html)
    assert len(html.encode()) < 4_000_000


def test_every_picture_is_decoded_and_described(record: MonthRecord, written: Path) -> None:
    reader = read(written.read_text(encoding="utf-8"))
    known = {one.path for one in (*record.pictures[1:], *record.suspects)}
    shown = sum(one.path in known for one in (*record.pictures, *record.suspects))
    assert len(reader.images) == 1 + 3 * shown  # the figure; each image, and a map of both models
    for image in reader.images:
        assert image["alt"]
        data = base64.b64decode(str(image["src"]).split(",", 1)[1], validate=True)
        assert data[:3] == b"\xff\xd8\xff" or data[:4] == b"\x89PNG"
    html = written.read_text(encoding="utf-8")
    assert "could not be read again" in html and html.count("map is empty: no place speaks") == 1


def test_a_month_of_which_little_is_known_has_a_page(record: MonthRecord) -> None:
    bare = MonthRecord(
        month="2020-02", made="now", command="c", model_name="m", run_id="r", classes=("a", "b"), outcome="refused",
        images={}, champion=ModelFacts("", ""), champion_scores={}, champion_images=0,
        decision=replace(record.decision, promote=False, reason="refused: 3 empty images", checks=()),
        margin=0.05, guard=0.3,
    )  # fmt: skip
    html = month_page(bare, {})
    read(html)
    for words in ("The month was refused; the champion stays", "Drift was not measured.", "None were chosen.",
                  "There is no challenger to compare.", "The rule was not asked.", "refused: 3 empty images",
                  "Labels were not checked."):  # fmt: skip
        assert words in html
    assert MonthRecord.from_json(json.loads(json.dumps(bare.to_json()))) == bare


def test_many_classes_have_a_list_of_confusions() -> None:
    labels = np.arange(200) % 25
    champion = np.eye(25)[np.where(np.arange(200) < 40, (labels + 1) % 25, labels)]
    newest = compare(champion, np.eye(25)[labels], labels, classes=[f"c{k}" for k in range(25)])
    record = MonthRecord(
        month="2020-02", made="now", command="c", model_name="m", run_id="r",
        classes=tuple(f"c{k}" for k in range(25)), outcome="promoted", images={}, champion=ModelFacts("1", "x"),
        champion_scores={}, champion_images=200, decision=decide(newest, None, margin=0.05, guard=0.5), margin=0.05,
        guard=0.5, newest=newest,
    )  # fmt: skip
    html = month_page(record, {})
    assert "commonest confusions of the champion" in html and 'class="matrix"' not in html
    assert {float(v) for m, v, _ in read(html).numbers if m.startswith("newest_confusion_champion")} == {1.0, 2.0}


def test_a_page_that_cannot_be_written_leaves_nothing(record: MonthRecord, tmp_path: Path) -> None:
    (tmp_path / "page.html").mkdir()
    with pytest.raises(OSError, match="page"):
        write_page(record.to_json(), {}, tmp_path / "page.html")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]


# In a browser.


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with opened_browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.slow
@pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (768, "dark"), (1440, "light")])
def test_in_a_browser(browser: Browser, written: Path, width: int, scheme: str) -> None:
    browser.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=False)
    browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    browser.open(written.as_uri())
    browser.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true })")
    broken = browser.evaluate(
        "Promise.all([...document.images].map(i => i.decode().then(() => i.naturalWidth > 0 ? [] : [i.alt], "
        "() => [i.alt]))).then(found => found.flat())"
    )
    assert broken == []
    assert browser.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth") is True
    assert browser.evaluate(OVERFLOWING) == []
    dark = sum(int(v) for v in re.findall(r"\d+", browser.evaluate("getComputedStyle(document.body).backgroundColor")))
    assert (dark < 150) == (scheme == "dark")
    kinds = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")
    assert [event for event in browser.events if event["method"] in kinds] == []
    asked = [e["params"]["request"]["url"] for e in browser.events if e["method"] == "Network.requestWillBeSent"]
    assert asked[0] == written.as_uri()
    assert all(url.startswith("data:") for url in asked[1:])
