"""What makes a study this study, and every key by which a search finds again what it kept.

A key holds all that can change what is kept under it. Pixels have theirs in `lightning_modules.images.store`, below the
settings; docs/architecture.md lists all keys. A new setting is part of a study's identity unless it says
`identity=False`; the table in tests/search/trial/test_keys.py asks which of these keys it must change too.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from lightning_modules.images.index import ImageIndex
from lightning_modules.images.splits import Splits
from lightning_modules.images.value_range import FULL_WHITE_LEVEL
from lightning_modules.networks.blocknet import BlockNet, final_linear
from search.settings.plain import flatten, key_paths
from search.settings.schema import Settings
from search.trial.result import TrialParams

__all__ = [
    "INPUTS", "activation_key", "digest", "head_key", "settings_digest", "state_digest", "study_identity", "trial_key",
]  # fmt: skip

INPUTS = {
    "data_digest": "other images or labels (some were added, removed or changed since)",
    "white_level": "another white level of images of more than 8 bits",
    "black_level": "another black level of images of more than 8 bits",
    "splits_digest": "other splits",
    "weights_digest": "other pre-trained weights",
    "head_digest": "other pre-trained weights of the head",
    "judged": "trials judged otherwise (by their best epoch, as earlier code did)",
}
"""What a study's identity has beside settings -> the words for another one."""

_JUDGED = "last epoch"
_BEFORE_A_CHAMPION = {"retrain.start_months"}


def digest(made_of: object, size: int = 16) -> str:
    """Digest of plain values, `size` bytes in hexadecimal; dicts by their sorted keys."""
    return hashlib.blake2b(json.dumps(made_of, sort_keys=True).encode(), digest_size=size).hexdigest()


def state_digest(net: BlockNet) -> str:
    """Digest of a network's blocks: architecture and every tensor."""
    return _tensors_digest(net.architecture, net.blocks)


def _tensors_digest(name: str, module: nn.Module) -> str:
    found = hashlib.blake2b(name.encode(), digest_size=16)
    for key, tensor in module.state_dict().items():
        found.update(key.encode())
        found.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def study_identity(
    settings: Settings, index: ImageIndex, splits: Splits, net: BlockNet, *others: BlockNet
) -> dict[str, Any]:
    """Setting, or one of `INPUTS` -> value of everything that would make it another study.

    Inputs that decide nothing are left out: a white level of 65535, as without images of more than 8 bits, a black
    level of 0, and the pre-trained network's head where each trial's is fitted anew.

    Args:
        net: the network, or the first of those that the search chooses among.
        others: the rest of these, in their order.
    """
    fields, _ = key_paths(), settings.data.resolution  # never a study of what is not chosen yet
    identity = {k: v for k, v in flatten(settings).items() if fields[k][0].metadata["identity"]}
    identity |= {"data_digest": index.digest, "splits_digest": splits.digest, "judged": _JUDGED}
    identity["weights_digest"] = " ".join(map(state_digest, (net, *others)))
    black, white, _ = index.value_range
    identity |= {"white_level": white} if white != FULL_WHITE_LEVEL else {}
    identity |= {"black_level": black} if black else {}
    warm = settings.trainer.warmup
    if heads := [n.head for n in (net, *others) if n.pretrained and not (warm and final_linear(n.head))]:
        identity["head_digest"] = " ".join(_tensors_digest("head", head) for head in heads)
    return identity


def trial_key(identity: dict[str, Any], params: TrialParams, seed: int) -> str:
    """What the files of a trial say they are of; a study's identity is part of it."""
    return f"{params} seed {seed} of {digest(identity)}"


def activation_key(
    settings: Settings, index: ImageIndex, splits: Splits, net: BlockNet, watched: NDArray[np.int64]
) -> str:
    """Folder of the activations of one data set and network, in which its warm heads lie too."""
    data, trainer = settings.data, settings.trainer
    pixels = (index.digest, [record.digest for record in index.records], *index.value_range[:2], *data.resolution)
    views = (settings.seed, data.views, data.flip, data.shift, data.gain, data.offset, data.orientation)
    stored = (splits.digest, watched.tolist(), trainer.batch_norm_images, trainer.activations)
    return digest((pixels, views, stored, state_digest(net), net.mean.device.type))


def head_key(
    settings: Settings, index: ImageIndex, net: BlockNet, rows: NDArray[np.int64], depth: int, *fitting: int
) -> str:
    """File of a warm head, among the activations that it is fitted to.

    Args:
        rows: training rows.
        fitting: what is fixed of how it is fitted.
    """
    trainer = settings.trainer
    chosen = (settings.seed, trainer.class_weights, trainer.batch_size)  # its batches re-estimate batch-norm
    return digest((chosen, index.classes, rows.tolist(), depth, fitting, _tensors_digest("head", net.head)))


def settings_digest(settings: Settings) -> str:
    """Digest of every setting that decides what a month's retraining does."""
    fields, _ = key_paths(), settings.data.resolution
    chosen = {
        key: value
        for key, value in flatten(settings).items()
        if fields[key][0].metadata["identity"] or (key.startswith("retrain.") and key not in _BEFORE_A_CHAMPION)
    }
    return digest(chosen)
