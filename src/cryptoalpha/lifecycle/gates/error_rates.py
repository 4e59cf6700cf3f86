"""How often do the gates that look at returns pass a worthless candidate, and how often a good one? Measured on made-up track records.

    python -m cryptoalpha.lifecycle.gates.error_rates --days 730 --sharpe 0 --trials 1 --runs 1000

A market of daily returns with volatility clusters and fat tails (GARCH(1,1), t with five degrees of freedom) is what baselines and champion
earn their living on. A candidate adds to half of it returns of its own, whose true Sharpe ratio is the one asked for; of `trials` such
candidates the one that looks best is judged, which is how candidates come to be judged. Everything is seeded.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import NoReturn

import numpy as np

from cryptoalpha.core.errors import CryptoAlphaError
from cryptoalpha.core.seeds import stream
from cryptoalpha.core.time import DAY
from cryptoalpha.lifecycle.gates.config import GateConfig
from cryptoalpha.lifecycle.gates.earned import YEAR
from cryptoalpha.lifecycle.gates.evidence import Checks, Floats, TrackRecord, TrialRecord
from cryptoalpha.lifecycle.gates.hearing import Hearing
from cryptoalpha.lifecycle.gates.judges import JUDGES
from cryptoalpha.lifecycle.gates.values import Entrant, GateName

OF_RETURNS: tuple[GateName, ...] = ("walk_forward", "deflated_sharpe", "track_record", "overfitting", "champion", "baselines")
VOLATILITY = 0.02
"""Daily, of everything made up here; no gate depends on it."""


@dataclass(frozen=True)
class World:
    """What is made up. Sharpe ratios are true ones, annual.

    `sharpe` of the candidates' own returns; `market` of the market that champion and baselines hold.
    """

    sharpe: float
    days: int
    trials: int = 1
    good: int | None = None
    """How many of the trials have that Sharpe ratio, the others none; None: all."""
    market: float = 0.5
    has_champion: bool = True


@dataclass(frozen=True)
class Rates:
    """Share of runs that each gate passed, and that all passed."""

    runs: int
    passed: float
    each: dict[str, float]

    def lines(self) -> list[str]:
        """For people."""
        return [f"all: {self.passed:.4f} of {self.runs}", *(f"{name}: {share:.4f}" for name, share in self.each.items())]


def error_rates(world: World, *, runs: int, seed: int = 0, config: GateConfig | None = None) -> Rates:
    """Judge `runs` made-up candidates by the gates that look at returns."""
    config = config or GateConfig(resamples=400)
    counts: Counter[str] = Counter()
    for records in _worlds(world, runs, seed):
        passed = passes(*records, config, seed=seed)
        counts.update(name for name, held in passed.items() if held)
        counts["all"] += all(passed.values())
    return Rates(runs, counts["all"] / runs, {name: counts[name] / runs for name in OF_RETURNS})


def passes(own: TrackRecord, champion: TrackRecord | None, trials: TrialRecord, config: GateConfig, *, seed: int = 0) -> dict[str, bool]:
    """Whether each gate that looks at returns passes; one that cannot judge does not."""
    checks = Checks(
        evaluate=lambda who: champion if champion is not None and who.id == "champion" else own, trials=lambda _: trials,
        paths=_unasked, audit=_unasked, latency=_unasked, shadow=_unasked, holdout=_unasked,
    )  # fmt: skip
    rival = None if champion is None else Entrant("champion", "made up", Path())
    hearing = Hearing(Entrant("candidate", "made up", Path()), rival, checks, config, seed)
    found: dict[str, bool] = {}
    for name in OF_RETURNS:
        try:
            found[name] = JUDGES[name](hearing).passed
        except CryptoAlphaError:
            found[name] = False
    return found


def clustered(shape: tuple[int, int], rng: np.random.Generator) -> Floats:
    """Returns with volatility clusters and fat tails, mean 0 and unit variance, `[T, n]`: GARCH(1,1) with .08 and .9, Student t of 5."""
    shocks = rng.standard_t(5, shape) / sqrt(5.0 / 3.0)
    out, variance = np.empty(shape), np.ones(shape[1])
    for t in range(shape[0]):
        out[t] = np.sqrt(variance) * shocks[t]
        variance = 0.02 + 0.08 * out[t] ** 2 + 0.9 * variance
    return out


def _worlds(world: World, runs: int, seed: int) -> Iterator[tuple[TrackRecord, TrackRecord | None, TrialRecord]]:
    rng, days = stream(seed, "lifecycle", "gates", "error rates"), DAY * np.arange(world.days, dtype=np.int64)
    for _ in range(runs):
        market = VOLATILITY * (clustered((world.days, 1), rng)[:, 0] + world.market / sqrt(YEAR))
        skill = np.where(np.arange(world.trials) < (world.trials if world.good is None else world.good), world.sharpe, 0.0)
        own = VOLATILITY * (clustered((world.days, world.trials), rng) + skill / sqrt(YEAR))
        tried = own + 0.5 * market[:, None] if world.market else own
        sharpes = tried.mean(axis=0) / tried.std(axis=0, ddof=1)
        best = tried[:, int(np.argmax(sharpes))]
        half = 0.5 * market + VOLATILITY * 0.2 * clustered((world.days, 1), rng)[:, 0]
        record = TrackRecord(days, best, {"hold": market, "half": half}, (), "made up")
        champion = TrackRecord(days, half, {}, (), "made up") if world.has_champion else None
        yield record, champion, TrialRecord(world.trials, sharpes, tried)


def _unasked(*_: object) -> NoReturn:
    raise CryptoAlphaError("this is not asked here")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--sharpe", type=float, default=0.0)
    for name, usual in (("days", 730), ("trials", 1), ("runs", 200), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    parser.add_argument("--good", type=int, default=None)
    given = parser.parse_args()
    found = error_rates(World(given.sharpe, given.days, given.trials, given.good), runs=given.runs, seed=given.seed)
    print("\n".join(found.lines()))


if __name__ == "__main__":
    main()
