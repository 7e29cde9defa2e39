"""Files of a study's store damaged as a disk or a power failure would: noticed, said in a line, made again or refused.

A search is stopped by SIGTERM in its second trial. Its store then holds every kind of file that a search reads again.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from search.study.record import finished_trials
from search.trial import training
from tests.store_copies import copy_store

Search = Callable[..., tuple[int, list[str]]]
Trials = list[tuple[int, float, dict[int, float]]]

FLIPPED, CUT, ZEROS = "a byte flipped", "cut", "zeros"
# Kind -> its files below the store, and what the line says of each.
KINDS = {
    "pixels": ("cache/images/*/pixels.npy", "the images are decoded again."),
    "pixels' sidecar": ("cache/images/*/store.json", "the images are decoded again."),
    "chosen pixels": ("cache/images/*/rows-*.npy", "it is made again."),
    "activations": ("cache/activations/*/cut*.npy", "it is made again."),
    "warm head": ("cache/activations/*/head-*.safetensors", "it is made again."),
    "waiting trial": ("studies/damaged.waiting/slot-1.pt", "its trial starts anew."),
    "best network": ("studies/damaged.waiting/slot-0.network.pt", "the network is trained again."),
}


def damage(file: Path, how: str) -> None:
    """Damage the content of a file in one of three ways, without a new time or, unless cut, another length."""
    content, times = bytearray(file.read_bytes()), file.stat()
    middle = len(content) // 2
    if how == FLIPPED:
        content[middle] ^= 1
    elif how == ZEROS:
        content[middle:] = bytes(len(content) - middle)
    else:
        del content[middle:]
    file.write_bytes(content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> Search:
    """`search(*arguments)` in this process: exit code and lines."""
    import contextlib
    import io

    from search.__main__ import main

    def run(*arguments: str) -> tuple[int, list[str]]:
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
            try:
                code = main(list(arguments))
            except SystemExit as stopped:
                code = int(str(stopped.code))
        return code, out.getvalue().splitlines()

    return run


@pytest.fixture(scope="module")
def stopped(
    tmp_path_factory: pytest.TempPathFactory,
    make_stripes: Callable[..., Path],
    tracking_root: Path,
    search: Search,
) -> Iterator[tuple[Path, list[str]]]:
    """A store with a study that was stopped in its second trial, and the arguments that go on with it."""
    import timm
    import torch
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("damaged")
    torch.manual_seed(0)
    save_file(timm.create_model("test_resnet", pretrained=False).state_dict(), folder / "weights.safetensors")
    images = make_stripes(folder / "images", {"a": 12, "b": 12, "c": 12, "rare": 2})
    root = copy_store(tracking_root, folder / "mlruns")
    shutil.rmtree(root / "cache", ignore_errors=True)  # what other tests left there is opened by nobody here
    arguments = [
        "data=folder", f"data.path={images}", "data.size=[32,32]", "data.on_bad=set_aside", "model=timm",
        "model.name=timm:test_resnet", f"model.weights={folder / 'weights.safetensors'}", "space.freeze_depth=[3,3]",
        "trainer.epochs=3", "trainer.batch_size=8", "search.trials=2", "search.startup_trials=2", "search.pruner=none",
        "search.refit=false", "search.evidence=false", "tracking.report=false", "executor=inline",
        "executor.threads=1", "executor.checkpoint_seconds=0", "search.study=damaged",
    ]  # fmt: skip
    threads, save = torch.get_num_threads(), training.save_checkpoint

    def save_and_stop(path: Path, trainer: Any, model: Any, curve: Any, **named: Any) -> None:
        save(path, trainer, model, curve, **named)
        if path.stem == "slot-1" and len(curve) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "save_checkpoint", save_and_stop)
        code, _ = search(*arguments, f"tracking.root={root}")
    assert code == 143
    yield root, arguments
    torch.set_num_threads(threads)


def _outcome(root: Path) -> Trials:
    """Slot, value and curve of every trial."""
    import optuna

    from search.study.storage import open_storage

    study = optuna.load_study(study_name="damaged", storage=open_storage(root / "studies" / "damaged.journal"))
    trials = ((t.user_attrs["slot"], t.value or -1.0, dict(t.intermediate_values)) for t in finished_trials(study))
    return sorted(trials)


@pytest.fixture(scope="module")
def undisturbed(
    stopped: tuple[Path, list[str]],
    search: Search,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Trials]:
    """Its store and what the study comes to if nothing is damaged."""
    root = copy_store(stopped[0], tmp_path_factory.mktemp("undisturbed") / "mlruns")
    code, lines = search(*stopped[1], f"tracking.root={root}")
    assert code == 0 and not any("again" in line for line in lines), lines
    return root, _outcome(root)


@pytest.mark.parametrize("how", [FLIPPED, *(pytest.param(how, marks=pytest.mark.slow) for how in (CUT, ZEROS))])
def test_a_damaged_store_gives_the_same_study_and_says_what_is_made_again(
    how: str,
    stopped: tuple[Path, list[str]],
    undisturbed: tuple[Path, Trials],
    search: Search,
    tmp_path: Path,
) -> None:
    root = copy_store(stopped[0], tmp_path / "mlruns")
    # A damaged store of pixels is made anew with all that lies beside it, so that each of its files has a turn.
    beside = ("pixels", "pixels' sidecar", "chosen pixels")[(FLIPPED, CUT, ZEROS).index(how)]
    expected = []
    for kind, (pattern, words) in KINDS.items():
        files = sorted(root.glob(pattern))
        assert files or kind == "activations", kind  # whether these are kept is measured
        if "pixels" not in kind or kind == beside:
            for file in files:
                damage(file, how)
            expected.append((files, words))
    code, lines = search(*stopped[1], f"tracking.root={root}")
    assert code == 0, lines
    for files, words in expected:
        for file in files:
            name = str(
                file.with_suffix("")
            )  # an attempt takes over the checkpoint of the one before under a name of its own
            assert [line for line in lines if name in line and line.endswith(words)], (name, "\n".join(lines))
    assert _outcome(root) == undisturbed[1]


@pytest.fixture(scope="module")
def registered(finished: Any) -> tuple[str, Path]:
    """The run of a registered model, and the model's folder in the store."""
    from mlflow import MlflowClient

    from search.study.opening import load_study
    from search.tracking.tracker import tracking_uri

    run_id = load_study(finished.study, finished.root).run_id
    assert run_id is not None
    model = MlflowClient(tracking_uri(finished.root)).get_run(run_id).outputs.model_outputs[0].model_id
    return run_id, next((finished.root / "artifacts" / "models" / model).rglob("model.safetensors")).parent


@pytest.mark.parametrize("how", [FLIPPED, CUT, ZEROS])
@pytest.mark.parametrize("name", ["model.safetensors", "model.json", "SHA256SUMS"])
def test_a_damaged_registered_model_is_refused_in_one_line(
    name: str, how: str, finished: Any, registered: tuple[str, Path], stripes: Path, tmp_path: Path, capfd: Any
) -> None:
    from search.predict.__main__ import main

    run, folder = registered
    whole = (folder / name).read_bytes()
    try:
        damage(folder / name, how)
        code = main([f"model={run}", f"images={stripes}", f"to={tmp_path / 'to.csv'}", f"root={finished.root}"])
    finally:
        (folder / name).write_bytes(whole)
    out, err = capfd.readouterr()
    assert (code, out, len(err.splitlines())) == (2, "", 1), err
    assert str(folder) in err and "Traceback" not in err
    assert not (tmp_path / "to.csv").exists()


def test_files_have_the_mode_of_the_umask(stopped: tuple[Path, Any], registered: tuple[str, Path]) -> None:
    """`safetensors` by itself writes files that only their owner may read."""
    files = [file for folder in (stopped[0], registered[1]) for file in folder.rglob("*") if file.is_file()]
    umask = os.umask(0)
    os.umask(umask)
    assert not {file.name for file in files if file.stat().st_mode & 0o666 != 0o666 & ~umask}
