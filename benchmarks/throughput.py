"""Images a second of training everything, in one process or two: `python -m benchmarks.throughput [--smoke]`.

EfficientNet-Lite0 at 96 x 96 pixels on random images in memory, batches of 32, SGD with momentum: nothing but forward,
loss, backward and step. One process of two threads against two processes of one thread each that train at the same
time, both in float32 and under bfloat16 autocast. The cases are timed in turn, several rounds, medians; each round is
a fresh process that takes its first steps before the clock runs, and two at a time start their clocks together.
Rows go to benchmarks/results/throughput.json, but not those of --smoke, which times one step of each case.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.results_file import write_rows

BATCH, SIZE, CLASSES = 32, (96, 96), 11
ROUNDS, SECONDS, WARM_STEPS = 2, 4.0, 2
CASES = {(processes, bfloat16): (2 // processes) for bfloat16 in (False, True) for processes in (1, 2)}  # -> threads


def train(threads: int, bfloat16: bool, seconds: float) -> None:
    """Steps for as long as asked for, once a line comes in on standard input; prints {"images", "seconds", "step"}."""
    import torch
    from torch.nn import functional as F

    from lightning_modules.networks.backbones import build
    from lightning_modules.training.allocator import keep_freed_memory

    keep_freed_memory()
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    net = build("efficientnet_lite0", classes=CLASSES, size=SIZE, weights="none", seed=0)
    net = net.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    images = torch.rand(BATCH, 3, *SIZE).contiguous(memory_format=torch.channels_last)
    labels = torch.arange(BATCH) % CLASSES

    def step() -> float:
        started = time.perf_counter()
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            loss = F.cross_entropy(net(images), labels)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return time.perf_counter() - started

    for _ in range(WARM_STEPS):
        step()
    print("ready", flush=True)
    sys.stdin.readline()
    steps = [step()]
    while sum(steps) < seconds:
        steps.append(step())
    print(json.dumps({"images": BATCH * len(steps), "seconds": sum(steps), "step": statistics.median(steps)}))


def together(processes: int, threads: int, bfloat16: bool, seconds: float) -> tuple[list[float], float]:
    """Images a second of each process, and the median seconds of a step in the slowest of them."""
    command = [sys.executable, "-m", "benchmarks.throughput", "--train", str(threads), str(int(bfloat16)), str(seconds)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    started = [
        subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603
        for _ in range(processes)
    ]
    try:
        for process in started:
            if process.stdout is None or process.stdout.readline() != "ready\n":
                raise RuntimeError(f"a training process ended before its first step: {' '.join(command)}")
        # Both have imported and warmed up: what is timed runs beside the other one from its first step on.
        for process in started:
            if process.stdin is not None:
                process.stdin.write("go\n")
                process.stdin.flush()
        found: list[dict[str, float]] = [json.loads(process.communicate()[0]) for process in started]
    finally:
        for process in started:
            process.kill()
            process.wait()
    return [one["images"] / one["seconds"] for one in found], max(one["step"] for one in found)


def rows_of(rates: dict[tuple[int, bool], float], steps: dict[tuple[int, bool], float]) -> list[dict[str, Any]]:
    """Rows of the results file.

    Args:
        rates: images a second of all processes together, by (processes, bfloat16).
        steps: seconds of a step, likewise.
    """
    rows: list[dict[str, Any]] = []
    for (processes, bfloat16), rate in rates.items():
        name = f"{processes} x {2 // processes} threads, {'bfloat16 autocast' if bfloat16 else 'float32'}"
        step = round(steps[processes, bfloat16], 4)
        rows += [
            {"what": f"training everything, {name}", "value": round(rate, 1), "unit": "images/s", "better": "higher"},
            {"what": f"a step of everything, {name}", "value": step, "unit": "s", "better": "lower"},
        ]
    for bfloat16, name in ((False, "float32"), (True, "bfloat16 autocast")):
        rows.append(_ratio(f"images a second, 2 x 1 / 1 x 2 threads, {name}", rates[2, bfloat16] / rates[1, bfloat16]))
    for processes in (1, 2):
        what = f"step in bfloat16 autocast / float32, {processes} x {2 // processes} threads"
        rows.append(_ratio(what, steps[processes, True] / steps[processes, False]) | {"better": "lower"})
    return [
        {"what": r["what"], "value": r["value"], "unit": r["unit"], "goal": None, "better": r["better"]} for r in rows
    ]


def _ratio(what: str, value: float) -> dict[str, Any]:
    return {"what": what, "value": round(value, 3), "unit": "ratio", "better": "higher"}


def main(arguments: list[str]) -> int:
    """Measure, print, write; there is no goal to miss."""
    if arguments[:1] == ["--train"]:
        train(int(arguments[1]), arguments[2] == "1", float(arguments[3]))
        return 0
    if arguments not in ([], ["--smoke"]):
        print(f"throughput: unknown argument {arguments[0]!r}; accepted: --smoke", file=sys.stderr)
        return 2
    rounds, seconds = (1, 0.1) if arguments else (ROUNDS, SECONDS)
    if len(os.sched_getaffinity(0)) < 2:
        print("throughput: this process may use one core, the comparison needs two", file=sys.stderr)
        return 2
    rates: dict[tuple[int, bool], list[float]] = {case: [] for case in CASES}
    steps: dict[tuple[int, bool], list[float]] = {case: [] for case in CASES}
    for _ in range(rounds):
        for (processes, bfloat16), threads in CASES.items():
            by_process, step = together(processes, threads, bfloat16, seconds)
            rates[processes, bfloat16].append(sum(by_process))
            steps[processes, bfloat16].append(step)
    rows = rows_of(
        {case: statistics.median(values) for case, values in rates.items()},
        {case: statistics.median(values) for case, values in steps.items()},
    )
    table = Table("what", "value", "unit")
    for row in rows:
        table.add_row(row["what"], f"{row['value']:g}", row["unit"])
    Console().print(table)
    if not arguments:
        write_rows("throughput", rows)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
