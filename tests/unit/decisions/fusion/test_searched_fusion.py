"""The searched fusion as a whole: what it finds in a market whose truth is known, what it claims in noise, and what it leaves behind."""

from __future__ import annotations

import copy
import itertools
import math

import msgspec
import numpy as np
import pytest

from cryptoalpha.app.bench.decisions_fusion import noise_fusion, planted_bars, planted_config, planted_fusion, planted_run, values_of
from cryptoalpha.core.time import HOUR, MINUTE
from cryptoalpha.core.values import FusedSignal, FusionSearch, MarketState
from cryptoalpha.decisions.fusion.charge import NAMES
from cryptoalpha.decisions.fusion.contract import Fusion
from cryptoalpha.decisions.fusion.experience import ExperienceQueue
from cryptoalpha.decisions.fusion.ridge import RollingRidge
from cryptoalpha.decisions.fusion.search.actions import ACTIONS, EQUAL, FAMILIES
from cryptoalpha.decisions.fusion.search.searched import SearchedFusion

STRONG = 0.45
"""Planted correlation of the quick tests: found within a few hundred bars."""


QUICK = planted_config(32)
DEAF = QUICK.model_copy(
    update={"noise_floor": 1e6, "hedge_share": 0.99, "search": QUICK.search.model_copy(update={"half_life_bars": 120.0, "alpha": 0.1})}
)
"""Ridge and Hedge hear nothing, so the search can be better than all of them."""

Left = list[tuple[list[FusedSignal], FusionSearch]]


def through(fusion: Fusion, bars: int, *, until: int | None = None, seed: int = 0, instruments: int = 1) -> Left:
    left: Left = []
    for at, states, signals in itertools.islice(values_of(planted_bars(seed, ic=STRONG, bars=bars), instruments), until):
        n = len(states)
        fused = fusion.fuse(at, states, signals, state_events=range(n), signal_events=range(n, n + len(signals)))
        assert fusion.search is not None
        left.append((fused, fusion.search))
    return left


@pytest.fixture(scope="module")
def planted() -> tuple[SearchedFusion, Left]:
    fusion = SearchedFusion(DEAF, seed=7)
    return fusion, through(fusion, 660)


def test_the_same_values_give_the_same_bytes(planted):
    encode = msgspec.msgpack.Encoder().encode
    again = through(SearchedFusion(DEAF, seed=7), 660, until=100)
    assert encode(again) == encode(planted[1][:100])


def test_every_bar_says_what_was_searched_and_who_is_in_charge(planted):
    fusion, left = planted
    for _, search in left:
        assert search.in_charge in NAMES
        assert search.simulations == 32 == sum(visits for _, visits, _, _ in search.candidates)
        assert sum(search.weights_after) <= 1.0 + 1e-9
        assert search.action in {name for name, *_ in search.candidates}
        assert search.line[0][0] == search.action
        assert search.reason
    for (_, before), (_, after) in itertools.pairwise(left):
        assert before.weights_after == after.weights_before
    assert fusion.weights["family 1"] > 0.5  # right since half-way


def test_the_right_family_is_found_and_left_again_when_another_becomes_right(planted):
    _, left = planted
    assert left[329][1].weights_after[0] > 0.5  # the first family is right until bar 330
    assert left[-1][1].weights_after[1] > 0.5
    assert left[-1][1].weights_after[0] < 0.4


def test_the_search_gets_charge_and_all_its_fields_mean_something(planted):
    fusion, left = planted
    acted = [fused for fused, search in left if search.in_charge == "search"]
    assert acted, fusion.charge.reason()
    for one in [signal for fused in acted for signal in fused]:
        assert one.expected_move is not None
        assert one.direction == pytest.approx(math.tanh(one.expected_move / 0.10))
        assert one.horizon == HOUR
        assert 0.0 < one.confidence <= 1.0
        assert one.urgency == pytest.approx(1.0)  # opinions about one bar
        assert sum(abs(weight) for _, weight in one.weights) == pytest.approx(1.0)
        assert one.volatility > 0.0


def test_what_was_decided_becomes_a_lesson_when_its_horizon_closes_and_not_before():
    queue = ExperienceQueue(ACTIONS)
    fusion = SearchedFusion(planted_config(8), seed=1, experience=queue)
    market, price = list(values_of(planted_bars(1, ic=STRONG, bars=60), 1)), math.nan
    for at, states, signals in market:
        fusion.fuse(at, states, signals, state_events=(0,), signal_events=range(1, 1 + len(signals)))
        lessons = queue.take(at)
        assert len(lessons) == (at > HOUR)  # of the bar before
        assert (lessons.due_at == at).all()
        assert (lessons.decided_at == at - HOUR).all()
        if len(lessons):
            assert lessons.features.shape == (1, 100)
            assert lessons.rewards[0] == pytest.approx(fusion.matured[0].reward)
            assert fusion.matured[0].outcomes[0] == pytest.approx(np.clip(math.log(states[0].price / price) / 0.01, -4, 4))
        price = states[0].price


def test_the_future_changes_nothing_that_was_said_before():
    calm, wild = (SearchedFusion(planted_config(8), seed=3) for _ in range(2))
    said = [through(calm, 40, seed=3), []]
    for t, (at, states, signals) in enumerate(values_of(planted_bars(3, ic=STRONG, bars=40), 1)):
        later = [msgspec.structs.replace(state, price=state.price * 3.0) for state in states] if t >= 30 else states
        n = len(states)
        said[1].append((wild.fuse(at, later, signals, state_events=range(n), signal_events=range(n, n + len(signals))), wild.search))
    assert said[0][:30] == said[1][:30]
    assert calm.matured != wild.matured


class Prefers:
    """A network that wants one action and expects nothing."""

    def __init__(self, action: int) -> None:
        self.action, self.asked = action, 0

    def __call__(self, states):
        self.asked += len(states)
        assert states.shape[1] == 100
        assert np.isfinite(states).all()
        logits = np.zeros((len(states), ACTIONS), np.float32)
        logits[:, self.action] = 50.0
        return logits, np.zeros(len(states), np.float32)


def test_an_adopted_network_guides_the_search_from_the_next_bar_on(planted):
    fusion = copy.deepcopy(SearchedFusion(planted_config(8), seed=2))
    guide = Prefers(EQUAL)
    market = list(values_of(planted_bars(2, ic=0.0, bars=6), 1))
    for t, (at, states, signals) in enumerate(market):
        if t == 3:
            assert guide.asked == 0
            fusion.adopt(guide, "abc", planted_config(8).search.model_copy(update={"delta": 0.05}))
        fusion.fuse(at, states, signals, state_events=(0,), signal_events=range(1, 1 + len(signals)))
        assert fusion.search is not None
        assert (fusion.search.version, fusion.search.action) == (("abc", "equal") if t >= 3 else ("", "hold"))
    assert guide.asked > 3 * 8 // 2


def test_until_it_is_proved_the_ridge_acts_as_if_it_were_alone():
    config = planted_config(8)
    alone, fusion = RollingRidge(config), SearchedFusion(config, seed=0)
    for at, states, signals in values_of(planted_bars(5, ic=0.0, bars=80), 2):
        events = {"state_events": range(2), "signal_events": range(2, 2 + len(signals))}
        assert fusion.fuse(at, states, signals, **events) == alone.fuse(at, states, signals, **events)
        assert fusion.search is not None
        assert fusion.search.in_charge == "ridge"


def test_gaps_new_instruments_and_silent_bars_are_survived():
    fusion = SearchedFusion(planted_config(8), seed=4, experience=ExperienceQueue(ACTIONS))
    assert fusion.fuse(HOUR, [], [], state_events=(), signal_events=()) == []
    wide, thin = list(values_of(planted_bars(4, ic=STRONG, bars=40), 3)), list(values_of(planted_bars(4, ic=STRONG, bars=40), 1))
    for t in range(40):
        at, states, signals = (wide if t % 7 > 2 else thin)[t]
        if t % 5 == 0:
            signals = []
        if t % 11 == 0:
            states = [msgspec.structs.replace(state, volatility=math.nan) for state in states]
        n = len(states)
        fused = fusion.fuse(at, states, signals, state_events=range(n), signal_events=range(n, n + len(signals)))
        assert [one.instrument for one in fused] == [state.instrument for state in states]
        assert all(math.isfinite(one.direction) for one in fused)


def judged_after(*, late: int = -1, missing: range = range(0)) -> list[tuple[int, int, bool]]:
    """Hour of each decision about six hours, minutes until it was judged, whether it got a verdict."""
    queue, found = ExperienceQueue(ACTIONS), []
    fusion = SearchedFusion(planted_config(8).model_copy(update={"horizon_bars": 6}), seed=1, experience=queue)
    for t, (at, states, signals) in enumerate(values_of(planted_bars(1, ic=STRONG, bars=45), 2)):
        if t in missing:
            continue
        known = at + 10 * MINUTE * (t == late)
        states, signals = ([msgspec.structs.replace(one, known_at=known) for one in part] for part in (states, signals))
        fused = fusion.fuse(known, states, signals, state_events=range(2), signal_events=range(2, 2 + len(signals)))
        assert all(one.horizon in (0, 6 * HOUR) for one in fused)
        queue.take(known)  # refuses rewards that are not due
        for bar in fusion.matured:
            told = bool(np.isfinite(bar.outcomes).all())
            found.append((bar.decided_at // HOUR, (bar.known_at - bar.decided_at) // MINUTE, told))
    return found


def test_a_bar_that_comes_late_judges_what_is_due_and_is_judged_itself():
    found = judged_after(late=20)
    assert [one for one in found if one[1] != 360] == [(15, 370, True), (21, 410, True)]
    assert [at for at, _, _ in found] == list(range(1, 40))  # one after the other, none twice, none left out


def test_what_closes_in_an_outage_gets_no_verdict():
    found = judged_after(missing=range(20, 30))
    assert [one for one in found if not one[2]] == [(15 + n, 60 * (16 - n), False) for n in range(6)]
    assert all(minutes == 360 for _, minutes, told in found if told)


def test_a_weight_can_be_taken_from_the_only_family_until_none_is_left():
    fusion = SearchedFusion(planted_config(8), seed=1)
    fusion.adopt(Prefers(1 + FAMILIES), "minus")
    for at, states, signals in values_of(planted_bars(1, ic=STRONG, bars=14), 1):
        fusion.fuse(at, states, signals[:1], state_events=(0,), signal_events=(1,))
    assert fusion.weights["family 0"] == 0.0


def test_more_kinds_of_evidence_than_places_share_the_last_one():
    fusion = SearchedFusion(planted_config(8), seed=0)
    ((at, states, signals),) = list(values_of(planted_bars(0, ic=0.0, bars=1), 1))
    other = [msgspec.structs.replace(signals[0], source="late", type="something else")]
    fusion.fuse(at, states, signals + other, state_events=(0,), signal_events=range(1, 12))
    assert fusion.search is not None
    assert len(fusion.search.types) == 10


def test_a_regime_belief_is_read_from_the_states():
    fusion = SearchedFusion(planted_config(8), seed=0)
    belief = (0.7, 0.1, 0.1, 0.05, 0.05, 0.0)
    state = MarketState(happened_at=0, known_at=HOUR, instrument="A/USDT", price=1.0, volatility=0.5, regime=belief, regime_age=3.0)
    fusion.fuse(HOUR, [state], [], state_events=(0,), signal_events=())
    assert fusion.search is not None
    assert fusion.search.regime == pytest.approx(belief)


def test_on_noise_next_to_nothing_is_claimed_and_the_baseline_keeps_charge():
    run = planted_run(11, ic=0.0, bars=300, simulations=32)
    assert (run.acting == 1).all()
    assert np.mean(run.claimed <= 1e-9) > 0.6
    assert run.claimed.mean() < 1e-5  # log growth per bar; a correlation of .10 earns 3e-4


@pytest.mark.slow
def test_planted_families_are_found_on_ten_seeds():
    figures = planted_fusion(range(10))
    for name in ("fused", "search"):
        assert figures[f"{name}_over_equal"] >= 1.5
        assert figures[f"{name}_of_oracle"] >= 0.5
        assert figures[f"{name}_less_better_baseline_mean"] >= -2.0 * figures[f"{name}_less_better_baseline_error"]
    assert figures["weight_on_right_at_end_mean"] > 0.3  # recovered after the switch


@pytest.mark.slow
def test_noise_stays_noise_on_ten_seeds():
    figures = noise_fusion(range(10))
    for name in ("search", "fused"):
        assert abs(figures[f"ic_{name}_mean"]) <= 2.0 * max(figures[f"ic_{name}_error"], 0.026 / math.sqrt(10)) + 0.012  # its bias
        assert abs(figures[f"t_{name}"]) < 3.0
    assert figures["share_of_bars_searched_acts"] == 0.0
    assert figures["share_of_bars_nothing_claimed"] > 0.5
    assert figures["claimed_mean"] < 1e-5
