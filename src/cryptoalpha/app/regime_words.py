"""A belief over market regimes in words: the five names people use, the likeliest cell, how long it has stood and whether it will."""

from __future__ import annotations

from collections.abc import Sequence

from cryptoalpha.core.values import REGIMES, TRENDS, VOLATILITIES

NAMES = (*TRENDS, *VOLATILITIES)
"""The five named regimes: each is a sum of cells of `REGIMES`."""


def cell_name(place: int) -> str:
    """The name of one cell of `REGIMES`: `bull, low volatility`."""
    return ", ".join(REGIMES[place]).replace("_", " ")


def named_beliefs(belief: Sequence[float]) -> dict[str, float]:
    """Belief in each of the five named regimes. The three trends sum to 1, so do the two volatilities. Empty where `belief` has another
    number of cells than `REGIMES`."""
    if len(belief) != len(REGIMES):
        return {}
    return {name: sum(share for cell, share in zip(REGIMES, belief, strict=True) if name in cell) for name in NAMES}


def regime_words(belief: Sequence[float], age: float | None = None, change: float | None = None) -> str:
    """The belief in one sentence; empty without a belief.

    Args:
        age: expected bars since the regime began.
        change: chance (0–1) that the next bar stands in another.
    """
    if not belief:
        return ""
    named = named_beliefs(belief)
    if not named:
        parts = ["belief over regimes " + ", ".join(f"{share:.0%}" for share in belief)]
    else:
        likeliest = max(range(len(belief)), key=lambda place: belief[place])
        trends = ", ".join(f"{name} {named[name]:.0%}" for name in TRENDS)
        volatile = ", ".join(f"{name.replace('_', ' ')} {named[name]:.0%}" for name in VOLATILITIES)
        parts = [f"{trends}; {volatile}; likeliest {cell_name(likeliest)} ({belief[likeliest]:.0%})"]
    if age is not None:
        parts.append(f"stands for about {age:.0f} bars")
    if change is not None:
        parts.append(f"{change:.1%} chance of change with the next bar")
    return "; ".join(parts)
