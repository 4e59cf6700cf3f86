"""What a regime model is judged by, as sums per moment: all measures and their intervals follow from them (`resampling`).

- Likelihood: log density given in advance to the features one bar and one day ahead, by the filtered belief, by one normal distribution,
  and by a mixture of as many parts that remembers nothing.
- Change: the chance of change said at each bar, and what the same model says of that bar once it has seen everything after it (a smoother:
  it looks ahead, and serves here as the answer). Bins are fifths of the bars by what was said.
- Worth: two outcomes of the next day that no feature contains: whether its realised volatility exceeds the training stretch's median
  ratio to what was usual, and whether it closes higher. The chance of either is the training stretch's share in each regime, weighed by
  the belief; beside it the plain share and, for volatility, the share after a day like the last one.
- Time: belief in each cell, spells of the likeliest cell, and returns of the next day by trend.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cryptoalpha.core.values import REGIMES, TRENDS, VOLATILITIES
from cryptoalpha.lifecycle.recipes.resampling import Columns
from cryptoalpha.signals.regime.features import TREND, VOLATILITY
from cryptoalpha.signals.regime.fitting import fit_mixture, mixture_density
from cryptoalpha.signals.regime.hmm import GaussianHmm, smooth
from cryptoalpha.signals.regime.model import RegimeModel
from cryptoalpha.signals.regime.source import Beliefs
from cryptoalpha.store.tables import Floats

REGIME, ONE, MIXTURE, SHARE, LAST_DAY = "regime", "one state", "mixture", "base rate", "last day"
BINS = 5
THINNED = 4
"""Of how many learned rows one teaches the rivals: neighbouring rows are nearly the same, and rivals know no order of time."""

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Outcomes:
    """Of every row and instrument, `[T, A]` each, NaN = unknown.

    `stormy`: realised volatility of the next day over what was usual at the row. `stormy_before`: the same of the day up to the row.
    `move`: log return of the next day in units of what is usual for a day.
    """

    stormy: Floats
    stormy_before: Floats
    move: Floats


def outcomes_of(close: Floats, usual: Floats, day: int) -> Outcomes:
    """The outcomes. `close`, `usual` (volatility per bar) `[T, A]`; `day`: bars. A day with a gap has none."""
    steps = np.diff(np.log(close), axis=0, prepend=np.nan)
    mean = np.full(close.shape, np.nan)
    for t in range(day - 1, len(close)):
        mean[t] = (steps[t - day + 1 : t + 1] ** 2).mean(axis=0)
    realised = np.sqrt(mean)
    later, ahead = np.full(close.shape, np.nan), np.full(close.shape, np.nan)
    later[:-day], ahead[:-day] = realised[day:], np.log(close[day:] / close[:-day])
    return Outcomes(later / usual, realised / usual, ahead / (usual * np.sqrt(day)))


def tally(features: Floats, beliefs: Beliefs, outcomes: Outcomes, model: RegimeModel, *, learned: Rows, judged: Rows, day: int) -> Columns:
    """The sums of the judged rows, in order. `features` `[T, A, 20]`; `learned` is the contiguous stretch the model was fitted on."""
    scaled = model.scaled(features)
    cells = beliefs.belief.reshape(*beliefs.belief.shape[:2], len(TRENDS), len(VOLATILITIES))
    columns: Columns = {}
    for name, hmm, axis, summed in (("trend", model.trend, TREND, 3), ("volatility", model.volatility, VOLATILITY, 2)):
        rivals = _rivals(scaled[learned[::THINNED]][:, :, axis], hmm.states)
        belief = cells.sum(axis=summed)
        for ahead in (1, day):
            columns |= _likelihood(f"{name} {ahead}", hmm, rivals, scaled[:, :, axis], belief, judged, ahead)
    columns |= _change(model, scaled, beliefs, judged)
    columns |= _worth(beliefs, outcomes, learned, judged, day)
    return columns | _time(beliefs, outcomes, judged)


def _rivals(learned: Floats, states: int) -> dict[str, GaussianHmm]:
    """What knows no regimes, fitted on the same rows. `[n, A, D]`."""
    rows = learned.reshape(-1, learned.shape[2])
    whole = rows[np.isfinite(rows).all(axis=1)]
    covariance = np.cov(whole.T) + 1e-4 * np.eye(rows.shape[1])
    return {ONE: GaussianHmm(np.ones(1), np.ones((1, 1)), whole.mean(axis=0)[None], covariance[None]), MIXTURE: fit_mixture(rows, states)}


def _likelihood(
    name: str, hmm: GaussianHmm, rivals: dict[str, GaussianHmm], scaled: Floats, belief: Floats, judged: Rows, ahead: int
) -> Columns:
    """Sums over instruments of the log density given `ahead` bars before to each judged row that has one."""
    columns = {f"{name} {who}": np.zeros(len(judged)) for who in ("n", REGIME, *rivals)}
    before = judged - ahead
    reachable = before >= int(judged[0])  # said by this very model
    power = np.linalg.matrix_power(hmm.transition, ahead)
    for a in range(scaled.shape[1]):
        x = np.ascontiguousarray(scaled[judged, a])
        said = mixture_density(np.where(reachable[:, None], belief[np.maximum(before, 0), a], np.nan) @ power, hmm.log_density(x), x)
        there = np.isfinite(said)
        columns[f"{name} n"] += there
        columns[f"{name} {REGIME}"] += np.where(there, said, 0.0)
        for who, rival in rivals.items():
            flat = np.repeat(rival.start[None], len(x), axis=0)
            columns[f"{name} {who}"] += np.where(there, mixture_density(flat, rival.log_density(x), x), 0.0)
    return columns


def _change(model: RegimeModel, scaled: Floats, beliefs: Beliefs, judged: Rows) -> Columns:
    """Said and later-seen chances that the bar after a judged row stands in another cell, by fifths of what was said."""
    first = max(0, int(judged[0]) - model.design.config.warm_up_bars)
    last = int(judged[-1]) + 1
    later = np.full(beliefs.change.shape, np.nan)
    for a in range(scaled.shape[1]):
        stays = np.ones(last - first)
        for hmm, axis in ((model.trend, TREND), (model.volatility, VOLATILITY)):
            logs = hmm.temper * hmm.log_density(scaled[first:last, a, axis])
            stays *= smooth(logs, np.array([0, last - first], np.int64), hmm.stationary(), hmm.transition)[3]
        later[first : last - 1, a] = 1.0 - stays[1:]
    said, seen = beliefs.change[judged], later[judged]
    there = np.isfinite(said) & np.isfinite(seen)
    edges = np.quantile(said[there], np.linspace(0.0, 1.0, BINS + 1)[1:-1]) if there.any() else np.zeros(BINS - 1)
    place = np.searchsorted(edges, said)
    columns = {}
    for b in range(BINS):
        mine = there & (place == b)
        columns[f"change {b} n"] = mine.sum(axis=1).astype(np.float64)
        columns[f"change {b} said"] = np.where(mine, said, 0.0).sum(axis=1)
        columns[f"change {b} seen"] = np.where(mine, seen, 0.0).sum(axis=1)
    return columns


def _worth(beliefs: Beliefs, outcomes: Outcomes, learned: Rows, judged: Rows, day: int) -> Columns:
    """Squared errors of the chances of both outcomes."""
    settled = learned[: max(0, len(learned) - day)]  # their next day was over when the model was made
    median = float(np.nanmedian(outcomes.stormy[settled]))
    stormy = np.where(np.isfinite(outcomes.stormy), outcomes.stormy > median, np.nan)
    before = np.where(np.isfinite(outcomes.stormy_before), outcomes.stormy_before > median, np.nan)
    rising = np.where(np.isfinite(outcomes.move), outcomes.move > 0.0, np.nan)
    columns: Columns = {}
    for name, happened in (("stormy", stormy), ("rising", rising)):
        share = _shares(beliefs.belief[settled], happened[settled])
        base = float(np.nanmean(happened[settled]))
        said = {REGIME: beliefs.belief[judged] @ share, SHARE: np.full(happened[judged].shape, base)}
        if name == "stormy":
            after = [float(np.nanmean(happened[settled][before[settled] == kind])) for kind in (0.0, 1.0)]
            said[LAST_DAY] = np.where(before[judged] == 1.0, after[1], after[0])
        there = np.isfinite(happened[judged]) & np.isfinite(before[judged]) & np.isfinite(said[REGIME])
        columns[f"{name} n"] = there.sum(axis=1).astype(np.float64)
        for who, chance in said.items():
            columns[f"{name} {who}"] = np.where(there, (chance - happened[judged]) ** 2, 0.0).sum(axis=1)
    return columns


def _shares(belief: Floats, happened: Floats) -> Floats:
    """How often it happened in each cell, weighed by the belief, a cell hardly seen leaning on all. `[n, A, 6]`, `[n, A]` → `[6]`."""
    there = np.isfinite(belief).all(axis=2) & np.isfinite(happened)
    weight, base = belief[there], float(happened[there].mean()) if there.any() else 0.5
    return np.asarray((weight.T @ happened[there] + 100.0 * base) / (weight.sum(axis=0) + 100.0), np.float64)


def _time(beliefs: Beliefs, outcomes: Outcomes, judged: Rows) -> Columns:
    """Belief per cell, ends of spells, and moves by trend."""
    belief = beliefs.belief[judged]
    there = np.asarray(np.isfinite(belief).all(axis=2))
    weight = np.where(there[:, :, None], belief, 0.0)
    columns = {"time n": there.sum(axis=1).astype(np.float64)}
    columns |= {f"time {c}": weight[:, :, c].sum(axis=1) for c in range(len(REGIMES))}
    cell = np.where(there, np.argmax(weight, axis=2), -1)
    ends = np.zeros(there.shape)
    ends[1:] = (cell[1:] != cell[:-1]) & there[1:] & there[:-1]
    columns["ends"] = ends.sum(axis=1)
    move = outcomes.move[judged]
    trends = weight.reshape(*weight.shape[:2], len(TRENDS), len(VOLATILITIES)).sum(axis=3)
    for k, name in enumerate(TRENDS):
        mine = np.where(np.isfinite(move), trends[:, :, k], 0.0)
        columns[f"move {name} n"] = mine.sum(axis=1)
        columns[f"move {name}"] = (mine * np.where(np.isfinite(move), move, 0.0)).sum(axis=1)
    return columns
