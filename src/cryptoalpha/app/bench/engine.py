"""Speed of the loop and of the vectorised path on the oracle market, beside backtesting.py in the same run.

    cryptoalpha bench engine --json --repeats 5

CPU seconds of this process, median of the repeats after one warm-up. The loop runs with journal (a file, committed in blocks), risk gate
and costs on, opening and digest of the journal included; the vectorised path includes both exponential means; backtesting.py runs its own
strategy class on the same bars with the same commission, without its progress bar. All must agree on orders and equity first.

What a bar of the loop costs is written in `docs/performance.md`.
"""

from __future__ import annotations

import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from cryptoalpha.app.bench.oracle_market import BARS, CASH, EQUITY, FAST, FEE, SLOW, oracle_bars, oracle_panel
from cryptoalpha.app.bench.oracle_run import OracleRun, run_loop, wanted_units
from cryptoalpha.core.errors import ValidationFailedError
from cryptoalpha.execution.vectorised import UnitsRun, exponential_mean, simulate_units
from cryptoalpha.store.journal import Journal
from cryptoalpha.store.panel import Panel
from cryptoalpha.store.tables import Floats

Figures = dict[str, float | None]


def bench_engine(*, repeats: int, advance: Callable[[int], None]) -> tuple[Figures, tuple[str, ...]]:
    """Measure; returns figures by key and notes.

    Raises:
        ValidationFailedError: if loop, vectorised path and peer do not agree on what was traded.
    """
    bars, gapped = oracle_bars("A"), oracle_bars("B")
    panel = oracle_panel(bars)
    fast = _vectorised(bars)  # also compiles
    loop, events = _loop(panel, bars, count_events=True)
    _demand_equal_orders(fast, loop)
    jobs: dict[str, Callable[[], object]] = {"vectorised": lambda: _vectorised(bars), "loop": lambda: _loop(panel, bars)}
    notes = [f"loop: {len(loop.orders)} orders, {events:,} values in the journal, digest {loop.digest[:16]}"]
    if find_spec("backtesting") is None:
        notes.append("backtesting.py is not installed: pip install backtesting==0.6.6 (dev group)")
    else:
        peer_equity = _backtesting(bars)
        _demand_equity("backtesting.py", peer_equity)
        notes.append(f"backtesting.py ends with an equity of {peer_equity:,.2f}")
        jobs["backtesting"] = lambda: _backtesting(bars)
    seconds = _time(jobs, repeats, advance)
    notes.append("spread of the repeats: " + ", ".join(f"{name} {min(times):.2f}–{max(times):.2f} s" for name, times in seconds.items()))
    speed = {name: BARS / statistics.median(times) for name, times in seconds.items()}
    peer = speed.get("backtesting")
    return {
        "loop_bars_per_second": speed["loop"],
        "vectorised_bars_per_second": speed["vectorised"],
        "backtesting_py_bars_per_second": peer,
        "vectorised_ratio": speed["vectorised"] / peer if peer else None,
        "loop_ratio": speed["loop"] / peer if peer else None,
        "oracle_orders": float(len(loop.orders)),
        "oracle_equity": float(loop.equity[-1]),
        "oracle_b_equity": float(_vectorised(gapped, fill_next=True).equity[-1]),
        "journal_events_per_second": speed["loop"] * events / BARS,
    }, tuple(notes)


def _time(jobs: dict[str, Callable[[], object]], repeats: int, advance: Callable[[int], None]) -> dict[str, list[float]]:
    """CPU seconds of each job, in turns, so that a machine that slows down slows all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for _ in range(repeats):
        for name, job in jobs.items():
            started = time.process_time()
            job()
            seconds[name].append(time.process_time() - started)
        advance(1)
    return seconds


def _demand_equal_orders(fast: UnitsRun, loop: OracleRun) -> None:
    """Speed says nothing about a path that trades something else."""
    found = [(row, quantity if side == "buy" else -quantity) for row, side, quantity in loop.orders]
    if found != list(zip(fast.index.tolist(), fast.quantity.tolist(), strict=True)):
        raise ValidationFailedError(
            f"loop and vectorised path disagree: {len(found)} against {len(fast.index)} orders",
            hint="pytest tests/golden shows the first that differs",
        )
    _demand_equity("the loop", float(loop.equity[-1]))


def _demand_equity(who: str, equity: float) -> None:
    if abs(equity - EQUITY["A"]) > 0.01:
        raise ValidationFailedError(
            f"{who} ends oracle A with an equity of {equity:,.2f}, expected {EQUITY['A']:,.2f}",
            hint="pytest tests/golden shows what differs",
        )


def _vectorised(bars: Floats, *, fill_next: bool = False) -> UnitsRun:
    close = bars[:, 3].copy()
    units = wanted_units(exponential_mean(close, FAST), exponential_mean(close, SLOW))
    return simulate_units(bars[:, 0].copy(), close, units, fee=FEE, cash=CASH, fill="next_open" if fill_next else "signal_close")


def _loop(panel: Panel, bars: Floats, *, count_events: bool = False) -> tuple[OracleRun, int]:
    """The loop with its journal in a file; how many values the journal holds afterwards, where asked for."""
    close = bars[:, 3].copy()
    units = wanted_units(exponential_mean(close, FAST), exponential_mean(close, SLOW))
    with tempfile.TemporaryDirectory() as folder, Journal(Path(folder) / "journal.sqlite", durable=False, header={}) as journal:
        ran = run_loop(panel, units, journal, fill="signal_close")
        return ran, sum(len(values) for _, _, values in journal.rows()) if count_events else 0


def _backtesting(bars: Floats) -> float:
    """backtesting.py on the same rule; returns its final equity."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import backtesting.backtesting as peer
        import pandas as pd

        peer._tqdm = lambda steps, **_: steps  # what it does itself where tqdm is not installed: no progress bar
        index = pd.date_range("2024-01-01", periods=len(bars), freq="min")
        frame = pd.DataFrame(bars, columns=["Open", "High", "Low", "Close", "Volume"], index=index)
        close = bars[:, 3].copy()
        wanted = wanted_units(exponential_mean(close, FAST), exponential_mean(close, SLOW))

        class Cross(peer.Strategy):  # type: ignore[misc]
            def init(self) -> None:
                self.wanted = self.I(lambda: wanted, plot=False)

            def next(self) -> None:
                if self.wanted[-1] and not self.position:
                    self.buy(size=1)
                elif not self.wanted[-1] and self.position:
                    self.position.close()

        found = peer.Backtest(frame, Cross, cash=CASH, commission=FEE, trade_on_close=True, finalize_trades=True).run()
    return float(found["Equity Final [$]"])
