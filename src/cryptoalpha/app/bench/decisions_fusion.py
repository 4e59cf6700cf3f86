"""The searched fusion on a market whose truth is known: one of ten families of evidence is right, and half-way it becomes another one.

`planted_fusion` says how much of the oracle's correlation with the outcome the fusions reach over the last 1,500 of 5,000 bars, the search
and whoever was in charge; `noise_fusion` the same where nobody knows anything, and what the search claimed to earn there;
`simulations_compared` what 800 simulations choose instead of 64; `fusion_speed` what a bar costs. Trading is free in the planted market: an
hourly opinion that lives one bar pays no cost, and what is measured is knowledge, not profit.

Figures are means over seeds with their standard errors; no seed by itself tells anything (the standard error of one IC is .026). On noise
the IC of who learns is a little below 0 without anybody's looking ahead: after luck directions are larger, so that the denominator is large
where the numerator is. Over seeds 0–39, 100–139 and 200–239 that of the ridge is −.012 ± .002. The numerator has mean 0, and its t over all
bars and seeds is what noise is judged by: `t_*`, standard normal where nobody knows anything and nobody looks ahead; .7 for these ridges.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cryptoalpha.core.seeds import stream
from cryptoalpha.core.time import HOUR
from cryptoalpha.core.values import MarketState, Signal
from cryptoalpha.decisions.config import FusionConfig
from cryptoalpha.decisions.fusion.charge import NAMES
from cryptoalpha.decisions.fusion.search.config import SearchConfig
from cryptoalpha.decisions.fusion.search.searched import SearchedFusion
from cryptoalpha.store.tables import Floats

FAMILIES, BARS, LAST = 10, 5_000, 1_500
SIGMA = 0.01
"""Volatility of an hour in the planted market."""


@dataclass(frozen=True)
class PlantedBars:
    """Opinions `[T, K]` in −1 … 1, outcomes `[T]` with variance 1 of the bar after each, and which family is right `[T]`."""

    opinions: Floats
    outcomes: Floats
    right: np.ndarray


def planted_bars(seed: int, *, ic: float, bars: int = BARS) -> PlantedBars:
    """One market: opinions are normal, of standard deviation ⅓, and that of the right family correlates with the next outcome by `ic`."""
    draw = stream(seed, "planted fusion")
    outcomes, opinions = draw.standard_normal(bars), draw.standard_normal((bars, FAMILIES))
    right = (np.arange(bars) >= bars // 2).astype(np.int64)
    rows = np.arange(bars)
    opinions[rows, right] = ic * outcomes + math.sqrt(1.0 - ic**2) * opinions[rows, right]
    return PlantedBars(np.clip(opinions / 3.0, -1.0, 1.0), outcomes, right)


def planted_config(simulations: int = 64) -> FusionConfig:
    """Settings of all fusions in the planted market: a horizon of one bar, a memory of 500; moved weights cost a twentieth."""
    families = tuple(f"family {k}" for k in range(FAMILIES))
    search = SearchConfig(
        families=families, simulations=simulations, half_life_bars=500.0, pool_stride_bars=1, trade_cost=0.0, turnover_cost=1e-6
    )
    return FusionConfig(method="search", horizon_bars=1, half_life_bars=500.0, hedge_rate=0.2, hedge_share=0.002, search=search)


def values_of(market: PlantedBars, instruments: int = 1) -> Iterator[tuple[int, list[MarketState], list[Signal]]]:
    """The market as the loop would hand it to a fusion: time, states, signals. Further instruments say and do the same."""
    price, names = 100.0, [f"A{i}/USDT" for i in range(instruments)]
    volatility = SIGMA * math.sqrt(8_760)
    for t, (opinion, outcome) in enumerate(zip(market.opinions.tolist(), market.outcomes.tolist(), strict=True)):
        opened, known = t * HOUR, (t + 1) * HOUR
        states = [MarketState(happened_at=opened, known_at=known, instrument=name, price=price, volatility=volatility) for name in names]
        signals = [
            Signal(
                happened_at=opened, known_at=known, source=f"family {k}", type=f"family {k}", instrument=name, value=value, confidence=0.5,
                predicted_impact=0.0, proposed_action="hold", horizon=HOUR,
            )
            for name in names
            for k, value in enumerate(opinion)
        ]  # fmt: skip
        yield known, states, signals
        price *= math.exp(SIGMA * outcome)


@dataclass(frozen=True)
class PlantedRun:
    """What one run left. Directions `[F + 1, T]`: of every fusion in the order of `NAMES`, then of who acted."""

    market: PlantedBars
    directions: Floats
    acting: np.ndarray
    claimed: Floats
    """`[T]`: value that the search gave its action, log growth."""
    weight_on_right: Floats
    """`[T]`: searched weight of the right family."""
    seconds: float

    def ic(self, fusion: int, last: int = LAST) -> float:
        """Correlation of a fusion's directions with the outcomes over the last bars; 0 where it said nothing at all."""
        said, came = self.directions[fusion, -last:], self.market.outcomes[-last:]
        size = math.sqrt(float((said**2).sum() * (came**2).sum()))
        return float((said * came).sum()) / size if size > 0.0 else 0.0

    def gains(self, fusion: int) -> Floats:
        """`[T]`: directions times outcomes; expected to be 0 in every bar where nobody knows anything."""
        return np.asarray(self.directions[fusion] * self.market.outcomes)

    def oracle_ic(self, last: int = LAST) -> float:
        """That of the right family itself."""
        rows = np.arange(len(self.market.right))
        said, came = self.market.opinions[rows, self.market.right][-last:], self.market.outcomes[-last:]
        return float((said * came).sum() / math.sqrt(float((said**2).sum() * (came**2).sum())))


def planted_run(seed: int, *, ic: float, bars: int = BARS, simulations: int = 64) -> PlantedRun:
    """Let all fusions run through one planted market."""
    market = planted_bars(seed, ic=ic, bars=bars)
    fusion = SearchedFusion(planted_config(simulations), seed=seed)
    directions, acting = np.zeros((len(NAMES) + 1, bars)), np.zeros(bars, np.int64)
    claimed, weight = np.zeros(bars), np.zeros(bars)
    began = time.process_time()
    for t, (at, states, signals) in enumerate(values_of(market)):
        events = range(1, 1 + len(signals))
        (fused,) = fusion.fuse(at, states, signals, state_events=(0,), signal_events=events)
        directions[:-1, t], directions[-1, t] = fusion.directions[:, 0], fused.direction
        acting[t] = fusion.charge.acting
        if fusion.search is not None:
            claimed[t] = max(value for name, _, _, value in fusion.search.candidates if name == fusion.search.action)
            weight[t] = fusion.search.weights_after[int(market.right[t])]
    return PlantedRun(market, directions, acting, claimed, weight, time.process_time() - began)


def _mean(name: str, figures: Sequence[float]) -> dict[str, float]:
    error = float(np.std(figures, ddof=1) / math.sqrt(len(figures))) if len(figures) > 1 else math.nan
    return {f"{name}_mean": float(np.mean(figures)), f"{name}_error": error}


def planted_fusion(seeds: Sequence[int] = range(10), *, ic: float = 0.10, bars: int = BARS, simulations: int = 64) -> dict[str, float]:
    """ICs over the last 1,500 bars: of every fusion, of who acted and of the oracle; paired difference to the better of ridge and Hedge.

    Keys end in `_mean` and `_error`; `fused` is who acted. `*_over_equal` and `*_of_oracle` are ratios of means.
    """
    runs = [planted_run(seed, ic=ic, bars=bars, simulations=simulations) for seed in seeds]
    last = LAST * bars // BARS
    ics = {name: [run.ic(f, last) for run in runs] for f, name in enumerate((*NAMES, "fused"))}
    oracle = [run.oracle_ic(last) for run in runs]
    figures = {key: value for name, each in (*ics.items(), ("oracle", oracle)) for key, value in _mean(f"ic_{name}", each).items()}
    better = max(("ridge", "hedge"), key=lambda name: float(np.mean(ics[name])))
    for name in ("search", "fused"):
        figures |= _mean(f"{name}_less_better_baseline", [a - b for a, b in zip(ics[name], ics[better], strict=True)])
        figures[f"{name}_over_equal"] = figures[f"ic_{name}_mean"] / figures["ic_equal_mean"]
        figures[f"{name}_of_oracle"] = figures[f"ic_{name}_mean"] / figures["ic_oracle_mean"]
    figures |= _mean("weight_on_right_at_end", [float(run.weight_on_right[-last:].mean()) for run in runs])
    figures |= _mean(
        "weight_on_right_before_switch", [float(run.weight_on_right[bars // 2 - last // 3 : bars // 2].mean()) for run in runs]
    )
    figures["share_of_bars_searched_acts"] = float(np.mean([(run.acting == 0).mean() for run in runs]))
    figures["milliseconds_per_bar"] = 1e3 * sum(run.seconds for run in runs) / (bars * len(runs))
    return figures


def noise_fusion(seeds: Sequence[int] = range(10), *, bars: int = BARS, simulations: int = 64) -> dict[str, float]:
    """The same where nobody knows anything: ICs and the t of what all bars earned (see the module), who acted, what the search claimed."""
    runs = [planted_run(seed, ic=0.0, bars=bars, simulations=simulations) for seed in seeds]
    last = LAST * bars // BARS
    figures = {
        key: value for f, name in enumerate((*NAMES, "fused")) for key, value in _mean(f"ic_{name}", [r.ic(f, last) for r in runs]).items()
    }
    for f, name in enumerate((*NAMES, "fused")):
        gains = np.concatenate([run.gains(f) for run in runs])
        figures[f"t_{name}"] = float(gains.sum() / max(math.sqrt(float((gains**2).sum())), 1e-300))
    figures["share_of_bars_searched_acts"] = float(np.mean([(run.acting == 0).mean() for run in runs]))
    figures["share_of_bars_nothing_claimed"] = float(np.mean([(run.claimed <= 1e-9).mean() for run in runs]))
    figures["claimed_mean"] = float(np.mean([run.claimed.mean() for run in runs]))
    return figures


def simulations_compared(seed: int = 0, *, bars: int = 600, few: int = 64, many: int = 800) -> dict[str, float]:
    """What `many` simulations choose instead of `few`, on the same planted market: how far weights and directions lie apart."""
    runs = [planted_run(seed, ic=0.10, bars=bars, simulations=simulations) for simulations in (few, many)]
    directions = [run.directions[0] for run in runs]
    return {
        "direction_mean_difference": float(np.abs(directions[0] - directions[1]).mean()),
        "direction_correlation": float(np.corrcoef(directions[0], directions[1])[0, 1]) if all(d.any() for d in directions) else math.nan,
        "weight_on_right_few": float(runs[0].weight_on_right[bars // 4 :].mean()),
        "weight_on_right_many": float(runs[1].weight_on_right[bars // 4 :].mean()),
        "milliseconds_few": 1e3 * runs[0].seconds / bars,
        "milliseconds_many": 1e3 * runs[1].seconds / bars,
    }


def fusion_speed(*, instruments: int = 8, bars: int = 300, simulations: int = 64, guided: bool = False) -> dict[str, float]:
    """CPU time of a bar of the searched fusion with everything beside it, the first bars (compiling) left out; `guided` by an untrained
    network of the widths that are trained."""
    fusion = SearchedFusion(planted_config(simulations), seed=0)
    if guided:
        from cryptoalpha.app.bench.decisions_untrained import fusion_network
        from cryptoalpha.decisions.fusion.network import guide_of

        guide = guide_of(fusion_network())
        fusion.adopt(guide.evaluator, guide.version)
    spent = []
    for at, states, signals in values_of(planted_bars(0, ic=0.10, bars=bars), instruments):
        began = time.process_time()
        fusion.fuse(at, states, signals, state_events=range(len(states)), signal_events=range(len(states), len(states) + len(signals)))
        spent.append(time.process_time() - began)
    return {
        "milliseconds_per_bar": 1e3 * float(np.mean(spent[bars // 3 :])),
        "milliseconds_p99": 1e3 * float(np.quantile(spent[bars // 3 :], 0.99)),
    }
