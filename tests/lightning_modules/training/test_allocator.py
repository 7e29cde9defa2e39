"""Memory that the allocator keeps between batches and gives back between trials."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Blocks of half a megabyte with something small that stays behind each of them, as trials leave behind.
_PROGRAM = """
import re
from lightning_modules.training.allocator import give_back_freed_memory, keep_freed_memory

def held():
    return int(re.search(r"RssAnon:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) // 1024

took_effect, before = keep_freed_memory(), held()
blocks, stay = [], []
for _ in range(400):
    blocks.append(bytearray(b"x") * 2**19)
    stay.append(bytearray(b"y") * 2048)
full = held() - before
del blocks
kept = held() - before
give_back_freed_memory()
print(took_effect, full, kept, held() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads Linux's /proc")
def test_memory_is_kept_until_it_is_given_back() -> None:
    """In a process of its own, since the settings last as long as a process does."""
    done = subprocess.run([sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True)
    took_effect, full, kept, left = done.stdout.split()
    if took_effect == "False":
        pytest.skip("the allocator is not glibc's")
    assert int(full) >= 195
    assert int(kept) >= 195
    assert int(left) <= 20
