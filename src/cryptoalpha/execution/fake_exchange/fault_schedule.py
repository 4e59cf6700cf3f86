"""Faults drawn from a seed: the same seed always gives the same script.

Weights say how often each fault is drawn, relative to the others: lost and spoilt answers to orders are common, outages are rare, as at
venues. Durations are short, so that a schedule of dozens of faults passes in seconds; a script says longer ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.seeds import stream
from cryptoalpha.execution.fake_exchange.fault_script import ACTIONS, CANCELS, FILLS, ORDERS, QUERIES, Fault

WEIGHTS: Final[Mapping[str, float]] = {
    "drop_before": 6, "reset_before": 3, "timeout_before": 3, "error_before": 4, "delay_before": 3, "rate_limit": 4, "banned": 1,
    "not_found": 6, "overloaded": 2, "timeout_after": 8, "drop_after": 8, "reset_after": 4, "error_after": 4, "unknown_after": 4,
    "delay_after": 3, "garbage": 4, "empty_object": 4, "empty_list": 1, "null": 2, "empty_body": 1, "cut_json": 2, "truncated": 4,
    "stale": 3, "fill_before_ack": 3, "cancel_race": 4, "overfill": 1, "late_fill": 2, "skew": 3, "outage": 1,
    "maintenance": 1, "fee_asset": 2, "lose": 5, "duplicate": 5, "late": 4, "swap": 3, "disconnect": 4, "stall": 1, "spoil": 2,
}  # fmt: skip
"""How often a fault is drawn, relative to the others. Feed faults are left out: they belong to scripts that say what the bars should be."""

REACH: Final = 12
"""A fault strikes one of the first so many matches."""

ANSWER_ROUTES: Final = (ORDERS, ORDERS, ORDERS, QUERIES, CANCELS, "GET */openOrders", "GET */myTrades", "GET */account")
"""Where lost and spoilt answers strike: orders three times as often as each question."""


def schedule(seed: int, *, faults: int = 8, reach: int = REACH, weights: Mapping[str, float] = WEIGHTS) -> list[Fault]:
    """Draw `faults` faults, each hitting one to three of the first `reach` matches of its route.

    Raises:
        ConfigError: a weight is negative, names no action, or all are 0.
    """
    unknown = sorted(set(weights) - set(ACTIONS))
    total = sum(weights.values())
    if unknown or total <= 0.0 or min(weights.values()) < 0.0 or faults < 0 or reach < 1:
        raise ConfigError(f"no schedule of {faults} faults can be drawn from weights {dict(weights)}", hint="weights ≥ 0 of known actions")
    draw = stream(seed, "fake_exchange", "faults")
    names = list(weights)
    chances = [weights[name] / total for name in names]
    drawn: list[Fault] = []
    for _ in range(faults):
        action = names[int(draw.choice(len(names), p=chances))]
        rule = ACTIONS[action]
        route = ""
        if rule.route == ORDERS and rule.phase in ("before", "after"):
            route = ANSWER_ROUTES[int(draw.integers(len(ANSWER_ROUTES)))]
        elif rule.phase == "state":
            route = "* *"  # begins with the nth request of any kind
        elif rule.route == FILLS and draw.random() < 0.3:
            route = "WS account *"
        nth = 1 + int(draw.integers(reach * (4 if rule.phase == "state" else 1)))
        seconds = round(float(draw.uniform(0.05, 0.3)), 3)
        if action == "skew":
            seconds = float(draw.choice([-3600.0, -5.0, 5.0, 1800.0]))  # an hour ahead, every order of an hourly bar came too late
        elif action in ("rate_limit", "banned"):
            seconds = 1.0  # Retry-After counts in whole seconds
        elif action.startswith("timeout"):
            seconds = 30.0  # until the client gives up
        drawn.append(Fault(action=action, route=route, nth=nth, times=1 + int(draw.integers(3)), seconds=seconds))
    return drawn
