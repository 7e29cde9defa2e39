"""The kinds of files: how each is written, and how it is run. Libraries are imported where they are asked for.

A file holds its metadata (`metadata.py`) as text under the name `METADATA`.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lightning_modules.errors import InputError
from search.export.graph import INPUT, ModelGraph

__all__ = ["METADATA", "Run", "opened", "quantise", "require", "write"]

METADATA = "thawline"
_OPSET = 18  # the oldest that PyTorch's exporter writes by itself
# A convolution and its limits are quantised as one: its own output has no bounds, and 8 bits for all of it lost 8 % of
# decisions on NEU instead of 0.5 %. The head stays as it is.
_IN_EIGHT_BITS = ["Conv", "Clip", "Relu", "Add"]
_FILES = {"onnx": "model.onnx", "openvino": "model.xml", "torchscript": "model.torchscript"}
_NEEDED = {
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "openvino"),
    "torchscript": (),
}

Run = Callable[[NDArray[np.uint8]], dict[str, NDArray[np.generic]]]
"""From uint8 (N, H, W, 3) to the outputs by name."""


def require(kind: str) -> None:
    """Refuse a format whose packages are not installed, before any work is done.

    Raises:
        InputError: with what to install.
    """
    from importlib.util import find_spec

    if missing := [name for name in _NEEDED[kind] if find_spec(name) is None]:
        raise InputError(f"format={kind} needs {', '.join(missing)}: pip install 'thawline[export]'")


def write(kind: str, graph: ModelGraph, size: tuple[int, int], metadata: str, folder: Path) -> Path:
    """Write the network into a folder; returns the file to open, which others may lie beside.

    Args:
        size: H, W of its images.

    Raises:
        OSError: it cannot be written.
    """
    graph = graph.cpu().eval()
    example = torch.zeros((2, *size, 3), dtype=torch.uint8)  # of one image the batch would be taken for a constant
    path = folder / _FILES[kind]
    if kind == "torchscript":
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # it announces its own end with every PyTorch
            traced: Any = torch.jit.trace(graph, (example,))  # type: ignore[no-untyped-call]
            traced.save(str(path), _extra_files={METADATA: metadata})
        return path
    onnx_file = folder / _FILES["onnx"]
    _write_onnx(graph, example, metadata, onnx_file)
    if kind == "openvino":
        openvino = _openvino()
        converted = openvino.Core().read_model(onnx_file)
        converted.set_rt_info(metadata, [METADATA])
        openvino.save_model(converted, path, compress_to_fp16=False)
        onnx_file.unlink()
    return path


def _openvino() -> Any:
    """The package, whose import would otherwise report itself to its maker; without that it has a stub of its own."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def _write_onnx(graph: ModelGraph, example: torch.Tensor, metadata: str, path: Path) -> None:
    import onnx

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the exporter about PyTorch's own operators
        torch.onnx.export(
            graph, (example,), path, input_names=[INPUT], output_names=list(graph.outputs), opset_version=_OPSET,
            dynamo=True, dynamic_shapes={INPUT: {0: "batch"}}, external_data=False, verbose=False,
        )  # fmt: skip
    _put_metadata(onnx.load(path), metadata, path)


def _put_metadata(made: Any, metadata: str, path: Path) -> None:
    import onnx

    del made.metadata_props[:]  # the exporter's own names files of this machine
    entry = made.metadata_props.add()
    entry.key, entry.value = METADATA, metadata
    onnx.save(made, path)


def quantise(path: Path, batches: Iterator[NDArray[np.uint8]], metadata: str) -> None:
    """Turn the weights and activations of an ONNX file into 8 bits, in place.

    Static quantisation: scales by output channel for weights, and for activations from the values that the images
    bring about (Jacob et al. 2018, arXiv 1712.05877), by ONNX Runtime.

    Args:
        batches: uint8 (N, H, W, 3) each.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
            found = next(batches, None)
            return None if found is None else {INPUT: found}

    whole = path.with_name("float32.onnx")
    path.replace(whole)
    logging.getLogger().disabled, before = True, logging.getLogger().disabled  # advice at every call
    try:
        quantize_static(
            whole, path, Reader(), per_channel=True, weight_type=QuantType.QInt8, activation_type=QuantType.QUInt8,
            op_types_to_quantize=_IN_EIGHT_BITS,
        )  # fmt: skip
    finally:
        logging.getLogger().disabled = before
        whole.unlink()
    _put_metadata(onnx.load(path), metadata, path)


def opened(kind: str, path: Path, outputs: tuple[str, ...]) -> tuple[Run, str]:
    """A file ready to run on the CPU with as many threads as PyTorch has, and its metadata."""
    threads = torch.get_num_threads()
    if kind == "onnx":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        text = session.get_modelmeta().custom_metadata_map[METADATA]
        return lambda image: dict(zip(outputs, session.run(list(outputs), {INPUT: image}), strict=True)), text
    if kind == "openvino":
        openvino = _openvino()
        core = openvino.Core()
        read = core.read_model(path)
        settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32"}
        compiled = core.compile_model(read, "CPU", settings)
        return lambda image: {name: compiled(image)[name] for name in outputs}, str(
            read.get_rt_info([METADATA]).astype(str)
        )
    extra = {METADATA: ""}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as above
        scripted: Any = torch.jit.load(str(path), _extra_files=extra)  # type: ignore[no-untyped-call]

    def run(image: NDArray[np.uint8]) -> dict[str, NDArray[np.generic]]:
        with torch.no_grad():
            found = scripted(torch.from_numpy(image))
        return {name: one.numpy() for name, one in zip(outputs, found, strict=True)}

    text = extra[METADATA]
    return run, text.decode() if isinstance(text, bytes) else text
