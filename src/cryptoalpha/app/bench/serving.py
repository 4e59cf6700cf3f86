"""How fast a forecast is served: the `small` forecaster with eight assets, a real server, everything on one core.

    cryptoalpha bench serving --json

The server (`lifecycle.serving`: uvicorn, one model's process) is a process of its own, bound to one core with its model where the system
lets us; this process asks over loopback HTTP. Weights and market are drawn; what is timed does not depend on them. Each request is the next
bar of the book in binary form, 2,097 bars of eight assets, 0.8 MB: no request is asked twice, and nothing is answered from memory but the
context of a block, as live.

Requests begin at moments fixed beforehand, ten a second, whatever became of the one before (an open loop): a late answer delays nobody's
clock. `p99_ms` is of evenly spaced ones, `poisson_p99_ms` of ones that come at random, where two often come at once and one waits.
The named baselines are the network's own plain forward pass over the whole block in torch, and the same forecast asked in process.
"""

from __future__ import annotations

import asyncio
import io
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import numpy as np

from cryptoalpha.app.bench.serving_workload import ServedWorkload, in_process_ms, plain_forward_ms, running_server, workload
from cryptoalpha.core.errors import DataError
from cryptoalpha.core.seeds import stream
from cryptoalpha.lifecycle.serving.windows import BINARY

Figures = dict[str, float | None]


@dataclass(frozen=True)
class Sizes:
    """How much is measured. `rate`: requests per second."""

    rate: float = 10.0
    seconds: float = 60.0
    random_seconds: float = 30.0
    saturated_seconds: float = 10.0
    clients: int = 4


def bench_serving(*, repeats: int, advance: Callable[[int], None], sizes: Sizes = Sizes()) -> tuple[Figures, tuple[str, ...]]:
    """Measure; returns figures by key and notes. About two minutes.

    Raises:
        DataError: if the server does not start, or a request is not answered.
    """
    with tempfile.TemporaryDirectory() as place:
        made = workload(Path(place))
        advance(1)
        plain, local = plain_forward_ms(made, repeats), in_process_ms(made, repeats)
        advance(1)
        with running_server(made.folder, Path(place)) as (address, core):
            even, random, rate = asyncio.run(_measure(address, made, sizes, advance))
    p50, p99 = (float(np.percentile(even, share)) for share in (50, 99))
    figures: Figures = {
        "p50_ms": p50,
        "p99_ms": p99,
        "poisson_p99_ms": float(np.percentile(random, 99)),
        "saturation_requests_per_second": rate,
        "plain_forward_over_p50": plain / p50,
        "in_process_over_p50": local / p50,
    }
    cores = f"core {core} alone" if core is not None else "no core of its own"
    return figures, (
        f"{len(even):,} requests evenly spaced at {sizes.rate:g}/s for {sizes.seconds:g} s, then {len(random):,} at random moments for "
        f"{sizes.random_seconds:g} s; server and model on {cores}; all answered with 200",
        f"saturation: {sizes.clients} clients without pause for {sizes.saturated_seconds:g} s",
        f"plain torch forward of the whole block {plain:.1f} ms, the forecast in process with its features {local:.1f} ms",
    )


async def _measure(
    address: str, made: ServedWorkload, sizes: Sizes, advance: Callable[[int], None]
) -> tuple[list[float], list[float], float]:
    """Milliseconds of evenly spaced and of random requests, and requests per second at saturation."""
    bodies = iter(made.endless_bodies())
    async with aiohttp.ClientSession() as session:
        for _ in range(20):
            await _post(session, address, next(bodies))
        step = 1.0 / sizes.rate
        even = await _open_loop(session, address, bodies, np.arange(0.0, sizes.seconds, step).tolist())
        advance(1)
        gaps = stream(0, "bench/serving").exponential(step, round(sizes.random_seconds * sizes.rate))
        random = await _open_loop(session, address, bodies, np.cumsum(gaps).tolist())
        advance(1)
        rate = await _saturated(session, address, bodies, sizes)
        advance(1)
    return even, random, rate


async def _open_loop(session: aiohttp.ClientSession, address: str, bodies: Iterator[bytes], moments: Sequence[float]) -> list[float]:
    begun = time.perf_counter()

    async def one(moment: float, body: bytes) -> float:
        await asyncio.sleep(max(0.0, begun + moment - time.perf_counter()))
        await _post(session, address, body)
        return 1e3 * (time.perf_counter() - begun - moment)

    tasks = []
    for moment in moments:  # bodies are made as they are needed, half a second ahead
        await asyncio.sleep(max(0.0, begun + moment - 0.5 - time.perf_counter()))
        tasks.append(asyncio.create_task(one(moment, next(bodies))))
    return list(await asyncio.gather(*tasks))


async def _saturated(session: aiohttp.ClientSession, address: str, bodies: Iterator[bytes], sizes: Sizes) -> float:
    begun, answered = time.perf_counter(), 0

    async def client() -> None:
        nonlocal answered
        while time.perf_counter() - begun < sizes.saturated_seconds:
            await _post(session, address, next(bodies))
            answered += 1

    await asyncio.gather(*(client() for _ in range(sizes.clients)))
    return answered / (time.perf_counter() - begun)


async def _post(session: aiohttp.ClientSession, address: str, body: bytes) -> None:
    async with session.post(f"{address}/v1/forecast", data=io.BytesIO(body), headers={"content-type": BINARY}) as answer:
        said = await answer.read()
        if answer.status != 200:
            raise DataError(f"a request was answered {answer.status}: {said[:200].decode(errors='replace')}", hint="nothing is measured")
