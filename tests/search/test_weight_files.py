"""Files of weights as people have them: loaded whole, or refused with one line that says what is wrong."""

from __future__ import annotations

import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.progress_lines import only_progress

State = dict[str, Tensor]
NETWORK = "timm:test_resnet"
FIRST = "conv1.0.weight"


def under(prefix: str, state: State) -> State:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def body(state: State) -> State:
    return {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}


def other(state: State) -> State:
    return {name: tensor + 1 for name, tensor in state.items()}


def typed(state: State, dtype: torch.dtype) -> State:
    return {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in state.items()}


SGD = {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]}

# What a file holds, made of the network's state: loaded as the plain state is.
LOADED: dict[str, Callable[[State], Any]] = {
    "plain": lambda s: s,
    "module in a name twice": lambda s: under("module.module.", s),
    "before PyTorch 0.4.1": lambda s: {n: t for n, t in s.items() if not n.endswith("num_batches_tracked")},
    "DataParallel": lambda s: under("module.", s),
    "DataParallel inside": lambda s: {n.replace("layer1.", "layer1.module."): t for n, t in s.items()},
    "compiled": lambda s: under("_orig_mod.", s),
    "compiled, distributed": lambda s: under("module._orig_mod.", s),
    "Lightning": lambda s: {
        "state_dict": under("model.", s),
        "epoch": 3,
        "optimizer_states": [SGD],
        "loops": {"a": {}},
    },
    "Lightning, compiled": lambda s: {"state_dict": under("net._orig_mod.", s), "hyper_parameters": {"lr": 0.1}},
    "Lightning, of a head of its own": lambda s: {
        "state_dict": {**under("backbone.", body(s)), "classifier.weight": torch.ones(5, 96)}
    },
    **{
        f"in {key}": lambda s, key=key: {key: s, "epoch": 3, "best": 0.9}
        for key in ("model", "model_state_dict", "state_dict", "ema", "state_dict_ema", "network", "anything")
    },
    "in two": lambda s: {"checkpoint": {"network": under("encoder.", s)}, "optimizer": SGD},
    "with its average": lambda s: {"state_dict": s, "state_dict_ema": other(s), "optimizer": SGD},
    "with its average among the names": lambda s: {**under("ema_model.", other(s)), **under("model.", s)},
    "SWA": lambda s: {"n_averaged": torch.tensor(7), **under("module.", s)},
    "twice the same": lambda s: {**under("net.", s), **under("model.", s)},
    "float16": lambda s: typed(s, torch.float16),
    "bfloat16": lambda s: typed(s, torch.bfloat16),
    "float64": lambda s: typed(s, torch.float64),
    "parameters": lambda s: OrderedDict((n, torch.nn.Parameter(t, t.is_floating_point())) for n, t in s.items()),
    "no head": body,
    "head for other classes": lambda s: {**s, "fc.weight": torch.ones(7, 96), "fc.bias": torch.ones(7)},
    "head without bias": lambda s: {n: t for n, t in s.items() if n != "fc.bias"},
    "head of another name": lambda s: {**body(s), "classifier.1.weight": torch.ones(5, 96)},
    "head of several layers": lambda s: {**body(s), "fc.0.weight": torch.ones(5, 96), "fc.2.weight": torch.ones(3, 5)},
}

# -> words of the line with which it is refused
REFUSED: dict[str, tuple[Callable[[State], Any], list[str]]] = {
    "four tensors missing": (
        lambda s: {n: t for n, t in s.items() if not n.startswith("layer2.0.bn")},
        ["do not fit", "tensors missing (layer2.0.bn1.weight, layer2.0.bn1.bias, layer2.0.bn1.running_mean, ...)"],
    ),
    "grey images": (
        lambda s: {**s, FIRST: s[FIRST][:, :1]},
        ["1 tensor of another shape or kind (conv1.0.weight", "x 1 x 3 x 3 float32 instead of", "x 3 x 3 x 3 float32)"],
    ),
    "another network": (lambda s: {"conv2.weight": torch.ones(3)}, ["none is there", "1 tensor (conv2.weight)"]),
    "a larger network": (
        lambda s: {**s, "layer1.0.se.fc.weight": torch.ones(2, 2)},
        ["1 tensor that the network does not have (layer1.0.se.fc.weight)"],
    ),
    "part of it, wrapped": (
        lambda s: {"state_dict": under("model.", dict(list(s.items())[6:]))},
        ["under 'state_dict.model.', do not fit", f"5 tensors missing ({FIRST}"],
    ),
    "NaN": (lambda s: {**s, FIRST: s[FIRST] * float("nan")}, ["not finite: conv1.0.weight holds NaN or infinity"]),
    "not finite, of a name with control characters": (
        lambda s: under("\x1b[31m.", {**s, FIRST: s[FIRST] / 0}), [r"\x1b[31m.conv1.0.weight holds NaN"]
    ),
    "infinite, wrapped": (lambda s: under("net.", {**s, FIRST: s[FIRST] / 0}), ["not finite: net.conv1.0.weight"]),
    "too large for float32": (
        lambda s: typed(s, torch.float64) | {FIRST: s[FIRST].double() * 1e300 + 1e300},
        ["not finite: conv1.0.weight"],
    ),
    "NaN in the head": (
        lambda s: {**s, "fc.weight": s["fc.weight"][:2], "fc.bias": s["fc.bias"][:2] / 0}, ["not finite: fc.bias"]
    ),
    "two networks": (
        lambda s: {**under("student.", s), **under("teacher.", other(s))},
        ["holds the network more than once, under 'student.' and 'teacher.'"],
    ),
    "a student that lacks a tensor": (
        lambda s: {**under("student.", dict(list(s.items())[1:])), **under("teacher.", other(s))},
        ["holds the network more than once, under 'teacher.' and 'student.'"],
    ),
    "a network that lacks a tensor, and its whole average": (
        lambda s: {"model": dict(list(s.items())[1:]), "model_ema": s},
        ["under 'model.', do not fit the network", f"1 tensor missing ({FIRST}"],
    ),
    "a variance below zero": (
        lambda s: {**s, "layer2.0.bn1.running_var": -s["layer2.0.bn1.running_var"] - 1},
        ["not finite: layer2.0.bn1.running_var holds a variance below zero"],
    ),
    "integers": (
        lambda s: {**s, FIRST: s[FIRST].to(torch.int8)}, ["shape or kind (conv1.0.weight 16 x 3 x 3 x 3 int8 instead"]
    ),
    "complex": (lambda s: {**s, FIRST: s[FIRST].to(torch.complex64)}, ["shape or kind", "complex64"]),
    "sparse": (lambda s: {**s, FIRST: s[FIRST].flatten(1).to_sparse()}, ["do not fit", FIRST]),
    "without values": (lambda s: {**s, FIRST: s[FIRST].to("meta")}, ["3 float32 without values instead"]),
    "a list": (lambda s: list(s.values()), ["holds no tensors with names"]),
    "a tensor": (lambda s: s[FIRST], ["holds no tensors with names"]),
    "an empty mapping": (lambda s: {}, ["holds no tensors with names"]),
    "control characters in names": (lambda s: under("\x1b[31m\n", s) | {"a": {}}, []),
}  # fmt: skip


def _cut(path: Path, state: State) -> None:
    torch.save(state, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _script(path: Path, state: State) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated, and files of it are about
        torch.jit.trace(torch.nn.Conv2d(3, 4, 3), torch.ones(1, 3, 8, 8)).save(str(path))  # type: ignore[no-untyped-call]


def _module(path: Path, state: State) -> None:
    torch.save(torch.nn.Conv2d(3, 4, 3), path)


def _zip(path: Path, state: State) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights/a.txt", "x")


def _text(content: bytes) -> Callable[[Path, State], None]:
    return lambda path, state: path.write_bytes(content) and None


FILES: dict[str, tuple[Callable[[Path, State], None], list[str]]] = {
    "w.pth: empty": (_text(b""), ["it is empty"]),
    "e.safetensors: empty": (_text(b""), ["it is empty"]),
    "w.pth: pointer of git-LFS": (_text(b"version https://git-lfs.github.com/spec/v1\noid"), ["git lfs pull"]),
    "p.safetensors: pointer": (_text(b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n"), ["git lfs pull"]),
    "w.pth: web page": (_text(b"\n<!DOCTYPE html><html>"), ["it is a web page"]),
    "w.onnx: ONNX": (_text(b"\x08\x07\x12\x07pytorch"), ["it is an ONNX file"]),
    "w.h5: Keras": (_text(b"\x89HDF\r\n\x1a\n"), ["it is an HDF5 file"]),
    "w.pth.gz: compressed": (_text(b"\x1f\x8b\x08\x00"), ["it is compressed"]),
    "w.pth: text": (_text(b"hello\n"), ["no weights at all"]),
    "w.pth: cut short": (_cut, ["damaged or cut short"]),
    "w.pth: whole module": (_module, ["torch.nn.modules.conv.Conv2d", "torch.save(network.state_dict(), FILE)"]),
    "w.pt: TorchScript": (_script, ["it is a TorchScript file"]),
    "w.zip: another archive": (_zip, ["or another archive"]),
    "w.pth: a folder": (lambda path, state: path.mkdir(), ["must be imagenet, none or a file", "a folder"]),
}  # fmt: skip


@pytest.fixture(scope="module")
def state() -> State:
    import timm

    torch.manual_seed(5)
    found: State = timm.create_model("test_resnet", num_classes=9).state_dict()
    return found


Search = Callable[[Path], str]


@pytest.fixture
def search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Search]:
    """`search(weights)`: the line with which a search ends whose images are none. Weights are read before them."""
    from search.__main__ import main

    threads = torch.get_num_threads()
    (tmp_path / "work").mkdir()
    for name in ("a", "b"):
        (tmp_path / "images" / name).mkdir(parents=True)
        (tmp_path / "images" / name / "0.png").write_bytes(b"no picture")
    monkeypatch.chdir(tmp_path / "work")

    def run(weights: Path) -> str:
        capfd.readouterr()
        network = ("model=timm", f"model.name={NETWORK}", f"model.weights={weights}")
        code = main([*network, "data=folder", f"data.path={tmp_path / 'images'}", "data.size=[32,32]"])
        out, err = capfd.readouterr()
        assert (code, only_progress(out), list((tmp_path / "work").iterdir())) == (2, True, []), err
        line, *of_images = err.splitlines()
        assert line.isprintable() and (not of_images or "bad inputs in" in line), err
        return line

    yield run
    torch.set_num_threads(threads)


@pytest.mark.parametrize("name", LOADED)
def test_loaded_whole(name: str, state: State, search: Search, tmp_path: Path) -> None:
    from lightning_modules.networks.backbones import build

    torch.save(LOADED[name](state), tmp_path / "weights.pth")
    assert "5 bad inputs in" in search(tmp_path / "weights.pth")
    torch.save(state, tmp_path / "plain.pth")
    dtype = {"float16": torch.float16, "bfloat16": torch.bfloat16}.get(name, torch.float32)
    nets = [build(NETWORK, classes=3, size=(32, 32), weights=str(tmp_path / f"{n}.pth")) for n in ("plain", "weights")]
    for n, plain in nets[0].blocks.state_dict().items():
        assert torch.equal(plain.to(dtype) if plain.is_floating_point() else plain, nets[1].blocks.state_dict()[n]), n


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, state: State, search: Search, tmp_path: Path) -> None:
    make, words = REFUSED[name]
    torch.save(make(state), tmp_path / "weights.pth")
    line = search(tmp_path / "weights.pth")
    assert all(word in line for word in ("weights.pth", *words) if words), line


def test_weights_that_overflow(state: State, search: Search, tmp_path: Path) -> None:
    torch.save({name: t * 1e30 if t.is_floating_point() else t for name, t in state.items()}, tmp_path / "weights.pth")
    said = search(tmp_path / "weights.pth")
    assert "ResNet gives values that are not finite with these weights (model.weights)" in said


@pytest.mark.parametrize("name", FILES)
def test_files_of_other_kinds(name: str, state: State, search: Search, tmp_path: Path) -> None:
    make, words = FILES[name]
    path = tmp_path / name.split(":")[0]
    make(path, state)
    line = search(path)
    assert all(word in line for word in (path.name, *words)), line


def test_safetensors_under_any_name(state: State, search: Search, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    torch.save(state, tmp_path / "weights.safetensors")
    assert "5 bad inputs in" in search(tmp_path / "weights.safetensors")
    save_file(under("model.", state), tmp_path / "weights.bin")
    assert "5 bad inputs in" in search(tmp_path / "weights.bin")


@pytest.mark.slow
def test_what_stands_beside_the_network_is_named(
    state: State, tiny: tuple[str, ...], run_search_warm: Callable[..., SimpleNamespace], tmp_path: Path
) -> None:
    torch.save({"state_dict": {**under("model.", state), "criterion.weight": torch.ones(9)}}, tmp_path / "w.pth")
    outcome = run_search_warm(
        *tiny, "model=timm", f"model.name={NETWORK}", f"model.weights={tmp_path / 'w.pth'}",
        "search.trials=1", "trainer.epochs=1", "search.study=beside", "search.prior=uniform",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert "Not used of the file of weights: 1 tensor (state_dict.criterion.weight)." in outcome.out
