"""Who is in charge: of several fusions that run side by side, whose weights act.

The searched weights act only while their predictions have beaten those of every baseline, and among baselines the one in charge stays until
another has beaten it. Beaten means: evidence of at least 1/α in a paired test that may be looked at in every bar for ever.

The evidence of a against b is a bet. With d the difference of their log scores, a gambler who stakes a part of his wealth on d > 0 grows it
by `1 + κ d`; if a is not better than b his wealth is a supermartingale and exceeds 1/α with a chance of at most α, whenever one looks
(Ville). The stake is fixed before the outcome is known: κ is bounded by half over the most that d can lose (`scores.worst_differences`).
A gambler who began long ago may be ruined when an edge appears, so a new one begins in every bar, the n-th with a share 1/(n ln² n) of all
wealth.

Outcomes that overlap over h bars go to h gamblers in turn, each of whom sees none that overlap, and the mean of their wealths counts. Who
stops on outcomes half known can gain at most one stake of each, a factor of 2 at the very worst; stakes here are near a hundredth.

Hysteresis: 1/α to enter; to stay, a mean difference above 0 against every baseline, forgetting by `half_life_bars`. Who has left, be it the
search or a baseline, must prove itself anew, so α is the chance that its promotion is false, each time.

Source: Waudby-Smith & Ramdas (2023), "Estimating means of bounded random variables by betting"; Shafer (2021); Henzi & Ziegel (2022), for
forecasts with a lag.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cryptoalpha.decisions.fusion.search.config import SearchConfig
from cryptoalpha.store.tables import Floats

NAMES = ("search", "ridge", "hedge", "equal")
"""Fusions that run side by side; the first is searched, the second is in charge at first."""

STAKE = 0.5
"""κ per independent instrument: half of what would be best for one who knew that the better forecast is right and variance is 1."""

SHARES = 2.1098
"""Σ 1/(n ln² n) over n ≥ 2: what the shares of the gamblers are divided by."""

RICHEST = 1e100
"""Wealth above which nothing is added: no number then overflows, and less wealth proves no more than it should."""


class Charge:
    """Weighs evidence between fusions and names the one that acts.

    Args:
        horizon_bars: h, over which outcomes overlap.
        names: the searched fusion first, then the baselines; the second is in charge at first.
    """

    def __init__(self, config: SearchConfig, horizon_bars: int, names: Sequence[str] = NAMES) -> None:
        self._config = config
        self._names = tuple(names)
        self._wealth: Floats = np.zeros((horizon_bars, len(names), len(names)))
        self._reserve: Floats = np.ones((horizon_bars, len(names), len(names)))
        self._ages: Floats = np.ones((horizon_bars, len(names), len(names)))
        self._recent: Floats = np.zeros((len(names), len(names)))
        self._steps = 0
        self._baseline = 1
        self._searched = False
        self._evidence: Floats = np.ones((len(names), len(names)))

    @property
    def evidence(self) -> Floats:
        """`[F, F]`: that of the row against the column; 1 to begin with."""
        return self._evidence

    @property
    def acting(self) -> int:
        """Number of the fusion in charge."""
        return 0 if self._searched else self._baseline

    def follow(self, config: SearchConfig) -> None:
        """Go on with other settings."""
        self._config = config

    def learn(self, scores: Floats, worst: Floats, instruments: int) -> None:
        """Settle the bets on the predictions of one bar. Shapes: scores `[F]`, worst `[F, F]`; instruments with a verdict."""
        stream = self._steps % len(self._ages)
        self._steps += 1
        self._ages[stream] += 1.0
        entering = 1.0 / (SHARES * self._ages[stream] * np.log(self._ages[stream]) ** 2)
        independent = instruments / (1.0 + (instruments - 1) * self._config.assumed_correlation) if instruments else 1.0
        stake = np.minimum(STAKE * independent, 0.5 / np.maximum(worst, 1e-12))
        apart = scores[:, None] - scores[None, :]
        self._reserve[stream] = np.maximum(0.0, self._reserve[stream] - entering)
        self._wealth[stream] = np.minimum((self._wealth[stream] + entering) * (1.0 + stake * apart), RICHEST)
        self._evidence = (self._wealth + self._reserve).mean(axis=0)
        self._recent = 0.5 ** (1.0 / self._config.half_life_bars) * self._recent + apart
        self._judge()

    def _judge(self) -> None:
        needed, evidence = 1.0 / self._config.alpha, self._evidence
        best = 1 + int(np.argmax(evidence[1:, self._baseline]))
        if best != self._baseline and evidence[best, self._baseline] >= needed and self._recent[best, self._baseline] > 0.0:
            self._forget(self._baseline)
            self._baseline = best
        leads = bool((self._recent[0, 1:] > 0.0).all())
        if self._searched and not leads:
            self._forget(0)
        self._searched = leads and (self._searched or bool((evidence[0, 1:] >= needed).all()))

    def _forget(self, left: int) -> None:
        """What was won by the one that leaves: new gamblers begin with all that there was."""
        self._wealth[:, left], self._reserve[:, left], self._ages[:, left] = 0.0, 1.0, 1.0
        self._evidence[left] = 1.0

    def reason(self) -> str:
        """Why the one in charge is, in words."""
        needed, hardest = 1.0 / self._config.alpha, 1 + int(np.argmin(self._evidence[0, 1:]))
        ahead, rival = float(self._evidence[0, hardest]), self._names[hardest]
        if self._searched:
            return f"evidence {ahead:.3g} against {rival}: it stays while its recent scores lead"
        return f"{self._names[self._baseline]} acts: evidence of the search against {rival} is {ahead:.3g}, it needs {needed:g}"
