"""What stood behind a decision, for people: votes of the council, principal lines, what a searched fusion looked at, belief in regimes."""

from __future__ import annotations

from collections.abc import Sequence

from cryptoalpha.app.regime_words import regime_words
from cryptoalpha.core.values import Decision, FusionSearch, MarketState

SHOWN_CANDIDATES = 8
"""Actions at the root that are listed, most visited first; the rest is counted."""
SHOWN_LINE = 6
"""Steps of a principal line that are printed."""


def decision_details(decision: Decision) -> tuple[str, ...]:
    """Who voted what with which share, what their plans claim, and the principal line of the leader's plan."""
    details = [_vote_words(*vote) for vote in decision.votes]
    if decision.line:
        steps = " → ".join(f"{position:+z.2f} (value {value:+z.2e})" for position, value in decision.line[:SHOWN_LINE])
        details.append(f"principal line of the plan: {steps}{_rest(decision.line)}")
    if decision.expected_return is not None:
        details.append(f"rests on an expected return of {decision.expected_return:+z.1%} a year over cash")
    return tuple(details)


def search_words(search: FusionSearch) -> str:
    """Who was in charge of the fusion in that step, and why."""
    learned = f", guided by network {search.version[:12]}" if search.version else ""
    return (
        f"{search.in_charge} was in charge of the fusion: {search.reason}; {search.simulations} simulations chose {search.action}{learned}"
    )


def search_details(search: FusionSearch) -> tuple[str, ...]:
    """Weights before and after, visits of the candidates, the principal line, the regime as the search read it."""
    pairs = zip(search.types, search.weights_before, search.weights_after, strict=True)
    details = [f"weights: {', '.join(f'{name} {before:.3f} → {after:.3f}' for name, before, after in pairs)}"] if search.types else []
    for action, visits, prior, value in search.candidates[:SHOWN_CANDIDATES]:
        details.append(f"{action}: {visits} visits, prior {prior:.3f}, value {value:+z.2e}")
    if len(search.candidates) > SHOWN_CANDIDATES:
        details.append(f"and {len(search.candidates) - SHOWN_CANDIDATES} more candidates")
    if search.line:
        steps = " → ".join(f"{action} (value {value:+z.2e})" for action, value in search.line[:SHOWN_LINE])
        details.append(f"principal line: {steps}{_rest(search.line)}")
    if search.regime:
        details.append(f"regime of the book: {regime_words(search.regime)}")
    return tuple(details)


def regime_details(state: MarketState) -> tuple[str, ...]:
    """The belief in regimes; nothing where no regime model was running."""
    words = regime_words(state.regime, state.regime_age, state.regime_change)
    return (f"regime: {words}",) if words else ()


def _vote_words(agent: str, target: float, share: float, claimed: float) -> str:
    claims = f", its plan claims {claimed:+z.2e} of log growth" if claimed == claimed else ""
    return f"vote of {agent}: {target:+z.1%} of equity, share {share:.0%}{claims}"


def _rest(line: Sequence[object]) -> str:
    return f" … {len(line) - SHOWN_LINE} more" if len(line) > SHOWN_LINE else ""
