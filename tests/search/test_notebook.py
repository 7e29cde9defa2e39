"""The example notebook runs from top to bottom on a finished study, and is committed without outputs."""

from __future__ import annotations

import gc
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

NOTEBOOK = Path(__file__).parents[2] / "examples" / "study.ipynb"


def test_it_is_committed_without_outputs() -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert all(not c["outputs"] and c["execution_count"] is None for c in cells if c["cell_type"] == "code")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_it_runs(finished: SimpleNamespace, stripes: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import nbformat
    from jupyter_client.kernelspec import KernelSpec
    from jupyter_client.manager import AsyncKernelManager
    from nbclient import NotebookClient

    image = next(path for path in sorted(stripes.rglob("*.png")) if path.name == "01.png")
    for name, value in (("STUDY", finished.study), ("ROOT", finished.root), ("IMAGE", image)):
        monkeypatch.setenv(f"THAWLINE_{name}", str(value))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parents[1]))
    # The tests' own interpreter, whatever kernels are installed.
    kernels = AsyncKernelManager(transport="ipc", ip=str(tmp_path / "kernel"))
    kernels._kernel_spec = KernelSpec(
        argv=[sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"], language="python"
    )
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(notebook, km=kernels, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    del client, kernels
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    shown = [output["data"]["text/html"] for output in outputs if "text/html" in output.get("data", {})]
    assert len(shown) == 4, "study, frame, evidence, explanation"
    assert "Winner: trial" in shown[0] and "learning_rate" in shown[1]
    assert shown[2].count("<img") == 1
    assert shown[3].count("<img") == 1 + 5, "the image and the five blocks with more than one position at 32 x 32"
    gc.collect()  # sockets that the client left open complain here, where that is expected
