"""How returns vary together: exponentially weighted and shrunk covariance, and the repair of an estimate that is none.

Returns are simple, one row per period, `[T, A]`; covariances are per period. `EwmaCovariance` takes one row at a time and holds, to the
bit, what `ewma_covariance` computes from all of them; neither calls BLAS, so the number of threads changes nothing.

Sources: RiskMetrics (1996), technical document; Ledoit & Wolf (2004), "A well-conditioned estimator for large-dimensional covariance
matrices".
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from cryptoalpha.core.errors import ConfigError, DataError
from cryptoalpha.monitoring.daily import as_floats
from cryptoalpha.risk.matrices import Floats, checked_square, checked_variances

DAILY_DECAY = 0.94
"""Weight of the past in a daily estimate: RiskMetrics' value, half of it after eleven days."""
COMPILED_FROM = 200
"""Assets from which the compiled update pays for loading the compiler."""


class Shrunk(NamedTuple):
    """A shrunk covariance `[A, A]`, and how far it was pulled towards equal, unrelated variances: 0 (not at all) to 1."""

    covariance: Floats
    shrinkage: float


def checked_rows(returns: ArrayLike) -> Floats:
    """Finite float64 `[T, A]`, at least one row and one asset.

    Raises:
        DataError: otherwise.
    """
    x = np.ascontiguousarray(as_floats(returns))
    if x.ndim != 2 or 0 in x.shape:
        raise DataError(f"returns have shape {x.shape}, expected [periods, assets] with at least one of each")
    if not np.isfinite(x).all():
        row, column = divmod(int(np.argmin(np.isfinite(x))), x.shape[1])
        raise DataError(
            f"returns[{row}, {column}] is {x[row, column]}, expected a finite number",
            hint="take the periods that all assets have, or leave out those listed later",
        )
    return x


def checked_decay(decay: float) -> float:
    """Raises: ConfigError: outside (0, 1)."""
    if not 0.0 < decay < 1.0:
        raise ConfigError(f"decay is {decay}, expected between 0 and 1")
    return decay


def absorb(matrix: Floats, x: Floats, past: float, weight: float) -> None:
    """`matrix ← past · matrix + weight · x xᵀ`, in place. `matrix [A, A]`, `x [A]`."""
    for i in range(len(x)):
        matrix[i] = past * matrix[i] + weight * (x[i] * x)


class EwmaCovariance:
    """Streaming `C ← λ C + (1 − λ) x xᵀ`, about a mean of zero.

    The first rows are weighted equally, `1 / n` until that falls to 1 − λ, so that no starting value is needed and none lingers.

    Args:
        assets: A.
        decay: λ, weight of the past (0–1).

    Raises:
        ConfigError: for a decay outside (0, 1) or no assets.
    """

    def __init__(self, assets: int, *, decay: float = DAILY_DECAY) -> None:
        if assets < 1:
            raise ConfigError(f"{assets} assets, expected at least one")
        self.decay = checked_decay(decay)
        self.rows = 0
        self._matrix = np.zeros((assets, assets))
        self._absorb = _update(assets)

    @property
    def covariance(self) -> Floats:
        """`[A, A]`, a copy; NaN before the first row."""
        return self._matrix.copy() if self.rows else np.full_like(self._matrix, np.nan)

    def update(self, returns: ArrayLike) -> None:
        """Take in one row, `[A]`.

        Raises:
            DataError: for another length, NaN or infinity; nothing is changed then.
        """
        x = np.asarray(returns, dtype=np.float64)
        if x.shape != self._matrix.shape[:1] or not np.isfinite(x).all():
            raise DataError(f"a row of shape {x.shape} must be {len(self._matrix)} finite returns")
        self.rows += 1
        weight = max(1.0 / self.rows, 1.0 - self.decay)
        self._absorb(self._matrix, x, 1.0 - weight, weight)

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs to go on as if never stopped."""
        return {"decay": self.decay, "rows": self.rows, "matrix": self._matrix.tolist()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises: DataError: if the state is of another size or decay."""
        matrix = np.array(state["matrix"], dtype=np.float64)
        if matrix.shape != self._matrix.shape or state["decay"] != self.decay:
            raise DataError(
                f"state of {matrix.shape[0]} assets and decay {state['decay']}, expected {len(self._matrix)} and {self.decay}",
                hint="a state fits the settings it was made with",
            )
        self.rows, self._matrix = int(state["rows"]), matrix


def ewma_covariance(returns: ArrayLike, *, decay: float = DAILY_DECAY) -> Floats:
    """What `EwmaCovariance` holds after these rows, `[T, A]` → `[A, A]`.

    Raises:
        DataError: for NaN, infinity or no rows.
        ConfigError: for a decay outside (0, 1).
    """
    x = checked_rows(returns)
    running = EwmaCovariance(x.shape[1], decay=decay)
    for row in x:
        running.update(row)
    return running.covariance


def ledoit_wolf(returns: ArrayLike) -> Shrunk:
    """Sample covariance shrunk towards `m I`, m the mean variance: `(1 − δ) S + δ m I`, about the mean, S with 1/T.

    `δ = min(b², d²) / d²` with `d² = ‖S − m I‖² / A` and `b² = (Σ_t (Σ_i x_ti²)² / T − ‖S‖²) / (T A)`; the double sum over products of
    squares is that of one square per row.

    Raises:
        DataError: for NaN, infinity or fewer than two rows.
    """
    x = checked_rows(returns)
    periods, assets = x.shape
    if periods < 2:
        raise DataError("one row does not vary: a covariance needs at least two")
    x = x - x.mean(axis=0)
    s = x.T @ x / periods
    m = float(np.trace(s)) / assets
    squares = float(np.sum(s * s))
    d2 = (squares - assets * m * m) / assets
    rows = np.sum(x * x, axis=1)
    b2 = min((float(np.sum(rows * rows)) / periods - squares) / (periods * assets), d2)
    delta = b2 / d2 if b2 > 0.0 and assets > 1 else 0.0
    s *= 1.0 - delta
    s.flat[:: assets + 1] += delta * m
    return Shrunk(s, delta)


def nearest_psd(covariance: ArrayLike, *, floor: float = 1e-8) -> Floats:
    """The matrix with eigenvalues of its correlation lifted to at least `floor`, and the variances it had.

    For estimates put together from pieces (pairs seen over different periods, assumed correlations). What needs no repair comes back as it
    is. Not the nearest matrix in any norm, but positive definite and cheap.

    Args:
        covariance: symmetric, with positive variances, `[A, A]`.
        floor: smallest eigenvalue allowed, where the variances are 1 (0–1).

    Raises:
        DataError: for NaN, asymmetry or an asset without variance.
        ConfigError: for a floor outside (0, 1).
    """
    if not 0.0 < floor < 1.0:
        raise ConfigError(f"floor is {floor}, expected between 0 and 1")
    c = checked_square(covariance)
    sd = np.sqrt(checked_variances(c))
    values, vectors = np.linalg.eigh(c / (sd[:, None] * sd[None, :]))
    if values[0] >= floor:
        return c
    lifted = np.maximum(values, floor * (2.0 - values[0]))  # more than the floor: rescaling the diagonal takes some of it back
    rebuilt = (vectors * lifted) @ vectors.T
    scale = sd / np.sqrt(np.diagonal(rebuilt))
    repaired = rebuilt * scale[:, None] * scale[None, :]
    repaired = (repaired + repaired.T) / 2.0
    np.fill_diagonal(repaired, np.diagonal(c))
    return np.asarray(repaired)


def _update(assets: int) -> Any:
    if assets < COMPILED_FROM:
        return absorb
    from cryptoalpha.risk.covariance_compiled import absorb_compiled  # a second to load

    return absorb_compiled
