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
from pathlib import Path
from typing import Any

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")


def measure(bars: int, warm_up: int = 20) -> dict[str, float]:
    """Milliseconds of every order after the warm-up, as percentiles; milliseconds of one comparison with 1,000 orders in the books."""
    import numpy as np

    from cryptoalpha.app.chaos.exchange import Playground
    from cryptoalpha.app.chaos.schedule import Schedule
    from cryptoalpha.app.chaos.session import open_live
    from cryptoalpha.app.chaos.world import World
    from cryptoalpha.core.clock import VirtualClock
    from cryptoalpha.core.values import Order
    from cryptoalpha.execution.fake_exchange.server import Server
    from cryptoalpha.execution.live.points import Point
    from cryptoalpha.store.journal import Journal

    decided: list[int] = []

    def reached(point: Point) -> None:
        if point is Point.BEFORE_INTENT:
            decided.append(time.monotonic_ns())

    world = World(Schedule(seed=1, market="spot", instruments=("BTC/USDT", "ETH/USDT"), bars=bars, change=1.0))
    with tempfile.TemporaryDirectory(prefix="wire-") as folder:
        arrivals = Path(folder) / "arrivals.log"
        answer = Server.answer

        def stamped(server: Server, call: Any, signed: str) -> Any:
            if call.method == "POST" and call.path == "/api/v3/order":
                with arrivals.open("a", encoding="ascii") as log:
                    log.write(f"{time.monotonic_ns()} {call.params['newClientOrderId']}\n")
            return answer(server, call, signed)

        type.__setattr__(Server, "answer", stamped)  # in the exchange's process, which is forked next
        delays: list[float] = []
        with Playground(world, Path(folder)) as playground:
            type.__setattr__(Server, "answer", answer)
            known_at = world.panel.known_at.tolist()
            sent: dict[str, int] = {}
            with Journal(Path(folder) / "journal.sqlite", durable=True, header=world.header()) as journal:
                parts = open_live(
                    world, journal, Path(folder), playground.url, reached=reached, clock=VirtualClock(), known_at=known_at[0],
                    wrap=lambda venue: venue,
                )  # fmt: skip
                for row, step in enumerate(world.steps()):
                    if row:
                        parts.drain()
                        playground.advance()
                        parts.market_clock.known(known_at[row])
                    parts.clock.advance_to(step.bar.at)
                    outcome = parts.engine.step(step)
                    if row >= warm_up:
                        sent |= {order.client_id: decided[-1] for order in outcome.review.verdicts if isinstance(order, Order)}
                parts.settle(10.0)
                compared = []
                for _ in range(5):
                    began = time.monotonic_ns()
                    parts.compare()
                    compared.append((time.monotonic_ns() - began) / 1e6)
                parts.close()
        for line in arrivals.read_text(encoding="ascii").splitlines():
            stamp, client_id = line.split()
            if client_id in sent:
                delays.append((int(stamp) - sent[client_id]) / 1e6)
    p50, p99 = np.percentile(delays, [50, 99]).tolist()
    return {
        "decision_to_wire_p50_ms": p50,
        "decision_to_wire_p99_ms": p99,
        "orders": float(len(delays)),
        "reconcile_ms": float(np.median(compared)),
    }


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bars", type=int, default=560, help="two orders a bar, less those of the warm-up")
    print(json.dumps(measure(parser.parse_args().bars)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
