"""`bench rollout`: how often the canary controller is wrong, and when it knows, over a thousand made-up rollouts of each kind."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from cryptoalpha.lifecycle.rollout.ab import Kind
from cryptoalpha.lifecycle.rollout.config import CanaryConfig
from cryptoalpha.lifecycle.rollout.peeking import wrong_at_some_look
from cryptoalpha.lifecycle.rollout.simulate import Behaviour, Scenario, simulate_rollouts

SCENARIOS = (
    Scenario("as good as stable at 1 %", Behaviour(fails=0.01)),
    Scenario("as late as stable at 1 %", Behaviour(late=0.01), Behaviour(late=0.01)),
    Scenario("fails 2 %", Behaviour(fails=0.02)),
    Scenario("fails 3 %", Behaviour(fails=0.03)),
    Scenario("fails 5 %", Behaviour(fails=0.05)),
    Scenario("fails 40 %", Behaviour(fails=0.40)),
    Scenario("answers NaN", Behaviour(fails=1.0, cause="nan")),
    Scenario("30 % late", Behaviour(late=0.30)),
    Scenario("Brier score worse by 0.05", Behaviour(), brier_worse=0.05, label_every=100),
    Scenario("outage of half, both arms", Behaviour(), outage=0.5),
)
RUNS = 200
"""Per repeat; five are usual."""


def bench_rollout(*, repeats: int, advance: Callable[[int], None]) -> tuple[dict[str, float | None], tuple[str, ...]]:
    """Percent promoted, rolled back and held of each kind of canary, percent of all stopped in shadow, and
    median requests to a stop; and how often intervals of an A/B test of equals are wrong at some of 48 looks."""
    figures: dict[str, float | None] = {}
    for scenario in SCENARIOS:
        ended = simulate_rollouts(scenario, CanaryConfig(), runs=RUNS * repeats, seed=1)
        stopped = [one for one in ended if not one.promoted]
        figures[f"{scenario.name}: % rolled back"] = 100.0 * float(np.mean([not one.promoted and not one.held for one in ended]))
        figures[f"{scenario.name}: % held"] = 100.0 * float(np.mean([one.held for one in ended]))
        figures[f"{scenario.name}: % stopped in shadow"] = 100.0 * float(np.mean([not o.promoted and o.stage == "shadow" for o in ended]))
        figures[f"{scenario.name}: requests of the canary to a stop, median"] = (
            float(np.median([one.canary_requests for one in stopped])) if stopped else None
        )
        advance(1)
    kinds: tuple[Kind, ...] = ("binary", "bounded", "unbounded")
    for kind in kinds:
        wrong = np.array([wrong_at_some_look(kind, run, seed=1) for run in range(RUNS * repeats // 5)])
        figures[f"A/B of equals, {kind}: % always-valid interval wrong at some look"] = 100.0 * float(wrong[:, 0].mean())
        figures[f"A/B of equals, {kind}: % fixed interval wrong at some look"] = 100.0 * float(wrong[:, 1].mean())
    return figures, (f"{RUNS * repeats:,} rollouts of each kind, 10 requests a second, a look every 10 s; stable fails 1 %, 0.2 % late",)
