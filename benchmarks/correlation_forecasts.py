"""Which correlation tracker foresees the next day best? An evaluation on real coins, not a speed test.

    python benchmarks/correlation_forecasts.py DIRECTORY

DIRECTORY holds hourly bars, one Parquet file per coin with columns ts and close (`price_1h`). Days on which all coins have prices are
taken; each day's returns are divided by the volatility known before it, and a tracker scores the log likelihood of the correlation it
expected, less that of one correlation fitted to the first 500 days. Higher is better; the error is that of the mean over days.
"""

from __future__ import annotations

import sys
from pathlib import Path

import duckdb
import numpy as np

from cryptoalpha.risk.correlation import CorrelationTracker, fitted_dcc
from cryptoalpha.risk.covariance import DAILY_DECAY
from cryptoalpha.risk.dcc import standardise
from cryptoalpha.risk.matrices import Floats, correlation_of

START = 500
CLOSES = "select epoch_ms(ts) // 86400000 as day, last(close order by ts) from read_parquet(?) group by 1 order by 1"


def daily_returns(folder: Path) -> Floats:
    """Simple daily returns of all coins, on the days they share, `[T, A]`."""
    series = []
    for file in sorted(folder.glob("*.parquet")):
        days, closes = duckdb.connect().execute(CLOSES, [str(file)]).fetchnumpy().values()
        series.append(dict(zip(days.tolist(), closes.tolist(), strict=True)))
    shared = sorted(set.intersection(*(set(closes) for closes in series)))
    prices = np.array([[closes[day] for closes in series] for day in shared])
    return np.asarray(prices[1:] / prices[:-1] - 1.0)


def log_likelihood(correlation: Floats, row: Floats) -> float:
    """Of one row of standardised returns, less that of independent ones."""
    return float(-0.5 * (np.linalg.slogdet(correlation)[1] + row @ np.linalg.solve(correlation, row) - row @ row))


def main(folder: Path) -> None:
    returns = daily_returns(folder)
    assets = returns.shape[1]
    rows = standardise(returns)  # row t − 1 belongs to day t
    fit = fitted_dcc(returns[:START], decay=DAILY_DECAY)
    trackers = {f"ewma, decay {decay}": CorrelationTracker(assets, decay=decay) for decay in (0.94, 0.97, 0.98, 0.99, 0.995)}
    for window in (60, 120, 250, 500):
        trackers[f"shrunk, {window} days"] = CorrelationTracker(assets, method="shrunk", window=window)
    trackers[f"dcc, a {fit.a:g}, b {fit.b:g}"] = CorrelationTracker(assets, method="dcc", decay=DAILY_DECAY, fitted=fit)
    scores: dict[str, list[float]] = {name: [] for name in trackers}
    still = correlation_of(fit.target)
    for day, row in enumerate(returns):
        for name, tracker in trackers.items():
            if day >= START:
                scores[name].append(log_likelihood(tracker.correlation(), rows[day - 1]) - log_likelihood(still, rows[day - 1]))
            tracker.update(row)
    print(f"{assets} coins, {len(returns) - START} days after the first {START}; log likelihood a day above one that never moves")
    for name, found in scores.items():
        print(f"{name:24} {np.mean(found):+.3f} ± {np.std(found) / np.sqrt(len(found)):.3f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
