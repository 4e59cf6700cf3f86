"""How often rules without a null fire on nothing: the sketch's two, the customary line of the PSI, p-values of dependent values.

For comparison only; nothing in the system uses them.
"""

from __future__ import annotations

import numpy as np

from cryptoalpha.app.bench.drift_world import ar98, iid
from cryptoalpha.core.seeds import stream
from cryptoalpha.monitoring.daily import Floats
from cryptoalpha.monitoring.drift.baseline import Baseline
from cryptoalpha.monitoring.drift.two_samples import ks_test, psi

_YEAR = 365.0


def sketch_drifted(base: float, recent: float) -> bool:
    """The sketch's rule for Sharpe ratios: (base − recent) / base > 20 %."""
    return (base - recent) / base > 0.2


def sketch_inaccurate(baseline: float, accuracy: float) -> bool:
    """The sketch's rule for accuracy: more than five points below the baseline."""
    return accuracy < baseline - 0.05


def sharpe_rule_share(days: int, *, runs: int) -> float:
    """Share of looks at which the first rule fires on a strategy whose Sharpe ratio is 2 as ever, by the days it looks at."""
    rng = stream(0, "bench", "drift", "sketch", days)
    returns = rng.normal(2.0 / np.sqrt(_YEAR), 1.0, (runs, days))
    return float(np.mean([sketch_drifted(2.0, sharpe) for sharpe in (returns.mean(axis=1) * np.sqrt(_YEAR)).tolist()]))


def accuracy_rule_share(predictions: int, *, runs: int) -> float:
    """Share of looks at which the second rule fires on predictions that are right with probability .53 as ever."""
    hits = stream(0, "bench", "drift", "accuracy", predictions).binomial(predictions, 0.53, runs)
    return float(np.mean([sketch_inaccurate(0.53, hit / predictions) for hit in hits.tolist()]))


def psi_shares(size: int, *, runs: int, reference: int = 10_000) -> tuple[float, float]:
    """Share of samples of one law whose PSI exceeds .1, and whose χ² p-value is below .01."""
    rng = stream(0, "bench", "drift", "psi", size)
    found = [psi(iid(rng, reference), iid(rng, size)) for _ in range(runs)]
    return float(np.mean([one.statistic > 0.1 for one in found])), float(np.mean([one.p_value < 0.01 for one in found]))


def ks_shares(*, runs: int, reference: int = 5_000, size: int = 720) -> tuple[float, float]:
    """Share of AR(.98) series whose last values differ from the first by Kolmogorov–Smirnov at 5 %: as they are, and whitened."""
    rng = stream(0, "bench", "drift", "ks")
    raw, white = [], []
    for _ in range(runs):
        series: Floats = ar98(rng, reference + size)
        before, after = series[:reference], series[reference:]
        baseline = Baseline.fit(before)
        raw.append(ks_test(before, after).p_value < 0.05)
        white.append(ks_test(baseline.of_reference(before), baseline.surprises(after)).p_value < 0.05)
    return float(np.mean(raw)), float(np.mean(white))
