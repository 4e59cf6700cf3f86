"""The council: convex, blind to order and to the future, and hard to impress."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.seeds import stream
from cryptoalpha.core.time import HOUR
from cryptoalpha.core.values import Decision, FusedSignal, MarketState, PortfolioState, Signal
from cryptoalpha.decisions.council.config import CouncilConfig
from cryptoalpha.decisions.council.council import Council, Learner, join_targets
from cryptoalpha.execution.portfolio import Portfolio

NAMES = ("BTC/USDT", "ETH/USDT")
FLAT = Portfolio(1000.0, NAMES, ()).mark(0, (math.nan, math.nan))


class Scripted:
    """An agent that wants what a table says. `targets` is `[T, A]`."""

    def __init__(self, name: str, targets: np.ndarray, claimed: float | None = None, expected: float | None = None) -> None:
        self.name, self.targets, self.claimed, self.expected = name, targets, claimed, expected
        self.t = 0
        self.learned: list[int] = []

    def learn(self, at: int, fused: Sequence[FusedSignal], states: Sequence[MarketState], signals: Sequence[Signal]) -> None:
        self.learned.append(at)

    def decide(
        self,
        at: int,
        fused: Sequence[FusedSignal],
        *,
        fused_events: Sequence[int],
        portfolio: PortfolioState,
        states: Sequence[MarketState],
        signals: Sequence[Signal],
    ) -> list[Decision]:
        row = self.targets[self.t]
        self.t += 1
        return [
            Decision(
                happened_at=at,
                known_at=at,
                instrument=signal.instrument,
                agent=self.name,
                target_weight=float(row[NAMES.index(signal.instrument)]),
                confidence=0.5,
                reason=f"script of {self.name}",
                fused=event,
                expected_return=self.expected,
                votes=() if self.claimed is None else ((self.name, 0.0, 1.0, self.claimed),),
                line=((0.5, 0.1),) if self.claimed is not None else (),
            )
            for signal, event in zip(fused, fused_events, strict=True)
        ]


def fused_at(at: int) -> list[FusedSignal]:
    return [
        FusedSignal(
            happened_at=at - HOUR, known_at=at, instrument=name, sentiment=0.0, direction=0.1, volatility=0.5, confidence=0.5,
            urgency=0.1, weights=(),
        )
        for name in NAMES
    ]  # fmt: skip


def states_at(at: int, prices: Sequence[float]) -> list[MarketState]:
    return [
        MarketState(happened_at=at - HOUR, known_at=at, instrument=name, price=float(price), volatility=0.5)
        for name, price in zip(NAMES, prices, strict=True)
    ]


def run(council: Council, prices: np.ndarray) -> list[list[Decision]]:
    found = []
    for t, row in enumerate(prices):
        at = (t + 1) * HOUR
        events = range(100 * t, 100 * t + len(NAMES))
        found.append(council.decide(at, fused_at(at), fused_events=events, portfolio=FLAT, states=states_at(at, row), signals=()))
    return found


def prices_of(seed: int, bars: int, drift: float = 0.0) -> np.ndarray:
    moves = drift + 0.01 * stream(seed, "council prices").standard_normal((bars, len(NAMES)))
    return np.asarray(100.0 * np.exp(np.cumsum(moves, axis=0)))


weights = st.floats(-2.0, 2.0)


@given(votes=st.lists(st.tuples(weights, st.floats(0.0, 1.0)), min_size=1, max_size=5), disagreement=st.floats(0.0, 1.0))
@settings(max_examples=40, deadline=None)
def test_the_target_never_leaves_the_hull_of_the_votes_and_no_position(votes: list[tuple[float, float]], disagreement: float) -> None:
    raw = np.array([share for _, share in votes]) + 1e-3
    targets, shares = [target for target, _ in votes], (raw / raw.sum()).tolist()
    target, factor = join_targets(targets, shares, disagreement)
    assert min(0.0, *targets) <= target <= max(0.0, *targets)
    assert 0.0 <= factor <= 1.0
    mean = float(np.dot(targets, shares))
    assert abs(target) <= abs(mean) + 1e-12
    assert target * mean >= 0.0


def test_votes_of_one_mind_are_followed_to_the_last_bit_and_opposite_ones_cancel() -> None:
    assert join_targets([0.1, 0.1, 0.1], [1 / 3, 1 / 3, 1 / 3]) == (0.1, 1.0)
    assert join_targets([0.4, -0.4], [0.5, 0.5]) == (0.0, 0.0)
    assert join_targets([0.3, -5.0], [1.0, 0.0]) == (0.3, 1.0)  # who has no share is not heard


def test_one_who_abstains_halves_the_mean_once_more() -> None:
    target, factor = join_targets([0.6, 0.0], [0.5, 0.5])  # mean .3, spread .09: .09 / (.09 + .09)
    assert factor == pytest.approx(0.5)
    assert target == pytest.approx(0.15)
    assert join_targets([0.6, 0.0], [0.5, 0.5], 0.0)[0] == pytest.approx(0.3)


def test_the_factor_is_the_multiple_of_one_vote_that_comes_closest_to_the_mean() -> None:
    targets, shares = np.array([0.5, 0.1, -0.2]), np.array([0.5, 0.3, 0.2])
    mean = float(targets @ shares)
    grid = np.linspace(0.0, 1.0, 100_001)
    errors = ((grid[:, None] * targets - mean) ** 2 * shares).sum(axis=1)
    assert join_targets(targets.tolist(), shares.tolist())[1] == pytest.approx(grid[errors.argmin()], abs=2e-5)


def test_one_member_alone_is_followed_unchanged() -> None:
    prices = prices_of(1, 60)
    targets = stream(1, "alone").standard_normal((60, 2))
    council = Council([Scripted("a", targets, claimed=0.25, expected=0.4)], CouncilConfig(horizon_bars=2, least_outcomes=2), cost=0.01)
    for t, decisions in enumerate(run(council, prices)):
        assert [decision.target_weight for decision in decisions] == targets[t].tolist()
        assert {(d.confidence, d.reason, d.expected_return, d.line) for d in decisions} == {(0.5, "script of a", 0.4, ((0.5, 0.1),))}
        assert decisions[0].votes == (("a", targets[t, 0], 1.0, 0.25),)


def test_the_order_of_members_does_not_matter() -> None:
    prices = prices_of(2, 200, drift=0.001)
    scripts = [(name, stream(2, name).standard_normal((200, 2))) for name in ("x", "y", "z")]
    config = CouncilConfig(horizon_bars=3, least_outcomes=5, noise_floor=0.1)

    def decided(order: Sequence[int]) -> list[list[Decision]]:
        return run(Council([Scripted(*scripts[i]) for i in order], config, cost=0.001, band=0.01), prices)

    assert decided((0, 1, 2)) == decided((2, 0, 1))


def test_nothing_depends_on_what_comes_later() -> None:
    prices = prices_of(3, 240, drift=0.002)
    poisoned = prices.copy()
    poisoned[150:] = 1e6
    scripts = {name: stream(3, name).standard_normal((240, 2)) for name in ("x", "y")}
    config = CouncilConfig(horizon_bars=4, least_outcomes=5, noise_floor=0.0)

    def decided(seen: np.ndarray) -> list[list[Decision]]:
        return run(Council([Scripted(name, rows) for name, rows in scripts.items()], config), seen)

    whole, changed = decided(prices), decided(poisoned)
    assert whole[:150] == changed[:150]
    assert whole[160:] != changed[160:]  # the poison bites where it may


@given(seed=st.integers(0, 10_000), members=st.integers(1, 5))
@settings(max_examples=20, deadline=None)
def test_shares_are_never_negative_and_sum_to_one(seed: int, members: int) -> None:
    rng = stream(seed, "shares")
    agents = [Scripted(f"m{k}", rng.standard_normal((80, 2)) * rng.uniform(0.1, 2.0)) for k in range(members)]
    council = Council(agents, CouncilConfig(horizon_bars=2, least_outcomes=3, noise_floor=0.5), cost=0.002)
    for decisions in run(council, prices_of(seed, 80, drift=0.003)):
        shares = [share for _, _, share, _ in decisions[0].votes]
        assert min(shares) >= 0.0
        assert sum(shares) == pytest.approx(1.0, abs=1e-12)


def _planted(seed: int, *, edge: float, bars: int = 24 * 250) -> dict[str, float]:
    """Final shares of one member whose targets correlate with the next move, among two of noise that move as much."""
    prices = prices_of(seed, bars)
    ahead = np.vstack([np.diff(np.log(prices), axis=0) / 0.01, np.zeros((1, 2))])
    noise = {name: stream(seed, name).standard_normal((bars, 2)) for name in ("good", "noise 1", "noise 2")}
    noise["good"] = edge * ahead + math.sqrt(1.0 - edge**2) * noise["good"]
    held = {name: 0.2 * np.repeat(rows[::6], 6, axis=0) if name != "good" else 0.2 * rows for name, rows in noise.items()}
    council = Council([Scripted(name, rows) for name, rows in held.items()], CouncilConfig(least_outcomes=30))
    for t, row in enumerate(prices):
        at = (t + 1) * HOUR
        council.decide(at, fused_at(at), fused_events=range(2), portfolio=FLAT, states=states_at(at, row), signals=())
    return council.shares


def test_a_member_that_knows_gains_share_and_noise_stays_near_equal() -> None:
    good = [_planted(seed, edge=0.10)["good"] for seed in range(3)]
    assert min(good) > 0.5, good
    noise = [max(_planted(seed, edge=0.0).values()) for seed in range(3)]
    assert np.mean(noise) < 0.5, noise


def test_a_member_that_is_proven_bad_gets_nothing_and_where_all_are_the_prior_stands() -> None:
    prices = prices_of(5, 800, drift=-0.003)
    long, flat = np.full((800, 2), 0.4), np.zeros((800, 2))
    config = CouncilConfig(horizon_bars=8, least_outcomes=20)
    council = Council([Scripted("bull", long), Scripted("flat", flat)], config)
    run(council, prices)
    assert council.shares == {"bull": 0.0, "flat": 1.0}
    both = Council([Scripted("bull", long), Scripted("bolder", long)], config)
    run(both, prices)
    assert both.shares == {"bolder": 0.5, "bull": 0.5}


def test_costs_count_but_not_what_the_no_trade_band_would_swallow() -> None:
    prices = np.full((900, 2), 100.0)
    still = np.full((900, 2), 0.4)
    restless = 0.4 + 0.01 * stream(6, "restless").choice([-1.0, 1.0], (900, 2))
    config = CouncilConfig(horizon_bars=8, least_outcomes=20)

    def shares(band: float) -> dict[str, float]:
        council = Council([Scripted("still", still), Scripted("restless", restless)], config, cost=0.001, band=band)
        run(council, prices)
        return council.shares

    assert shares(0.0)["still"] > 0.95
    assert shares(0.05)["still"] == pytest.approx(0.5)


def test_an_outcome_counts_when_the_last_price_of_its_horizon_is_known_and_not_before() -> None:
    """Two outcomes of two bars each: of the bars 1 and 2, then 3 and 4, whose closes are known at the fifth decision."""
    prices = 100.0 * np.cumprod(np.tile([[1.0], [1.01], [1.02], [1.01], [1.03], [1.0]], (1, 2)), axis=0)
    council = Council(
        [Scripted("long", np.full((6, 2), 0.4)), Scripted("flat", np.zeros((6, 2)))], CouncilConfig(horizon_bars=2, least_outcomes=2)
    )
    heard = [{agent: share for agent, _, share, _ in decisions[0].votes} for decisions in run(council, prices)]
    assert heard[:4] == [{"flat": 0.5, "long": 0.5}] * 4
    assert heard[4]["long"] > 0.9
    assert heard[5] == heard[4]


def test_the_decision_tells_every_vote_and_the_plan_of_the_greatest_share() -> None:
    one = [np.tile([[0.2, -0.1]], (4, 1)), np.tile([[0.4, -0.1]], (4, 1))]
    council = Council([Scripted("rule", one[0]), Scripted("garch", one[1], claimed=0.03, expected=0.5)], CouncilConfig())
    first, second = run(council, prices_of(7, 1))[0]
    assert [vote[:3] for vote in first.votes] == [("garch", 0.4, 0.5), ("rule", 0.2, 0.5)]
    assert first.votes[0][3] == 0.03
    assert math.isnan(first.votes[1][3])
    assert first.line == ((0.5, 0.1),)
    assert first.expected_return == 0.5
    assert first.target_weight == pytest.approx(0.3 * 0.09 / (0.09 + 0.01))
    assert first.agent == "council"
    assert first.fused == 0
    assert second.target_weight == -0.1
    assert "one mind" in second.reason


def test_bars_of_the_past_reach_the_members_that_can_learn() -> None:
    member = Scripted("a", np.zeros((1, 2)))
    council = Council([member], CouncilConfig())
    assert isinstance(council, Learner)
    council.learn(HOUR, fused_at(HOUR), states_at(HOUR, (1.0, 1.0)), ())
    assert member.learned == [HOUR]


def test_a_council_needs_members_of_different_names_that_decide_about_everything() -> None:
    with pytest.raises(ConfigError, match="cannot vote"):
        Council([], CouncilConfig())
    with pytest.raises(ConfigError, match="cannot vote"):
        Council([Scripted("a", np.zeros((1, 2))), Scripted("a", np.zeros((1, 2)))], CouncilConfig())

    class Idle(Scripted):
        def decide(self, *args: object, **kwargs: object) -> list[Decision]:  # type: ignore[override]
            return []

    with pytest.raises(ConfigError, match="did not decide"):
        run(Council([Idle("a", np.zeros((1, 2)))], CouncilConfig()), prices_of(8, 1))
