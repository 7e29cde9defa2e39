"""Without model= the champion answers, else the newest version, and it is said which."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from mlflow import MlflowClient

from lightning_modules.errors import InputError
from search.tracking import models
from search.tracking.models import chosen_model
from search.tracking.tracker import tracking_uri


def test_the_newest_version_where_there_is_no_champion(finished: SimpleNamespace) -> None:
    said: list[str] = []
    client = MlflowClient(tracking_uri(finished.root), registry_uri=tracking_uri(finished.root))
    versions = [int(one.version) for one in client.search_model_versions("name = 'thawline'")]
    if "champion" in client.get_registered_model("thawline").aliases:
        client.delete_registered_model_alias("thawline", "champion")
    assert chosen_model(None, finished.root, said.append) == str(max(versions))
    assert said == [f"model: version {max(versions)}, the newest, for there is no champion yet; model= names another"]
    client.set_registered_model_alias("thawline", "champion", str(min(versions)))
    try:
        assert chosen_model(None, finished.root, said.append) == "champion"
        assert said[1] == f"model: version {min(versions)}, the champion; model= names another"
    finally:
        client.delete_registered_model_alias("thawline", "champion")
    assert chosen_model("7", finished.root, said.append) == "7" and len(said) == 2  # as it was named


def test_a_store_without_a_model(tracking_root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no runs yet: no file .*mlflow\.db; run .* first, or name a model folder"):
        chosen_model(None, tmp_path, print)
    monkeypatch.setattr(models, "DEFAULT_NAME", "nobodys")
    with pytest.raises(InputError, match=r"no model 'nobodys' is registered; .*model= names one, .* makes one"):
        chosen_model(None, tracking_root, print)
