"""What a notebook shows of a study says what the study holds; the example runs from top to bottom, and is committed as
it ran."""

from __future__ import annotations

import gc
import json
import re
import sys
from dataclasses import replace
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from explain.evidence import Cost
from search.evidence.record import Evidence, prior_mode
from search.notebook import Study, evidence_html
from search.pages import html
from search.pages.html import Picture
from search.study.record import Trial, Winner

NOTEBOOK = Path(__file__).parents[2] / "examples" / "study.ipynb"


def evidence(blocks: int = 8, prior: str = "uniform") -> Evidence:
    """Of a search whose sampler was left to itself: the flat prior has its mode at the head alone, as any other."""
    flat, none = np.full(blocks + 1, 1 / (blocks + 1)), np.zeros(0, np.int64)
    return Evidence(
        blocks=tuple(f"stage{k + 1}" for k in range(blocks)), scorers={}, depths=(0, blocks), prior=prior,
        probabilities=flat, preferred=prior_mode(flat, 0, blocks), cost=Cost(1.0, 8, 8), training_rows=none,
        validation_rows=none,
    )  # fmt: skip


def study(tmp_path: Path, depth: int | None, *, blocks: int = 8) -> Study:
    """Two trials, of which the one at `depth` won; None: the search still runs."""
    shape = {
        "lr_factor": 1.0,
        "learning_rate": 0.001,
        "outcome": "complete",
        "loss": 0.3,
        "judge": "score",
        "epochs": 2,
        "seconds": 1.0,
    }
    trials = tuple(
        Trial(
            slot=slot, optimizer="adam", freeze_depth=k, fostering_beta=None, value=value, curve=(0.5, value),
            reason="", run_id="", epoch_equivalents=1.0, **shape,
        )
        for slot, (k, value) in enumerate([(2, 0.6), (depth if depth is not None else 4, 0.8)])
    )  # fmt: skip
    params = {"optimizer": "adam", "lr_factor": 1.0, "freeze_depth": depth}
    test = dict.fromkeys(("accuracy", "precision", "recall", "macro_f1", "weighted_f1"), 0.86)
    interval = dict.fromkeys(test, (0.78, 0.92))
    winner = Winner(1, params, 0.8, 2, True, (300, 100), test, interval, "1", "", 1.0)
    return Study(
        name="plates", root=tmp_path, metric="macro_f1", identity={}, trials=trials, unfinished=0,
        evidence=evidence(blocks), winner=None if depth is None else winner, run_id=None, test_reads=1,
    )  # fmt: skip


def text_of(page: str) -> str:
    return unescape(re.sub(r"<[^>]*>", "", page))


@pytest.mark.parametrize(
    ("depth", "said"),
    [
        (4, "Blocks 1 to 4 stay frozen; blocks 5 to 8 and the head are trained"),
        (0, "Nothing stays frozen: all 8 blocks are trained"),
        (8, "All 8 blocks stay frozen: only the head is trained"),
    ],
)
def test_the_evidence_says_the_winners_depth(
    tmp_path: Path, depth: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[str] = []

    def drawing(figure: Figure, dpi: int, **options: Any) -> Picture:
        drawn.extend(text.get_text() for text in figure.texts)
        return html.drawing(figure, dpi, **options)

    monkeypatch.setattr("search.notebook.drawing", drawing)
    shown = study(tmp_path, depth)
    text = text_of(shown._repr_html_())
    assert said in drawn and sum("frozen" in one for one in drawn) == ("frozen" in said), "the figure says it too"
    assert said in text and f"freeze depth {depth}" in text
    assert text.count("frozen") == said.count("frozen"), "nothing else is said to be frozen"


def test_without_a_winner_nothing_is_said_to_stay_frozen(tmp_path: Path) -> None:
    """A flat prior has a mode too; no depth was chosen by it."""
    running = study(tmp_path, None)
    for page in (running._repr_html_(), evidence_html(evidence())):
        assert "frozen" not in text_of(page) and "Before the search" in text_of(page)
    steered = evidence_html(
        replace(evidence(prior="linear_probe"), probabilities=np.linspace(9, 1, 9) / 45, preferred=0)
    )
    assert "the prior (linear probe) preferred freeze depth 0" in text_of(steered)


def test_a_study_says_itself_in_three_lines(tmp_path: Path) -> None:
    lines = repr(study(tmp_path, 4)).split("\n")
    assert lines == [
        "Study 'plates': 2 trials finished",
        "Winner: trial 1, adam, learning rate 0.001, freeze depth 4; validation macro F1 0.800",
        "86 of 100 new images right (78 to 92 %)",
    ]
    assert repr(study(tmp_path, None)).split("\n")[1:] == [
        "No winner yet; best so far: trial 1, adam, learning rate 0.001, freeze depth 4; validation macro F1 0.800",
        "No test images were read",
    ]
    assert max(map(len, lines)) <= 120


def test_it_is_committed_as_it_ran() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    code = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert len(outputs) == len(code)
    assert not [one for one in outputs if one["output_type"] == "error" or one.get("name") == "stderr"]
    assert not re.search(r"/(home|root|work|tmp|Users)/", text), "it names no folder of a machine"
    assert len(text) < 1_500_000


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
    assert "Winner: trial" in shown[0] and "new images right" in shown[0] and "learning_rate" in shown[1]
    assert shown[2].count("<img") == 1
    assert shown[3].count("<img") == 2 + 5, "the image, its map, and the five blocks with several positions at 32 x 32"
    gc.collect()  # sockets that the client left open complain here, where that is expected
