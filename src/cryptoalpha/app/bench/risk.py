"""Speed of what the risk gate and the reports compute, beside the libraries that compute the same.

    cryptoalpha bench risk --json --repeats 5

CPU time of one thread, median of the repeats after a warm-up. A ratio is the median over turns of their time by ours, the two timed one
right after the other on the same numbers, and equal answers are demanded before anything is timed.

* Rolling Sharpe ratio over 10 million returns, window 720: ours checks its input and gives NaN with a reason; theirs is mean by deviation.
* Risk parity of 1,000 assets: one market, five weaker factors, covariance by `ledoit_wolf`. The time is of the call, checks included but
  for the test of definiteness, which an estimate from one set of rows passes by construction; with it: in the notes.
* Value at risk and expected shortfall of 100,000 scenarios: one call of ours, their two.
* The gate: `risk_gate`.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np

from cryptoalpha.app.bench.risk_gate import ASSETS, gate_work
from cryptoalpha.core.errors import ModelError
from cryptoalpha.core.seeds import stream
from cryptoalpha.core.values import Order
from cryptoalpha.monitoring.daily import Floats
from cryptoalpha.monitoring.rolling import rolling_sharpe
from cryptoalpha.risk.covariance import ledoit_wolf
from cryptoalpha.risk.hierarchical import hrp
from cryptoalpha.risk.parity import risk_contributions, risk_parity
from cryptoalpha.risk.tail.estimate import tail_risk

Figures = dict[str, float | None]
Call = Callable[[], object]
HOURS_PER_YEAR = 8_760.0
LEVEL = 0.99


@dataclass(frozen=True)
class Sizes:
    """How much is measured."""

    returns: int = 10_000_000
    window: int = 720
    assets: int = 1_000
    rows: int = 2_500
    scenarios: int = 100_000
    book: int = ASSETS


def bench_risk(*, repeats: int, advance: Callable[[int], None], sizes: Sizes = Sizes()) -> tuple[Figures, tuple[str, ...]]:
    """Measure; returns figures by key and notes. About a minute."""
    figures: Figures = {}
    notes: list[str] = []
    for part in (_rolling, _parity, _tail, _gate):
        found, said = part(repeats, sizes)
        figures |= found
        notes += said
        advance(1)
    return figures, tuple(notes)


def _rolling(repeats: int, sizes: Sizes) -> tuple[Figures, list[str]]:
    x = stream(0, "bench", "risk", "rolling").normal(1e-5, 0.005, sizes.returns)
    window, scale = sizes.window, math.sqrt(HOURS_PER_YEAR)

    def ours() -> Floats:
        return rolling_sharpe(x, window, periods_per_year=HOURS_PER_YEAR)

    peers: dict[str, Callable[[], Floats]] = {}
    if find_spec("bottleneck") is not None:
        import bottleneck

        peers["bottleneck"] = lambda: bottleneck.move_mean(x, window) / bottleneck.move_std(x, window, ddof=1) * scale
    if find_spec("pandas") is not None:
        import pandas

        def by_pandas() -> Floats:
            rolling = pandas.Series(x).rolling(window)
            return np.asarray(rolling.mean() / rolling.std() * scale)

        peers["pandas"] = by_pandas
    found, said = _against(ours, peers, repeats, 1e-5, "the rolling Sharpe ratios")
    figures: Figures = {f"rolling_sharpe_ratio_{name}": found.get(name) for name in ("bottleneck", "pandas")}
    return figures, [f"rolling Sharpe ratio of {sizes.returns:,} returns, window {window}: {said}", *_missing(figures)]


def _parity(repeats: int, sizes: Sizes) -> tuple[Figures, list[str]]:
    generator, n = stream(0, "bench", "risk", "parity"), sizes.assets
    loadings = 0.2 * generator.normal(size=(6, n))
    loadings[0] += 0.7  # the market
    spread = 0.02 * np.exp(0.5 * generator.normal(size=n))
    rows = (generator.normal(size=(sizes.rows, 6)) @ loadings + generator.normal(size=(sizes.rows, n))) * spread
    covariance = ledoit_wolf(rows).covariance
    error = float(np.max(np.abs(n * risk_contributions(risk_parity(covariance), covariance) - 1.0)))
    vouched = 1e3 * _median(lambda: risk_parity(covariance, is_psd=True), repeats)
    tested = 1e3 * _median(lambda: risk_parity(covariance), repeats)
    shrinking = 1e3 * _median(lambda: ledoit_wolf(rows), repeats)
    tree = 1e3 * _median(lambda: hrp(covariance), repeats)
    notes = [
        f"risk parity of {n:,} assets: {vouched:.1f} ms, {tested:.1f} ms with the test of definiteness; "
        f"hierarchical {tree:.1f} ms; Ledoit-Wolf of {sizes.rows:,} rows {shrinking:.0f} ms"
    ]
    if find_spec("sklearn") is not None:
        from sklearn.covariance import ledoit_wolf as theirs

        notes[0] += f", scikit-learn's {1e3 * _median(lambda: theirs(rows), repeats):.0f} ms"
    return {"risk_parity_1000_ms": vouched, "risk_parity_1000_error": error}, notes


def _tail(repeats: int, sizes: Sizes) -> tuple[Figures, list[str]]:
    r = stream(0, "bench", "risk", "tail").standard_t(4, sizes.scenarios) * 0.02

    def ours() -> Floats:
        found = tail_risk(r, level=LEVEL)
        return np.array([found.value_at_risk, found.expected_shortfall])

    peers: dict[str, Callable[[], Floats]] = {}
    if find_spec("skfolio") is not None:
        from skfolio.measures import cvar, value_at_risk

        peers["skfolio"] = lambda: np.array([value_at_risk(r, beta=LEVEL), cvar(r, beta=LEVEL)])
    found, said = _against(ours, peers, 3 * repeats, 1e-9, "value at risk and expected shortfall")
    figures: Figures = {"var_es_ratio_skfolio": found.get("skfolio")}
    return figures, [f"value at risk and expected shortfall of {sizes.scenarios:,} scenarios: {said}", *_missing(figures)]


def _gate(repeats: int, sizes: Sizes) -> tuple[Figures, list[str]]:
    review = gate_work(assets=sizes.book)
    milliseconds = 1e3 * _median(review, 5 * repeats)
    if sum(isinstance(verdict, Order) for verdict in review().verdicts) != sizes.book:
        raise ModelError("the gate stopped ordering while it was timed")
    what = "decisions, states and orders built, the cap on expected shortfall binding; scenarios are made once a day and not in this time"
    return {"gate_50_assets_ms": milliseconds}, [f"one review of {sizes.book} entries: {milliseconds:.2f} ms, {what}"]


def _against(
    ours: Callable[[], Floats], peers: dict[str, Callable[[], Floats]], repeats: int, tolerance: float, what: str
) -> tuple[dict[str, float], str]:
    """Median ratio of each peer's time to ours, in turns; and the times in words."""
    expected = ours()
    for name, peer in peers.items():
        other = peer()
        if not np.allclose(expected, other, rtol=tolerance, atol=tolerance, equal_nan=True):
            raise ModelError(f"{what} differ from {name}'s by {np.nanmax(np.abs(expected - other)):.1e}: nothing is timed")
    ratios: dict[str, list[float]] = {name: [] for name in peers}
    seconds: dict[str, list[float]] = {name: [] for name in ("ours", *peers)}
    for _ in range(repeats):
        for name, peer in peers.items():
            mine, their = _cpu_seconds(ours), _cpu_seconds(peer)
            ratios[name].append(their / mine)
            seconds["ours"].append(mine)
            seconds[name].append(their)
    said = ", ".join(f"{name} {1e3 * statistics.median(times):.2f} ms" for name, times in seconds.items() if times)
    return {name: statistics.median(found) for name, found in ratios.items()}, said or "nothing to compare with"


def _missing(figures: Figures) -> list[str]:
    names = [key.rpartition("_")[2] for key, value in figures.items() if value is None]
    return [f"{', '.join(names)}: not installed (python -m pip install --group dev)"] if names else []


def _median(call: Call, repeats: int) -> float:
    call()
    return statistics.median(_cpu_seconds(call) for _ in range(repeats))


def _cpu_seconds(call: Call) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start
