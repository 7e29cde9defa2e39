"""`python -m tests.faults [suite=machine] [seed=0] [faults=60] [lanes=1] [write=FILE]`: faults in real processes.

Each fault is injected into a search of six small trials at a random moment, the same command is given again, and what
it comes to is compared with a search to which nothing happened: the same trials, one closed run each, nothing left
lying about. What happens is drawn from the seed; when, as a share of the time that an undisturbed search takes on this
machine. `suite=ray` runs trials on a Ray cluster of three nodes with token authentication, and injects other faults.
`lanes` are so many at a time; `only=NAME,NAME` injects these kinds; `again=N,N` repeats these numbers of the schedule
in the results of `write`. Ctrl-C ends it with the faults until then. Exit status 1 if any fault was not survived. For
Linux; to fill a disk needs the right to mount one.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

from tests.faults.by_hand import BY_HAND
from tests.faults.cluster import Cluster
from tests.faults.damage import DAMAGE
from tests.faults.kills import KILLS, TooLateError
from tests.faults.processes import prepare
from tests.faults.ray_kills import RAY_KILLS, on_ray
from tests.faults.scene import ARGUMENTS, BrokenPromiseError, Scene, Undisturbed, examine, make_scene, observe

FAULTS: dict[str, Callable[[Scene], None]] = {**KILLS, **DAMAGE, **BY_HAND}
SUITES = {"machine": FAULTS, "ray": RAY_KILLS}
_INLINE = ("executor=inline",)
_ONE_WORKER = ("executor=local", "executor.workers=1")
_TWO_WORKERS = ("executor=local", "executor.workers=2")
_WORKERS = {name: _ONE_WORKER for name in FAULTS if "worker" in name} | {"driver and workers killed": _TWO_WORKERS}
_TRIALS_ALONE = ("search.evidence=false", "tracking.report=false")
_NETWORK = ("model=timm", "model.name=timm:test_resnet", "model.weights=weights.safetensors")
# Without batch-norm, at a thousand times the usual rate, with a decay that overshoots: weights grow ninefold a step.
_ABSURD = (
    "model=lenet5",
    "model.name=lenet5_relu",
    "space.lr_factor=[0.1,1000]",
    "space.default_lr_factor=1000",
    "trainer.weight_decay=1",
    *_TRIALS_ALONE,
)
_SETTINGS = {"loss not finite": _ABSURD, "driver killed with evidence and report": _NETWORK}
_OFTEN = {
    "driver killed": 4,
    "driver killed three times": 3,
    "driver killed with evidence and report": 3,
    "SIGTERM": 4,
    "Ctrl-C once": 2,
    "Ctrl-C twice": 2,
    "disk full": 4,
    "file size limited": 3,
    "store read-only": 2,
    "store locked": 2,
    "journal cut": 2,
    "clock set": 2,
    "runs deleted": 2,
}
_OFTEN_ON_RAY = {
    "worker killed": 3,
    "worker hangs": 2,
    "worker silent": 2,
    "node killed": 3,
    "node cut off": 2,
    "driver killed": 3,
}
_TRIES = 5
_FOLDER = re.compile(r"(?<![\w.])/(?:[^\s/\"']+/)+")  # results are committed, and must not say where they were made


def schedule(seed: int, faults: int, suite: str = "machine") -> list[tuple[str, int]]:
    """(fault, its own seed), of every kind at least one where there is room, in an order that the seed decides."""
    random = Random(seed)
    often, workers = (_OFTEN, _WORKERS) if suite == "machine" else (_OFTEN_ON_RAY, {})
    kinds = [name for name in SUITES[suite] for _ in range(often.get(name, 1))]
    rare = [name for name in kinds if name in workers]
    quick = [name for name in kinds if name not in workers]
    if faults < len(kinds):  # a sample: one of six with workers, which take seconds to start
        random.shuffle(rare)
        random.shuffle(quick)
        few = min(len(rare), max(1, faults // 6))
        kinds = [*rare[:few], *list(dict.fromkeys(quick))[: faults - few]]
    kinds = [kinds[i % len(kinds)] for i in range(faults)]
    random.shuffle(kinds)
    return [(name, random.randrange(2**32)) for name in kinds]


def inject(scene: Scene, name: str, seed: int, undisturbed: dict[tuple[str, ...], Undisturbed]) -> dict[str, Any]:
    """One fault, from an empty store to what is left; a fault that came too late is tried again, earlier."""
    settings = (*_NETWORK, *_TRIALS_ALONE)
    if scene.cluster is None:
        faults, workers = FAULTS, _WORKERS.get(name, _INLINE)
        settings, exact = _SETTINGS.get(name, settings), workers != _TWO_WORKERS
    else:
        number = Random(seed).choice([1, 2])
        faults, workers, exact = RAY_KILLS, on_ray(scene, scene.cluster, number), number == 1
    if settings not in undisturbed:
        undisturbed[settings] = _undisturbed(scene, settings)
    started = time.monotonic()
    problems, notes, tries = ["it always came too late"], [""], 0
    while tries < _TRIES:
        scene.fresh()
        one = replace(
            scene, arguments=(*ARGUMENTS, *settings, *workers), random=Random(seed + tries), commands=[], notes=[],
            undisturbed=undisturbed[settings], exact=exact, killed=False,
            earlier=0.7**tries,
        )  # fmt: skip
        tries += 1
        try:
            faults[name](one)
            problems = examine(one)
        except TooLateError:
            continue
        except BrokenPromiseError as error:
            problems = [str(error)]
        except Exception:  # whatever is wrong with one fault, the others are still to come
            problems = [traceback.format_exc()]
        finally:
            notes = one.notes
            for command in one.commands:
                command.signal_all(signal.SIGKILL)
                command.left(10)
        break
    return {
        "fault": name, "seed": seed, "survived": not problems, "happened": "; ".join(notes),
        "problems": [_FOLDER.sub("", problem) for problem in problems],
        "tries": tries, "seconds": round(time.monotonic() - started, 1),
    }  # fmt: skip


def _undisturbed(scene: Scene, settings: tuple[str, ...]) -> Undisturbed:
    scene.fresh()
    quiet = replace(scene, arguments=(*ARGUMENTS, *settings, *_INLINE), commands=[], notes=[])
    quiet.finish()
    found = observe(quiet)
    if scene.cluster is None:
        return found
    # The trials are those of this process; the time is what they take on the cluster.
    scene.fresh()
    quiet.arguments = (*ARGUMENTS, *settings, *on_ray(scene, scene.cluster, 1))
    quiet.finish()
    return replace(found, seconds=observe(quiet).seconds)


def _arguments(given: Sequence[str]) -> dict[str, str]:
    accepted = {"suite": "machine", "seed": "0", "faults": "60", "lanes": "1", "again": "", "only": "", "write": ""}
    for argument in given:
        key, equals, value = argument.partition("=")
        number = key in ("seed", "faults", "lanes")
        if key not in accepted or not equals or (number and not value.isdecimal()):
            raise SystemExit(
                "faults: accepted are suite=NAME seed=N faults=N lanes=N again=N,N only=NAME,NAME write=FILE, "
                f"got {argument!r}"
            )
        accepted[key] = value
    if accepted["suite"] not in SUITES:
        raise SystemExit(f"faults: suite= must be one of {', '.join(SUITES)}, got {accepted['suite']!r}")
    if accepted["again"] and not (accepted["write"] and all(n.isdecimal() for n in accepted["again"].split(","))):
        raise SystemExit(
            f"faults: again= must be numbers, with write=FILE of an earlier run, got {accepted['again']!r}"
        )
    known = SUITES[accepted["suite"]]
    if unknown := [name for name in accepted["only"].split(",") if name and name not in known]:
        raise SystemExit(f"faults: only= must name some of {', '.join(known)}, got {unknown[0]!r}")
    return accepted


def main(given: Sequence[str]) -> int:
    """Inject, print a line each, write; 1 if any was not survived."""
    asked = _arguments(given)
    seed, number, lanes = int(asked["seed"]), int(asked["faults"]), max(1, int(asked["lanes"]))
    suite = asked["suite"]
    plan = schedule(seed, number, suite)
    if asked["only"]:
        names = asked["only"].split(",")
        plan = [(names[i % len(names)], Random(seed + i).randrange(2**32)) for i in range(number)]
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "COLUMNS": "160"}
    prepare()
    folder = Path(tempfile.mkdtemp(prefix="thawline-faults-"))
    again = [int(n) - 1 for n in asked["again"].split(",") if n]
    numbers = again or list(range(len(plan)))
    try:
        children = [_lane(folder / str(lane), suite, plan, numbers[lane::lanes]) for lane in range(lanes)]
        try:
            for child in children:
                os.waitpid(child, 0)
        except KeyboardInterrupt:  # of the lanes too: what they have found until now counts
            for child in children:
                _wait_for_end(child)
        files = [folder / f"{lane}.jsonl" for lane in range(lanes)]  # a lane that could not begin has none
        found = [line for file in files if file.exists() for line in file.read_text().splitlines()]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    rows = sorted(map(json.loads, found), key=lambda row: int(row["number"]))
    if again:
        rows = _merged(Path(asked["write"]), rows)
    survived = sum(row["survived"] for row in rows)
    print(f"{survived} of {len(rows)} survived")
    if asked["write"]:
        other = "" if suite == "machine" else f" suite={suite}"
        result = {
            "command": f"python -m tests.faults{other} seed={seed} faults={number}",
            "date": f"{datetime.now(UTC):%Y-%m-%d}",
            "machine": f"{platform.system()}, {len(os.sched_getaffinity(0))} cores",
            "survived": survived, "injected": len(rows), "faults": rows,
        }  # fmt: skip
        Path(asked["write"]).write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")
    return int(survived < len(rows) or len(found) < len(numbers))


def _wait_for_end(child: int) -> None:
    with suppress(ChildProcessError):
        os.waitpid(child, 0)


def _merged(file: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of an earlier run with these in their place; what they were before stays in them."""
    earlier = {row["number"]: row for row in json.loads(file.read_text())["faults"]}
    for row in rows:
        before = earlier.get(row["number"])
        if before is not None:
            row["before"] = [*before.pop("before", []), {key: before[key] for key in ("happened", "problems")}]
        earlier[row["number"]] = row
    return [earlier[number] for number in sorted(earlier)]


def _lane(folder: Path, suite: str, plan: Sequence[tuple[str, int]], numbers: Sequence[int]) -> int:
    """Some faults of the plan in a process of their own; rows go to a file. Returns the process."""
    child = os.fork()
    if child:
        return child
    code, cluster = 1, None
    try:
        prepare()  # orphans of this lane are its own
        cluster = Cluster() if suite == "ray" else None
        folder.mkdir()
        scene = replace(make_scene(folder, Random(0)), cluster=cluster)
        undisturbed: dict[tuple[str, ...], Undisturbed] = {}
        with folder.with_suffix(".jsonl").open("w") as rows:
            for number in numbers:
                row = {"number": number + 1, **inject(scene, *plan[number], undisturbed)}
                rows.write(json.dumps(row) + "\n")
                rows.flush()
                verdict = "survived" if row["survived"] else "NOT SURVIVED"
                line = f"{number + 1}/{len(plan)} {row['fault']}: {row['happened']}: {verdict} ({row['seconds']} s)"
                print("\n    ".join([line, *row["problems"]]), flush=True)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        if cluster is not None:
            cluster.close()
        os._exit(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
