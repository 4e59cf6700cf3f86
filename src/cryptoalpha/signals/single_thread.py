"""One thread for the networks of the signals.

A matrix product split over threads may sum in another order than one that is not, so how many threads a machine has would show in the last
bits of an opinion. Importing this module imports torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def single_thread() -> Iterator[None]:
    """Let torch compute in one thread, without gradients, and give the threads back afterwards."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(threads)
