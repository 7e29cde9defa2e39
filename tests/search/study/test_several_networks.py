"""A study that chooses among networks: what is drawn, what trials are compared with, and which of equals wins."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from lightning_modules.errors import InputError
from lightning_modules.networks.blocknet import BlockNet
from search.executor.protocol import Job
from search.settings.budget import parse_budget
from search.settings.schema import SpaceSettings
from search.study.judge import rank
from search.study.promotion import PromotionRule, Standing
from search.study.record import Trial, of_evidence
from search.study.spending import Spending
from search.trial.result import TrialParams, describe_params
from search.trial.space import build_space
from tests.search.study.scripted_study import DEFAULT, SPACE, Bench, ScriptedExecutor, curve

NETWORKS = {"small": (0, 3), "large": (0, 8)}
SEVERAL = replace(SPACE, freeze_depth=(0, 3), default=TrialParams("adam", 1.0, 1, None, "small"), networks=NETWORKS)


def net(name: str, blocks: int, *, pretrained: bool = True) -> BlockNet:
    return cast(
        BlockNet,
        SimpleNamespace(
            num_blocks=blocks, deepest=blocks, attention_block=None, pretrained=pretrained, architecture=name
        ),
    )


def test_each_network_has_its_own_depths_and_the_default_of_each_comes_first() -> None:
    nets = {"small": net("small", 3), "large": net("large", 8)}
    space = build_space(SpaceSettings(), nets["small"], others=nets)
    assert space.networks == NETWORKS and space.freeze_depth == (0, 3)
    assert space.first == (
        TrialParams("adam", 1.0, 1, None, "small"),
        TrialParams("adam", 1.0, 4, None, "large"),
    )
    with pytest.raises(InputError, match=r"freeze_depth must be in 0\.\.3 for small, got 5"):
        build_space(SpaceSettings(freeze_depth=(0, 5)), nets["large"], others=dict(reversed(nets.items())))
    alone = build_space(SpaceSettings(), nets["small"])
    assert alone.networks is None and alone.default.network is None and alone.default.searched().keys() == {
        "optimizer", "lr_factor", "freeze_depth"
    }  # fmt: skip


def test_a_trial_is_drawn_from_the_depths_of_its_network() -> None:
    bench = Bench(space=SEVERAL, trials=24, startup_trials=6)
    executor = bench.run()
    drawn = [job.params for job in executor.jobs]
    assert drawn[:2] == list(SEVERAL.first)
    assert [p.network for p in drawn[:6]] == ["small", "large"] * 3  # in turn while nothing is known
    assert all(NETWORKS[str(p.network)][0] <= p.freeze_depth <= NETWORKS[str(p.network)][1] for p in drawn)
    assert {p.network for p in drawn[6:]} <= set(NETWORKS)
    assert max(p.freeze_depth for p in drawn) > 3
    runs = list(bench.tracker.runs.values())
    assert [run.params["network"] for run in runs] == [p.network for p in drawn]
    assert runs[1].tags["network"] == "large" and runs[1].name.startswith("t01 large adam")


def test_an_interrupted_study_draws_the_same() -> None:
    alone = Bench(space=SEVERAL, trials=14)
    alone.run()
    bench = Bench(space=SEVERAL, trials=14)
    with pytest.raises(KeyboardInterrupt):
        bench.run(ScriptedExecutor(interrupt_in=(9, 1)))
    bench.run()
    assert bench.params() == alone.params()


def test_the_sampler_goes_to_the_network_that_scores_better() -> None:
    def script(number: int, job: Job) -> list[float] | str:
        return [score * (1.0 if job.params.network == "large" else 0.3) for score in curve(job.params)]

    bench = Bench(space=SEVERAL, trials=40, startup_trials=6, pruner="none")
    late = [job.params.network for job in bench.run(ScriptedExecutor(script)).jobs[20:]]
    assert late.count("large") > 15


def test_one_network_draws_as_it_did_before_there_were_several() -> None:
    bench = Bench(trials=12, startup_trials=4)
    bench.run()
    assert bench.params()[0]["freeze_depth"] == DEFAULT.freeze_depth
    assert all("network" not in p for p in bench.params())
    assert repr(DEFAULT) == "TrialParams(optimizer='momentum', lr_factor=1.0, freeze_depth=4, fostering_beta=None)"


def test_trials_of_other_networks_are_no_peers_at_the_first_rungs() -> None:
    rule = PromotionRule((1, 2, 4), 3)
    large = [Standing(slot, 2, {1: 0.9}, True, "large") for slot in range(3)]
    small = [Standing(3 + slot, 2, {1: 0.3 + 0.1 * slot}, True, "small") for slot in range(3)]
    assert rule.passes(small[-1], [*large, *small])  # the best third of its own network
    assert not rule.passes(small[0], [*large, *small])
    alike = [replace(t, network=None) for t in [*large, *small]]
    assert not rule.passes(alike[-1], alike)
    late = [replace(t, scores={4: t.scores[1]}) for t in [*large, *small]]
    assert not rule.passes(late[-1], late)  # later all are compared


def trial(slot: int, network: str | None, depth: int, cost: float, value: float = 0.9) -> Trial:
    return Trial(
        slot,
        "sgd",
        0.1,
        1.0,
        depth,
        None,
        value,
        1.0,
        "score",
        4,
        "complete",
        "",
        1.0,
        4 * cost,
        (value,),
        f"run{slot}",
        network,
    )


def test_of_equal_scores_the_cheaper_network_wins() -> None:
    large, small = trial(0, "large", 6, 0.9), trial(1, "small", 1, 0.6)
    assert min((large, small), key=rank) is small
    assert min((replace(large, value=0.91), small), key=rank).network == "large"
    one, other = trial(0, None, 1, 0.9), trial(1, None, 4, 0.95)  # of one network the depth decides, as ever
    assert min((one, other), key=rank) is other


@pytest.mark.parametrize(
    ("judge", "better"),
    [
        ("score", {"value": 0.91, "loss": 2.0}),
        ("score", {"loss": 0.9}),
        ("loss", {"loss": 0.9, "value": 0.1}),
        ("loss", {"value": 0.91}),
    ],
)
def test_a_judge_goes_by_one_and_of_equals_by_the_other(judge: str, better: dict[str, float]) -> None:
    one, other = (replace(trial(slot, None, 2, 0.5), judge=judge) for slot in range(2))
    assert min((one, other), key=rank) is one
    assert min((one, changed := replace(other, **better)), key=rank) is changed


def test_evidence_is_held_against_trials_of_its_own_network() -> None:
    trials = [trial(0, "large", 6, 0.9), trial(1, "small", 1, 0.6)]
    assert of_evidence(trials, {"model.name": ["small", "large"]}) == trials[1:]
    alone = [trial(0, None, 6, 0.9)]
    assert of_evidence(alone, {"model.name": "small"}) == alone == of_evidence(alone, {})


def test_a_budget_of_epochs_counts_a_larger_network_for_more() -> None:
    bench = Bench(space=SEVERAL, trials=4, pruner="none")
    jobs = bench.run().jobs
    price = {"small": 1.0, "large": 2.5}
    spent = sum(3 * price[str(job.params.network)] for job in jobs)

    def cost(params: TrialParams) -> float:
        return price[str(params.network)]

    assert not Spending(bench.study, parse_budget(f"{spent + 0.1}epochs"), cost).exhausted
    assert Spending(bench.study, parse_budget(f"{spent}epochs"), cost).exhausted


@pytest.mark.parametrize(("network", "words"), [(None, "sgd lr="), ("large", "large sgd lr=")])
def test_words_name_the_network_where_there_are_several(network: Any, words: str) -> None:
    assert describe_params(TrialParams("sgd", 1.0, 2, None, network)).startswith(words)
