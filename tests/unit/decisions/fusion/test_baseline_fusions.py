"""Fusions on markets whose best weights can be worked out by hand or by a slower second way."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import pytest

from cryptoalpha.core.seeds import stream
from cryptoalpha.core.time import DAY, HOUR
from cryptoalpha.core.values import FusedSignal, MarketState, Signal
from cryptoalpha.decisions.config import FusionConfig
from cryptoalpha.decisions.fusion.contract import EqualWeights, Fusion
from cryptoalpha.decisions.fusion.hedge import Hedge
from cryptoalpha.decisions.fusion.outcomes import OUTCOME_CAP, DelayedOutcomes
from cryptoalpha.decisions.fusion.ridge import RollingRidge

ANNUAL = math.sqrt(8760)


def state(t: int, price: float, instrument: str = "BTC/USDT", volatility: float = 0.01 * ANNUAL) -> MarketState:
    return MarketState(happened_at=t * HOUR, known_at=(t + 1) * HOUR, instrument=instrument, price=price, volatility=volatility)


def signal(t: int, source: str, value: float, instrument: str = "BTC/USDT", kind: str = "price") -> Signal:
    return Signal(
        happened_at=t * HOUR, known_at=(t + 1) * HOUR, source=source, type=kind, instrument=instrument, value=value,
        confidence=0.5, predicted_impact=0.0, proposed_action="hold", horizon=DAY,
    )  # fmt: skip


def fuse(fusion: Fusion, t: int, states: Sequence[MarketState], signals: Sequence[Signal]) -> list[FusedSignal]:
    return fusion.fuse(
        (t + 1) * HOUR, states, signals, state_events=range(len(states)), signal_events=range(len(states), len(states) + len(signals))
    )


def run_world(fusion: Fusion, *, ic: dict[str, float], steps: int, seed: int, assets: int = 4, first: int = 0) -> list[FusedSignal]:
    """Hourly prices with σ = 1 % whose next move follows each source with its own correlation; returns the last fused signals."""
    noise = stream(seed, "world")
    log_price = np.zeros(assets)
    names = [f"A{a}/USDT" for a in range(assets)]
    fused: list[FusedSignal] = []
    for t in range(first, first + steps):
        opinion = {source: np.clip(noise.standard_normal(assets) / 2, -1, 1) for source in ic}
        states = [state(t, float(math.exp(log_price[a])), names[a]) for a in range(assets)]
        signals = [signal(t, source, float(values[a]), names[a]) for source, values in opinion.items() for a in range(assets)]
        fused = fuse(fusion, t, states, signals)
        drift = sum(strength * opinion[source] * 2 for source, strength in ic.items())
        log_price += 0.01 * (drift + noise.standard_normal(assets))
    return fused


def test_an_outcome_is_one_of_its_horizon_also_where_bars_come_late_or_not_at_all():
    """A late bar judges what is due, and what it says is judged itself; what closes in an outage has no outcome."""
    waiting, judged = DelayedOutcomes(3), {}
    for t in [0, 1, 2, 3, 4, 5, 6, 7, 20, 21, 22, 23, 24]:
        at = (t + 1) * HOUR + (HOUR // 2 if t == 4 else 0)
        price = 100.0 * math.exp(0.01 * t)
        matured = waiting.observe(at, [state(t, price)], [signal(t, "a", t / 100)])
        judged |= {round(100 * float(one.values[0])): one.outcome for one in matured}
    assert sorted(judged) == [0, 1, 2, 3, 20, 21]
    per_bar = 1.0 / math.sqrt(3)
    assert judged[0] == pytest.approx(3 * per_bar)
    assert judged[3] == pytest.approx(3 * per_bar)
    assert waiting.bar == HOUR


def test_an_opinion_given_before_any_volatility_is_known_has_no_outcome():
    waiting = DelayedOutcomes(1)
    for t, volatility in enumerate((math.nan, 0.0, 0.5)):
        assert waiting.observe((t + 1) * HOUR, [state(t, 100.0 + t, volatility=volatility)], [signal(t, "a", 0.5)]) == []
    assert len(waiting.observe(4 * HOUR, [state(3, 103.0)], [])) == 1


def test_a_source_heard_for_the_first_time_enters_the_hedge_at_the_mean_of_what_is_there():
    hedge = Hedge(FusionConfig(method="hedge", horizon_bars=1, hedge_rate=1.0, hedge_share=0.0))
    for t in range(60):
        fuse(hedge, t, [state(t, 100.0 * 1.01**t)], [signal(t, "right", 1.0)])
    known = hedge.signed_weights()[0]
    assert known > 0.9
    fuse(hedge, 60, [state(60, 100.0 * 1.01**59)], [signal(60, "right", 1.0), signal(60, "new", 1.0)])
    assert hedge.signed_weights().tolist() == [pytest.approx(known * 3 / 5, rel=0.05), pytest.approx(0.0, abs=1e-12)]  # 2 of 5 are new


def test_equal_weights_average_the_opinions_of_each_instrument_alone():
    states = [state(0, 100.0), state(0, 10.0, "ETH/USDT")]
    signals = [signal(0, "trend", 0.8), signal(0, "news", -0.2, kind="news"), signal(0, "trend", -1.0, "ETH/USDT")]
    btc, eth = fuse(EqualWeights(), 0, states, signals)
    assert btc.direction == pytest.approx(0.3)
    assert btc.sentiment == pytest.approx(-0.2)
    assert btc.weights == (("trend", 0.5), ("news", 0.5))
    assert btc.signals == (2, 3)
    assert btc.market_state == 0
    assert btc.urgency == pytest.approx(1 / 24)  # one-hour bars, a one-day horizon
    assert (eth.direction, eth.signals) == (-1.0, (4,))


def test_an_instrument_nobody_speaks_about_gets_no_direction():
    (fused,) = fuse(EqualWeights(), 0, [state(0, 100.0)], [])
    assert (fused.direction, fused.confidence, fused.weights) == (0.0, 0.0, ())


def test_an_outcome_is_handed_out_when_its_horizon_has_passed_and_not_a_bar_earlier():
    outcomes = DelayedOutcomes(horizon_bars=3)
    assert outcomes.observe(1 * HOUR, [state(0, 100.0)], [signal(0, "trend", 0.5)]) == []
    for t in (1, 2):
        assert outcomes.observe((t + 1) * HOUR, [state(t, 100.0)], []) == []
    (matured,) = outcomes.observe(4 * HOUR, [state(3, 103.0)], [])
    assert matured.outcome == pytest.approx(math.log(1.03) / (0.01 * math.sqrt(3)))
    assert matured.values.tolist() == [0.5]


def test_an_outcome_across_a_gap_is_not_judged_and_a_crash_is_capped():
    outcomes = DelayedOutcomes(horizon_bars=1)
    outcomes.observe(1 * HOUR, [state(0, 100.0), state(0, 5.0, "ETH/USDT")], [signal(0, "trend", 1.0)])
    (matured,) = outcomes.observe(2 * HOUR, [state(1, 1.0)], [])  # ETH printed no bar
    assert matured.outcome == -OUTCOME_CAP


def test_a_source_first_heard_later_counts_as_silent_before():
    outcomes = DelayedOutcomes(horizon_bars=1)
    outcomes.observe(1 * HOUR, [state(0, 100.0)], [signal(0, "trend", 1.0)])
    (matured,) = outcomes.observe(2 * HOUR, [state(1, 101.0)], [signal(1, "news", -1.0), signal(1, "trend", 1.0)])
    assert matured.values.tolist() == [1.0, 0.0]
    assert matured.spoke.tolist() == [1.0, 0.0]


@pytest.mark.parametrize("fusion_type", [Hedge, RollingRidge])
def test_learning_fusions_start_without_a_view(fusion_type: type[Hedge] | type[RollingRidge]):
    (fused,) = fuse(fusion_type(FusionConfig()), 0, [state(0, 100.0)], [signal(0, "trend", 1.0), signal(0, "funding", 1.0)])
    assert fused.direction == 0.0


@pytest.mark.parametrize("fusion_type", [Hedge, RollingRidge])
def test_a_reliable_source_is_followed_a_perverse_one_reversed_and_a_worthless_one_ignored(
    fusion_type: type[Hedge] | type[RollingRidge],
):
    fusion = fusion_type(FusionConfig(horizon_bars=1, half_life_bars=4000))
    run_world(fusion, ic={"good": 0.10, "perverse": -0.10, "worthless": 0.0}, steps=3000, seed=1)
    good, perverse, worthless = fusion.signed_weights()
    assert good > 0 > perverse
    assert abs(worthless) < min(good, -perverse)


def test_the_ridge_finds_the_weights_of_least_squares_when_the_edge_is_strong():
    """Second way: ordinary least squares. A horizon of one bar, so outcomes do not overlap; hardly any penalty or forgetting."""
    config = FusionConfig(horizon_bars=1, half_life_bars=1e9, ridge_penalty=1e-9, noise_floor=0.0)
    fusion = RollingRidge(config)
    noise = stream(3, "ols")
    rows, outcomes, price, before = [], [], 0.0, None
    for t in range(400):
        x = np.clip(noise.standard_normal(2) / 2, -1, 1)
        fuse(fusion, t, [state(t, math.exp(price))], [signal(t, "a", float(x[0])), signal(t, "b", float(x[1]))])
        if before is not None:
            rows.append(before)
        before = x
        move = 0.01 * (0.5 * x[0] - 0.3 * x[1] + noise.standard_normal())
        if t < 399:
            outcomes.append(max(-OUTCOME_CAP, min(OUTCOME_CAP, move / 0.01)))
        price += move
    expected = np.linalg.lstsq(np.array(rows), np.array(outcomes), rcond=None)[0]
    np.testing.assert_allclose(fusion.signed_weights(), expected, rtol=1e-6)


def test_the_ridge_forgets_its_variance_twice_as_fast_as_its_evidence():
    """By hand for one source: A and b are sums weighted by powers of λ, M by powers of λ², as the variance of such a sum is."""
    config = FusionConfig(horizon_bars=1, half_life_bars=6.0, ridge_penalty=0.5, noise_floor=0.5)
    fusion, noise, price = RollingRidge(config), stream(4, "forgets"), 0.0
    said, came = [], []
    for t in range(25):
        x = float(np.clip(noise.standard_normal(), -1, 1))
        fuse(fusion, t, [state(t, math.exp(price))], [signal(t, "a", x)])
        said.append(x)
        came.append(0.8 * x + 0.5 * noise.standard_normal())
        price += 0.01 * came[-1]
    x, y = np.array(said[:-1]), np.array(came[:-1])
    past = 0.5 ** (np.arange(len(x))[::-1] / 6.0)
    gram, cross, meat = (past * x * x).sum() + 0.5, (past * x * y).sum(), (past**2 * (x * y) ** 2).sum()
    plain = cross / gram
    assert 0.0 < 1.0 - 0.5 * meat / cross**2 < 1.0
    assert fusion.signed_weights() == pytest.approx([plain * (1.0 - 0.5 * meat / cross**2)])


_LEARNED = """
import numpy as np
from cryptoalpha.decisions.config import FusionConfig
from cryptoalpha.decisions.fusion.outcomes import Matured
from cryptoalpha.decisions.fusion.ridge import RollingRidge
draw, ridge = np.random.default_rng(0), RollingRidge(FusionConfig(horizon_bars=1, noise_floor=0.0))
ridge._gram, ridge._meat, ridge._cross = np.zeros((8, 8)), np.zeros((8, 8)), np.zeros(8)
for _ in range(50):
    ridge._learn([Matured(draw.uniform(-1, 1, 8), np.ones(8, bool), draw.standard_normal()) for _ in range(8)])
print(ridge.signed_weights().tobytes().hex())
"""


def test_the_ridge_learns_the_same_bits_whatever_processor_the_linear_algebra_is_tuned_for():
    """OpenBLAS sums in another order on each kind of processor; a journal hash must not."""
    kinds = ("Haswell", "Prescott", "Nehalem")
    learned = {
        subprocess.run(
            [sys.executable, "-c", _LEARNED], env={**os.environ, "OPENBLAS_CORETYPE": kind}, capture_output=True, check=True
        ).stdout
        for kind in kinds
    }
    assert len(learned) == 1
    assert learned != {b""}


@pytest.mark.parametrize("seed", range(5))
def test_on_pure_noise_the_ridge_holds_no_view(seed: int):
    fused = run_world(RollingRidge(FusionConfig()), ic={f"noise{k}": 0.0 for k in range(6)}, steps=1500, seed=seed)
    assert max(abs(one.direction) for one in fused) < 0.1


@pytest.mark.parametrize("seed", range(5))
def test_on_pure_noise_the_hedge_holds_hardly_any_view(seed: int):
    fused = run_world(Hedge(FusionConfig()), ic={f"noise{k}": 0.0 for k in range(6)}, steps=1500, seed=seed)
    assert max(abs(one.direction) for one in fused) < 0.1


def test_the_hedge_hands_a_share_back_at_every_outcome():
    """Heard once, then silent: nothing is gained or lost, so the source and its opposite drift to the uniform prior by the share."""
    fusion = Hedge(FusionConfig(horizon_bars=1, hedge_share=0.1))
    fuse(fusion, 0, [state(0, 100.0)], [signal(0, "trend", 1.0)])
    gaps = []
    for t in range(1, 4):
        fuse(fusion, t, [state(t, 102.0)], [])
        gaps.append(float(fusion.signed_weights()[0]))
    assert gaps[0] > 0.1
    assert gaps[1:] == pytest.approx([0.9 * gaps[0], 0.81 * gaps[0]])


def test_a_hedge_that_shares_nothing_can_still_change_its_mind():
    """An expert whose weight has run out to 0 would be lost for good."""
    hedge = Hedge(FusionConfig(method="hedge", horizon_bars=1, hedge_rate=50.0, hedge_share=0.0))
    with np.errstate(divide="raise", invalid="raise"):
        run_world(hedge, ic={"a": 0.7}, steps=400, seed=3)
        assert hedge.signed_weights()[0] > 0.99
        run_world(hedge, ic={"a": -0.7}, steps=400, seed=4, first=1000)
    assert hedge.signed_weights()[0] < -0.99


def test_weights_shown_to_people_sum_to_one_in_absolute_value():
    fusion = RollingRidge(FusionConfig(horizon_bars=1))
    fused = run_world(fusion, ic={"good": 0.2, "perverse": -0.2}, steps=1000, seed=2)
    assert all(sum(abs(weight) for _, weight in one.weights) == pytest.approx(1.0) for one in fused)


def test_one_worthless_source_in_twenty_passes_two_standard_errors_after_many_half_lives():
    """The standard error must be right for forgetting sums, not only for plain ones. Two-sided normal tail beyond 2: 4.6 %."""
    passed, looks = 0, 0
    for seed in range(60):
        fusion = RollingRidge(FusionConfig(horizon_bars=1, half_life_bars=100.0, ridge_penalty=1e-6, noise_floor=4.0))
        run_world(fusion, ic={f"noise{k}": 0.0 for k in range(4)}, steps=500, seed=1000 + seed, assets=2)
        passed += int(np.count_nonzero(fusion.signed_weights()))
        looks += 4
    assert 0.02 < passed / looks < 0.085  # 240 looks: standard error 1.4 percentage points
