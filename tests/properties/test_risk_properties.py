"""What must hold for any decisions and any book."""

from __future__ import annotations

from decimal import Decimal

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cryptoalpha.core.values import Decision, InstrumentRules, MarketState, Order, PortfolioState, Refusal
from cryptoalpha.risk.config import RiskConfig
from cryptoalpha.risk.gate import RiskGate
from cryptoalpha.risk.rounding import round_to_lot

EQUITY = 100_000
NAMES = ("A/USDT", "B/USDT", "C/USDT")
TOLERANCE = 1e-9

configs = st.builds(
    RiskConfig,
    volatility_target=st.none() | st.floats(0.05, 1.0),
    assumed_correlation=st.floats(0.0, 1.0),
    max_position=st.floats(0.05, 1.0),
    max_gross=st.floats(0.1, 1.0),
    allow_short=st.booleans(),
    max_drawdown=st.just(0.5),
    no_trade_band=st.sampled_from([0.0, 0.02]),
)
wants = st.floats(-1.5, 1.5) | st.just(0.0)
held = st.integers(-300, 300).map(lambda n: Decimal(n) / 1000)


def rule(name: str) -> InstrumentRules:
    return InstrumentRules(
        happened_at=0,
        known_at=0,
        instrument=name,
        venue="t",
        base=name[0],
        quote="USDT",
        lot=Decimal("0.001"),
        tick=Decimal("0.01"),
        min_notional=Decimal(5),
    )


class Case:
    """One review: what was asked, what was held, and what would be held once every order has filled at the mark."""

    def __init__(self, config, wanted, weights, prices, volatilities, *, decided=NAMES, halted=False):
        self.prices = dict(zip(NAMES, prices, strict=True))
        self.held = {
            n: round_to_lot(w * EQUITY / Decimal(repr(self.prices[n])), Decimal("0.001")) for n, w in zip(NAMES, weights, strict=True)
        }
        self.wanted = dict(zip(NAMES, wanted, strict=True))
        gate = RiskGate(config, {n: rule(n) for n in NAMES})
        equity = Decimal(EQUITY)
        book = PortfolioState(
            happened_at=1,
            known_at=1,
            cash=equity - sum((q * Decimal(repr(self.prices[n])) for n, q in self.held.items()), Decimal(0)),
            positions=tuple((n, q) for n, q in self.held.items() if q),
            equity=equity,
            peak_equity=3 * equity if halted else equity,
        )
        stamp = {"happened_at": 1, "known_at": 1}
        decisions = [Decision(**stamp, instrument=n, agent="x", target_weight=self.wanted[n], confidence=1.0, reason="") for n in decided]
        known = {
            n: MarketState(**stamp, instrument=n, price=self.prices[n], volatility=v) for n, v in zip(NAMES, volatilities, strict=True)
        }
        self.verdicts = gate.review(1, decisions, events=range(len(decisions)), states=known, portfolio=book).verdicts
        self.orders = {v.instrument: v for v in self.verdicts if isinstance(v, Order)}
        self.after = {
            n: q + (0 if n not in self.orders else self.orders[n].quantity * (1 if self.orders[n].side == "buy" else -1))
            for n, q in self.held.items()
        }

    def weight(self, name: str, quantity: Decimal) -> float:
        return float(quantity) * self.prices[name] / EQUITY

    def gross(self, quantities: dict[str, Decimal]) -> float:
        return sum(abs(self.weight(n, q)) for n, q in quantities.items())


three = lambda strategy: st.tuples(strategy, strategy, strategy)  # noqa: E731
cases = {
    "config": configs,
    "wanted": three(wants),
    "weights": three(held),
    "prices": three(st.floats(0.5, 60_000)),
    "volatilities": three(st.floats(0.05, 3.0)),
}


@settings(max_examples=50, deadline=None)
@given(**cases)
def test_an_ordered_size_is_within_every_cap_and_keeps_its_sign(config, wanted, weights, prices, volatilities):
    case = Case(config, wanted, weights, prices, volatilities)
    for (name, order), volatility in zip(case.orders.items(), [volatilities[NAMES.index(n)] for n in case.orders], strict=True):
        size = case.weight(name, case.after[name])
        assert abs(size) <= min(config.max_position, abs(case.wanted[name])) + TOLERANCE
        assert size * case.wanted[name] >= 0.0
        if config.volatility_target is not None:
            assert abs(size) * volatility <= config.volatility_target + TOLERANCE
        if not config.allow_short:
            assert size >= min(0.0, case.weight(name, case.held[name]))
        assert order.quantity % Decimal("0.001") == 0


@settings(max_examples=50, deadline=None)
@given(**cases)
def test_gross_stays_within_its_cap_once_everything_is_filled(config, wanted, weights, prices, volatilities):
    config = config.model_copy(update={"no_trade_band": 0.0})
    case = Case(config, wanted, weights, prices, volatilities)
    refused = {v.instrument for v in case.verdicts if isinstance(v, Refusal) and v.rule in ("min_notional", "lot")}
    assume(not refused)
    reducing = {n: q for n, q in case.after.items() if abs(q) <= abs(case.held[n]) and q * case.held[n] >= 0}
    one_lot_each = sum(0.001 * price for price in prices) / EQUITY
    assert case.gross(case.after) <= max(config.max_gross, case.gross(reducing)) + one_lot_each + TOLERANCE


@settings(max_examples=50, deadline=None)
@given(**cases, tighter=st.sampled_from(["max_position", "max_gross", "volatility_target", "allow_short"]), by=st.floats(0.1, 0.9))
def test_an_added_or_tighter_cap_never_makes_an_entry_larger(config, wanted, weights, prices, volatilities, tighter, by):
    loose = config.model_copy(update={"no_trade_band": 0.0})
    if tighter == "allow_short":
        change = False
    elif tighter == "volatility_target":
        change = by if loose.volatility_target is None else by * loose.volatility_target
    else:
        change = by * getattr(loose, tighter)
    before = Case(loose, wanted, weights, prices, volatilities)
    after = Case(loose.model_copy(update={tighter: change}), wanted, weights, prices, volatilities)
    for name in set(before.orders) & set(after.orders):
        assert abs(after.after[name]) <= abs(before.after[name])


@settings(max_examples=50, deadline=None)
@given(**cases, share=st.floats(0.0, 0.95), halted=st.booleans())
def test_a_reduction_always_passes_also_while_halted(config, wanted, weights, prices, volatilities, share, halted):
    config = config.model_copy(update={"no_trade_band": 0.0})
    wanted = tuple(float(w) * share for w in weights)
    case = Case(config, wanted, weights, prices, volatilities, halted=halted)
    for name, quantity in case.held.items():
        change = abs(quantity) * (1 if share == 0.0 or halted else Decimal(repr(1 - share)))
        if float(change) * case.prices[name] < 6 or abs(float(change)) < 0.002:
            continue  # the venue's own minimum
        assert case.orders[name].reduce_only
        assert abs(case.after[name]) < abs(quantity)
        assert case.after[name] * quantity >= 0


@settings(max_examples=50, deadline=None)
@given(**cases)
def test_a_halted_book_only_shrinks(config, wanted, weights, prices, volatilities):
    case = Case(config, wanted, weights, prices, volatilities, halted=True)
    assert all(quantity == 0 for quantity in case.after.values())
    assert {v.rule for v in case.verdicts if isinstance(v, Refusal)} <= {"kill_switch"}


@settings(max_examples=50, deadline=None)
@given(
    quantity=st.decimals(-(10**6), 10**6, places=9, allow_nan=False),
    lot=st.sampled_from(["1", "5", "0.1", "0.001", "0.00000001", "0.25"]).map(Decimal),
)
def test_rounding_is_never_up_and_less_than_one_lot(quantity, lot):
    rounded = round_to_lot(quantity, lot)
    assert abs(rounded) <= abs(quantity)
    assert abs(quantity - rounded) < lot
    assert rounded % lot == 0
