"""Which machine computed a trial: scores and seconds of trials compare only as far as their machines do."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from socket import gethostname
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

__all__ = ["Machine", "this_machine"]


@dataclass(frozen=True)
class Machine:
    """A machine in words.

    Attributes:
        node: its name.
        cpu: model of its processor.
        gpu: model of the GPU that the trial ran on; empty without one.
    """

    node: str
    cpu: str
    gpu: str

    def tags(self) -> dict[str, str]:
        """As tags of a run."""
        return {name: value for name, value in asdict(self).items() if value}


def this_machine(device: torch.device) -> Machine:
    """The machine of this process, with the GPU that `device` is."""
    gpu = ""
    if device.type == "cuda":
        from torch.cuda import get_device_name

        gpu = get_device_name(device)
    return Machine(gethostname(), _processor(), gpu)


@cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())
