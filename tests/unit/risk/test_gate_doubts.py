"""What nobody believes moves nothing, and what nobody can say is not allowed: prices in doubt, numbers beyond reason, dust, resumptions."""

from __future__ import annotations

import math
from decimal import Decimal

import numpy as np
import pytest

from cryptoalpha.core.time import DAY, HOUR
from cryptoalpha.core.values import Decision, InstrumentRules, MarketState, Order, PortfolioState
from cryptoalpha.risk.book import Book, Stake
from cryptoalpha.risk.caps import growth_within, variance
from cryptoalpha.risk.config import BreakerConfig, OrderLimitsConfig, RiskConfig, TailConfig
from cryptoalpha.risk.gate import RiskGate
from cryptoalpha.risk.market_memory import MarketMemory
from cryptoalpha.risk.orders import is_cancelled_by
from cryptoalpha.risk.shortfall import largest_growth

START = 100 * DAY
NAMES = ("A", "B")
RULES = {
    name: InstrumentRules(
        happened_at=0, known_at=0, instrument=name, venue="t", base=name, quote="USDT", lot=Decimal("0.001"), tick=Decimal("0.01"),
        min_notional=Decimal(5),
    )
    for name in NAMES
}  # fmt: skip
PLAIN = RiskConfig(
    max_position=1.0, max_gross=1.0, volatility_target=0.3, tail=TailConfig(max_expected_shortfall=None), no_trade_band=0.0,
    allow_short=True, orders=OrderLimitsConfig(max_liquidation_days=None),
    breakers=BreakerConfig(daily_loss_reduce=None, daily_loss_kill=None),
)  # fmt: skip


class World:
    """A gate on hourly bars: B always costs 100; cash is what 100,000 leaves after `held` units were bought at 100."""

    def __init__(self, config=PLAIN, **held):
        self.gate, self.t = RiskGate(config, RULES), 0
        self.positions = tuple((name, Decimal(units)) for name, units in held.items())
        self.cash = 100_000 - sum(100 * units for units in held.values())
        self.peak = Decimal(0)

    def bar(self, price=100.0, wanted=(), *, pending=None, equity=None, states=None, volatility=0.1):
        """One hour later, A at `price` (NaN: no bar): the review of `{name: weight}`."""
        self.t += 1
        at = START + self.t * HOUR
        self.gate.observe(at, HOUR, NAMES, [price, 100.0], [1e6, 1e6])
        seen = {"A": price, "B": 100.0}
        if states is None:
            states = {
                name: MarketState(happened_at=at, known_at=at, instrument=name, price=one, volatility=volatility)
                for name, one in seen.items()
                if one == one
            }
        marked = sum((units * Decimal(repr(seen.get(name, 100.0))) for name, units in self.positions), Decimal(self.cash))
        value = marked if equity is None else Decimal(equity)
        self.peak = max(self.peak, value)
        book = PortfolioState(
            happened_at=at, known_at=at, cash=Decimal(self.cash), positions=self.positions, equity=value, peak_equity=self.peak
        )
        decisions = [
            Decision(happened_at=at, known_at=at, instrument=name, agent="x", target_weight=weight, confidence=1.0, reason="")
            for name, weight in dict(wanted).items()
        ]
        return self.gate.review(
            at, decisions, events=range(len(decisions)), states=states, portfolio=book, pending={} if pending is None else pending
        )

    def quiet(self, bars=40, **wanted):
        for t in range(bars):
            review = self.bar(100.0 + 0.1 * (-1) ** t, wanted)
        return review


def shown(review):
    return [(v.instrument, v.side, float(v.quantity)) if isinstance(v, Order) else (v.instrument, v.rule) for v in review.verdicts]


def told(review):
    return [(event.rule, event.state) for event in review.events]


def used(review):
    return {name: used for name, used, _ in review.state.limits}


# a price that is not believed


@pytest.mark.parametrize("bad", [40.0, 300.0, 1000.0])
def test_a_false_price_of_one_bar_sells_nothing_trips_nothing_and_makes_no_peak(bad):
    world = World(PLAIN.model_copy(update={"no_trade_band": 0.01}), A=250)
    world.quiet()
    review = world.bar(bad, {"A": 0.25})
    assert (shown(review), told(review)) == ([], [("bad_tick", "open")])
    assert used(review)["position_cap"] == pytest.approx(0.25, rel=1e-3)
    assert used(review)["max_drawdown"] == pytest.approx(0.0, abs=1e-3)
    review = world.bar(100.0, {"A": 0.25})
    assert told(review) == [("bad_tick", "closed")]
    assert not world.gate.kill_switch.stands
    assert world.gate.guard.ladder.rung == 0
    assert world.gate.guard.drawdown == pytest.approx(0.0, abs=1e-3)


def test_a_false_price_does_not_size_the_others():
    world = World(A=250)
    world.quiet()
    ((name, side, quantity),) = shown(world.bar(1000.0, {"B": 0.2}))
    assert (name, side, quantity) == ("B", "buy", pytest.approx(200.0, rel=1e-3))


def test_a_crash_of_half_and_more_is_believed_and_stops_one_bar_later():
    world = World(A=900)
    world.quiet()
    assert told(world.bar(40.0)) == [("bad_tick", "open")]
    review = world.bar(39.5)
    assert told(review) == [("bad_tick", "closed"), ("drawdown_ladder", "3"), ("kill_switch", "tripping")] or told(review) == [
        ("drawdown_ladder", "3"), ("kill_switch", "tripping"), ("bad_tick", "closed"),
    ]  # fmt: skip
    assert shown(review) == [("A", "sell", 900.0)]


def test_a_smaller_move_in_doubt_is_what_crashes_look_like_and_is_seen_at_once():
    world = World(A=900)
    world.quiet(bars=130)
    review = world.bar(55.0)
    assert ("bad_tick", "open") in told(review)
    assert ("kill_switch", "tripping") in told(review)


def test_a_smaller_doubt_after_a_larger_one_ends_the_quarantine():
    world = World(A=100)
    world.quiet()
    world.bar(40.0)
    assert set(world.gate.breakers.ticks.quarantined) == {"A"}
    world.bar(70.0)
    assert world.gate.breakers.ticks.quarantined == {}
    assert ("bad_tick", "A") in world.gate.breakers._of_instrument


@pytest.mark.parametrize(("last", "counts"), [(40.0, 40.0), (300.0, 100.0)])
def test_where_no_bar_comes_any_more_the_lower_price_counts(last, counts):
    world = World(A=250)
    world.quiet(bars=41)  # the last price believed is 100.1
    world.bar(last)
    raw = 75_000 + 250 * Decimal(repr(last))
    for bar in range(3):
        world.bar(math.nan, equity=raw)
        before = 75_000 + 250 * 100.1
        assert float(world.gate.guard._seen) == pytest.approx(before if bar < 2 or counts == 100.0 else 75_000 + 250 * counts)


def test_the_first_review_of_all_may_fall_on_a_false_price():
    world = World(A=250)
    for t in range(40):
        world.gate.observe(START - (40 - t) * HOUR, HOUR, NAMES, [100.0 + 0.1 * (-1) ** t, 100.0], [1e6, 1e6])
    assert told(world.bar(1000.0)) == [("bad_tick", "open")]
    assert float(world.gate.guard._peak) == pytest.approx(100_000, rel=1e-3)


# a resumption gives back only what was beyond its limit


def test_a_kill_for_maintenance_gives_back_no_drawdown():
    world = World()
    world.bar(equity=100_000)
    world.bar(equity=70_000)
    world.gate.kill_switch.trip(0, by="ann", reason="maintenance")
    world.bar(equity=70_000)
    world.gate.kill_switch.resume(START, by="ann", reason="done")
    review = world.bar(wanted={"A": 0.8}, equity=70_000)
    assert shown(review) == [("A", "buy", 140.0)]  # a quarter is left: 0.2 of 70,000
    assert used(review)["max_drawdown"] == pytest.approx(0.3)
    assert ("kill_switch", "tripping") in told(world.bar(equity=64_999))


def test_after_the_days_limit_the_day_counts_anew_and_the_peak_does_not():
    world = World(PLAIN.model_copy(update={"breakers": BreakerConfig(daily_loss_reduce=4.0, daily_loss_kill=8.0)}))
    world.bar(equity=100_000)
    assert told(world.bar(equity=80_000)) == [
        ("drawdown_ladder", "2"), ("daily_loss", "reduce_only"), ("kill_switch", "tripping"), ("kill_switch", "tripped"),
    ]  # fmt: skip
    world.gate.kill_switch.resume(START, by="ann", reason="seen")
    review = world.bar(wanted={"A": 0.8}, equity=80_000)
    assert (told(review), shown(review)) == ([("daily_loss", "normal")], [("A", "buy", 320.0)])  # half of 0.8 of 80,000
    assert (world.gate.guard.daily.start, float(world.gate.guard._peak)) == (80_000.0, 100_000.0)


def test_after_the_drawdown_limit_the_day_counts_anew_too_also_where_midnight_has_no_bar():
    world = World(PLAIN.model_copy(update={"breakers": BreakerConfig(daily_loss_reduce=4.0, daily_loss_kill=30.0)}))
    world.bar(equity=100_000)
    assert told(world.bar(equity=60_000))[-2:] == [("kill_switch", "tripping"), ("kill_switch", "tripped")]
    world.bar(equity=60_000)
    world.gate.kill_switch.resume(START, by="ann", reason="seen")
    world.t = 24 + 4
    review = world.bar(wanted={"A": 0.8}, equity=55_000)
    assert told(review) == [("drawdown_ladder", "0"), ("daily_loss", "normal")]
    assert (world.gate.guard.daily.start, world.gate.guard.daily.loss) == (55_000.0, 0.0)
    assert shown(review) == [("A", "buy", 440.0)]


def test_within_the_hair_above_a_days_line_nothing_is_missed():
    """The guard's two comparisons know the day's line as well as the peak's: a loss within a day whose peak is long past."""
    world = World(PLAIN.model_copy(update={"breakers": BreakerConfig(daily_loss_reduce=4.0, daily_loss_kill=8.0), "max_drawdown": 1.0}))
    world.bar(equity=100_000)
    world.bar(equity=99_000)
    unit = 0.3 / math.sqrt(365)
    assert told(world.bar(equity=repr(100_000 * (1 - 3.999 * unit)))) == []
    assert told(world.bar(equity=repr(100_000 * (1 - 4.001 * unit)))) == [("daily_loss", "reduce_only")]


# what is told


def test_every_change_of_mode_comes_with_the_state():
    world = World()
    assert world.bar().state.mode == "armed"
    assert world.bar().state is None
    world.gate.kill_switch.trip(0, by="ann", reason="odd")
    assert world.bar().state.mode == "tripped"
    assert world.bar().state is None
    world.gate.kill_switch.resume(START, by="ann", reason="fine")
    assert world.bar().state.mode == "armed"
    assert world.bar(equity=88_000).state.exposure == 0.75
    world.quiet(bars=130)
    assert world.bar(120.0).state is not None  # the tick filter's breaker opens
    for _ in range(5):
        world.gate.note_reject(START + world.t * HOUR)
    review = world.bar(120.0)
    assert ("venue", "open") in told(review)
    assert review.state is not None


def test_a_breaker_that_closes_by_a_decision_comes_with_the_state():
    world = World(A=500)
    world.bar(wanted={"A": math.nan})
    review = None
    for _ in range(3):
        review = world.bar(wanted={"A": 0.5})
    assert (shown(review), told(review)) == ([], [("model_output", "half_open"), ("model_output", "closed")])
    assert review.state.mode == "armed"


# ways out


@pytest.mark.parametrize(
    ("rule", "pending", "held", "cancelled"),
    [
        ("gross_cap", 3, 0, True),
        ("gross_cap", 3, 5, True),
        ("gross_cap", -3, 5, False),
        ("gross_cap", -6, 5, True),  # turns the position round
        ("gross_cap", 3, -5, False),
        ("superseded", -3, 5, True),
    ],
)
def test_a_refusal_cancels_what_may_enter_and_what_nobody_wants(rule, pending, held, cancelled):
    assert is_cancelled_by(rule, Decimal(pending), Decimal(held)) is cancelled


def test_while_killed_a_way_out_is_not_superseded():
    world = World(A=500)
    world.gate.kill_switch.trip(0, by="ann", reason="odd")
    assert shown(world.bar(wanted={"A": 0.5}, pending={"A": Decimal(-400)})) == []
    world = World(A=500)
    assert shown(world.bar(wanted={"A": 0.5}, pending={"A": Decimal(-400)})) == [("A", "superseded")]


def test_a_rest_that_nobody_wants_ends_even_where_the_difference_is_too_small_to_trade():
    world = World(A=500)
    assert shown(world.bar(wanted={"A": 0.49997}, pending={"A": Decimal(-400)})) == [("A", "superseded")]
    assert shown(world.bar(wanted={"A": 0.49997})) == [("A", "min_notional")]


def test_dust_is_left_behind_and_named_and_nothing_is_called_flat_that_is_not():
    world = World(A=0)
    world.positions = (("A", Decimal("0.049")), ("B", Decimal("0.05")), ("Z", Decimal(7)))
    world.gate.kill_switch.trip(0, by="ann", reason="odd", flatten=True)
    assert shown(world.bar()) == [("B", "sell", 0.05)]  # 5.00: just enough
    world.positions = (world.positions[0], world.positions[2])
    review = world.bar()
    assert told(review) == [("kill_switch", "tripped")]
    assert review.events[0].message == (
        "no entry is pending; left behind, for it cannot be sold: A 0.049 (too small to sell), Z 7 (its lot and tick are not known)"
    )
    world.gate.kill_switch.resume(START, by="ann", reason="fine")
    assert not world.gate.kill_switch.stands


def test_dust_without_a_price_is_tried():
    world = World(A=0)
    world.positions = (("A", Decimal("0.049")),)
    world.gate.kill_switch.trip(0, by="ann", reason="odd", flatten=True)
    assert shown(world.bar(math.nan, states={}, equity=100_000)) == [("A", "sell", 0.049)]


# numbers that say nothing


@pytest.mark.parametrize("wanted", [1.7e308, -1e10])
@pytest.mark.parametrize("sizing", ["weight", "units"])
def test_a_size_beyond_reason_is_a_fault_and_no_wish(wanted, sizing):
    world = World(PLAIN.model_copy(update={"sizing": sizing}))
    assert shown(world.bar(wanted={"A": wanted, "B": 0.1})) == [("A", "not_finite"), ("B", "model_output")]


def test_units_worth_more_than_reason_are_refused():
    world = World(PLAIN.model_copy(update={"sizing": "units"}))
    assert shown(world.bar(wanted={"B": 9e8}, equity="0.5")) == [("B", "not_finite")]


@pytest.mark.parametrize("volatility", [-0.5, math.inf, math.nan])
def test_a_volatility_that_says_nothing_allows_nothing(volatility):
    assert shown(World().bar(wanted={"A": 0.2}, volatility=volatility)) == [("A", "no_market_state")]
    stake = Stake("A", 0.5, 0.0, volatility)
    assert stake.known_volatility == 1.0
    book = Book(1.0, [], [stake], MarketMemory(TailConfig()))
    assert variance(book, 0.7)[0] == pytest.approx(0.25)


def test_a_volatility_that_says_nothing_counts_as_a_high_one_where_no_target_asks_for_it():
    limited = PLAIN.model_copy(update={"volatility_target": None, "max_heat": 0.01})
    heat = {v: used(World(limited, A=100).bar(volatility=v))["heat"] for v in (1.0, math.inf, -2.0)}
    assert heat[math.inf] == heat[-2.0] == heat[1.0] == pytest.approx(0.1 * 2 / math.sqrt(365))
    (order,) = World(limited).bar(wanted={"A": 0.5}, volatility=math.inf).verdicts
    assert (order.binding_limit, float(order.quantity)) == ("heat", pytest.approx(1000 * 0.01 / 2 * math.sqrt(365), rel=1e-3))


@pytest.mark.parametrize(
    "coefficients",
    [(math.nan, 0.1, 0.1), (0.1, math.nan, 0.0), (0.1, 0.1, math.nan), (0.1, math.inf, 0.0), (0.1, 0.1, math.inf), (math.inf, 0.0, 0.0)],
)
def test_growth_that_cannot_be_told_is_none(coefficients):
    assert growth_within(*coefficients, 1.0) == 0.0
    assert growth_within(0.1, 0.1, 0.0, math.nan) == 0.0


@pytest.mark.parametrize("odd", [math.nan, math.inf])
def test_a_shortfall_that_cannot_be_told_allows_no_growth(odd):
    with np.errstate(invalid="ignore"):
        assert largest_growth(np.array([0.0, odd]), np.array([0.1, 0.1]), 0.5, 0.05) == 0.0
        assert largest_growth(np.array([0.0, 0.1]), np.array([0.1, odd]), 0.5, 0.15) == 0.0


def test_a_cap_that_cannot_say_allows_nothing(monkeypatch):
    monkeypatch.setattr("cryptoalpha.risk.gate.CAPS", (("odd", lambda book, config: [math.nan] * len(book.proposals)),))
    assert shown(World().bar(wanted={"A": 0.2})) == [("A", "odd")]


def test_long_and_short_positions_without_a_price_hide_nothing():
    world = World(A=0)
    world.positions = (("A", Decimal(500)), ("B", Decimal(-500)))
    rules = {**RULES, "C": RULES["A"]}
    world.gate = RiskGate(PLAIN, rules)
    at = START + HOUR
    book = PortfolioState(
        happened_at=at, known_at=at, cash=Decimal(100_000), positions=world.positions, equity=Decimal(100_000), peak_equity=Decimal(100_000)
    )
    entry = Decision(happened_at=at, known_at=at, instrument="C", agent="x", target_weight=0.1, confidence=1.0, reason="")
    state = MarketState(happened_at=at, known_at=at, instrument="C", price=100.0, volatility=0.1)
    review = world.gate.review(at, [entry], events=[0], states={"C": state}, portfolio=book)
    assert [v.rule for v in review.verdicts] in (["gross_cap"], ["volatility_target"])


def test_closing_without_a_price_says_that_nobody_knows_what_was_held():
    world = World(A=10)
    review = world.bar(math.nan, {"A": 0.0}, states={}, equity=100_000)
    assert shown(review) == [("A", "sell", 10.0)]
    assert math.isnan(review.sizings[0].held)
