"""What the advisor reads on every split of the depth tables: `python -m benchmarks.similarity_tables [TASK ...]`.

Measured by the code of a search (`search.evidence.similarity`) on its probe images; a line a split in
benchmarks/tables/TASK/similarity.jsonl. Runs continue where they stopped.
"""

from __future__ import annotations

import json
import math
import sys
from typing import Any

from benchmarks.depth_tables import TABLES, TASKS
from benchmarks.real_images import refusal

__all__ = ["read_similarity"]


def read_similarity(name: str) -> list[dict[str, Any]]:
    """Rows of a task; none where there is no file."""
    file = TABLES / name / "similarity.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def add_row(name: str, split: int) -> None:
    """Measure one split and append it."""
    import numpy as np
    import torch

    from benchmarks.evidence_tables import evidence_task
    from explain.evidence.advisor import advise
    from search.evidence.probe import probe_rows
    from search.evidence.similarity import measure_similarity

    torch.set_num_threads(1)
    task = evidence_task(name, split, "none")
    found = measure_similarity(task, np.concatenate(probe_rows(task)))
    row = {
        "split": split,
        "images_per_class": round(found.images_per_class, 2),
        "gain": None if math.isnan(found.gain) else round(found.gain, 4),
        "distance": None if found.distance is None else round(found.distance, 4),
        "forward_passes": found.cost.forward_passes,
    }
    with (TABLES / name / "similarity.jsonl").open("a") as lines:
        lines.write(json.dumps(row) + "\n")
    advice = advise(task.net.num_blocks, **found.options())
    print(f"{name} {split}: {row}: {advice.strategy}, freeze depth {advice.depth}", flush=True)


def main(names: list[str]) -> int:
    """Fill what is missing of the tasks named, or of every table that has evidence."""
    if why := refusal(names, TASKS):
        print(f"similarity_tables: {why}", file=sys.stderr)
        return 2
    from benchmarks.evidence_tables import read_evidence

    for name in names or TASKS:
        done = {row["split"] for row in read_similarity(name)}
        for split in sorted({row["split"] for row in read_evidence(name)} - done):
            add_row(name, split)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
