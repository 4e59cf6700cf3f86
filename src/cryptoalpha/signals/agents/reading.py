"""Reading texts: what a text concerns, and how it sounds, for a batch at a time.

What is read of a text depends on the text and the assets alone, so it may be read anywhere: here, or in other processes while this one goes
on taking messages.
"""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, Self

import numpy as np

from cryptoalpha.core.errors import WorkerDiedError
from cryptoalpha.signals.text.relevance import appraise
from cryptoalpha.store.tables import Floats


@dataclass(frozen=True, eq=False)
class Readings:
    """What was read of `n` texts. Shapes: `relevance`, `tone` `[n]`; `named` `n` tuples of assets. From what is enough on `relevance` may
    be a lower bound (`relevance.appraise`)."""

    relevance: Floats
    tone: Floats
    named: tuple[tuple[str, ...], ...]


class Reader(Protocol):
    """Reads texts."""

    reads_elsewhere: bool
    """Whether reading goes on while nobody waits for it."""

    async def read(self, texts: Sequence[str]) -> Readings:
        """In the order of the texts.

        Raises:
            WorkerDiedError: if whoever reads is gone.
        """
        ...


def read_texts(assets: tuple[str, ...], enough: float, texts: Sequence[str]) -> Readings:
    """Relevance, tone and assets of each text; relevance exactly as far as it is below `enough`."""
    found = [appraise(text, assets, enough=enough) for text in texts]
    return Readings(
        relevance=np.array([one.relevance for one in found], np.float64),
        tone=np.array([one.tone for one in found], np.float64),
        named=tuple(one.named for one in found),
    )


class ReadHere:
    """Reads in this process."""

    reads_elsewhere = False

    def __init__(self, assets: tuple[str, ...], *, enough: float = 2.0) -> None:
        self._assets, self._enough = assets, enough

    async def read(self, texts: Sequence[str]) -> Readings:
        return read_texts(self._assets, self._enough, texts)


class ReadInProcesses:
    """Reads in other processes. A context manager that ends them.

    Args:
        assets: of the book.
        count: of processes.
        enough: relevance beyond which nobody asks how much more it is.
    """

    reads_elsewhere = True

    def __init__(self, assets: tuple[str, ...], count: int, *, enough: float = 2.0) -> None:
        self._assets, self._count, self._enough = assets, count, enough
        self._pool = self._opened()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    async def read(self, texts: Sequence[str]) -> Readings:
        for attempt in range(2):
            pool = self._pool
            try:
                return await asyncio.get_running_loop().run_in_executor(pool, read_texts, self._assets, self._enough, texts)
            except BrokenProcessPool as error:
                if pool is self._pool:
                    self._pool = self._opened()
                if attempt:
                    raise WorkerDiedError("processes that read texts died twice over one batch", hint="is there memory left?") from error
        raise AssertionError("two attempts end in an answer or an error")

    def close(self) -> None:
        """End the processes."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _opened(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(self._count, mp_context=multiprocessing.get_context("spawn"))
