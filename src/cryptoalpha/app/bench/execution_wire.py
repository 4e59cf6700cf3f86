"""How long an order takes from the decision to the wire, and how long a comparison of the books takes: a live session on loopback.

Run as a process of its own (`python -m cryptoalpha.app.bench.execution_wire`), because the exchange is forked before any thread is. The
exchange notes when a request for an order has arrived, by the clock that all processes of a machine share (`time.monotonic`), so what is
measured ends later than the wire begins: the loopback and the exchange's reading of the request are in it. It begins when the agent has
decided; risk's review, the journal's row with its fsync, the hand-over to the venue's thread, and ccxt's signing lie between.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cryptoalpha.app.chaos.exchange import Playground
    from cryptoalpha.app.chaos.world import World

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")


def measure(bars: int, warm_up: int = 20) -> dict[str, float]:
    """Milliseconds of every order after the warm-up, as percentiles; milliseconds of one comparison with all of them in the books."""
    import numpy as np

    from cryptoalpha.app.chaos.exchange import Playground
    from cryptoalpha.app.chaos.schedule import Schedule
    from cryptoalpha.app.chaos.world import World

    world = World(Schedule(seed=1, market="spot", instruments=("BTC/USDT", "ETH/USDT"), bars=bars, change=1.0))
    with tempfile.TemporaryDirectory(prefix="wire-") as folder:
        arrivals = Path(folder) / "arrivals.log"
        with _arrivals_noted(arrivals), Playground(world, Path(folder)) as playground:
            decided, compared = _trade(world, Path(folder), playground, warm_up)
        arrived = dict(line.split() for line in arrivals.read_text(encoding="ascii").splitlines())
    delays = [(int(arrived[client_id]) - began) / 1e6 for client_id, began in decided.items() if client_id in arrived]
    p50, p99 = np.percentile(delays, [50, 99]).tolist()
    return {
        "decision_to_wire_p50_ms": p50,
        "decision_to_wire_p99_ms": p99,
        "orders": float(len(delays)),
        "reconcile_ms": float(np.median(compared)),
    }


@contextmanager
def _arrivals_noted(path: Path) -> Iterator[None]:
    """Exchanges that are forked meanwhile write down when each order arrives."""
    from cryptoalpha.execution.fake_exchange.server import Server

    answer = Server.answer

    def stamped(server: Server, call: Any, signed: str) -> Any:
        if call.method == "POST" and call.path == "/api/v3/order":
            with path.open("a", encoding="ascii") as log:
                log.write(f"{call.params['newClientOrderId']} {time.monotonic_ns()}\n")
        return answer(server, call, signed)

    type.__setattr__(Server, "answer", stamped)
    try:
        yield
    finally:
        type.__setattr__(Server, "answer", answer)


def _trade(world: World, folder: Path, playground: Playground, warm_up: int) -> tuple[dict[str, int], list[float]]:
    """When each order was decided, `time.monotonic_ns` by client id; milliseconds of five comparisons at the end."""
    from cryptoalpha.app.chaos.session import open_live
    from cryptoalpha.core.clock import VirtualClock
    from cryptoalpha.core.values import Order
    from cryptoalpha.execution.live.points import Point
    from cryptoalpha.store.journal import Journal

    moments, decided, compared = [0], dict[str, int](), list[float]()

    def reached(point: Point) -> None:
        if point is Point.BEFORE_INTENT:
            moments.append(time.monotonic_ns())

    known_at = world.panel.known_at.tolist()
    with Journal(folder / "journal.sqlite", durable=True, header=world.header()) as journal:
        parts = open_live(
            world, journal, folder, playground.url, reached=reached, clock=VirtualClock(), known_at=known_at[0], wrap=lambda venue: venue
        )
        for row, step in enumerate(world.steps()):
            if row:
                parts.drain()
                playground.advance()
                parts.market_clock.known(known_at[row])
            parts.clock.advance_to(step.bar.at)
            verdicts = parts.engine.step(step).review.verdicts
            if row >= warm_up:
                decided |= {order.client_id: moments[-1] for order in verdicts if isinstance(order, Order)}
        parts.settle(10.0)
        for _ in range(5):
            began = time.monotonic_ns()
            parts.compare()
            compared.append((time.monotonic_ns() - began) / 1e6)
        parts.close()
    return decided, compared


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bars", type=int, default=560, help="two orders a bar, less those of the warm-up")
    print(json.dumps(measure(parser.parse_args().bars)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
