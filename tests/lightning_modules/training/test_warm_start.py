"""Fitted heads on disk: once for all processes, and no more than lost time where the disk fails."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from torch import Tensor

from lightning_modules.training import warm_start
from lightning_modules.training.warm_start import HeadStore


class Fit:
    """Counts how often a head is fitted."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> dict[str, Tensor]:
        self.times += 1
        return {"weight": torch.arange(6.0).reshape(2, 3)}


def test_a_head_is_fitted_once_for_all_processes(tmp_path: Path) -> None:
    fit = Fit()
    for _ in range(2):  # a second store is what another process has
        state = HeadStore(tmp_path / "heads", torch.device("cpu")).get("a", fit)
        assert torch.equal(state["weight"], torch.arange(6.0).reshape(2, 3))
    assert fit.times == 1
    assert {file.suffix for file in (tmp_path / "heads").iterdir()} <= {".safetensors", ".lock"}


@pytest.mark.parametrize(
    "error",
    [
        SafetensorError("Error while serializing: I/O error: Permission denied (os error 13)"),
        OSError(28, "No space left on device"),
    ],
    ids=["read-only", "full"],
)
def test_a_disk_that_takes_no_head_costs_no_more_than_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(warm_start, "save_file", fail)
    fit, store = Fit(), HeadStore(tmp_path / "heads", torch.device("cpu"))
    assert torch.equal(store.get("a", fit)["weight"], store.get("a", fit)["weight"])
    assert fit.times == 1 and not list((tmp_path / "heads").glob("*.tmp"))
    HeadStore(tmp_path / "heads", torch.device("cpu")).get("a", fit)
    assert fit.times == 2


def test_a_damaged_head_is_fitted_again(tmp_path: Path) -> None:
    fit = Fit()
    HeadStore(tmp_path, torch.device("cpu")).get("a", fit)
    file = tmp_path / "head-a.safetensors"
    content = bytearray(file.read_bytes())
    content[-60] ^= 1  # in the tensor
    notes: list[str] = []
    for times, damaged in enumerate((content[:20], content), 2):
        file.write_bytes(damaged)
        state = HeadStore(tmp_path, torch.device("cpu"), notes.append).get("a", fit)
        assert torch.equal(state["weight"], torch.arange(6.0).reshape(2, 3))
        assert fit.times == times
    assert notes == [f"{file} is damaged, or an older version wrote it; it is made again."] * 2


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_head_that_is_not_finite_is_not_kept(tmp_path: Path, value: float) -> None:
    state = {"weight": torch.tensor([1.0, value])}
    assert HeadStore(tmp_path, torch.device("cpu")).get("a", lambda: state)["weight"][0] == 1
    assert not list(tmp_path.glob("head-*.safetensors"))
