"""What a reader may conclude from a judgement, the bad news included, and when nobody should believe it before an audit.

A model is promoted only if, at its longest horizon, the interval of its rank IC lies above zero, so does that of its paired difference to
ridge and to LightGBM, Diebold–Mariano finds its moves better than "no move" and its volatility better than EWMA, and its surer calls are
right more often. Whatever falls short is named.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from cryptoalpha.lifecycle.recipes.judging import HorizonJudgement, Measures
from cryptoalpha.lifecycle.recipes.tallies import COVERAGES
from cryptoalpha.monitoring.bootstrap import Interval

TOO_GOOD_ACCURACY = 0.60
"""Share of ups and downs called right from which a leak is likelier than skill: published crypto forecasts reach 53–59 %."""

CHANCE = 0.5
"""Where chance alone explains an accuracy, few moments do, not a leak."""

TOO_GOOD_SHARPE = 3.0
"""Net Sharpe ratio of which the same holds."""

ZERO, EWMA, RIDGE, LIGHTGBM = "zero", "ewma", "ridge", "lightgbm"


@dataclass(frozen=True)
class Verdict:
    """Whether the model may be promoted, why or why not, and what to audit first."""

    promoted: bool
    reasons: tuple[str, ...]
    """What it falls short of; empty if promoted."""
    words: str
    audit_first: str
    """Advice to look for a leak before believing anything; empty where nothing is too good to be true."""


def verdict(judged: Sequence[HorizonJudgement], *, name: str, net_sharpe: float = float("nan")) -> Verdict:
    """The verdict on the model called `name`, at its longest horizon."""
    last = judged[-1]
    own = last.scores[name]
    reasons = [
        *_on_rank_ic(own.get("rank_ic")),
        *(reason for baseline in (RIDGE, LIGHTGBM) for reason in _against(last, baseline)),
        *(reason for against, loss in ((ZERO, "squared"), (EWMA, "QLIKE")) for reason in _tested(last, against, loss)),
        *_on_selection(own),
    ]
    promoted = not reasons
    head = f"{name}, {last.horizon_bars} bars ahead: rank IC {_said(own.get('rank_ic'))}, ECE {_number(own.get('ece'))}"
    words = f"{head}. Promoted: it passes every gate." if promoted else f"{head}. Not promoted: it {'; it '.join(reasons)}."
    return Verdict(promoted, tuple(reasons), words, _audit(judged, name, net_sharpe))


def _on_rank_ic(found: Interval | None) -> list[str]:
    if found is None or np.isnan(found.estimate):
        return ["has no rank IC"]
    if found.low > 0.0:
        return []
    return ["ranks assets no better than chance" if found.high >= 0.0 else "ranks assets the wrong way round"]


def _against(judged: HorizonJudgement, baseline: str) -> list[str]:
    """Why it does not beat a baseline in rank IC; nothing if it does."""
    if baseline not in judged.differences:
        return [f"was not compared with {baseline}"]
    gap = judged.differences[baseline].get("rank_ic")
    if gap is None or np.isnan(gap.estimate):
        return [f"cannot be compared with {baseline}"]
    if gap.low > 0.0:
        return []
    leaning = "loses to" if gap.high < 0.0 else "does not beat"
    return [f"{leaning} {baseline} (difference of rank IC {_said(gap)})"]


def _tested(judged: HorizonJudgement, against: str, loss: str) -> list[str]:
    what = {"squared": "expected moves", "QLIKE": "volatility"}[loss]
    for test in judged.tests:
        if test.against == against and test.loss.startswith(loss):
            if test.wins:
                return []
            leaning = "worse" if test.statistic < 0.0 and test.p_value < 0.05 else "no better"
            return [f"has {what} {leaning} than {against} (Diebold–Mariano {test.statistic:+.2f}, p {test.p_value:.2f})"]
    return [f"was not tested against {against}"]


def _on_selection(own: Measures) -> list[str]:
    rates = [own[f"selective_{c:.0%}"].estimate for c in COVERAGES if f"selective_{c:.0%}" in own]
    if len(rates) < len(COVERAGES) or np.isnan(rates).any():
        return ["has no calls to select from"]
    rising = all(surer >= all_of_them for all_of_them, surer in pairwise(rates)) and rates[-1] > rates[0]
    return [] if rising else ["is not right more often where it is surer (" + ", ".join(f"{rate:.1%}" for rate in rates) + ")"]


def _audit(judged: Sequence[HorizonJudgement], name: str, net_sharpe: float) -> str:
    """A baseline that is too good has the same features and labels: it accuses them as well as the model would."""
    signs = [
        f"{found.estimate:.1%} of ups and downs right {each.horizon_bars} bars ahead ({model})"
        for each in judged
        for model, scores in each.scores.items()
        if (found := scores.get("accuracy")) is not None and found.estimate > TOO_GOOD_ACCURACY and found.low > CHANCE
    ]
    if net_sharpe > TOO_GOOD_SHARPE:
        signs.append(f"a net Sharpe ratio of {net_sharpe:.1f} ({name})")
    if not signs:
        return ""
    return f"too good to be true: {', '.join(signs)}. Run `cryptoalpha audit` and look for a leak before believing any of it."


def _said(found: Interval | None) -> str:
    if found is None or np.isnan(found.estimate):
        return "none"
    return f"{found.estimate:+.4f} ({found.low:+.4f} to {found.high:+.4f})"


def _number(found: Interval | None) -> str:
    return "none" if found is None or np.isnan(found.estimate) else f"{found.estimate:.3f}"
