"""A ridge regression on all 80 features, pooled over assets, refitted as it walks forward.

Fits stand at fixed moments (multiples of `refit_days` since 1970), each on the trailing `train_days` of rows whose labels were known an
embargo before it; a row is predicted by the newest fit before it. Nothing depends on where a run starts or ends.

The penalty follows from a belief, not from a search: F features of unit variance that together explain a share R² of the labels have
weights of variance R²/F, so β = (X'X/n + F/(R² n_eff) I)⁻¹ X'y/n, where n_eff counts independent observations: overlapping labels and
correlated assets make it far smaller than n. The mean label is removed and not predicted: drift is for other sources to find.

Impact is the prediction itself; value = tanh of it over twice its root mean square in training. Confidence = share of features observed ×
n_eff / (n_eff + F).

Departure from BLAS: the normal equations are summed in a fixed order by own kernels, so a fit is the same on any machine and thread count.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from cryptoalpha.core.time import DAY
from cryptoalpha.signals.chain_features import MARKET
from cryptoalpha.signals.config import FeatureRidgeConfig
from cryptoalpha.signals.frame import Frame, rows_in, squash_all
from cryptoalpha.signals.labels import Labels, forward_return
from cryptoalpha.signals.model import Opinions, opinions
from cryptoalpha.signals.price_features import WARMUP_BARS
from cryptoalpha.signals.scaler import Scaler, fit_scaler
from cryptoalpha.store.as_of import as_of_index
from cryptoalpha.store.panel import FIELDS, Panel
from cryptoalpha.store.tables import Floats

Rows = npt.NDArray[np.int64]
"""Places of rows of a frame, ascending."""


@njit(cache=True)
def normal_equations(rows: Floats, target: Floats) -> tuple[Floats, Floats]:
    """X'X and X'y, summed row by row. `[n, F]`, `[n]` → `[F, F]`, `[F]`."""
    n, width = rows.shape
    gram, moment = np.zeros((width, width)), np.zeros(width)
    for r in range(n):
        for i in range(width):
            x = rows[r, i]
            moment[i] += x * target[r]
            for j in range(width):
                gram[i, j] += x * rows[r, j]
    return gram, moment


@njit(cache=True)
def solve_positive(matrix: Floats, right: Floats) -> Floats:
    """Solve for a symmetric positive definite matrix by Cholesky. `[F, F]`, `[F]` → `[F]`; NaN if it is not positive definite."""
    width = right.size
    lower, solution = np.zeros((width, width)), right.copy()
    for i in range(width):
        for j in range(i + 1):
            rest = matrix[i, j]
            for k in range(j):
                rest -= lower[i, k] * lower[j, k]
            if i > j:
                lower[i, j] = rest / lower[j, j]
            elif rest > 0.0:
                lower[i, i] = math.sqrt(rest)
            else:
                return np.full(width, np.nan)
    for i in range(width):
        for k in range(i):
            solution[i] -= lower[i, k] * solution[k]
        solution[i] /= lower[i, i]
    for i in range(width - 1, -1, -1):
        for k in range(i + 1, width):
            solution[i] -= lower[k, i] * solution[k]
        solution[i] /= lower[i, i]
    return solution


@njit(cache=True)
def predict(rows: Floats, weights: Floats) -> Floats:
    """X β, each row summed in the order of the features. `[n, F]`, `[F]` → `[n]`."""
    out = np.zeros(rows.shape[0])
    for r in range(rows.shape[0]):
        for f in range(weights.size):
            out[r] += rows[r, f] * weights[f]
    return out


@dataclass(frozen=True, eq=False)
class Fit:
    """One fit: its scaler, weights `[F]` per scaled feature, root mean square of its predictions in training, independent observations."""

    scaler: Scaler
    weights: Floats
    strength: float
    effective_rows: float


@dataclass(frozen=True, eq=False)
class Evidence:
    """All that a fit at a moment can depend on: bars and readings known by then, as far back as its features reach."""

    anchor: int
    instruments: tuple[str, ...]
    columns: tuple[npt.NDArray[Any], ...]
    readings: Mapping[tuple[str, str], tuple[npt.NDArray[Any], ...]]

    @classmethod
    def of(cls, frame: Frame, anchor: int, *, since: int) -> Evidence:
        """That of a fit which looks back to `since`. Views, nothing is copied."""
        panel = frame.panel
        bounds = int(np.searchsorted(panel.open_time, since)), int(np.searchsorted(panel.known_at, anchor, side="right"))
        known = panel.rows(*bounds)
        columns = known.open_time, known.known_at, known.present, *(getattr(known, name) for name in FIELDS)
        tables = {key: table for key, table in frame.dataset.readings.items() if key[0] in (*frame.assets, MARKET)}
        ends = {key: int(np.searchsorted(table.known_at, anchor, side="right")) for key, table in tables.items()}
        readings = {
            key: tuple(part[: ends[key]] for part in (t.known_at, t.happened_at, t.value)) for key, t in tables.items() if ends[key]
        }
        return cls(anchor, panel.instruments, columns, readings)

    def equals(self, other: Evidence) -> bool:
        """Whether a fit of the other would be the same to the last bit."""
        if (self.anchor, self.instruments, self.readings.keys()) != (other.anchor, other.instruments, other.readings.keys()):
            return False
        pairs = [*zip(self.columns, other.columns, strict=True)]
        for key, parts in self.readings.items():
            pairs += zip(parts, other.readings[key], strict=True)
        return all(_same(one, another) for one, another in pairs)


def _same(one: npt.NDArray[Any], another: npt.NDArray[Any]) -> bool:
    """Equal to the last bit; a NaN equals itself."""
    if one.shape != another.shape:
        return False
    return bool(np.array_equal(one.view(np.int64), another.view(np.int64)) if one.dtype.kind == "f" else np.array_equal(one, another))


class TrainingRows:
    """Features of the rows a fit may learn from, kept from frame to frame of one history (`signals.history`).

    Live, each bar's features are computed once, for the bar itself; a fit that computed those of its year again would hold up a bar for
    half a second.
    """

    def __init__(self, stride: int) -> None:
        self._stride = stride
        self._history: object | None = None
        self._rows: dict[int, Floats] = {}

    def all_of(self, panel: Panel) -> npt.NDArray[np.bool_]:
        """Rows that fits learn from. `[T]`."""
        return np.asarray(panel.open_time // panel.interval % self._stride == 0)

    def take(self, frame: Frame, chosen: Rows) -> Floats:
        """The features of some of these rows. `[n]` → `[n, A, F]`."""
        self._of(frame)
        opens = frame.panel.open_time[chosen].tolist()
        missing = [row for row, at in zip(chosen.tolist(), opens, strict=True) if at not in self._rows]
        if missing:
            later = missing[0] + np.flatnonzero(self.all_of(frame.panel)[missing[0] :])  # of the next fit, too
            self.keep(frame, later, _features(frame, missing[0])[later - missing[0]])
        if not opens:
            return _features(frame, len(frame.panel))
        return np.stack([self._rows[at] for at in opens])

    def keep(self, frame: Frame, rows: Rows, features: Floats) -> None:
        """Keep the features of these rows, `[n]`, `[n, A, F]`, and forget bars that the frame no longer holds."""
        self._of(frame)
        self._rows.update(zip(frame.panel.open_time[rows].tolist(), np.array(features), strict=True))
        oldest = int(frame.panel.open_time[0])
        for at in [at for at in self._rows if at < oldest]:
            del self._rows[at]

    def _of(self, frame: Frame) -> None:
        if frame.history is None or frame.history is not self._history:
            self._history, self._rows = frame.history, {}


class FeatureRidge:
    """Walk-forward ridge on the price and on-chain features. `config` says over which windows."""

    source = "features"
    type = "model"

    def __init__(self, config: FeatureRidgeConfig) -> None:
        self._config = config
        self.horizon = round(config.horizon_days * DAY)
        self._newest: tuple[Evidence, Fit | None] | None = None
        self._history: object | None = None
        self._rows = TrainingRows(config.stride_bars)

    def reach(self, interval: int) -> int:
        days = self._config.train_days + self._config.refit_days
        return rows_in(days, interval) + WARMUP_BARS + 2

    def compute(self, frame: Frame) -> Opinions:
        features = _features(frame, frame.first)
        width = features.shape[2]
        prediction, strength, confidence = (np.full(frame.shape, np.nan) for _ in range(3))
        traces = {name: np.full((len(frame.panel), width), np.nan) for name in ("scaler/centre", "scaler/scale", "weights/features")}
        for anchor, rows in self._stretches(frame):
            fit = self._fit_at(frame, anchor)
            if fit is None:
                continue
            scaled, observed = fit.scaler.apply(features[rows.start - frame.first : rows.stop - frame.first])
            prediction[rows] = predict(scaled.reshape(-1, width), fit.weights).reshape(-1, frame.shape[1])
            strength[rows] = fit.strength
            confidence[rows] = observed.sum(axis=2) / width * (fit.effective_rows / (fit.effective_rows + width))
            traces["scaler/centre"][rows], traces["scaler/scale"][rows] = fit.scaler.centre, fit.scaler.scale
            traces["weights/features"][rows] = fit.weights
        prediction[confidence == 0.0] = np.nan  # not one feature observed
        value = squash_all(prediction / (2.0 * strength))
        own = np.flatnonzero(self._rows.all_of(frame.panel))
        own = own[own >= frame.first]
        self._rows.keep(frame, own, features[own - frame.first])
        return opinions(frame, value, confidence, prediction, traces={**traces, "label/forward": self._newest_labels(frame)})

    def _stretches(self, frame: Frame) -> Iterator[tuple[int, slice]]:
        """The fits needed from `frame.first` on: their moment, and the rows they predict."""
        period = round(self._config.refit_days * DAY)
        anchors = frame.panel.known_at // period * period
        start = frame.first
        while start < len(anchors):
            stop = int(np.searchsorted(anchors, anchors[start], side="right"))
            yield int(anchors[start]), slice(start, stop)
            start = stop

    def _fit_at(self, frame: Frame, anchor: int) -> Fit | None:
        """The fit that stands at `anchor`: the newest one again if all that it was made of is the same, which live it is for weeks."""
        newest, known = self._newest, frame.history is not None and frame.history is self._history
        if newest is not None and known and newest[0].anchor == anchor:
            return newest[1]
        since = anchor - round(self._config.train_days * DAY) - (WARMUP_BARS + 2) * frame.panel.interval
        evidence, self._history = Evidence.of(frame, anchor, since=since), frame.history
        if newest is None or not evidence.equals(newest[0]):
            labels = forward_return(frame.panel, rows_in(self._config.horizon_days, frame.panel.interval), frame.sigma)
            self._newest = evidence, self.fit(frame, lambda rows: self._rows.take(frame, rows), labels, anchor)
        return None if self._newest is None else self._newest[1]

    def fit(self, frame: Frame, features: Callable[[Rows], Floats], labels: Labels, anchor: int) -> Fit | None:
        """The fit that stands at `anchor`; None with too few labelled rows. `features`: of rows of the frame, `[n]` → `[n, A, F]`."""
        config, panel = self._config, frame.panel
        begins, ends = anchor - round(config.train_days * DAY), anchor - round(config.embargo_days * DAY)
        chosen = np.flatnonzero((panel.open_time >= begins) & (labels.known_at <= ends) & self._rows.all_of(panel))
        rows, target, count = _training_rows(features(chosen), labels.value[chosen])
        if not count or count * config.stride_bars * panel.interval < config.minimum_train_days * DAY:
            return None
        target = np.clip(target, -config.label_clip, config.label_clip)
        scaler = fit_scaler(rows, fitted_until=int(labels.known_at[chosen[-1]]))
        scaled, _ = scaler.apply(rows)
        n, width = scaled.shape
        horizon_bars = rows_in(config.horizon_days, panel.interval)
        independent = min(1.0, config.stride_bars / horizon_bars) / (1.0 + max(0.0, n / count - 1.0) * config.asset_correlation)
        gram, moment = normal_equations(scaled, target - target.mean())
        penalty = width / (config.prior_r2 * n * independent)
        weights = solve_positive(gram / n + penalty * np.eye(width), moment / n)
        fitted = predict(scaled, weights)
        strength = float(np.sqrt(np.mean(fitted * fitted)))
        if not (np.isfinite(strength) and strength > 0.0):
            return None
        return Fit(scaler, weights, strength, n * independent)

    def _newest_labels(self, frame: Frame) -> Floats:
        """At each row from `frame.first` on the newest label known by then, NaN before; for the audit. `[T, A]`."""
        out = np.full(frame.shape, np.nan)
        horizon = rows_in(self._config.horizon_days, frame.panel.interval)
        begin = max(0, frame.first - 1 - horizon)
        labels = forward_return(frame.panel.rows(begin, len(frame.panel)), horizon, frame.sigma_from(begin))
        index = as_of_index(labels.known_at, frame.panel.known_at[frame.first :])
        out[frame.first :] = np.where(index[:, None] >= 0, labels.value[np.maximum(index, 0)], np.nan)
        return out


def _features(frame: Frame, first: int) -> Floats:
    """Price and on-chain features of the rows from `first` on. `[T − first, A, F]`."""
    return np.concatenate((frame.price_from(first), frame.chain_from(first)), axis=2)


def _training_rows(features: Floats, label: Floats) -> tuple[Floats, Floats, int]:
    """Rows with a label and at least one feature, and over how many moments they spread. `[n, A, F]`, `[n, A]` → `[m, F]`, `[m]`."""
    labelled: npt.NDArray[np.bool_] = np.isfinite(label) & np.isfinite(features).any(axis=2)
    return features[labelled], label[labelled], int(labelled.any(axis=1).sum())
