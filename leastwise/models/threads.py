"""How many CPU threads torch may take: set for a block, then put back. It pins nothing to a core."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

THREADS = 2  # of whatever computes in a flow's process or in a server beside it


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """Sets torch's CPU threads, which are the process's.

    Waiting is passive: otherwise two busy processes stall each other.
    """
    import torch

    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
