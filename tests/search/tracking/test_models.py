"""Models by run, alias, version and folder; and what a name that leads nowhere is answered."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from lightning_modules.errors import InputError
from lightning_modules.networks import backbones
from lightning_modules.networks.model_file import ModelCard, TrainedModel, save_model, sha256, write_digests
from search.tracking.models import resolve_model
from tests.store_copies import copy_store


def save(folder: Path, seed: int = 0) -> Path:
    net = backbones.build("efficientnet_lite0", classes=2, size=(32, 32), weights="none", seed=seed)
    save_model(
        folder, TrainedModel(net, ModelCard(net.architecture, ("a", "b"), (32, 32), "pad", 255, 10_000, seed, {}))
    )
    return folder


@dataclass(frozen=True)
class Store:
    root: Path
    parent: str
    trial: str


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store with two versions of `thawline`, the first champion, the second challenger, and a run without."""
    from search.tracking.tracker import Tracker

    folder = tmp_path_factory.mktemp("store")
    tracker = Tracker(folder / "mlruns", "thawline")
    parents = [tracker.start_parent(f"study {k}", {}, {}) for k in range(2)]
    for seed, alias in enumerate(("champion", "challenger")):
        model = save(folder / f"model {seed}", seed)
        tracker.register(parents[seed], model, model_name="thawline", alias=alias, tags={}, note="")
    return Store(folder / "mlruns", parents[1], tracker.start_trial(parents[1], "t0", {}, {}))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
class TestStore:
    @pytest.mark.parametrize(
        ("reference", "freeze_depth"),
        [
            ("champion", 0),
            ("challenger", 1),
            ("1", 0),
            ("models:/thawline/2", 1),
            ("models:/thawline@champion", 0),
            ("RUN", 1),
        ],
    )
    def test_names_lead_to_their_model(self, store: Store, reference: str, freeze_depth: int) -> None:
        model = resolve_model(store.parent if reference == "RUN" else reference, store.root)
        # The seed was kept as the freeze depth, to tell the two apart.
        assert model.card.freeze_depth == freeze_depth
        assert model.card.fit == "pad"
        assert model.probabilities(torch.zeros(1, 3, 32, 32)).shape == (1, 2)

    @pytest.mark.parametrize(
        ("reference", "message"),
        [
            ("winner", "thawline has no alias 'winner'; aliases: .*champion .version 1.*; versions: 1, 2"),
            ("7", "thawline has no version 7; aliases: "),
            ("models:/steel@champion", "no model 'steel' is registered; registered: thawline"),
            ("models:/thawline", "models:/NAME@ALIAS or models:/NAME/VERSION, got 'models:/thawline'"),
            ("0" * 32, "there is no run 0{32}; runs with a model: [0-9a-f]{32}, [0-9a-f]{32}"),
        ],
    )
    def test_names_that_lead_nowhere_say_what_there_is(self, store: Store, reference: str, message: str) -> None:
        with pytest.raises(InputError, match=message) as caught:
            resolve_model(reference, store.root)
        assert "\n" not in str(caught.value)

    def test_a_store_may_be_moved(self, store: Store, tmp_path: Path) -> None:
        copy_store(store.root, tmp_path / "moved")
        database = tmp_path / "moved" / "mlflow.db"
        with sqlite3.connect(database) as connection:
            connection.execute("UPDATE logged_models SET artifact_location = 'file:///gone/' || model_id")
        connection.close()
        assert resolve_model("challenger", tmp_path / "moved").card.freeze_depth == 1
        shutil.rmtree(tmp_path / "moved" / "artifacts")
        with pytest.raises(InputError, match=r"its files are gone: none in .*/moved/artifacts/models/m-"):
            resolve_model("challenger", tmp_path / "moved")

    def test_a_trial_points_to_its_study(self, store: Store) -> None:
        with pytest.raises(InputError, match=f"holds no model, .* it is a trial of run {store.parent}"):
            resolve_model(store.trial, store.root)

    def test_no_such_run_through_the_command_line(
        self, store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        from PIL import Image

        from search.explain.__main__ import main

        Image.new("L", (40, 40)).save(tmp_path / "a.png")
        words = [f"images={tmp_path / 'a.png'}", f"root={store.root}", f"out={tmp_path / 'out'}"]
        assert main([*words, "model=" + "f" * 32]) == 2
        error = capsys.readouterr().err
        assert error.startswith("explain: there is no run ffff")
        assert error.count("\n") == 1
        assert not (tmp_path / "out").exists()


def test_a_folder_or_the_file_in_it(tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    assert resolve_model(str(folder)).card == resolve_model(str(folder / "model.safetensors")).card


@pytest.mark.parametrize("reference", ["champion", "3", "0" * 32, "models:/thawline@champion"])
def test_without_a_store_there_are_no_runs(tmp_path: Path, reference: str) -> None:
    with pytest.raises(InputError, match=r"there are no runs yet: no file .*mlflow\.db"):
        resolve_model(reference, tmp_path / "mlruns")
    assert list(tmp_path.iterdir()) == []


def test_paths_that_are_no_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gone: no such file or folder"):
        resolve_model(str(tmp_path / "gone"))
    with pytest.raises(InputError, match=r"is not a model folder: no readable model\.json"):
        resolve_model(str(tmp_path))


def test_damage_is_told(tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    card = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps({**card, "classes": ["a", "b", "c"]}))
    with pytest.raises(InputError, match=r"model\.json is missing or changed since it was written"):
        resolve_model(str(folder))
    write_digests(folder)
    with pytest.raises(
        InputError, match="does not hold the tensors of its network: 0 missing, 2 unknown or of another"
    ):
        resolve_model(str(folder))
    shutil.copy(folder / "model.json", folder / "model.safetensors")
    with pytest.raises(InputError, match=r"model\.safetensors is missing or changed since it was written"):
        resolve_model(str(folder))


def test_models_of_format_1_load(tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    now = resolve_model(str(folder))
    card = json.loads((folder / "model.json").read_text())
    del card["format"]
    tensors = folder / "model.safetensors"
    (folder / "model.json").write_text(json.dumps({**card, "sha256": sha256(tensors)}))
    (folder / "SHA256SUMS").unlink()
    before = resolve_model(str(folder))
    assert before.card == now.card
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert torch.equal(before.probabilities(images), now.probabilities(images))
    tensors.write_bytes(tensors.read_bytes()[:-1] + b"x")
    with pytest.raises(InputError, match=r"model\.safetensors is missing or changed since it was written"):
        resolve_model(str(folder))


def test_digests_are_those_of_sha256sum(tmp_path: Path) -> None:
    folder = save(tmp_path / "model")
    lines = [line.split("  ") for line in (folder / "SHA256SUMS").read_text().splitlines()]
    assert [name for _, name in lines] == ["model.json", "model.safetensors"]
    assert all(hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest for digest, name in lines)
