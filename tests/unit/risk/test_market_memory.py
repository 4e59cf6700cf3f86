"""What the gate remembers: days by hand, scenarios by a slower second way, causality, restarts, and who borrows from whom."""

import math
import time
from itertools import pairwise

import numpy as np
import pytest

from cryptoalpha.core.errors import ConfigError
from cryptoalpha.core.time import DAY, HOUR
from cryptoalpha.risk.config import TailConfig
from cryptoalpha.risk.market_memory import START_DAYS, MarketMemory
from cryptoalpha.risk.tail.losses import tail_of_losses
from cryptoalpha.risk.tail.volatility import ewma_variances

NAN = math.nan
NAMES = ("A/USDT", "B/USDT")


def market(days, assets=2, seed=0, *, spread=0.03, together=0.8):
    """Closes `[days + 1, assets]`, once a day at 00:00."""
    rng = np.random.default_rng(seed)
    common = rng.standard_t(5, (days, 1))
    moves = spread * (math.sqrt(together) * common + math.sqrt(1 - together) * rng.standard_normal((days, assets)))
    return 100.0 * np.cumprod(np.vstack([np.ones(assets), 1.0 + np.clip(moves, -0.5, 0.5)]), axis=0)


def remember(memory, closes, names=NAMES, *, first=0, volume=1000.0):
    for day, row in enumerate(closes.tolist(), start=first):
        memory.observe((day + 1) * DAY, DAY, names, row, [volume] * len(names))
    return memory


def test_a_day_ends_with_the_last_price_known_at_midnight():
    memory = MarketMemory(TailConfig())
    for hour, price in enumerate([100.0] * 24 + [101.0] * 23 + [105.0] + [107.0] * 5, start=1):  # hour 48 is the second midnight
        memory.observe(hour * HOUR, HOUR, ("A",), (price,), (2.0,))
    assert memory.daily_returns("A") == pytest.approx([0.05])
    assert memory.daily_value(["A"]) == pytest.approx([2.0 * (23 * 101.0 + 105.0)])
    assert memory.last_price("A") == 107.0


def test_the_bar_of_midnight_counts_as_soon_as_it_is_known():
    memory = MarketMemory(TailConfig())
    memory.observe(DAY, HOUR, ("A",), (100.0,), (1.0,))
    memory.observe(2 * DAY - HOUR, HOUR, ("A",), (104.0,), (1.0,))
    assert memory.daily_returns("A").size == 0
    memory.observe(2 * DAY, HOUR, ("A",), (110.0,), (1.0,))
    assert memory.daily_returns("A") == pytest.approx([0.1])
    memory.observe(2 * DAY, HOUR, ("B",), (5.0,), (1.0,))  # late for the same midnight: the day is over, it belongs to the next
    memory.observe(3 * DAY, HOUR, ("A", "B"), (99.0, 6.0), (1.0, 1.0))
    assert memory.daily_returns("A") == pytest.approx([0.1, -0.1])
    assert memory.daily_returns("B").size == 0


@pytest.mark.parametrize("ask", [False, True])
@pytest.mark.parametrize("hours", [(23, 24, 25, 47, 48, 49, 72), (23, 25, 26, 49, 73, 96), (24, 24, 48, 48, 71, 72), (1, 120, 121, 145)])
def test_a_bar_belongs_to_the_day_that_ends_after_it_however_it_comes_and_whenever_one_asks(hours, ask):
    """The closes of days by going through all bars again: of one that comes at the midnight it is late for, by the next."""
    memory, price = MarketMemory(TailConfig()), 100.0
    days: dict[int, float] = {}
    ended = 0
    for hour in hours:
        price *= 1.0 + 0.001 * hour
        memory.observe(hour * HOUR, HOUR, ("A",), (price,), (1.0,))
        day = max(-(-hour // 24), ended + 1)
        days[day] = price
        if ask:
            memory.daily_returns("A")
            ended = max(ended, day) if hour >= 24 * day else ended
    past = [(day, close) for day, close in sorted(days.items()) if day * 24 <= hours[-1]]
    expected = [(b / a - 1.0) / math.sqrt(n - m) for (m, a), (n, b) in pairwise(past)]
    assert memory.daily_returns("A") == pytest.approx(expected)
    assert memory.last_midnight == past[-1][0] * DAY


def test_absent_bars_keep_the_last_price_and_days_without_any_share_the_move():
    memory = MarketMemory(TailConfig())
    rows = [(100.0, 50.0), (NAN, 55.0), (math.inf, 55.0), (-1.0, 55.0), (120.0, 55.0)]
    for day, row in enumerate(rows):
        memory.observe((day + 1) * DAY, DAY, NAMES, row, (1.0, 1.0))
    assert memory.daily_returns("A/USDT") == pytest.approx([0.2 / math.sqrt(4)])  # four days in one
    assert memory.daily_returns("B/USDT") == pytest.approx([0.1, 0.0, 0.0, 0.0])


def test_weekly_bars_count_as_seventh_parts():
    memory = MarketMemory(TailConfig())
    for week, price in enumerate([100.0, 114.0]):
        memory.observe((week + 1) * 7 * DAY, 7 * DAY, ("A",), (price,), (70.0,))
    assert memory.daily_returns("A") == pytest.approx([0.14 / math.sqrt(7)])
    assert memory.daily_value(["A"]) == pytest.approx([1140.0])


def test_nothing_is_known_of_a_name_never_seen():
    memory = remember(MarketMemory(TailConfig()), market(5))
    assert math.isnan(memory.last_price("Z"))
    assert math.isnan(memory.daily_volatility("Z"))
    assert math.isnan(memory.daily_value(["Z"])[0])
    assert memory.daily_returns("Z").size == memory.days("Z") == 0
    assert math.isnan(memory.daily_volatility("A/USDT"))  # five days do not make a volatility


def test_volatility_and_scenarios_are_filtered_historical_simulation():
    closes = market(300)
    memory = remember(MarketMemory(TailConfig(history_days=250)), closes)
    returns = closes[1:] / closes[:-1] - 1.0
    expected = np.empty((250, 2))
    for asset, name in enumerate(NAMES):
        v = ewma_variances(returns[:, asset], 0.94, START_DAYS)
        assert memory.daily_volatility(name) == pytest.approx(math.sqrt(v[-1]), rel=1e-12)
        expected[:, asset] = (returns[:, asset] / np.sqrt(v[:-1]))[-250:] * math.sqrt(v[-1])
    quiet = memory.scenarios(NAMES, {"A/USDT": 0.01})
    np.testing.assert_allclose(quiet, np.maximum(expected, -1.0), rtol=1e-12)
    # the market state knows of more: its volatility counts
    loud = memory.scenarios(NAMES, {"A/USDT": 4.0, "B/USDT": NAN})
    np.testing.assert_allclose(loud[:, 0], np.maximum(quiet[:, 0] / memory.daily_volatility("A/USDT") * 4.0 / math.sqrt(365), -1.0))
    np.testing.assert_array_equal(loud[:, 1], quiet[:, 1])
    assert (memory.scenarios(NAMES, {"A/USDT": 100.0}).min(axis=0) >= -1.0).all()


def test_the_first_days_are_told_after_the_fact():
    closes = market(40, seed=3)
    memory = remember(MarketMemory(TailConfig(least_days=25)), closes)
    assert memory.scenarios(NAMES, {}).shape == (40, 2)
    short = remember(MarketMemory(TailConfig(history_days=10, least_days=5)), closes)
    np.testing.assert_allclose(short.scenarios(NAMES, {}), memory.scenarios(NAMES, {})[-10:], rtol=1e-12)


def test_days_as_they_were():
    closes = market(120)
    memory = remember(MarketMemory(TailConfig(method="historical", history_days=100)), closes)
    returns = (closes[1:] / closes[:-1] - 1.0)[-100:]
    np.testing.assert_allclose(memory.scenarios(NAMES, {"A/USDT": 9.0}), returns, rtol=1e-12)


def test_the_normal_law_has_the_volatilities_and_the_correlation():
    memory = remember(MarketMemory(TailConfig(method="normal")), market(400))
    scenarios = memory.scenarios(NAMES, {"A/USDT": 0.8})
    sigma = max(memory.daily_volatility("A/USDT"), 0.8 / math.sqrt(365))
    assert scenarios.std(axis=0) == pytest.approx([sigma, memory.daily_volatility("B/USDT")], rel=1e-9)
    assert tail_of_losses(-scenarios[:, 0], 0.99)[0] == pytest.approx(2.3263478740 * sigma, rel=0.01)
    assert np.corrcoef(scenarios.T)[0, 1] == pytest.approx(memory.correlation(NAMES)[0, 1], abs=0.03)


def test_correlation_is_that_of_the_days_both_have():
    closes = market(200, assets=3)
    closes[:120, 2] = NAN  # listed late: 80 returns
    closes = np.column_stack([closes, np.where(np.arange(201) < 150, NAN, closes[:, 0] ** -1.0)])  # 50 of the opposite: too few
    memory = remember(MarketMemory(TailConfig(least_days=60)), closes, ("A", "B", "C", "D"))
    found = memory.correlation(("A", "B", "C", "D", "Z"))
    r = closes[1:] / closes[:-1] - 1.0
    z = [x / np.sqrt(ewma_variances(x)[:-1]) for x in (r[:, 0], r[:, 1], r[121 - 1 :, 2])]
    assert found[0, 1] == pytest.approx(np.corrcoef(z[0], z[1])[0, 1], rel=1e-10)
    assert found[0, 2] == pytest.approx(np.corrcoef(z[0][-len(z[2]) :], z[2])[0, 1], rel=1e-10)
    assert (found[3:] == 1.0).all()  # not known to be apart
    np.testing.assert_array_equal(found, found.T)
    found[:] = 0.0
    assert memory.correlation(("A", "B", "C", "Z"))[0, 1] != 0.0  # what is remembered is not the caller's to change


def test_a_young_instrument_borrows_the_common_move():
    closes = market(200, assets=3)
    closes[:170, 2] = NAN
    memory = remember(MarketMemory(TailConfig()), closes, ("A", "B", "C"))
    scenarios = memory.scenarios(("A", "C"), {"C": 1.0})
    returns = closes[1:] / closes[:-1] - 1.0
    z = np.column_stack([r / np.sqrt(ewma_variances(r)[:-1]) for r in returns[:, :2].T])
    common = z.mean(axis=1)
    common /= math.sqrt(np.mean(common**2))
    np.testing.assert_allclose(scenarios[:, 1], np.maximum(common * max(1.0 / math.sqrt(365), memory.daily_volatility("C")), -1.0))


def test_an_own_past_with_holes_is_filled_with_the_common_move():
    closes = market(200, assets=2)
    closes[:100, 1] = NAN
    memory = remember(MarketMemory(TailConfig()), closes)
    scenarios = memory.scenarios(NAMES, {})
    sigma_a, sigma_b = memory.daily_volatility("A/USDT"), memory.daily_volatility("B/USDT")
    size = scenarios[:100, 1] / scenarios[:100, 0] * sigma_a / sigma_b  # before B there is only A to go by
    np.testing.assert_allclose(size, size[0])
    assert np.corrcoef(scenarios[110:].T)[0, 1] < 0.99


def test_with_nobody_to_borrow_from_all_move_together_along_a_normal_law():
    memory = MarketMemory(TailConfig(history_days=400))
    scenarios = memory.scenarios(NAMES, {"A/USDT": 0.5, "B/USDT": 1.0})
    assert scenarios.shape == (400, 2)
    np.testing.assert_allclose(scenarios[:, 1], 2.0 * scenarios[:, 0])
    var, es = tail_of_losses(-scenarios[:, 0], 0.975)
    assert (var, es) == pytest.approx((1.96 * 0.5 / math.sqrt(365), 2.338 * 0.5 / math.sqrt(365)), rel=0.02)
    assert np.isnan(memory.scenarios(("Z",), {})).all()  # nobody knows how much it moves
    assert memory.scenarios((), {}).shape[1] == 0


def test_a_price_that_never_moved_does_not_start_a_volatility():
    closes = np.column_stack([np.full(61, 5.0), market(60)[:, 0]])
    memory = remember(MarketMemory(TailConfig(least_days=30)), closes)
    assert math.isnan(memory.daily_volatility("A/USDT"))
    assert np.isfinite(memory.scenarios(NAMES, {"A/USDT": 0.2})).all()


def everything(memory, names=NAMES):
    expected = dict.fromkeys(names, 0.6)
    return [
        memory.scenarios(names, expected),
        memory.correlation(names),
        memory.daily_value(names),
        np.array([memory.daily_volatility(name) for name in names]),
    ]


@pytest.mark.parametrize("method", ["filtered", "historical", "normal"])
def test_asking_changes_nothing_and_a_second_pass_gives_the_same_bits(method):
    config = TailConfig(method=method, history_days=90, least_days=30)
    closes = market(140, seed=5)
    asked, silent = MarketMemory(config), MarketMemory(config)
    for day, row in enumerate(closes.tolist()):
        for memory in (asked, silent):
            memory.observe((day + 1) * DAY - HOUR, HOUR, NAMES, [0.99 * x for x in row], [3.0, 4.0])
            memory.observe((day + 1) * DAY, HOUR, list(NAMES), row, [1.0, 2.0])
        everything(asked)
    for one, other in zip(everything(asked), everything(silent), strict=True):
        np.testing.assert_array_equal(one, other)


def test_a_row_is_a_day_of_all_even_after_the_window_has_moved_on():
    closes = market(700, seed=6)
    long, short = (remember(MarketMemory(TailConfig(history_days=n)), closes) for n in (500, 100))
    np.testing.assert_array_equal(long.scenarios(NAMES, {})[-100:], short.scenarios(NAMES, {}))


def test_a_bar_costs_microseconds():
    memory = remember(MarketMemory(TailConfig()), market(100, assets=20), tuple("ABCDEFGHIJKLMNOPQRST"))
    names, row, volume = tuple("ABCDEFGHIJKLMNOPQRST"), [100.0] * 20, [1.0] * 20
    memory.observe(101 * DAY + 1, HOUR, names, row, volume)

    def of_a_thousand():
        begin = time.process_time()
        for minute in range(1000):
            memory.observe(101 * DAY + 2 + minute, HOUR, names, row, volume)
        return time.process_time() - begin

    assert min(of_a_thousand() for _ in range(5)) < 1000 * 20 * 1e-6 * 2  # .4 µs per instrument where nothing else runs; 2 allowed


class OneByOne(MarketMemory):
    """Takes in every bar at once, one price after the other."""

    def observe(self, at, interval, instruments, close, volume):
        super().observe(at, interval, instruments, close, volume)
        self._work_off()

    def _work_off(self):
        for close, volume in zip(self._closes, self._volumes, strict=True):
            for place, price, units in zip(self._places.tolist(), close, volume, strict=True):
                if 0.0 < price < math.inf:
                    self._last[place], self._fresh[place] = price, True
                    self._value[place] += price * units / (self._interval // DAY or 1)
        self._closes, self._volumes = [], []


def test_keeping_bars_changes_nothing():
    """Bit for bit, over bars that are absent, of other lengths and of other instruments."""
    rng = np.random.default_rng(12)
    books = (("A", "B", "C"), ("C", "A", "B", "D"), ("B",))
    kept, eager, at, book, interval = MarketMemory(TailConfig(least_days=20)), OneByOne(TailConfig(least_days=20)), 0, books[0], HOUR
    prices = dict.fromkeys("ABCD", 100.0)
    for turn in range(1500):
        if rng.random() < 0.02:
            book = books[rng.integers(3)]
        if rng.random() < 0.02:
            interval = (HOUR // 60, HOUR, 3 * HOUR, 2 * DAY)[rng.integers(4)]
        at += interval
        prices.update({name: prices[name] * math.exp(rng.normal(0.0, 0.01)) for name in book})
        close = [(math.nan, math.inf, 0.0)[rng.integers(3)] if rng.random() < 0.1 else prices[name] for name in book]
        volume = [math.nan if rng.random() < 0.001 else float(rng.exponential()) for _ in book]
        for memory in (kept, eager):
            memory.observe(at, interval, book, close, volume)
        for name in "ABCDX":
            np.testing.assert_equal(kept.last_price(name), eager.last_price(name))
        if turn % 100 == 99:
            np.testing.assert_array_equal(kept.daily_value("ABCD"), eager.daily_value("ABCD"))
            np.testing.assert_array_equal(kept.scenarios("ABCD", {"D": 0.5}), eager.scenarios("ABCD", {"D": 0.5}))
            assert kept.last_day() == eager.last_day()
    assert kept.days("A") > 100
    assert np.isfinite(kept.daily_value("ABC")).all()


def test_a_bar_of_another_length_than_its_book_is_refused():
    memory = MarketMemory(TailConfig())
    memory.observe(HOUR, HOUR, ("A", "B"), (1.0, 2.0), (1.0,))
    with pytest.raises(ConfigError, match=r"bars of 2 instruments hold \[1\]"):
        memory.observe(DAY + HOUR, HOUR, ("A", "B"), (1.0, 2.0), (1.0, 1.0))
