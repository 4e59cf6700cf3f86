"""The correlation tracker: what correlation to expect next, row by row of returns.

Three ways, one face: `ewma` (old rows fade), `shrunk` (Ledoit–Wolf over the last rows, all counting the same), `dcc` (correlation that
reverts to its long-run level, `risk.dcc`). Each takes one row of returns at a time, uses nothing that is not yet known, and goes on from a
saved state as if it had never stopped.

Sources: as `risk.covariance` and `risk.dcc`.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.risk.covariance import EwmaCovariance, checked_rows, ledoit_wolf
from cryptoalpha.risk.dcc import DccFit, advanced, as_correlation, fit_dcc, scaled, standardise
from cryptoalpha.risk.exposure import checked_weights
from cryptoalpha.risk.matrices import Floats

Method = Literal["ewma", "shrunk", "dcc"]
METHODS: tuple[Method, ...] = ("ewma", "shrunk", "dcc")
CORRELATION_DECAY = 0.99
"""Weight of the past in a daily correlation, half of it after 69 days. Correlations need more rows than variances: over 737 days of eight
coins the next day was foreseen best by 0.98 to 0.99 and by 120 shrunk days, worse than by one fixed correlation at 0.94
(`python benchmarks/correlation_forecasts.py DIRECTORY`)."""


class CorrelationTracker:
    """See the module header.

    Args:
        assets: A.
        method: `ewma`, `shrunk` or `dcc`.
        decay: weight of the past (0–1), for `ewma` and for the volatilities of `dcc`.
        window: rows that `shrunk` looks back on (≥ 2).
        fitted: parameters and target of `dcc` (`fitted_dcc`), from data before the first row tracked.
        least_rows: rows before which nothing is said (≥ 2).

    Raises:
        ConfigError: for an unknown method, numbers out of range, or `dcc` without `fitted`.
    """

    def __init__(
        self,
        assets: int,
        *,
        method: Method = "ewma",
        decay: float = CORRELATION_DECAY,
        window: int = 250,
        fitted: DccFit | None = None,
        least_rows: int = 20,
    ) -> None:
        if method not in METHODS:
            raise ConfigError(f"no way to track correlation is called {method!r}", hint=f"known: {', '.join(METHODS)}")
        if window < 2 or least_rows < 2:
            raise ConfigError(f"window {window} and least_rows {least_rows}: expected at least 2 of each")
        if method == "dcc" and (fitted is None or fitted.target.shape != (assets, assets)):
            raise ConfigError(
                f"dcc needs parameters and a target for {assets} assets", hint="fit them with risk.correlation.fitted_dcc first"
            )
        self.method: Method = method
        self.rows = 0
        self._assets, self._window, self._least = assets, window, least_rows
        self._ewma = EwmaCovariance(assets, decay=decay)  # dcc reads volatilities off its diagonal
        self._recent: list[Floats] = []
        self._fitted = fitted
        self._q = np.zeros((0, 0)) if fitted is None else fitted.target.copy()

    def update(self, returns: ArrayLike) -> None:
        """Take in one row of returns, `[A]`.

        Raises:
            DataError: for another length, NaN or infinity; nothing is changed then.
        """
        row = np.asarray(returns, dtype=np.float64)
        variance = np.diagonal(self._ewma.covariance) if self.rows and self.method == "dcc" else None
        self._ewma.update(row)
        if self.method == "shrunk":
            self._recent = [*self._recent[-(self._window - 1) :], row.copy()]
        elif self._fitted is not None and variance is not None:
            self._q = advanced(self._q, scaled(row, variance), self._fitted.a, self._fitted.b, self._fitted.target)
        self.rows += 1

    def correlation(self) -> Floats:
        """Correlation expected of the next row, `[A, A]`, ones on the diagonal; NaN beside it before `least_rows` and, by `ewma`,
        for an asset that never moved."""
        unknown = np.full((self._assets, self._assets), np.nan)
        np.fill_diagonal(unknown, 1.0)
        if self.rows < self._least:
            return unknown
        if self.method == "dcc":
            return as_correlation(self._q)
        covariance = ledoit_wolf(np.stack(self._recent)).covariance if self.method == "shrunk" else self._ewma.covariance
        sd = np.sqrt(np.diagonal(covariance))
        moved = np.flatnonzero(sd > 0.0)
        part = np.ix_(moved, moved)
        unknown[part] = np.clip(covariance[part] / (sd[moved, None] * sd[None, moved]), -1.0, 1.0)
        np.fill_diagonal(unknown, 1.0)
        return unknown

    def expected_correlation(self, weights: ArrayLike, volatilities: ArrayLike) -> Floats:
        """`expected_correlation` at the correlation now expected."""
        return expected_correlation(self.correlation(), weights, volatilities)

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` of a tracker made with the same arguments needs to go on as if never stopped."""
        return {
            "method": self.method,
            "rows": self.rows,
            "ewma": self._ewma.state_dict(),
            "recent": [row.tolist() for row in self._recent],
            "q": self._q.tolist() if self._fitted is not None else [],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises: DataError: if the state is of another method, size or decay."""
        if state["method"] != self.method:
            raise DataError(f"state of a tracker by {state['method']!r}, expected {self.method!r}")
        self._ewma.load_state_dict(state["ewma"])
        self.rows = int(state["rows"])
        self._recent = [np.array(row, dtype=np.float64) for row in state["recent"]]
        if self._fitted is not None:
            self._q = np.array(state["q"], dtype=np.float64)


def fitted_dcc(returns: ArrayLike, *, decay: float = CORRELATION_DECAY) -> DccFit:
    """Parameters for a `dcc` tracker, from rows before those it is to track, `[T, A]`.

    Raises:
        DataError: for NaN, infinity or fewer than two rows.
    """
    return fit_dcc(standardise(checked_rows(returns), decay=decay))


def expected_correlation(correlation: ArrayLike, weights: ArrayLike, volatilities: ArrayLike) -> Floats:
    """Correlation of each asset with the rest of the book, itself left out, `[A]`.

    Args:
        correlation: `[A, A]`.
        weights: signed sizes of the positions, `[A]`; an asset that is not held has 0 and is compared with the whole book.
        volatilities: of the assets, `[A]`, any unit.

    NaN where there is no rest of the book, or a correlation with a part of it is not known.

    Raises:
        DataError: for shapes that do not fit, weights or volatilities that are not finite, or negative volatilities.
    """
    w, sd = checked_weights(weights), checked_weights(volatilities, name="volatilities")
    rho = np.asarray(correlation, dtype=np.float64)
    if rho.shape != (len(w), len(w)) or sd.shape != w.shape or bool(np.any(sd < 0.0)):
        raise DataError(
            f"correlation {rho.shape}, weights {w.shape}, volatilities {sd.shape}: expected one size, volatilities of 0 or more"
        )
    risk = w * sd
    out = np.full(len(w), np.nan)
    for i in range(len(w)):
        rest = np.flatnonzero(risk)
        rest = rest[rest != i]
        if not len(rest):
            continue
        others = risk[rest]
        variance = float(np.sum(rho[np.ix_(rest, rest)] * others[:, None] * others[None, :]))
        if variance > 0.0:
            out[i] = min(1.0, max(-1.0, float(np.sum(rho[i, rest] * others)) / math.sqrt(variance)))
    return out
