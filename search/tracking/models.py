"""Trained models by name: an MLflow run, a version or alias of the registry, or a folder."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

from lightning_modules.errors import InputError, printable
from search.invocation import typed
from search.tracking.store import artifacts_of, reading

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from explain.subject import Subject
    from lightning_modules.networks.model_file import TrainedModel

__all__ = [
    "DEFAULT_NAME", "InputError", "TrainedModel", "attended_block", "chosen_model", "resolve_model", "run_of_model",
    "subject_of",
]  # fmt: skip

DEFAULT_NAME = "thawline"

_CHAMPION = "champion"
_CARD = "model.json"
_RUN_ID = re.compile(r"[0-9a-f]{32}")
_LOGGED = re.compile(r"models:/(m-[0-9a-f]+)")
_REGISTERED = re.compile(r"models:/(?P<name>[^/@]+)(?:@(?P<alias>[^/@]+)|/(?P<version>[0-9]+))")


def resolve_model(reference: str, root: Path = Path("mlruns")) -> TrainedModel:
    """Load the model a user names.

    Args:
        reference: an MLflow run id (32 hexadecimal digits); `models:/NAME@ALIAS` or `models:/NAME/VERSION`; an alias
            (`champion`) or a version (`3`) of the model `thawline`; or the path of a folder written by
            `model_file.save_model`, or of the safetensors file in it.

    Raises:
        InputError: nothing of that name, with what there is; or a model that is damaged or not one of ours.
    """
    folder = None
    try:
        folder = _folder(reference) or _from_store(reference, root)
        # Not before: most references that are wrong can be refused without torch.
        from lightning_modules.networks.model_file import load_model

        return load_model(folder)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{printable(error.filename)} cannot be read ({error.strerror}); make it readable") from error
    except (
        RuntimeError,
        ValueError,
        TypeError,
    ) as error:  # whatever a library says of tensors or parts that do not fit
        detail = printable(str(error).strip().split("\n")[0])[:160]
        raise InputError(
            f"{printable(folder)} cannot be loaded: its network cannot be built or cut into blocks ({detail})"
        ) from error


def chosen_model(reference: str | None, root: Path, say: Callable[[str], None]) -> str:
    """The model that is meant: the one named, else the champion, else the newest version; which it is, is said.

    Raises:
        InputError: none is named and there is none.
    """
    if reference is not None:
        return reference
    with reading(root) as client:
        if client is None:
            raise InputError(
                f"there are no runs yet: no file {printable(root / 'mlflow.db')}; run {typed('search', root=root)} "
                "first, or name a model folder with model="
            )
        known = {str(model.name): model for model in client.search_registered_models()}
        found = client.search_model_versions(f"name = '{DEFAULT_NAME}'")
        versions = sorted((str(one.version) for one in found), key=int)
        champion = known[DEFAULT_NAME].aliases.get(_CHAMPION) if DEFAULT_NAME in known else None
    if str(champion) in versions:
        say(f"model: version {champion}, the champion; model= names another")
        return _CHAMPION
    if not versions:
        raise InputError(
            f"no model {DEFAULT_NAME!r} is registered; {_those(known, 'registered')}; model= names one, "
            f"{typed('search', root=root)} makes one"
        )
    say(f"model: version {versions[-1]}, the newest, for there is no champion yet; model= names another")
    return versions[-1]


def run_of_model(client: MlflowClient, reference: str) -> str | None:
    """Id of the run that left a model; None where the reference is a path.

    Args:
        reference: see `resolve_model`, which has found the model.

    Raises:
        InputError: no model of that name.
    """
    if _folder(reference) is not None:
        return None
    if _RUN_ID.fullmatch(reference):
        return reference
    name, alias, version = _named(reference)
    number = client.get_registered_model(name).aliases[alias] if alias is not None else str(version)
    return str(client.get_model_version(name, number).run_id)


def subject_of(model: TrainedModel, wanted: Sequence[str] | None = None) -> tuple[Subject, tuple[str, ...]]:
    """A model as `explain` takes it, on the device where its network is, and the blocks that are left out.

    Args:
        wanted: labels of blocks; None for all that can be explained.

    Raises:
        InputError: an unknown label, a block without positions, or no block that can be explained.
    """
    from explain.subject import Subject, choose_blocks
    from lightning_modules.images.reading import read_image
    from lightning_modules.networks.attention_branch import attention_modules

    net, card = model.net, model.card
    try:
        blocks, left_out = choose_blocks(net, {n: f"blocks.{n}" for n in net.block_names}, card.size, wanted)
    except ValueError as error:
        raise InputError(str(error)) from error
    name = f"{card.architecture}, freeze depth {card.freeze_depth} of {net.num_blocks}"
    if net.attention_block is not None:
        name = f"{name}, attention branch behind {net.attention_block}"
    if card.others:
        name = f"{name}, the first of {len(card.others) + 1} networks that answer together"
    device = net.mean.device
    made = (net, card.classes, blocks, model.read, card.size, card.fit, net.minimum_size, device, name)
    original = partial(read_image, max_pixels=card.max_pixels, known=card.value_range)
    temperature = 1.0 if card.temperature is None else card.temperature
    return (
        Subject(
            *made,
            temperature=temperature,
            original=original if card.tiling is None else None,
            attention={label: name for label, name in attention_modules(net).items() if label in blocks},
        ),
        left_out,
    )


def attended_block(model: TrainedModel, asked: str) -> str:
    """Name of the block behind which the model's attention branch stands.

    Args:
        asked: as it was typed, what needs one.

    Raises:
        InputError: it has none.
    """
    block = model.net.attention_block
    if block is None:
        raise InputError(
            f"{asked} needs a network with an attention branch, and this one has none: search with "
            "model.head=attention_branch"
        )
    return block


def _folder(reference: str) -> Path | None:
    """The model folder a path means, or None where the reference is no path."""
    path = Path(reference)
    if (path / _CARD).is_file():
        return path
    if path.suffix == ".safetensors" and path.is_file():
        return path.parent
    if reference.startswith("models:/") or not ("/" in reference or path.suffix == ".safetensors"):
        return None
    if not path.exists():
        raise InputError(f"model must name something that exists, got {printable(path)}: no such file or folder")
    raise InputError(f"{printable(path)} is not a model folder: no readable {_CARD}")


def _from_store(reference: str, root: Path) -> Path:
    with reading(root) as client:
        if client is None:
            raise InputError(
                f"model={printable(reference)}: there are no runs yet: no file {printable(root / 'mlflow.db')}; "
                f"run {typed('search', root=root)} first, or name a model folder"
            )
        return _from_client(client, root, reference)


def _from_client(client: MlflowClient, root: Path, reference: str) -> Path:
    if _RUN_ID.fullmatch(reference):
        return _of_run(client, root, reference)
    return _of_registry(client, root, *_named(reference))


def _named(reference: str) -> tuple[str, str | None, str | None]:
    """Name of a registered model, and its alias or version.

    Raises:
        InputError: neither.
    """
    if registered := _REGISTERED.fullmatch(reference):
        return registered["name"], registered["alias"], registered["version"]
    if reference.startswith("models:/"):
        raise InputError(f"model must be models:/NAME@ALIAS or models:/NAME/VERSION, got {printable(reference)!r}")
    if re.fullmatch("[0-9]+", reference):
        return DEFAULT_NAME, None, reference
    return DEFAULT_NAME, reference, None


def _of_registry(client: MlflowClient, root: Path, name: str, alias: str | None, version: str | None) -> Path:
    known = {str(model.name): model for model in client.search_registered_models()}
    if name not in known:
        raise InputError(f"no model {printable(name)!r} is registered; {_those(known, 'registered')}")
    wanted = version if alias is None else known[name].aliases.get(alias)
    if "'" in name:
        raise InputError(f"model names hold no quotes, got {printable(name)!r}")  # it would end the filter's text
    versions = sorted((str(v.version) for v in client.search_model_versions(f"name = '{name}'")), key=int)
    if str(wanted) not in versions:
        aliases = [f"{a} (version {v})" for a, v in known[name].aliases.items()]
        asked = f"version {version}" if alias is None else f"alias {printable(alias)!r}"
        raise InputError(f"model {name} has no {asked}; {_those(aliases, 'aliases')}; {_those(versions, 'versions')}")
    # The sqlite store leaves model_id empty and keeps the logged model's id in the source.
    source = _LOGGED.fullmatch(client.get_model_version(name, str(wanted)).source or "")
    if source is None:
        raise InputError(f"version {wanted} of model {name} was not written by Thawline")
    return _artifact(client, root, source[1], f"version {wanted} of model {name}")


def _of_run(client: MlflowClient, root: Path, run_id: str) -> Path:
    from mlflow.exceptions import MlflowException

    try:
        run: Any = client.get_run(run_id)
        models = [output.model_id for output in (run.outputs.model_outputs if run.outputs else ())]
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise InputError(f"there is no run {run_id}; {_runs_with_model(client, without=run_id)}") from None
    if not models:
        parent = run.data.tags.get("mlflow.parentRunId")
        hint = f"; it is a trial of run {parent}" if parent else ""
        raise InputError(
            f"run {run_id} holds no model, as only winners of a study do{hint}; {_runs_with_model(client)}"
        )
    newest = max(models, key=lambda model: int(client.get_logged_model(model).creation_timestamp))
    return _artifact(client, root, newest, f"the model of run {run_id}")


def _artifact(client: MlflowClient, root: Path, model_id: str, what: str) -> Path:
    from mlflow.exceptions import MlflowException

    with suppress(MlflowException):  # deleted there, which leaves its version and its files
        location = urlparse(client.get_logged_model(model_id).artifact_location)
        if location.scheme not in ("", "file"):
            raise InputError(f"{what} is kept at {location.scheme}://, only models on this machine can be loaded")
    logged = artifacts_of(root, model_id)
    for card in sorted(logged.glob(f"artifacts/*/{_CARD}")):
        return card.parent
    raise InputError(f"{what} is not a model of Thawline, or its files are gone: none in {printable(logged)}")


def _runs_with_model(client: MlflowClient, without: str = "") -> str:
    runs: list[str] = []
    for version in client.search_model_versions(max_results=100):
        if version.run_id and version.run_id not in (*runs, without):
            runs.append(version.run_id)
    return _those(runs, "runs with a model")


def _those(names: Sequence[str] | dict[str, Any], what: str, most: int = 5) -> str:
    listed = [printable(name) for name in names]
    if not listed:
        return f"there are no {what}" if what != "registered" else "none is registered yet"
    rest = f" and {len(listed) - most} more" if len(listed) > most else ""
    return f"{what}: {', '.join(listed[:most])}{rest}"
