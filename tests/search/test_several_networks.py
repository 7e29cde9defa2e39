"""A list of networks through the command line: searched, continued, interrupted, in workers, reported, registered."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from mlflow import MlflowClient

from search import load_study
from search.tracking.models import resolve_model
from search.tracking.tracker import tracking_uri

NAMES = ("lenet5", "lenet5_relu")
LENETS = (f"model.name=[{','.join(NAMES)}]", "model.weights=none")
LITES = ("model.name=[efficientnet_lite0,efficientnet_lite1]",)
Run = Callable[..., SimpleNamespace]


@pytest.fixture(scope="module")
def searched(tiny: tuple[str, ...], tracking_root: Path, run_search_warm: Run) -> SimpleNamespace:
    arguments = (*tiny, *LENETS, "search.study=lenets")
    outcome = run_search_warm(*arguments)
    assert outcome.code == 0, outcome.err
    return SimpleNamespace(arguments=arguments, root=tracking_root, out=outcome.out)


def test_both_are_tried_and_one_is_registered(searched: SimpleNamespace) -> None:
    study = load_study("lenets", searched.root)
    assert [trial.network for trial in study.trials][:2] == list(NAMES)
    assert list(study.frame()["network"]) == [trial.network for trial in study.trials]
    winner = study.winner
    assert winner is not None and winner.params["network"] in NAMES
    assert (
        resolve_model(f"models:/thawline/{winner.version}", searched.root).card.architecture == winner.params["network"]
    )
    assert "Or: lenet5_relu, 3 blocks, 1 times the operations." in searched.out
    assert "Best macro F1 by network: lenet5 " in searched.out
    assert f"Winner: trial {winner.slot}, {winner.params['network']}, " in searched.out
    digests = study.identity["weights_digest"].split()
    assert study.identity["model.name"] == list(NAMES) and len(set(digests)) == 2


def test_runs_say_the_network(searched: SimpleNamespace) -> None:
    study = load_study("lenets", searched.root)
    uri = tracking_uri(searched.root)
    client = MlflowClient(uri, registry_uri=uri)
    for trial in study.trials:
        run = client.get_run(trial.run_id)
        assert run.data.params["network"] == run.data.tags["network"] == trial.network
    assert client.get_run(str(study.run_id)).data.params["model.name"] == str(list(NAMES))


@pytest.mark.slow
def test_it_goes_on_with_the_same_list_alone(searched: SimpleNamespace, run_search_warm: Run) -> None:
    for other in ("lenet5", "[lenet5_relu,lenet5]"):
        refused = run_search_warm(*searched.arguments, f"model.name={other}")
        assert refused.code == 2 and "was made with model.name=['lenet5', 'lenet5_relu'], now" in refused.err
    before = load_study("lenets", searched.root).trials
    more = run_search_warm(*searched.arguments, "search.trials=6")
    assert more.code == 0, more.err
    assert "continued with 4 of 6 trials finished" in more.out
    assert load_study("lenets", searched.root).trials[:4] == before


def test_a_list_of_one_is_that_network(tiny: tuple[str, ...], run_search_warm: Run) -> None:
    one, other = (run_search_warm(f"model.name={name}", "--cfg", "job").out for name in ("lenet5", "[lenet5]"))
    assert one == other and "name: lenet5\n" in one


@pytest.mark.slow
@pytest.mark.long
def test_pretrained_networks_in_workers_with_a_report(
    tiny: tuple[str, ...], tracking_root: Path, run_search: Run, run_search_warm: Run
) -> None:
    chosen = [a for a in tiny if not a.startswith(("tracking.report", "executor"))]
    arguments = (*chosen, *LITES, "search.study=lites", "executor=local", "executor.workers=2", "executor.threads=1",
                 "search.trials=8", "search.prior=static", "search.refit=false")  # fmt: skip
    outcome = run_search(*arguments)
    assert outcome.code == 0, outcome.err
    assert "Or: efficientnet_lite1, 8 blocks, 1." in outcome.out  # more than the first one's operations
    assert "Evidence and prior are of efficientnet_lite0, the first network." in outcome.out
    study = load_study("lites", tracking_root)
    assert {trial.network for trial in study.trials} == {"efficientnet_lite0", "efficientnet_lite1"}
    epoch = {t.network: t.epoch_equivalents / t.epochs for t in study.trials[:2]}  # the same depth
    assert epoch["efficientnet_lite1"] > 1.2 * epoch["efficientnet_lite0"]
    folder = tracking_root / "artifacts" / str(study.run_id) / "artifacts" / "report"
    data = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert [one["name"] for one in data["networks"]] == ["efficientnet_lite0", "efficientnet_lite1"]
    assert sum(one["trials"] for one in data["networks"]) == 8
    assert data["network"] == "efficientnet_lite0 or efficientnet_lite1"
    assert data["winner"]["network"] in data["network"]
    assert " 'model.name=[efficientnet_lite0,efficientnet_lite1]' " in data["reproduction"]["command"]
    page = (folder / "report.html").read_text(encoding="utf-8")
    made = page[page.index('<p class="made">') :]
    assert "The search chose among" in page and data["winner"]["network"] in made[: made.index("</p>")]
    again = run_search(*arguments)
    assert again.code == 0 and "complete with 8 finished trials" in again.out


@pytest.mark.slow
@pytest.mark.long
def test_it_goes_on_after_an_interruption(tiny: tuple[str, ...], tracking_root: Path, run_search: Run) -> None:
    arguments = (*tiny, *LITES, "trainer.epochs=4", "search.trials=7", "executor.checkpoint_seconds=0")
    alone = run_search(*arguments, "search.study=lites-alone")
    assert alone.code == 0, alone.err
    arguments = (*arguments, "search.study=lites-interrupted")
    with subprocess.Popen(
        [sys.executable, "-m", "search", *arguments], stdout=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
    ) as process:  # fmt: skip
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("trial   3"):
                process.send_signal(signal.SIGTERM)
                break
        process.stdout.read()
    outcome = run_search(*arguments)
    assert outcome.code == 0, outcome.err
    one, other = (load_study(f"lites-{name}", tracking_root).trials for name in ("alone", "interrupted"))
    for a, b in zip(one, other, strict=True):
        assert (a.network, a.optimizer, a.lr_factor, a.freeze_depth, a.curve) == (
            b.network, b.optimizer, b.lr_factor, b.freeze_depth, b.curve
        )  # fmt: skip
