"""`python -m benchmarks [NAME ...]` (`just bench`): every speed benchmark in turn, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys

NAMES = {
    "search_price": "a whole search / one plain fine-tuning",
    "trial_step": "a trial's step / a bare PyTorch step",
    "seconds_by_depth": "seconds of a trial by freeze depth, against the operations",
    "throughput": "images a second: two trials of one thread / one of two; bfloat16 / float32",
    "ray_throughput": "epochs a second on one and two nodes of a Ray cluster / worker processes",
    "driver": "driver seconds a trial as the study grows",
    "many_workers": "driver seconds a trial, and busy workers, at 1, 8, 64 and 256 of them",
    "digests": "checking a file / decoding, writing or reading it",
    "data_memory": "memory against the size of the data",
    "explain": "maps at all blocks / captum, pytorch-grad-cam, a training step",
    "fostering_step": "a training step with CAM fostering / a plain one",
    "explain_memory": "memory of explaining 10,000 images / 100",
}


def main(names: list[str]) -> int:
    """Run the benchmarks named, or all; exit status 1 if any misses its goal."""
    if unknown := [name for name in names if name not in NAMES]:
        print(f"benchmarks: unknown name {unknown[0]!r}; accepted: {', '.join(NAMES)}", file=sys.stderr)
        return 2
    missed = []
    for name in names or NAMES:
        print(f"\n{name}: {NAMES[name]}", flush=True)
        if subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode:  # noqa: S603
            missed.append(name)
    if missed:
        print(f"\ngoals missed (or failed): {', '.join(missed)}")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
