"""What every test needs: few threads, since the machines that test have few cores and several processes."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from search.invocation import STARTED_BY

# Commands print next steps as they can be typed, so tests see one shell: the activated environment, without just.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
os.environ.pop(STARTED_BY, None)

# Laws must not fail because a machine is busy: no time limits, and the same examples everywhere.
settings.register_profile("thawline", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("thawline")


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True, scope="session")
def _nothing_in_the_working_folder() -> Iterator[None]:
    """Where no store is named, MLflow makes one in the working folder, which is the repository."""
    before = Path("mlflow.db").exists()
    yield
    assert before or not Path("mlflow.db").exists(), "a test has used MLflow's default store"
