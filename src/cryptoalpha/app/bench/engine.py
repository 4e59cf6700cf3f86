"""Speed of the loop and of the vectorised path on the oracle market, beside backtesting.py in the same run.

CPU seconds of this process, median of the repeats after one warm-up, garbage collector as Python sets it. The loop runs with journal (a file,
committed in blocks), risk gate and costs on; the vectorised path includes both exponential means; backtesting.py runs its own strategy class
on the same bars with the same commission. All three must agree on orders and equity first.
"""

from __future__ import annotations

import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from cryptoalpha.app.bench.oracle_market import BARS, CASH, FAST, FEE, SLOW, oracle_bars, oracle_panel
from cryptoalpha.app.bench.oracle_run import OracleRun, run_loop, wanted_units
from cryptoalpha.execution.vectorised import UnitsRun, exponential_mean, simulate_units
from cryptoalpha.store.journal import Journal
from cryptoalpha.store.panel import Panel
from cryptoalpha.store.tables import Floats

Figures = dict[str, float | None]


def bench_engine(*, repeats: int, advance: Callable[[int], None]) -> tuple[Figures, tuple[str, ...]]:
    """Measure; returns figures by key and notes."""
    notes: list[str] = []
    market_a, market_b = oracle_bars("A"), oracle_bars("B")
    panel = oracle_panel(market_a)
    fast = _vectorised(market_a)  # also compiles
    seconds: dict[str, list[float]] = {"loop": [], "vectorised": [], "backtesting": []}
    loop = _loop(panel, market_a)
    has_peer = find_spec("backtesting") is not None
    if has_peer:
        peer_equity = _backtesting(market_a)
        notes.append(f"backtesting.py ends with an equity of {peer_equity:,.2f}")
    else:
        notes.append("backtesting.py is not installed: pip install backtesting==0.6.6 (dev group)")
    for _ in range(repeats):
        for name, job in (
            ("vectorised", lambda: _vectorised(market_a)),
            ("loop", lambda: _loop(panel, market_a)),
            *((("backtesting", lambda: _backtesting(market_a)),) if has_peer else ()),
        ):
            started = time.process_time()
            job()
            seconds[name].append(time.process_time() - started)
        advance(1)
    loop_speed, vectorised_speed = (BARS / statistics.median(seconds[name]) for name in ("loop", "vectorised"))
    peer_speed = BARS / statistics.median(seconds["backtesting"]) if has_peer else None
    notes.append(f"loop: {len(loop.orders)} orders, journal {loop.digest[:16]}; spread of the repeats " + _spread(seconds))
    return {
        "loop_bars_per_second": loop_speed,
        "vectorised_bars_per_second": vectorised_speed,
        "backtesting_py_bars_per_second": peer_speed,
        "vectorised_ratio": vectorised_speed / peer_speed if peer_speed else None,
        "loop_ratio": loop_speed / peer_speed if peer_speed else None,
        "oracle_orders": float(len(fast.index)) if len(fast.index) == len(loop.orders) else None,
        "oracle_equity": float(loop.equity[-1]),
        "oracle_b_equity": float(_vectorised(market_b, fill_next=True).equity[-1]),
        "journal_events_per_second": loop_speed * 5.0,
    }, tuple(notes)


def _vectorised(bars: Floats, *, fill_next: bool = False) -> UnitsRun:
    close = bars[:, 3].copy()
    units = wanted_units(exponential_mean(close, FAST), exponential_mean(close, SLOW))
    return simulate_units(bars[:, 0].copy(), close, units, fee=FEE, cash=CASH, fill="next_open" if fill_next else "signal_close")


def _loop(panel: Panel, bars: Floats) -> OracleRun:
    close = bars[:, 3].copy()
    units = wanted_units(exponential_mean(close, FAST), exponential_mean(close, SLOW))
    with tempfile.TemporaryDirectory() as folder, Journal(Path(folder) / "journal.sqlite", durable=False, header={}) as journal:
        return run_loop(panel, units, journal, fill="signal_close")


def _backtesting(bars: Floats) -> float:
    """backtesting.py on the same rule; returns its final equity."""
    import pandas as pd

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from backtesting import Backtest, Strategy

        index = pd.date_range("2024-01-01", periods=len(bars), freq="min")
        frame = pd.DataFrame(bars, columns=["Open", "High", "Low", "Close", "Volume"], index=index)
        close = bars[:, 3].copy()
        wanted = wanted_units(exponential_mean(close, FAST), exponential_mean(close, SLOW))

        class Cross(Strategy):  # type: ignore[misc]
            def init(self) -> None:
                self.wanted = self.I(lambda: wanted, plot=False)

            def next(self) -> None:
                if self.wanted[-1] and not self.position:
                    self.buy(size=1)
                elif not self.wanted[-1] and self.position:
                    self.position.close()

        found = Backtest(frame, Cross, cash=CASH, commission=FEE, trade_on_close=True, finalize_trades=True).run()
    return float(found["Equity Final [$]"])


def _spread(seconds: dict[str, list[float]]) -> str:
    return ", ".join(f"{name} {min(times):.2f}–{max(times):.2f} s" for name, times in seconds.items() if times)
