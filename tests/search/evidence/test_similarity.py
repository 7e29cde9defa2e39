"""How like the source images are: measured on the network itself, known where the answer is made."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lightning_modules.networks.backbones import build
from search.evidence.similarity import feature_distance, probe_gain
from search.study.record import StudyRecord
from search.study.storage import open_storage


def test_a_probe_that_errs_half_as_often_gains_a_half() -> None:
    labels = np.repeat([0, 1], 20)
    clear = torch.tensor(labels, dtype=torch.float32)[:, None] * 2 - 1
    half = clear.clone()
    half[:20:4] *= -1  # five of each class on the wrong side
    half[20::4] *= -1
    worse = clear.clone()
    worse[:20:2] *= -1
    worse[20::2] *= -1
    assert probe_gain(clear, half, labels) == 1
    assert probe_gain(half, half, labels) == 0
    assert probe_gain(worse, half, labels) < 0
    assert np.isnan(probe_gain(clear, clear, labels))  # nothing to spare
    assert np.isnan(probe_gain(clear, half, np.arange(40)))


def test_the_distance_is_the_shift_in_source_deviations_and_leaves_the_network_alone() -> None:
    net = build("efficientnet_lite0", classes=2, size=(32, 32), weights="none", seed=3).eval()
    images = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    norms = [m for m in net.blocks.modules() if isinstance(m, torch.nn.BatchNorm2d)]

    def set_to_batch(norm: torch.nn.BatchNorm2d, inputs: tuple[torch.Tensor, ...]) -> None:
        norm.running_var, norm.running_mean = torch.var_mean(inputs[0], (0, 2, 3), correction=0)

    hooks = [norm.register_forward_pre_hook(set_to_batch) for norm in norms]
    with torch.no_grad():
        net(images)
    for hook in hooks:
        hook.remove()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    assert feature_distance(net, images) == pytest.approx(0, abs=1e-4)
    first = norms[0]
    first.running_mean -= 2 * (first.running_var + first.eps).sqrt()
    with torch.no_grad():
        moved = feature_distance(net, images)
    assert moved is not None and moved > 2 / len(norms) * 0.99  # the first layer is two deviations off
    first.running_mean.copy_(before[next(n for n in before if n.endswith("running_mean"))])
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    assert feature_distance(build("lenet5", classes=2, size=(32, 32), weights="none"), images) is None


@pytest.mark.slow
@pytest.mark.long  # off by default
def test_a_search_asks_the_advisor_without_any_fine_tuning(
    tiny: tuple[str, ...], tracking_root: Path, run_search_warm: Callable[..., Any]
) -> None:
    import optuna

    arguments = (*tiny, "search.study=advised", "search.trials=1", "search.prior=advisor", "search.evidence=false")
    outcome = run_search_warm(*arguments)
    assert outcome.code == 0, outcome.err
    storage = open_storage(tracking_root / "studies" / "advised.journal")
    found = StudyRecord(optuna.load_study(study_name="advised", storage=storage)).evidence
    assert found is not None and found.prior == "advisor"
    assert set(found.scorers) == {"static", "deepest", "monotone", "advisor"}
    advisor = found.scorers["advisor"]
    assert found.preferred == advisor.preferred in (5, 8)  # few images
    assert advisor.cost.forward_passes == found.cost.forward_passes > 0
    assert advisor.notes[0].split(":")[0] in ("features only", "freeze the early blocks, train the rest")
