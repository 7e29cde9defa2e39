"""The champion: which version it is, its network, a head with more outputs, and the moves of its alias."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lightning_modules.errors import InputError
from lightning_modules.networks.attention_branch import attended
from lightning_modules.networks.blocknet import BlockNet
from lightning_modules.networks.model_file import TrainedModel
from search.invocation import typed
from search.retrain.ledger import Ledger, PromotionRow
from search.settings.schema import Settings
from search.tracking.models import resolve_model
from search.tracking.tracker import Tracker
from search.trial.result import TrialParams

__all__ = [
    "BASELINE", "CHAMPION", "PREVIOUS", "Champion", "known_versions", "line_of_champions", "load_champion",
    "load_version", "settle", "widened",
]  # fmt: skip

CHAMPION, PREVIOUS = "champion", "previous"
BASELINE = "champion_baseline.npz"
"""Artifact of the run that made a champion: what it shows of images it was not trained on."""

_NEVER = -1e4  # logit of a class that a network does not know


@dataclass(frozen=True, eq=False)
class Champion:
    """The model in use.

    Attributes:
        lineage_depth: freeze depth that its lineage's last search settled on; retraining the head alone keeps it.
        month: newest month that it was trained on.
        trained: how many images it was trained on.
        trained_on: digests of the images that it, or a model that it was trained from, was trained on or chosen with;
            of a version without that list, those that could be trained on when it was made.
    """

    version: str
    run_id: str
    model: TrainedModel
    params: TrialParams
    lineage_depth: int
    month: str
    trained: int
    trained_on: frozenset[str]

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of its outputs."""
        return self.model.card.classes


def settle(ledger: Ledger, tracker: Tracker, model_name: str) -> PromotionRow | None:
    """Let the aliases say what the ledger has decided, and return its last decision; None before the first.

    The ledger is written first and the aliases are moved after, so a call that was killed between is finished here.
    Doing it twice changes nothing.

    Raises:
        InputError: the alias `champion` was moved, or its version deleted, outside this program.
    """
    decided, known = ledger.promotions(), known_versions(ledger, tracker, model_name)
    aliases = tracker.aliases(model_name)
    if not decided:
        if CHAMPION in aliases:
            raise InputError(
                f"model {model_name} has a champion (version {aliases[CHAMPION]}) that the ledger of retraining does "
                "not know; remove that alias, or take another tracking.model_name"
            )
        return None
    last = decided[-1]
    if last.to_version not in known:
        raise InputError(
            f"version {last.to_version} of model {model_name}, its champion, is not in MLflow any more: it was deleted "
            f"by hand; {_ways_out(ledger, tracker, model_name, last.to_version)}"
        )
    if last.state == "done" and aliases.get(CHAMPION) != last.to_version:
        raise InputError(
            f"the alias champion of model {model_name} names version {aliases.get(CHAMPION, 'none')}, the ledger says "
            f"{last.to_version}: it was moved by hand; move it back, and use " + typed("retrain", "rollback")
        )
    if last.state != "done":
        tracker.set_alias(model_name, PREVIOUS, last.previous_version if last.previous_version in known else None)
        tracker.set_alias(model_name, CHAMPION, last.to_version)
        for row in decided:
            if row.state != "done":
                ledger.mark_done(row)
    return last


def line_of_champions(decided: Sequence[PromotionRow]) -> list[str]:
    """Versions from the first champion to the one in use, each of which the next replaced.

    What a rollback took back is no part of it, so that a second rollback goes one further back and not forth again.
    """
    line: list[str] = []
    for row in decided:
        if row.kind == "rollback" and row.to_version in line:
            del line[line.index(row.to_version) + 1 :]
        else:
            line.append(row.to_version)
    return line


def known_versions(ledger: Ledger, tracker: Tracker, model_name: str) -> set[str]:
    """Versions in MLflow that are those the ledger means.

    Where a whole model was deleted, MLflow counts from 1 again: a version of another run than the decision that first
    made it champion is another one of the same number.
    """
    first: dict[str, str | None] = {}
    for row in ledger.promotions():
        first.setdefault(row.to_version, row.run_id)
    return {v for v, run in tracker.versions(model_name).items() if first.get(v) in (None, run)}


def load_version(root: Path, ledger: Ledger, tracker: Tracker, model_name: str, version: str) -> TrainedModel:
    """A version that is to be champion, or is it.

    Raises:
        InputError: it was deleted, or its files are gone or damaged; with ways out.
    """
    try:
        if version in tracker.versions(model_name) and version not in known_versions(ledger, tracker, model_name):
            raise InputError(f"version {version} of model {model_name} is not the one that was champion")
        return resolve_model(f"models:/{model_name}/{version}", root)
    except InputError as error:
        raise InputError(f"{error}; {_ways_out(ledger, tracker, model_name, version)}") from error


def _ways_out(ledger: Ledger, tracker: Tracker, model_name: str, lost: str) -> str:
    """What to do about a champion's version that is lost, or a former one's."""
    decided = [row.to_version for row in ledger.promotions()]
    known = known_versions(ledger, tracker, model_name) - {lost, decided[-1]}
    former = [version for version in dict.fromkeys(decided) if version in known]
    if not former:
        return "put back a copy of the store, or take another tracking.model_name for a new champion"
    return (
        f"put back a copy of the store, or let a version that was champion before ({', '.join(former)}) be it again: "
        + typed("retrain", "rollback", f"to={former[-1]}", "reason=TEXT")
    )


def load_champion(settings: Settings, ledger: Ledger, tracker: Tracker, version: str) -> Champion:
    """The champion with what the ledger knows of how it was made.

    Raises:
        InputError: it is damaged, or not of the network and size that the settings name.
    """
    name = settings.tracking.model_name
    model = load_version(settings.tracking.root, ledger, tracker, name, version)
    data, tiling = settings.data, model.card.tiling
    side = None if tiling is None else list(tiling.side)
    attended_block = model.card.attention_block
    for key, wanted, found in (
        ("model.name", _architectures(settings), model.card.architecture),
        ("model.head", settings.model.head, "attention_branch" if attended_block else "plain"),
        ("model.attention_block", settings.model.attention_block or attended_block, attended_block),
        ("data.size", list(settings.data.pixels), list(model.card.size)),
        ("data.fit", settings.data.fit, model.card.fit),
        ("data.tile", data.tile and list(data.tile), side),
        ("data.tile_overlap", data.tile_overlap, data.tile_overlap if tiling is None else tiling.overlap),
        ("data.normal", data.normal, None if tiling is None else tiling.normal),
    ):
        if wanted != found:
            raise InputError(
                f"{key}={_typed(wanted)} is not that of the champion, version {version} of model {name}: "
                f"{_typed(found)}; give that, or take another tracking.model_name for a new champion"
            )
    run_id, tags = tracker.version_tags(name, version)
    made: dict[str, Any] = next(row.numbers for row in ledger.promotions() if row.to_version == version)
    params = TrialParams(tags["optimizer"], float(tags["lr_factor"]), int(tags["freeze_depth"]))
    if "fostering_beta" in tags:
        params = replace(params, fostering_beta=float(tags["fostering_beta"]))
    seen = ledger.trained_on(version) if model.trained_on is None else model.trained_on
    return Champion(version, run_id, model, params, int(made["cut"]), str(made["month"]), int(made["trained"]), seen)


def _typed(value: object) -> object:
    return "null" if value is None else value


def _architectures(settings: Settings) -> object:
    """The network that the settings name, or all of them."""
    names = [settings.model.architecture_of(name) for name in settings.model.names]
    return names if settings.model.several else names[0]


def widened(model: TrainedModel, classes: Sequence[str], *, seed: int | None = None) -> TrainedModel:
    """The model with an output for each of `classes`; outputs it has keep their weights, wherever they stand now.

    Args:
        model: it is left as it is.
        classes: sorted, all of its own among them.
        seed: draws small weights for the new outputs, to train from; None gives them a logit that is never the largest,
            to judge the model as it is.

    Raises:
        InputError: a head whose last layer is not linear.
    """
    old = model.card.classes
    if tuple(classes) == old:
        return model
    net: BlockNet = deepcopy(model.net)
    for member in (net, *net.others):
        _widen(member, old, classes, seed)
    # Prediction sets and costs of the old classes say nothing where there is another one.
    return replace(
        model, net=net.eval(), card=replace(model.card, classes=tuple(classes)), calibration=None, costs=None
    )


def _widen(net: BlockNet, old: Sequence[str], classes: Sequence[str], seed: int | None) -> None:
    """Give one network the outputs that `widened` describes."""
    name, last = _last_linear(net, len(old))
    wide = nn.Linear(last.in_features, len(classes)).to(last.weight.device)
    positions = torch.tensor([list(classes).index(one) for one in old])
    new = torch.tensor([position for position in range(len(classes)) if position not in set(positions.tolist())])
    with torch.no_grad():
        wide.weight[positions], wide.bias[positions] = last.weight, last.bias
        if seed is None:
            wide.weight[new], wide.bias[new] = 0.0, _NEVER
        else:
            drawn = torch.randn(len(new), last.in_features, generator=torch.Generator().manual_seed(seed))
            wide.weight[new] = (drawn * 0.1 * last.weight.std().cpu()).to(wide.weight.device)
            wide.bias[new] = last.bias.mean()
    if (block := attended(net)) is not None:
        block.branch.widen(positions, len(classes), seed=seed)
    parent, _, attribute = name.rpartition(".")
    setattr(net.get_submodule(parent), attribute, wide)


def _last_linear(net: BlockNet, outputs: int) -> tuple[str, nn.Linear]:
    found = [(f"head.{n}", m) for n, m in net.head.named_modules() if isinstance(m, nn.Linear)]
    if not found or found[-1][1].out_features != outputs or found[-1][1].bias is None:
        raise InputError(
            f"the head of {net.architecture} cannot be given another class: its last layer is not a linear one; "
            "retrain.new_class=refuse leaves such months out"
        )
    return found[-1]
